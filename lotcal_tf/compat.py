"""The one place that picks Keras: legacy tf_keras, with which TFMOT, TFP and the converters work.

TFMOT is imported before anything touches `tf.keras`: it sets `TF_USE_LEGACY_KERAS`, and in the
other order imports of TFP fail.
"""

import contextlib
import os
from collections.abc import Iterator

# Before TensorFlow loads: its start-up notices mean nothing to the user of a command.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow_model_optimization as tfmot
import tf_keras as keras
from tf_keras.src.backend import RandomGenerator  # tf_keras has no public name for it.

__all__ = ["RandomGenerator", "deterministic", "keras", "tfmot"]


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    """Inside it, two runs of the same operations on one machine agree to the bit.

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
