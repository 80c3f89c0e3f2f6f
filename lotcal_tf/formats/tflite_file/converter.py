"""TensorFlow's TFLite converter: quiet, and with its errors in one line."""

import contextlib
import gc
import logging
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf
from numpy.typing import NDArray

from lotcal_tf.compat import keras
from lotcal_tf.errors import UsageError
from lotcal_tf.files import DiskFull, naming_size
from lotcal_tf.formats.saved_model import SavedModel
from lotcal_tf.formats.zeros import owner
from lotcal_tf.inputs import by_name, count, select, specs_of
from lotcal_tf.models.keras_graph import copy_layer, is_nested, rebuild
from lotcal_tf.pruning import masking

_AT_ONCE = 50  # representative examples in one batch
_L = keras.layers
_RECURRENT = (_L.LSTM, _L.GRU, _L.SimpleRNN, _L.RNN)
_MOST_STEPS = 256  # time steps that are unrolled; converting takes some 50 ms for each


def convert(
    model: "keras.Model",
    *,
    sparse: bool = False,
    optimizations: list[Any] | None = None,
    types: list[Any] | None = None,
    ops: list[Any] | None = None,
    data: Any = None,
) -> bytes:
    """A plain model as the content of a `.tflite` file.

    Args:
      model: the model.
      sparse: whether to leave out zeros, where the converter can.
      optimizations: the converter's `optimizations`.
      types: the converter's `target_spec.supported_types`.
      ops: the converter's `target_spec.supported_ops`.
      data: representative inputs `(N, …)`, see `lotcal_tf.inputs`.

    Raises:
      UsageError: the model has operations that TFLite lacks; the message names them.
    """
    model = _unrolled(model)
    with tempfile.TemporaryDirectory() as directory:
        SavedModel().write(model, Path(directory))
        with _quiet(), _frozen_garbage():
            converter = tf.lite.TFLiteConverter.from_saved_model(directory)
            encoding = [tf.lite.Optimize.EXPERIMENTAL_SPARSITY] if sparse else []
            converter.optimizations = [*(optimizations or []), *encoding]
            converter.target_spec.supported_types = types or []
            converter.target_spec.supported_ops = ops or [tf.lite.OpsSet.TFLITE_BUILTINS]
            if data is not None:
                converter.representative_dataset = lambda: _blocks(by_name(data, specs_of(model)))
            return _converted(converter, model)


def _blocks(inputs: dict[str, NDArray]) -> Iterator[Any]:
    """Representative inputs in blocks; several are given by the names of the signature's inputs."""
    several = len(inputs) > 1
    # TensorFlow resizes several inputs one after the other, and fails in between.
    size = 1 if several else _AT_ONCE
    for start in range(0, count(inputs), size):
        block = select(inputs, slice(start, start + size))
        yield block if several else list(block.values())


def _unrolled(model: "keras.Model") -> "keras.Model":
    """A copy in which recurrent layers are unrolled over their time steps; other models as they are.

    TFLite's loops need a fixed batch size, their quantisation crashes the process, and its fused LSTM
    keeps its state from one call to the next.

    Raises:
      UsageError: a recurrent layer cannot be unrolled.
    """
    recurrent = {
        path: layer
        for path, layer in masking.leaf_layers(model)
        if any(_is_loop(part) for part in layer._flatten_layers())
    }
    if not recurrent:
        return model
    for path, layer in recurrent.items():
        steps = _steps(layer, layer.get_input_shape_at(0))
        if not all(count is not None and count <= _MOST_STEPS for count in steps):
            raise UsageError(
                f"TFLite cannot run layer {path!r} ({type(layer).__name__}), which loops over time steps: "
                "only LSTM, GRU, SimpleRNN and RNN with a fixed number of steps, at most "
                f"{_MOST_STEPS}, are unrolled; choose the format keras or saved_model"
            )

    def unroll(layer: "keras.layers.Layer") -> "keras.layers.Layer":
        if not any(layer is one for one in recurrent.values()):
            return copy_layer(layer)
        whole = {"class_name": type(layer).__name__, "config": layer.get_config()}
        return copy_layer(layer, _with_unroll(whole)["config"])

    copy = rebuild(model, unroll)
    masking.assign(copy, masking.values(model))
    return copy


