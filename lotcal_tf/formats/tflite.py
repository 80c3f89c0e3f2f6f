"""TFLite: `.tflite` files in float32, float16 and 8-bit integers, run by LiteRT."""

import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lotcal_tf.compat import keras
from lotcal_tf.errors import UsageError, first_line
from lotcal_tf.formats.batches import filled, in_batches, spread
from lotcal_tf.formats.format import NO_MATERIAL, Format, Material, StoredTensor
from lotcal_tf.formats.outputs import LOGITS, PROBABILITIES, output_name, without_softmax
from lotcal_tf.formats.tflite_file import flatbuffer, sparsity, stored
from lotcal_tf.formats.tflite_file.converter import convert
from lotcal_tf.formats.tflite_file.isolated import IsolatedInterpreter
from lotcal_tf.inputs import Specs, by_name, count, fixed_batch, select

_CALIBRATION = 500  # examples from which quantisation takes the ranges of activations
_LARGEST_EXAMPLE = 1 << 26  # values of an input of a file that is not trusted
_COMPARED = 16  # examples on which two encodings are compared


class TFLite(Format):
    """Base of the formats that share the suffix `.tflite`; they differ in how they write."""

    def runner(self, path: Path, trusted: bool = True) -> "TFLiteRunner":
        """Opens the file with LiteRT; one that is not trusted in a child process."""
        return TFLiteRunner(path, trusted=trusted)

    def stored_tensors(self, path: Path) -> list[StoredTensor]:
        """See `tflite_file.stored`."""
        return stored.stored_tensors(path)

    def encode(self, model: "keras.Model", dense: bytes, material: Material = NO_MATERIAL) -> bytes:
        """Rows of indices, see `tflite_file.sparsity`."""
        return sparsity.encode(dense)

    def divide_logits(self, path: Path, temperature: float) -> bytes | None:
        """Divides scales, or float weights, of the last layer."""
        return flatbuffer.divide_logits(path.read_bytes(), temperature)

    def logit_step(self, path: Path) -> float:
        """The scale of integer logits."""
        return flatbuffer.logit_step(path.read_bytes())


class Float32(TFLite):
    """The network unchanged."""

    def write(self, model: "keras.Model", path: Path, material: Material = NO_MATERIAL) -> None:
        """Converts the network."""
        path.write_bytes(convert(model))

    def encode(self, model: "keras.Model", dense: bytes, material: Material = NO_MATERIAL) -> bytes:
        """The converter's own sparse encoding in blocks, which LiteRT can run by a sparse kernel.

        LiteRT 2.3 computes some blocks wrongly. Both files are therefore run on examples, and if
        their outputs differ, rows of indices are used instead; also without examples.
        """
        if material.examples is None:
            return super().encode(model, dense)
        blocks = convert(model, sparse=True)
        rows = spread(count(material.examples), _COMPARED)
        same = _same_outputs(dense, blocks, select(material.examples, rows))
        return blocks if same else super().encode(model, dense)

    def encode_blocks(self, sparse: bytes) -> bytes | None:
        """See `tflite_file.sparsity`."""
        return sparsity.only_fast_blocks(sparse)


class Float16(TFLite):
    """Weights in float16, computed in float32."""

    def write(self, model: "keras.Model", path: Path, material: Material = NO_MATERIAL) -> None:
        """Converts the network and rounds its weights."""
        optimizations = [tf.lite.Optimize.DEFAULT]
        path.write_bytes(convert(model, optimizations=optimizations, types=[tf.float16]))


class Dynamic(TFLite):
    """Weights of 1 024 values and more in int8; activations are quantised at run time.

    LiteRT 2.3 does not run such a file in sparse encoding, so that its row has none.
    """

    def write(self, model: "keras.Model", path: Path, material: Material = NO_MATERIAL) -> None:
        """Converts the network and quantises its large weights."""
        path.write_bytes(convert(model, optimizations=[tf.lite.Optimize.DEFAULT]))


