"""The one place that picks Keras: legacy tf_keras, with which TFMOT, TFP and the converters work.

TFMOT is imported before anything touches `tf.keras`: it sets `TF_USE_LEGACY_KERAS`, and in the
other order imports of TFP fail.
"""

import os

# Before TensorFlow loads: its start-up notices are no news to the user of a command.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow_model_optimization as tfmot
import tf_keras as keras

__all__ = ["keras", "tfmot"]
