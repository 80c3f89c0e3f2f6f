"""TFLite: writing a `.tflite` file in each of its formats, and running such a file by LiteRT."""

import contextlib
import gc
import logging
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lotcal_tf.compat import keras
from lotcal_tf.errors import UsageError
from lotcal_tf.formats import saved_model
from lotcal_tf.formats.batches import in_batches, spread
from lotcal_tf.formats.format import (
    LOGITS,
    NOTHING,
    PROBABILITIES,
    Material,
    output_name,
    without_softmax,
)
from lotcal_tf.formats.tflite_file import flatbuffer, sparsity

# Examples that quantisation finds its ranges by, and how many of them go through the network at once.
_CALIBRATION, _AT_ONCE = 500, 50


def write_float32(model: "keras.Model", path: Path, material: Material = NOTHING) -> None:
    """Writes the network as it is.

    Raises:
      UsageError: TFLite lacks an op of the model's; as of every format.
    """
    path.write_bytes(convert(model, False))


def write_float16(model: "keras.Model", path: Path, material: Material = NOTHING) -> None:
    """Writes weights as float16; they are computed with as float32."""
    settings = {"optimizations": [tf.lite.Optimize.DEFAULT], "types": [tf.float16]}
    path.write_bytes(convert(model, False, **settings))


def write_dynamic(model: "keras.Model", path: Path, material: Material = NOTHING) -> None:
    """Writes weights of 1 024 values and more as int8; activations are quantised as they come.

    LiteRT 2.3 does not run such a file in a sparse encoding.
    """
    path.write_bytes(convert(model, False, optimizations=[tf.lite.Optimize.DEFAULT]))


def write_int8(model: "keras.Model", path: Path, material: Material) -> None:
    """Writes weights and activations as int8, their ranges as the validation data have them.

    Input and output stay float32, and so does a softmax: an int8 one would give confidence in
    steps of 1/256, never 1 and often exactly 0. A logit has a step of its own range / 255.

    Raises:
      UsageError: there are no validation data.
    """
    inputs, _ = material.of_validation("int8")
    written = convert(
        without_softmax(model),
        False,
        optimizations=[tf.lite.Optimize.DEFAULT],
        ops=[tf.lite.OpsSet.TFLITE_BUILTINS_INT8],
        data=inputs[spread(len(inputs), _CALIBRATION)],
    )
    path.write_bytes(finished(written, model))


def finished(written: bytes, model: "keras.Model") -> bytes:
    """A file of whole numbers with what the model has behind its logits."""
    if output_name(model) == PROBABILITIES:
        return flatbuffer.append_softmax(written, LOGITS, PROBABILITIES)
    return written


def in_rows(model: "keras.Model", whole: bytes) -> bytes:
    """A dense file of `model` without its zeros, by rows of indices; see `sparsity.encode`."""
    return sparsity.encode(whole)


def in_blocks(model: "keras.Model", whole: bytes) -> bytes:
    """The converter's own sparse encoding, which LiteRT may run by a sparse kernel; else rows.

    LiteRT 2.3 computes some of its blocks wrong: both files are run, and where they differ the
    blocks are not taken.

    Args:
      model: the network.
      whole: the dense float32 file of the same network.
    """
    blocks = convert(model, True)
    draws = np.random.default_rng(0).normal(size=(16, *model.input_shape[1:]))
    draws[8:] *= 100  # Inputs may be of the order of 1, or of a byte's values.
    inputs = draws.astype(np.float32)
    with tempfile.TemporaryDirectory() as directory:
        places = [Path(directory) / name for name in ("whole", "blocks")]
        for place, written in zip(places, (whole, blocks), strict=True):
            place.write_bytes(written)
        wanted = Runner(places[0])(inputs)
        try:
            found = Runner(places[1])(inputs)
        except (RuntimeError, ValueError):  # Or it does not run them at all.
            return in_rows(model, whole)
    limit = 1e-4 * np.maximum(1.0, np.abs(wanted).max(axis=1, keepdims=True))
    return blocks if (np.abs(found - wanted) <= limit).all() else in_rows(model, whole)


def convert(model: "keras.Model", sparse: bool, **settings: Any) -> bytes:
    """A plain model as the contents of a `.tflite` file; see `_converted`."""
    with tempfile.TemporaryDirectory() as directory:
        saved_model.write(model, Path(directory))
        return _converted(Path(directory), sparse, **settings)