class Int8(TFLite):
    """Weights and activations in int8, with ranges from validation data.

    Input and output stay float32. So does a softmax: an int8 one would give confidences in steps of
    1/256, never 1 and often exactly 0. The step of a logit is the range of its logits / 255.
    """

    def write(self, model: "keras.Model", path: Path, material: Material = NO_MATERIAL) -> None:
        """Quantises the network after training.

        Raises:
          UsageError: there is no validation data.
        """
        inputs, _ = material.of_validation("int8")
        content = convert(
            without_softmax(model),
            optimizations=[tf.lite.Optimize.DEFAULT],
            ops=[tf.lite.OpsSet.TFLITE_BUILTINS_INT8],
            data=select(inputs, spread(count(inputs), _CALIBRATION)),
        )
        path.write_bytes(with_float_softmax(content, model))


def with_float_softmax(content: bytes, model: "keras.Model") -> bytes:
    """A quantised file of a model's logits, followed by a float softmax if the model has one."""
    if output_name(model) == PROBABILITIES:
        return flatbuffer.append_softmax(content, LOGITS, PROBABILITIES)
    return content


def _same_outputs(dense: bytes, sparse: bytes, inputs: Any) -> bool:
    """Whether LiteRT gives the same outputs for two files, within float32 rounding."""
    with tempfile.TemporaryDirectory() as directory:
        paths = [Path(directory) / name for name in ("dense", "sparse")]
        for path, content in zip(paths, (dense, sparse), strict=True):
            path.write_bytes(content)
        expected = TFLiteRunner(paths[0])(inputs)
        try:
            outputs = TFLiteRunner(paths[1])(inputs)
        except (RuntimeError, ValueError):  # LiteRT cannot run the sparse file.
            return False
    limit = 1e-4 * np.maximum(1.0, np.abs(expected).max(axis=1, keepdims=True))
    return bool((np.abs(outputs - expected) <= limit).all())


