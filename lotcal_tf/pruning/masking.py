"""Wraps the prunable layers of a model in `Masked`, and reads and sets weights and masks by path."""

import difflib
import fnmatch
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from lotcal_tf.compat import keras
from lotcal_tf.errors import UsageError
from lotcal_tf.models.keras_graph import check_walkable, copy_layer, is_nested, rebuild
from lotcal_tf.pruning.masked import Masked, is_kernel, is_prunable, refuse_unknown


def leaf_layers(model: "keras.Model") -> Iterator[tuple[str, "keras.layers.Layer"]]:
    """Every layer of a model and of its nested models, once, in model order.

    Yields:
      Path and layer, e.g. `("encoder/dense_1", layer)`. The path of a `Masked` layer has the name of
      the wrapped layer.
    """
    seen: set[int] = set()

    def walk(model: "keras.Model", prefix: str) -> Iterator[tuple[str, "keras.layers.Layer"]]:
        for layer in model.layers:
            if id(layer) in seen:
                continue
            seen.add(id(layer))
            if is_nested(layer):
                yield from walk(layer, f"{prefix}{layer.name}/")
            else:
                yield prefix + (layer.layer if isinstance(layer, Masked) else layer).name, layer

    yield from walk(model, "")


def output_layer(model: "keras.Model") -> str:
    """The path of the last prunable layer: in a network with one head the one that computes the logits.

    Raises:
      UsageError: the model has no prunable layer.
    """
    names = [
        path
        for path, layer in leaf_layers(model)
        if isinstance(layer, Masked) or is_prunable(layer)
    ]
    if not names:
        raise UsageError(
            f"model {model.name!r} has no prunable layer: at least one such as Dense or Conv2D is needed"
        )
    return names[-1]


def wrap(
    model: "keras.Model",
    exclude: Sequence[str] = (),
    whole: Collection[str] = (),
    depthwise: bool = False,
) -> "keras.Model":
    """Returns a copy of a model with the same weights, in which prunable layers are masked.

    Layers with `trainable=False` are not masked.

    Args:
      model: functional or sequential, and built; may be nested. A subclassed model can be a layer of
        it if it implements TFMOT's `PrunableLayer`.
      exclude: names or paths of layers that are not masked; `*`, `?` and `[…]` are wildcards. A
        pattern with wildcards may match no layer, so that recipes fit several models; a name must
        match.
      whole: paths of layers that are not masked, as `leaf_layers` gives them.
      depthwise: whether depthwise kernels are masked too.

    Raises:
      UsageError: the model is subclassed, or has no trainable weight; it is not known whether a
        layer's kernel is prunable; or a name in `exclude` matches no layer.
    """
    check_walkable(model)
    if not model.trainable_weights:
        raise UsageError(
            f"model {model.name!r} has no trainable weight, so nothing can be pruned: set model.trainable = True"
        )
    paths = {id(layer): path for path, layer in leaf_layers(model)}
    for name in exclude:
        if not set(name) & set("*?[") and not any(_fits(path, [name]) for path in paths.values()):
            near = difflib.get_close_matches(name, paths.values(), n=5, cutoff=0)
            raise UsageError(
                f"exclude={name}: none of the model's {len(paths)} layers has this name; similar names: "
                f"{', '.join(near)}"
            )

    def masked(layer: "keras.layers.Layer") -> "keras.layers.Layer":
        left_whole = paths[id(layer)] in whole or _fits(paths[id(layer)], exclude)
        if left_whole or not layer.trainable:
            return copy_layer(layer)
        refuse_unknown(layer)
        copy = copy_layer(layer)
        return Masked(copy, depthwise=depthwise) if is_prunable(layer, depthwise) else copy

    wrapped = rebuild(model, masked)
    assign(wrapped, values(model))
    return wrapped


def _fits(path: str, patterns: Sequence[str]) -> bool:
    name = path.rpartition("/")[2]
    return any(fnmatch.fnmatchcase(text, p) for p in patterns for text in (path, name))