def _is_loop(layer: Any) -> bool:
    return isinstance(layer, keras.layers.RNN) and not layer.unroll


def _steps(layer: "keras.layers.Layer", shape: Any) -> list[int | None]:
    """The number of time steps of each loop in a layer; None: open, or the loop cannot be unrolled.

    Args:
      layer: a layer that is not a nested model.
      shape: of its input, or a list of the shapes of its inputs.
    """
    shape = shape[0] if isinstance(shape, list) else shape
    loops = [part for part in layer._flatten_layers() if _is_loop(part)]
    if type(layer) is _L.TimeDistributed and is_nested(layer.layer):
        inner = [part for _, part in masking.leaf_layers(layer.layer)]
        return [n for part in inner for n in _steps(part, part.get_input_shape_at(0))]
    if type(layer) is _L.TimeDistributed:
        return _steps(layer.layer, (shape[0], *shape[2:]))
    if type(layer) in (*_RECURRENT, _L.Bidirectional):
        return [shape[not loop.time_major] if type(loop) in _RECURRENT else None for loop in loops]
    return [None for _ in loops]


def _with_unroll(config: Any) -> Any:
    """A serialised layer in which all recurrent layers have `unroll=True`, however deeply nested."""
    if isinstance(config, list | tuple):
        return type(config)(_with_unroll(item) for item in config)
    if not isinstance(config, dict):
        return config
    found = {key: _with_unroll(value) for key, value in config.items()}
    if found.get("class_name") in {kind.__name__ for kind in _RECURRENT} and "config" in found:
        found["config"] = found["config"] | {"unroll": True}
    return found


def _converted(converter: Any, model: "keras.Model") -> bytes:
    try:
        # The converter writes the model to a temporary directory first.
        with naming_size(Path(tempfile.gettempdir())):
            return bytes(converter.convert())
    except DiskFull:
        raise
    except Exception as error:
        # The converter raises its own error, and several others while it quantises.
        raise UsageError(_first_cause(str(error), model)) from error


def _first_cause(message: str, model: "keras.Model") -> str:
    """One line for the converter's long error: the operations that TFLite lacks, and their layer."""
    # The error lists the operations, or names the fused one at which the converter stopped.
    ops = re.findall(r"\btf\.([A-Z]\w*)\(", message) or re.findall(r'fused\["(\w+):"', message)
    missing = sorted(set(ops) - {"StatefulPartitionedCall"})
    if missing:
        places = [path for path, _ in masking.leaf_layers(model)]
        scopes = re.findall(r'"[^"/]+/([^"@]+)@__inference', message)
        layers = sorted({owner(scope, places) for scope in scopes} - {""})
        where = f" of layer {', '.join(map(repr, layers))}" if layers else ""
        return (
            f"TFLite does not support {', '.join(missing)}{where}: choose the format keras or "
            "saved_model, or replace the layer"
        )
    lines = message.strip().splitlines() or ["no reason is given"]
    return f"the model cannot be converted to TFLite: {lines[0]}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences the converter, which writes to the logger and straight to standard error."""
    logger = logging.getLogger("absl")
    level, standard_error = logger.level, os.dup(2)
    logger.setLevel(logging.ERROR)
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(standard_error, 2)
        os.close(standard_error)
        logger.setLevel(level)


@contextlib.contextmanager
def _frozen_garbage() -> Iterator[None]:
    """Hides existing objects from the garbage collector, which the converter runs.

    Going through all of TensorFlow's objects would take a third of a second for each file.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
