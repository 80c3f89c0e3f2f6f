"""BatchNorm with the settings of the papers' code."""

from lotcal_tf.compat import keras


def batch_norm(x: "keras.KerasTensor", name: str) -> "keras.KerasTensor":
    """BatchNorm with PyTorch's defaults, with which the papers' results were obtained.

    Its momentum is 0.9 and its epsilon 1e-5; Keras's defaults are 0.99 and 1e-3.
    """
    return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)
