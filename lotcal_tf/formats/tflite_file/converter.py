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
from lotcal_tf.formats.saved_model import SavedModel
from lotcal_tf.inputs import by_name, count, select, specs_of

_AT_ONCE = 50  # representative examples in one batch


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
            return _converted(converter)


def _blocks(inputs: dict[str, NDArray]) -> Iterator[Any]:
    """Representative inputs in blocks; several are given by the names of the signature's inputs."""
    several = len(inputs) > 1
    # TensorFlow resizes several inputs one after the other, and fails in between.
    size = 1 if several else _AT_ONCE
    for start in range(0, count(inputs), size):
        block = select(inputs, slice(start, start + size))
        yield block if several else list(block.values())


def _converted(converter: Any) -> bytes:
    try:
        return bytes(converter.convert())
    except Exception as error:
        # The class has no public name.
        if type(error).__name__ != "ConverterError":
            raise
        raise UsageError(_first_cause(str(error))) from error


def _first_cause(message: str) -> str:
    """One line for the converter's long error: the operations that TFLite lacks."""
    # The error lists the operations, or names the fused one at which the converter stopped.
    ops = re.findall(r"\btf\.([A-Z]\w*)\(", message) or re.findall(r'fused\["(\w+):"', message)
    missing = sorted(set(ops) - {"StatefulPartitionedCall"})
    if missing:
        return (
            f"TFLite does not support {', '.join(missing)}, which the model uses: choose the format "
            "keras or saved_model, or replace the layer"
        )
    return f"the model cannot be converted to TFLite: {message.strip().splitlines()[0]}"


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