def strip(model: "keras.Model") -> "keras.Model":
    """Returns a copy of a masked model without masks, in which pruned weights are exactly 0."""

    def plain(layer: "keras.layers.Layer") -> "keras.layers.Layer":
        return copy_layer(layer.layer if isinstance(layer, Masked) else layer)

    stripped = rebuild(model, plain)
    masks = mask_variables(model)
    kept = {
        name: tf.where(masks[name] > 0, value, tf.zeros_like(value)).numpy()
        if name in masks
        else value
        for name, value in values(model).items()
    }
    assign(stripped, kept)
    return stripped


def weight_variables(model: "keras.Model") -> dict[str, "tf.Variable"]:
    """The weights of a model by path, e.g. `dense/kernel`; masking does not change the paths.

    If two weights of a layer have the same name, the second gets its index in the layer as a suffix.
    """
    found: dict[str, tf.Variable] = {}
    for path, layer in leaf_layers(model):
        inner = layer.layer if isinstance(layer, Masked) else layer
        for place, weight in enumerate(inner.weights):
            name = f"{path}/{_base_name(weight)}"
            found[name if name not in found else f"{name}_{place}"] = weight
    return found


def frozen_weights(model: "keras.Model") -> list[str]:
    """The paths of the weights of layers with `trainable=False`, also inside others, which keep their values."""
    frozen = {
        id(weight)
        for part in model._flatten_layers()
        if not part.trainable
        for weight in part.weights
    }
    return [name for name, weight in weight_variables(model).items() if id(weight) in frozen]


def mask_variables(model: "keras.Model") -> dict[str, "tf.Variable"]:
    """The masks of a masked model by the path of the masked weight, in model order."""
    names = {id(weight): name for name, weight in weight_variables(model).items()}
    return {
        names[id(weight)]: mask
        for _, layer in leaf_layers(model)
        if isinstance(layer, Masked)
        for weight, mask in zip(layer.prunable_weights, layer.masks, strict=True)
    }


def values(model: "keras.Model") -> dict[str, Any]:
    """The weights as NumPy arrays, by path."""
    # `numpy()` gives a number, not an array, for a weight without axes.
    return {name: np.asarray(weight.numpy()) for name, weight in weight_variables(model).items()}


def kernels(model: "keras.Model") -> dict[str, Any]:
    """The kernels as NumPy arrays, by path."""
    return {name: value for name, value in values(model).items() if is_kernel(name, value)}


def mismatches(variables: Mapping[str, "tf.Variable"], arrays: Mapping[str, Any]) -> list[str]:
    """Describes each difference in name or shape between a model's variables and arrays by path."""
    problems = [f"{name} is missing" for name in variables if name not in arrays]
    problems += [f"{name} is not in the model" for name in arrays if name not in variables]
    return problems + [
        f"{name} is {arrays[name].shape}, the model's {tuple(v.shape)}"
        for name, v in variables.items()
        if name in arrays and tuple(v.shape) != arrays[name].shape
    ]


def assign(model: "keras.Model", arrays: dict[str, Any]) -> None:
    """Sets all weights of a model from arrays by path.

    Raises:
      UsageError: names or shapes differ; all differences are listed.
    """
    variables = weight_variables(model)
    problems = mismatches(variables, arrays)
    if problems:
        raise UsageError(f"the weights do not fit the model: {'; '.join(problems)}")
    for name, variable in variables.items():
        variable.assign(arrays[name])
    # Layers such as Normalization compute values from their weights.
    for layer in model._flatten_layers():
        layer.finalize_state()


def assign_masks(model: "keras.Model", masks: dict[str, Any]) -> None:
    """Sets the masks of a masked model from boolean arrays by the path of the masked weight."""
    for name, variable in mask_variables(model).items():
        variable.assign(masks[name].astype("float32"))


def _base_name(variable: "tf.Variable") -> str:
    """The last part of a variable's name, e.g. `kernel` of `dense/kernel:0`."""
    return variable.name.rpartition("/")[2].partition(":")[0]
