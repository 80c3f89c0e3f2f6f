"""TFLite: `.tflite` files in float32, float16 and 8-bit integers, run by LiteRT."""

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lotcal_tf.compat import keras
from lotcal_tf.errors import UsageError
from lotcal_tf.formats.batches import in_batches, spread
from lotcal_tf.formats.format import NO_MATERIAL, Format, Material, StoredTensor
from lotcal_tf.formats.outputs import LOGITS, PROBABILITIES, output_name, without_softmax
from lotcal_tf.formats.tflite_file import flatbuffer, sparsity, stored
from lotcal_tf.formats.tflite_file.converter import convert

_CALIBRATION = 500  # examples from which quantisation takes the ranges of activations


class TFLite(Format):
    """Base of the formats that share the suffix `.tflite`; they differ in how they write."""

    def runner(self, path: Path) -> "TFLiteRunner":
        """Opens the file with LiteRT."""
        return TFLiteRunner(path)

    def stored_tensors(self, path: Path) -> list[StoredTensor]:
        """See `tflite_file.stored`."""
        return stored.stored_tensors(path)

    def encode(self, model: "keras.Model", dense: bytes) -> bytes:
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

    def encode(self, model: "keras.Model", dense: bytes) -> bytes:
        """The converter's own sparse encoding in blocks, which LiteRT can run by a sparse kernel.

        LiteRT 2.3 computes some blocks wrongly. Both files are therefore run, and if their outputs
        differ, rows of indices are used instead.
        """
        blocks = convert(model, sparse=True)
        draws = np.random.default_rng(0).normal(size=(16, *model.input_shape[1:]))
        draws[8:] *= 100  # Inputs may be of the order of 1, or of the values of a byte.
        same = _same_outputs(dense, blocks, draws.astype(np.float32))
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
            data=inputs[spread(len(inputs), _CALIBRATION)],
        )
        path.write_bytes(with_float_softmax(content, model))


def with_float_softmax(content: bytes, model: "keras.Model") -> bytes:
    """A quantised file of a model's logits, followed by a float softmax if the model has one."""
    if output_name(model) == PROBABILITIES:
        return flatbuffer.append_softmax(content, LOGITS, PROBABILITIES)
    return content


def _same_outputs(dense: bytes, sparse: bytes, inputs: NDArray[np.float32]) -> bool:
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

    Integer inputs and outputs are converted by their scale and zero point.

    Args:
      path: the file.

    Raises:
      UsageError: it cannot be read, or has several inputs or outputs.
    """

    def __init__(self, path: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter

        try:
            self._interpreter = Interpreter(str(path), num_threads=os.cpu_count())
        except (ValueError, RuntimeError) as error:
            line = str(error).strip().splitlines()[0]
            raise UsageError(f"{path} cannot be read as a TFLite file: {line}") from error
        inputs = self._interpreter.get_input_details()
        outputs = self._interpreter.get_output_details()
        if len(inputs) != 1 or len(outputs) != 1:
            raise UsageError(
                f"{path} has {len(inputs)} inputs and {len(outputs)} outputs: one of each is needed"
            )
        self._input, self._output = inputs[0], outputs[0]
        sizes = [int(size) for size in self._input["shape_signature"]]
        # A file with a fixed batch size must be run with that size: other shapes may depend on it.
        self._batch = sizes[0] if sizes and sizes[0] > 0 else None
        self.shape = tuple(None if size < 0 else size for size in sizes[1:])
        last = [int(size) for size in self._output["shape_signature"]][-1:]
        self.classes = last[0] if last and last[0] > 0 else None
        signatures = self._interpreter.get_signature_list().values()
        names = [name for signature in signatures for name in signature["outputs"]]
        self.output = names[0] if len(names) == 1 else ""
        self.step = float(self._output["quantization"][0])

    def __call__(self, inputs: NDArray[np.float32], batch_size: int = 1000) -> NDArray[np.float32]:
        """The outputs `(N, K)` for inputs `(N, …)`."""
        size = self._batch or batch_size
        return in_batches(self._run, inputs, size, full=self._batch is not None)

    def _run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        index = self._input["index"]
        if not self._batch:
            self._interpreter.resize_tensor_input(index, inputs.shape)
        self._interpreter.allocate_tensors()
        self._interpreter.set_tensor(index, _quantised(inputs, self._input))
        self._interpreter.invoke()
        return _dequantised(self._interpreter.get_tensor(self._output["index"]), self._output)


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
