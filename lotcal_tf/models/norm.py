"""BatchNorm as the papers' code has it."""

from lotcal_tf.compat import keras


def batch_norm(x: "keras.KerasTensor", name: str) -> "keras.KerasTensor":
    """BatchNorm with PyTorch's defaults, which the papers' figures come from.

    A step's statistics count a tenth in the moving ones, and 1e-5 is added to the variance;
    Keras's own defaults are a hundredth and 1e-3.
    """
    return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)
