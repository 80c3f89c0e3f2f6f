"""Makes a classifier give logits: removes a final softmax, and gives binary classifiers two logits.

Keras's guides end a classifier with `Dense(classes, activation="softmax")`, or a binary one with
`Dense(1, activation="sigmoid")`. Both are removed exactly: the probabilities stay the same.

A binary classifier with the logit z gets the logits (-z/2, z/2), whose softmax is (1 - sigmoid(z),
sigmoid(z)). With (0, z), which has the same softmax, half of the kernel would be zeros: the first
prunings would remove weights that are 0 already, and a criterion by gradient × weight could not rank
them. With (-z/2, z/2) both weights of an input have the same magnitude and opposite gradients, so
that magnitude pruning removes an input's influence as it does in the one-logit classifier.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from lotcal_tf.compat import keras
from lotcal_tf.errors import UsageError
from lotcal_tf.models.keras_graph import copy_layer, is_nested, rebuild, steps

_A = keras.activations


def as_logits(model: "keras.Model") -> tuple["keras.Model", str]:
    """A classifier that gives one logit per class, and a notice of what was changed.

    Args:
      model: functional or sequential; may be nested. It is not changed.

    Returns:
      The model and an empty text if it gives two or more outputs and does not end in a softmax.
      Otherwise a copy with the same weights; a final activation is linear in it.

    Raises:
      UsageError: the model ends in a sigmoid for several classes, or has one output that is not made by
        a Dense layer; or the layer to change is used more than once.
    """
    shape = model.output_shape if is_nested(model) else None
    if not isinstance(shape, tuple) or len(shape) != 2 or shape[-1] is None:
        return model, ""  # refused by `checks.classes_of`
    changes = _changes(model, shape[-1])
    if not changes:
        return model, ""
    words = "; ".join(change.notice for change in changes)
    new = {id(change.layer): change.new for change in changes}
    return _replaced(model, new), f"{words}, so that the model gives logits"


@dataclasses.dataclass(frozen=True)
class _Change:
    """A layer, the layer in its place, and the notice for the user."""

    layer: "keras.layers.Layer"
    new: "keras.layers.Layer"
    notice: str


def _changes(model: "keras.Model", classes: int) -> list[_Change]:
    """The layers to replace, last first; see `as_logits`."""
    found: list[_Change] = []
    for layer, uses in _last_layers(model):
        activation, change = _activation(layer), None
        if activation is _A.sigmoid and classes > 1:
            raise UsageError(
                f"model {model.name!r} ends in a sigmoid for each of {classes} classes (layer {layer.name!r}), whose "
                "probabilities do not add up to 1: use a softmax, or no activation"
            )
        if classes > 1 and activation is _A.softmax:
            words = f"the softmax of layer {layer.name!r} is removed"
            change = _Change(layer, _linear(layer), words)
        elif classes == 1 and activation in (_A.sigmoid, _A.linear):
            binary = isinstance(layer, keras.layers.Dense)
            words = f"the sigmoid of layer {layer.name!r} is removed"
            if binary:
                words = f"the logit z of layer {layer.name!r} becomes (-z/2, z/2)"
            if binary or activation is _A.sigmoid:
                change = _Change(layer, _linear(layer, **({"units": 2} if binary else {})), words)
        if change is not None and uses > 1:
            raise UsageError(
                f"model {model.name!r} calls its last layer {layer.name!r} {uses} times, and only the last call "
                "should give logits: use another layer for the output"
            )
        found += [change] if change is not None else []
        if classes > 1 or (change is not None and isinstance(layer, keras.layers.Dense)):
            return found
        passes_on = activation is _A.linear or isinstance(layer, keras.layers.Dropout)
        if change is None and not passes_on:
            break
    raise UsageError(
        f"model {model.name!r} has one output, which does not come from a Dense layer: let it end with Dense(1), or "
        "with a Dense layer of one unit per class"
    )


def _last_layers(model: "keras.Model") -> Iterator[tuple["keras.layers.Layer", int]]:
    """The layers that lead to the output, last first, each with how often its model calls it.

    They end before a layer of several inputs.
    """
    nodes = {id(x): node for node in steps(model) for x in _flat(node.outputs)}
    tensor = model.outputs[0]
    while id(tensor) in nodes:
        node = nodes[id(tensor)]
        inputs = _flat(node.keras_inputs)
        if is_nested(node.layer):
            yield from _last_layers(node.layer)
        else:
            yield node.layer, sum(other.layer is node.layer for other in nodes.values())
        if len(inputs) != 1:
            return
        tensor = inputs[0]


def _flat(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _activation(layer: "keras.layers.Layer") -> Any:
    """The activation of a layer; a Softmax layer has softmax. None: it has none."""
    if isinstance(layer, keras.layers.Softmax):
        return _A.softmax if layer.axis in (-1, 1) else None
    return getattr(layer, "activation", None)


def _linear(layer: "keras.layers.Layer", **changes: Any) -> "keras.layers.Layer":
    """A layer without its activation, and with other changes to its configuration."""
    if isinstance(layer, keras.layers.Softmax):
        # The type of a Softmax, often float32 behind float16 layers, stays that of the logits.
        return keras.layers.Activation("linear", name=layer.name, dtype=layer.dtype_policy)
    return copy_layer(layer, layer.get_config() | {"activation": "linear", **changes})


def _replaced(model: "keras.Model", changed: dict[int, "keras.layers.Layer"]) -> "keras.Model":
    """A copy of a model with some layers replaced, and all weights."""
    pairs = []

    def replace(layer: "keras.layers.Layer") -> "keras.layers.Layer":
        new = changed.get(id(layer)) or copy_layer(layer)
        pairs.append((layer, new))
        return new

    copy = rebuild(model, replace)
    for layer, new in pairs:
        weights = layer.get_weights()
        if [w.shape for w in weights] != [tuple(w.shape) for w in new.weights]:
            weights = [np.concatenate([-w / 2, w / 2], axis=-1) for w in weights]
        new.set_weights(weights)
    return copy