class TFLiteRunner:
    """Runs a `.tflite` file with LiteRT, as a phone would; see `format.Runner`.

    Integer inputs and outputs with a scale are converted by it and their zero point.

    Args:
      path: the file.
      threads: of LiteRT; None: one per processor.
      trusted: whether this package wrote the file; others are run in a child process.

    Raises:
      UsageError: it cannot be read, has several outputs, or several inputs without names.
    """

    ordered = False

    def __init__(self, path: Path, threads: int | None = None, *, trusted: bool = True) -> None:
        self._path, self._trusted = path, trusted
        self._interpreter: Any = _interpreter(path, threads or os.cpu_count() or 1, trusted)
        inputs = self._interpreter.get_input_details()
        outputs = self._interpreter.get_output_details()
        signatures = self._interpreter.get_signature_list()
        names = [name for signature in signatures.values() for name in signature["outputs"]]
        if not inputs or len(outputs) != 1 or (len(inputs) > 1 and len(signatures) != 1):
            raise UsageError(
                f"{path} has {len(inputs)} inputs, {len(outputs)} outputs and {len(signatures)} signatures: one "
                "output is needed, and one signature that names the inputs if there are several"
            )
        self._tensors, (self._output,) = {inputs[0]["name"]: inputs[0]}, outputs
        if len(inputs) > 1 and trusted:
            self._tensors = self._interpreter.get_signature_runner().get_input_details()
        elif len(inputs) > 1:
            self._tensors = self._interpreter.get_named_inputs()
        self.inputs: Specs = {name: _spec(tensor) for name, tensor in self._tensors.items()}
        if not all(spec.shape.rank for spec in self.inputs.values()):
            raise UsageError(f"{path} has an input without a batch axis")
        # A file with a fixed batch size must be run with that size: other shapes may depend on it.
        self._batch = fixed_batch(self.inputs)
        last = [int(size) for size in self._output["shape_signature"]][-1:]
        self.classes = last[0] if last and last[0] > 0 else None
        self.output = names[0] if len(names) == 1 else ""
        self.step = float(self._output["quantization"][0])
        if not trusted:
            self._try(path)

    def _try(self, path: Path) -> None:
        """Runs a file that is not trusted on zeros, unless its inputs may have several shapes.

        Raises:
          UsageError: it cannot be run, or an example is too large.
        """
        shapes = [spec.shape for spec in self.inputs.values()]
        known = all(shape[1:].is_fully_defined() for shape in shapes)
        sizes = [math.prod(size or 1 for size in shape) for shape in shapes]
        if max(self._batch or 1, *sizes) > _LARGEST_EXAMPLE:
            raise UsageError(f"{path} takes inputs of shape {', '.join(map(str, shapes))}")
        if known:
            zeros = [np.zeros([n or 1 for n in shape]) for shape in shapes]
            self(dict(zip(self.inputs, zeros, strict=True)) if len(zeros) > 1 else zeros[0])

    def __call__(self, inputs: Any, batch_size: int = 1000) -> NDArray[np.float32]:
        """The outputs `(N, K)` for inputs `(N, …)`."""
        size, named = self._batch or batch_size, by_name(inputs, self.inputs)
        return in_batches(self._run, named, size, full=self._batch is not None)

    def prepared(self, inputs: Any) -> Callable[[], None]:
        """A function that runs one batch without copying inputs or outputs, for timing.

        Args:
          inputs: `(n, …)`; for a file with a fixed batch size, n is at most that size.
        """
        named = by_name(inputs, self.inputs)
        if self._batch:
            named = filled(named, self._batch)
        self._set(named)
        self._interpreter.invoke()
        run: Callable[[], None] = self._interpreter.invoke
        return run

    def _set(self, inputs: dict[str, NDArray]) -> None:
        tensors = self._tensors.items()
        for name, tensor in tensors:
            if not self._batch:
                self._interpreter.resize_tensor_input(tensor["index"], inputs[name].shape)
        self._interpreter.allocate_tensors()
        for name, tensor in tensors:
            self._interpreter.set_tensor(tensor["index"], _quantised(inputs[name], tensor))

    def _run(self, inputs: dict[str, NDArray]) -> NDArray[np.float32]:
        self._set(inputs)
        self._interpreter.invoke()
        found = self._interpreter.get_tensor(self._output["index"])
        if not self._trusted and (found.ndim != 2 or found.shape[1] != (self.classes or 0)):
            raise UsageError(f"{self._path} gives outputs of shape {found.shape}, not (N, classes)")
        return _dequantised(found, self._output)


def _interpreter(path: Path, threads: int, trusted: bool) -> Any:
    """An interpreter of LiteRT.

    Raises:
      UsageError: the file cannot be read.
    """
    if not trusted:
        return IsolatedInterpreter(path, threads)
    from ai_edge_litert.interpreter import Interpreter

    try:
        return Interpreter(str(path), num_threads=threads)
    except (ValueError, RuntimeError) as error:
        line = first_line(error)
        raise UsageError(f"{path} cannot be read as a TFLite file: {line}") from error


def _spec(tensor: dict[str, Any]) -> "tf.TensorSpec":
    """The shape and type of values that a tensor takes; a quantised one takes floats."""
    sizes = [None if size < 0 else int(size) for size in tensor["shape_signature"]]
    return tf.TensorSpec(sizes, np.float32 if tensor["quantization"][0] else tensor["dtype"])


def _quantised(values: NDArray[np.float32], tensor: dict[str, Any]) -> NDArray:
    """Values in the tensor's type: q = value / scale + zero point, rounded."""
    dtype, (scale, zero) = tensor["dtype"], tensor["quantization"]
    if not scale:
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(values / scale) + zero, limits.min, limits.max).astype(dtype)


def _dequantised(values: NDArray, tensor: dict[str, Any]) -> NDArray[np.float32]:
    """The float32 values of a tensor: (q - zero point) * scale."""
    scale, zero = tensor["quantization"]
    if not scale:
        return values.astype(np.float32)
    return (values.astype(np.float32) - np.float32(zero)) * np.float32(scale)
