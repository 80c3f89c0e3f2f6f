"""Checks, before anything is trained, that a model can be rebuilt from what a ticket stores of it."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lotcal_tf.compat import keras
from lotcal_tf.errors import UsageError
from lotcal_tf.files import DiskFull, naming_size
from lotcal_tf.inputs import by_name, specs_of
from lotcal_tf.lottery.ticket import architecture_of, from_architecture
from lotcal_tf.models.keras_graph import is_nested, reason, replay
from lotcal_tf.models.safe_config import FIX
from lotcal_tf.pruning import masking

# Of the largest logit: by how much the logits of a rebuilt model may differ.
_TOLERANCE = 1e-5


def check_round_trip(given: "keras.Model", model: "keras.Model", examples: Any) -> None:
    """Rebuilds a model from its configuration, saves and loads it once, and compares the outputs.

    Args:
      given: the caller's model.
      model: the same model with stable names, as tickets store it.
      examples: a batch of inputs that `model` takes, see `lotcal_tf.inputs`.

    Raises:
      UsageError: the model cannot be rebuilt, or computes something else then. The message names the
        layer and what to change.
    """
    try:
        rebuilt = from_architecture(architecture_of(model))
    except UsageError as error:
        raise _unbuildable(model) or error from error
    weights = masking.values(model)
    masking.assign(rebuilt, weights)
    parts = by_name(examples, specs_of(model)).values()
    _check_outputs(given, rebuilt, _inputs(given, list(parts)))
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.keras"
        try:
            with naming_size(path):
                model.save(path, save_format="keras")
                rebuilt.load_weights(path)
        except DiskFull:
            raise
        except Exception as error:  # Layers of the caller save and load their own variables.
            raise UsageError(
                f"model {given.name!r} cannot be saved as a .keras file and loaded again: {reason(error)}"
            ) from error
    for name, value in masking.values(rebuilt).items():
        if not np.array_equal(value, weights[name], equal_nan=value.dtype.kind == "f"):
            raise UsageError(
                f"weight {name} is another one after the model is saved as a .keras file and loaded: its layer's "
                "load_own_variables must restore what save_own_variables stores"
            )


def _unbuildable(model: "keras.Model") -> UsageError | None:
    """The error for the first layer that cannot be built from its configuration; None: there is none."""
    for path, layer in masking.leaf_layers(model):
        try:
            text = json.dumps(keras.layers.serialize(layer), default=_as_list)
            keras.layers.deserialize(json.loads(text))
        except Exception as error:  # The constructor of a custom layer can raise anything.
            return UsageError(
                f"layer {path!r} ({type(layer).__name__}) cannot be rebuilt from its get_config, which must "
                f"return every argument of its constructor ({reason(error)}); a custom class or function: {FIX}"
            )
    return None


def _as_list(value: Any) -> Any:
    return np.asarray(value).tolist()


def _inputs(model: "keras.Model", parts: Sequence[NDArray]) -> list["tf.Tensor"]:
    """Tensors of the model's types and batch size from the values of its inputs, in their order."""
    return [
        tf.cast(np.resize(values, (x.shape[0] or len(values), *values.shape[1:])), x.dtype)
        for values, x in zip(parts, model.inputs, strict=True)
    ]


def _logits(model: "keras.Model", inputs: Sequence["tf.Tensor"]) -> NDArray:
    packed = tf.nest.pack_sequence_as(model.input, inputs)
    return tf.cast(model(packed, training=False), tf.float32).numpy()


def _agree(found: Any, expected: Any) -> bool:
    found, expected = (np.asarray(value, np.float64) for value in (found, expected))
    if found.shape != expected.shape:
        return False
    finite = np.abs(expected[np.isfinite(expected)])
    return np.allclose(found, expected, 0, _TOLERANCE * finite.max(initial=0.0), equal_nan=True)


def _check_outputs(
    given: "keras.Model", rebuilt: "keras.Model", inputs: Sequence["tf.Tensor"]
) -> None:
    """Raises UsageError if the logits of the rebuilt model differ; names the first layer that does."""
    expected = _logits(given, inputs)
    if _agree(_logits(rebuilt, inputs), expected):
        return
    if not _agree(_logits(given, inputs), expected):
        raise UsageError(
            f"{_difference(given, given, inputs)} gives other outputs for the same inputs with training=False: draw "
            "random numbers in training only, and keep no state from call to call"
        )
    raise UsageError(
        f"{_difference(given, rebuilt, inputs)} computes something else when it is rebuilt from its get_config: "
        "return every argument of its constructor there, and store every array that it uses as a weight (add_weight)"
    )


def _difference(given: "keras.Model", copy: "keras.Model", inputs: Sequence["tf.Tensor"]) -> str:
    """The first layer whose outputs differ in two models of the same layers."""
    for (path, layer, expected), (*_, found) in zip(
        _outputs(given, inputs), _outputs(copy, inputs), strict=False
    ):
        if not all(map(_agree, found, expected)):
            return f"layer {path!r} ({type(layer).__name__})"
    return f"model {given.name!r}"


def _outputs(
    model: "keras.Model", inputs: Sequence["tf.Tensor"]
) -> list[tuple[str, "keras.layers.Layer", list["tf.Tensor"]]]:
    """The outputs of each call of a layer, with its path, in inference."""
    found: list[tuple[str, keras.layers.Layer, list[tf.Tensor]]] = []

    def calling(prefix: str) -> Any:
        def call(layer: "keras.layers.Layer", *args: Any, **kwargs: Any) -> Any:
            if is_nested(layer):
                return replay(layer, tf.nest.flatten(args), calling(f"{prefix}{layer.name}/"))
            if layer._expects_training_arg:
                kwargs["training"] = False
            outputs = layer(*args, **kwargs)
            numbers = [x for x in tf.nest.flatten(outputs) if x.dtype != tf.string]
            found.append((prefix + layer.name, layer, numbers))
            return outputs

        return call

    replay(model, inputs, calling(""))
    return found
