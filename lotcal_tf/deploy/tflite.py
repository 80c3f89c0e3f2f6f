"""TFLite: converting a SavedModel to a `.tflite` file, and running such a file by LiteRT."""

import logging
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray


def write(saved_model: Path, path: Path) -> None:
    """Converts a SavedModel to a float32 `.tflite` file that takes inputs and gives logits."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)  # The converter tells its whole inner life.
    try:
        path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(saved_model)).convert())
    finally:
        logger.setLevel(level)


def logits(path: Path, inputs: NDArray[np.float32], batch_size: int = 1000) -> NDArray[np.float32]:
    """Logits `(N, K)` of a `.tflite` file for inputs `(N, …)`, by LiteRT as a phone would."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    place = interpreter.get_input_details()[0]["index"]
    results = []
    for start in range(0, len(inputs), batch_size):
        batch = inputs[start : start + batch_size]
        interpreter.resize_tensor_input(place, batch.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(place, batch)
        interpreter.invoke()
        results.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
    return np.concatenate(results)
