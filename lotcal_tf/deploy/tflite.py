"""TFLite: converting a SavedModel to a `.tflite` file, and running such a file by LiteRT."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lotcal_tf.errors import UsageError


def write(saved_model: Path, path: Path) -> None:
    """Converts a SavedModel to a float32 `.tflite` file that takes inputs and gives logits."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)  # The converter tells its whole inner life.
    try:
        path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(saved_model)).convert())
    finally:
        logger.setLevel(level)


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
            self._interpreter = Interpreter(str(path))
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
        pieces = [inputs[start : start + size] for start in range(0, len(inputs), size)]
        return np.concatenate([self._run(piece) for piece in pieces])

    def _run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        count = len(inputs)
        if self._batch and count < self._batch:
            inputs = np.concatenate([inputs, np.repeat(inputs[-1:], self._batch - count, 0)])
        place = self._input["index"]
        if not self._batch:
            self._interpreter.resize_tensor_input(place, inputs.shape)
        self._interpreter.allocate_tensors()
        self._interpreter.set_tensor(place, _quantised(inputs, self._input))
        self._interpreter.invoke()
        found = self._interpreter.get_tensor(self._output["index"])[:count]
        return _dequantised(found, self._output)


def logits(path: Path, inputs: NDArray[np.float32], batch_size: int = 1000) -> NDArray[np.float32]:
    """What a `.tflite` file gives, `(N, K)`, for inputs `(N, …)`."""
    return Runner(path)(inputs, batch_size)


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