def _converted(
    directory: Path,
    sparse: bool,
    *,
    optimizations: list[Any] | None = None,
    types: list[Any] | None = None,
    ops: list[Any] | None = None,
    data: NDArray[np.float32] | None = None,
) -> bytes:
    """A SavedModel as the contents of a `.tflite` file.

    Args:
      directory: the SavedModel's.
      sparse: whether to leave zeros out where that is possible.
      optimizations, types, ops: what the converter calls so.
      data: `(N, …)` representative inputs.

    Raises:
      UsageError: the model has ops that TFLite lacks; they are named.
    """
    with _quiet(), _nothing_to_collect():
        converter = tf.lite.TFLiteConverter.from_saved_model(str(directory))
        encoding = [tf.lite.Optimize.EXPERIMENTAL_SPARSITY] if sparse else []
        converter.optimizations = [*(optimizations or []), *encoding]
        converter.target_spec.supported_types = types or []
        converter.target_spec.supported_ops = ops or [tf.lite.OpsSet.TFLITE_BUILTINS]
        if data is not None:
            starts = range(0, len(data), _AT_ONCE)
            converter.representative_dataset = lambda: ([data[i : i + _AT_ONCE]] for i in starts)
        try:
            return bytes(converter.convert())
        except Exception as error:
            # A class without a public name.
            if type(error).__name__ != "ConverterError":
                raise
            raise UsageError(_told(str(error))) from error


def _told(message: str) -> str:
    """What the converter's pages of errors come to: the ops that TFLite lacks."""
    # It lists them, or says in whose place it gave up.
    ops = re.findall(r"\btf\.([A-Z]\w*)\(", message) or re.findall(r'fused\["(\w+):"', message)
    lacking = sorted(set(ops) - {"StatefulPartitionedCall"})
    if lacking:
        return (
            f"TFLite cannot compute {', '.join(lacking)}, which the model uses: choose the format "
            "keras or saved_model, or replace the layer"
        )
    return f"the model cannot be converted to TFLite: {message.strip().splitlines()[0]}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the converter from telling its whole inner life, by its logger and on standard error."""
    logger = logging.getLogger("absl")
    level, shown = logger.level, os.dup(2)
    logger.setLevel(logging.ERROR)
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(shown, 2)
        os.close(shown)
        logger.setLevel(level)


@contextlib.contextmanager
def _nothing_to_collect() -> Iterator[None]:
    """Keeps the collector, which the converter calls itself, from going through what stands already.

    That is all of TensorFlow: a third of a second for each file.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


class Runner:
    """A `.tflite` file, run by LiteRT as a phone would; whole numbers by their scale and zero point.

    Args:
      path: the file.

    Attributes:
      shape: of one example's inputs; None where any length goes.
      classes: K; None where the file does not say.
      output: what its signature calls the output; empty where it has none.
      step: what an output's last digit stands for; 0 for floats.

    Raises:
      UsageError: it is no such file, or takes or gives more than one tensor.
    """

    def __init__(self, path: Path) -> None:
        """See the class."""
        from ai_edge_litert.interpreter import Interpreter

        try:
            self._interpreter = Interpreter(str(path), num_threads=os.cpu_count())
        except (ValueError, RuntimeError) as error:
            line = str(error).strip().splitlines()[0]
            raise UsageError(f"{path} is no TFLite file that can be read: {line}") from error
        given, found = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        if len(given) != 1 or len(found) != 1:
            raise UsageError(
                f"{path} takes {len(given)} tensors and gives {len(found)}: one of each is needed"
            )
        self._input, self._output = given[0], found[0]
        places = [int(size) for size in self._input["shape_signature"]]
        # A file of one fixed batch is given such batches: its shapes may hold it anywhere.
        self._batch = places[0] if places and places[0] > 0 else None
        self.shape = tuple(None if size < 0 else size for size in places[1:])
        last = [int(size) for size in self._output["shape_signature"]][-1:]
        self.classes = last[0] if last and last[0] > 0 else None
        signatures = self._interpreter.get_signature_list().values()
        names = [name for signature in signatures for name in signature["outputs"]]
        self.output = names[0] if len(names) == 1 else ""
        self.step = float(self._output["quantization"][0])

    def __call__(self, inputs: NDArray[np.float32], batch_size: int = 1000) -> NDArray[np.float32]:
        """What the file gives, `(N, K)`, for inputs `(N, …)`, N >= 1."""
        size = self._batch or batch_size
        return in_batches(self._run, inputs, size, full=self._batch is not None)

    def _run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        place = self._input["index"]
        if not self._batch:
            self._interpreter.resize_tensor_input(place, inputs.shape)
        self._interpreter.allocate_tensors()
        self._interpreter.set_tensor(place, _quantised(inputs, self._input))
        self._interpreter.invoke()
        return _dequantised(self._interpreter.get_tensor(self._output["index"]), self._output)


def _quantised(values: NDArray[np.float32], tensor: dict[str, Any]) -> NDArray:
    """Values as the tensor's type holds them: q = value / scale + zero point, rounded."""
    kind, (scale, zero) = tensor["dtype"], tensor["quantization"]
    if not scale:
        return values.astype(kind)
    limits = np.iinfo(kind)
    return np.clip(np.rint(values / scale) + zero, limits.min, limits.max).astype(kind)


def _dequantised(values: NDArray, tensor: dict[str, Any]) -> NDArray[np.float32]:
    """What the tensor's numbers stand for: (q - zero point) * scale."""
    scale, zero = tensor["quantization"]
    if not scale:
        return values.astype(np.float32)
    return (values.astype(np.float32) - np.float32(zero)) * np.float32(scale)
