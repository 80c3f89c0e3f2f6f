"""The only place that imports Keras: legacy tf_keras, with which TFMOT, TFP and the converters work.

Keras 3 is imported only where one of its models is read or written, by `keras3`.

TFMOT is imported before `tf.keras` is used: it sets `TF_USE_LEGACY_KERAS`, and in the
reverse order, imports of TFP fail.
"""

import contextlib
import importlib
import os
from collections.abc import Iterator
from typing import Any

# Set before TensorFlow loads: users of a command do not need its start-up notices.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow_model_optimization as tfmot
import tf_keras as keras
from tf_keras.src.backend import RandomGenerator  # tf_keras has no public name for it.

__all__ = ["RandomGenerator", "deterministic", "keras", "keras3", "tfmot"]


def keras3() -> Any:
    """The module of Keras 3, which TensorFlow requires; imported by the first call."""
    return importlib.import_module("keras")


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    """Inside the `with` block, two runs of the same operations on one machine are bit-identical.

    Outside, operations behave as the caller had set them: TensorFlow refuses unseeded random draws
    while its operations are deterministic.
    """
    import tensorflow as tf
    from tensorflow.python.framework import config

    before = config.is_op_determinism_enabled()
    tf.config.experimental.enable_op_determinism()
    try:
        yield
    finally:
        if not before:
            config.disable_op_determinism()
