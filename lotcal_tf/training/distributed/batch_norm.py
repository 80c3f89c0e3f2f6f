"""BatchNorm with the statistics of the whole batch, on any number of devices."""

from typing import Any

import tensorflow as tf

from lotcal_tf.calibration.strategy import mean_over_replicas
from lotcal_tf.compat import keras
from lotcal_tf.errors import UsageError
from lotcal_tf.models.keras_graph import copy_layer, rebuild


class SynchronisedBatchNorm(keras.layers.BatchNormalization):
    """Keras's BatchNormalization, with mean and variance over all devices of a step.

    Keras's own `synchronized=True` computes the variance as E[x²] − E[x]², which loses precision.
    After convolutions its moving variance also differs from that of the layer it replaces.

    Args:
      unbiased: whether the moving variance divides by n − 1, as the fused kernel does.
      **kwargs: arguments of Keras's layer.
    """

    def __init__(self, unbiased: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.unbiased = unbiased

    def call(self, inputs: "tf.Tensor", training: Any = None, mask: Any = None) -> "tf.Tensor":
        """Normalises the inputs. Outside training it uses the moving averages, as Keras does.

        Raises:
          UsageError: in training, some time steps are masked.
        """
        if not (training and self.trainable):
            return super().call(inputs, training=training, mask=mask)
        if mask is not None:
            raise UsageError(
                f"layer {self.name!r} (BatchNormalization) gets a mask of time steps, which "
                "several devices cannot share: train with distribute=none"
            )
        x = tf.cast(inputs, self.moving_mean.dtype)
        over = [axis for axis in range(x.shape.rank) if axis not in self.axis]
        mean = mean_over_replicas(tf.reduce_mean(x, over, keepdims=True))
        variance = mean_over_replicas(
            tf.reduce_mean(tf.math.squared_difference(x, mean), over, keepdims=True)
        )
        kept = variance
        if self.unbiased:
            devices = tf.distribute.get_replica_context().num_replicas_in_sync
            count = tf.cast(devices * tf.size(x) // tf.size(mean), x.dtype)
            kept = variance * count / (count - 1)
        for average, value in ((self.moving_mean, mean), (self.moving_variance, kept)):
            step = (average - tf.reshape(value, average.shape)) * (1 - self.momentum)
            average.assign_sub(tf.stop_gradient(step))
        beta, gamma = (
            None if weight is None else tf.reshape(weight, mean.shape)
            for weight in (self.beta, self.gamma)
        )
        normalised = tf.nn.batch_normalization(x, mean, variance, beta, gamma, self.epsilon)
        return tf.cast(normalised, inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return super().get_config() | {"unbiased": self.unbiased}


def synchronise(network: "keras.Model") -> "keras.Model":
    """Returns a copy of a network with new weights, the same names and synchronised BatchNorm.

    Raises:
      UsageError: a custom layer contains a BatchNormalization, which cannot be replaced.
    """

    def replaced(layer: "keras.layers.Layer") -> "keras.layers.Layer":
        if type(layer) is keras.layers.BatchNormalization:
            config = layer.get_config() | {"unbiased": bool(layer.fused)}
            return SynchronisedBatchNorm.from_config(config)
        parts = layer._flatten_layers()
        if any(isinstance(part, keras.layers.BatchNormalization) for part in parts):
            raise UsageError(
                f"layer {layer.name!r} ({type(layer).__name__}) contains a BatchNormalization "
                "that several devices cannot share: train with distribute=none"
            )
        return copy_layer(layer)

    return rebuild(network, replaced)
