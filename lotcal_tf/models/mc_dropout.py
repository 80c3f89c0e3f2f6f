"""Dropout without state: its mask is a function of the training step's seed and the layer's name.

Keras's own keeps a hidden generator that no checkpoint holds, so a resumed run would differ.
"""

from typing import Any

import tensorflow as tf

from lotcal_tf.cloning import copy_layer, rebuild
from lotcal_tf.compat import keras
from lotcal_tf.errors import UsageError
from lotcal_tf.seeds import draw_seed

# A mask needs a few random bits an element, not a float: two decisions are cut from each draw.
_LEVELS = 1 << 16
_SPATIAL = {
    keras.layers.SpatialDropout1D: 1,
    keras.layers.SpatialDropout2D: 2,
    keras.layers.SpatialDropout3D: 3,
}


@keras.saving.register_keras_serializable("lotcal_tf")
class StatelessDropout(keras.layers.Layer):
    """Sets a share of its inputs to 0 in training and scales the others up (Srivastava 2014).

    Args:
      rate: share dropped, in [0, 1); held to a multiple of 1/65536 below 1.
      shared_axes: axes, counted from 0, along which one decision counts for all, e.g. (1, 2) for
        spatial dropout of images, channels last.
      **kwargs: of `keras.layers.Layer`.

    Raises:
      UsageError: the rate is outside [0, 1), or an axis is negative.
      RuntimeError: called with training=True outside a training step (see `seeds.step_seed`).
    """

    def __init__(self, rate: float, shared_axes: tuple[int, ...] = (), **kwargs: Any) -> None:
        """See the class."""
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise UsageError(f"dropout rate {rate}: must lie in [0, 1)")
        if any(axis < 0 for axis in shared_axes):
            raise UsageError(f"shared_axes {tuple(shared_axes)}: count axes from 0, the batch's")
        self.rate = rate
        self.shared_axes = tuple(shared_axes)

    def call(self, inputs: "tf.Tensor", training: bool | None = None) -> "tf.Tensor":
        """The inputs, unchanged outside training."""
        dropped = min(round(self.rate * _LEVELS), _LEVELS - 1)
        if not training or dropped == 0:
            return inputs
        shape = [
            1 if axis in self.shared_axes else size
            for axis, size in enumerate(tf.unstack(tf.shape(inputs)))
        ]
        keep = _random_levels(tf.stack(shape), draw_seed(self.name)) >= dropped
        scale = tf.cast(_LEVELS / (_LEVELS - dropped), inputs.dtype)
        return tf.where(keep, inputs * scale, tf.zeros_like(inputs))

    def get_config(self) -> dict[str, Any]:
        """Every argument of the constructor."""
        return super().get_config() | {"rate": self.rate, "shared_axes": list(self.shared_axes)}


def _random_levels(shape: "tf.Tensor", seed: "tf.Tensor") -> "tf.Tensor":
    """Whole numbers, int32, uniform in [0, 65536)."""
    count = tf.reduce_prod(shape)
    # Named, Philox compiles to the same numbers as it gives uncompiled (chosen by `auto_select`,
    # XLA's takes a negative seed otherwise), and 15 times faster.
    bits = tf.random.stateless_uniform(
        [(count + 1) // 2], seed, minval=None, maxval=None, dtype=tf.uint32, alg="philox"
    )
    halves = tf.stack(
        [bits & (_LEVELS - 1), tf.bitwise.right_shift(bits, tf.constant(16, tf.uint32))]
    )
    return tf.cast(tf.reshape(tf.reshape(halves, [-1])[:count], shape), tf.int32)


def replace_dropout(model: "keras.Model") -> "keras.Model":
    """A copy of the model, with new weights, whose dropout layers are stateless.

    Raises:
      UsageError: a layer of one's own holds a Keras dropout, which cannot be reached from here.
    """

    def replaced(layer: "keras.layers.Layer") -> "keras.layers.Layer":
        if type(layer) is keras.layers.Dropout:
            shape = layer.noise_shape or ()
            shared = tuple(axis for axis, size in enumerate(shape) if size == 1)
            return StatelessDropout(layer.rate, shared, name=layer.name)
        if type(layer) in _SPATIAL:
            first = 2 if getattr(layer, "data_format", None) == "channels_first" else 1
            axes = tuple(range(first, first + _SPATIAL[type(layer)]))
            return StatelessDropout(layer.rate, axes, name=layer.name)
        for inner in layer._flatten_layers(include_self=False):
            if isinstance(inner, keras.layers.Dropout) and inner.rate:
                raise UsageError(
                    f"layer {layer.name!r} ({type(layer).__name__}) holds a Keras Dropout, whose hidden state "
                    "no run can restore: use lotcal_tf.StatelessDropout in it"
                )
        return copy_layer(layer)

    return rebuild(model, replaced)


def restore_dropout(model: "keras.Model") -> "keras.Model":
    """A copy of the model, with new weights, whose stateless dropout is plain Keras dropout again."""

    def plain(layer: "keras.layers.Layer") -> "keras.layers.Layer":
        if not isinstance(layer, StatelessDropout):
            return copy_layer(layer)
        rank = len(layer.input_shape)
        shape = tuple(1 if axis in layer.shared_axes else None for axis in range(rank))
        noise_shape = shape if layer.shared_axes else None
        return keras.layers.Dropout(layer.rate, noise_shape=noise_shape, name=layer.name)

    return rebuild(model, plain)
