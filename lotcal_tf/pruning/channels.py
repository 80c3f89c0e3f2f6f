"""What each kind of layer does to channels, for compaction."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lotcal_tf.compat import keras
from lotcal_tf.models.stateless_dropout import StatelessDropout, StrategyDropout

_L = keras.layers
LINEAR = {_L.Dense: "units", _L.Conv1D: "filters", _L.Conv2D: "filters", _L.Conv3D: "filters"}
_MERGES = (_L.Add, _L.Subtract, _L.Average, _L.Maximum, _L.Minimum, _L.Multiply)
# Apply one function to each value, so that a constant channel stays constant.
_ELEMENTWISE = (_L.Activation, _L.ReLU, _L.LeakyReLU, _L.ELU, _L.ThresholdedReLU)
# Work on each channel separately and leave a constant channel unchanged, whatever their padding; those that are
# random in training do nothing outside it.
_CONSTANT_KEEPING = (
    _L.MaxPooling1D,
    _L.MaxPooling2D,
    _L.MaxPooling3D,
    _L.AveragePooling1D,
    _L.AveragePooling2D,
    _L.AveragePooling3D,
    _L.GlobalAveragePooling1D,
    _L.GlobalAveragePooling2D,
    _L.GlobalAveragePooling3D,
    _L.GlobalMaxPooling1D,
    _L.GlobalMaxPooling2D,
    _L.GlobalMaxPooling3D,
    _L.Dropout,
    _L.SpatialDropout1D,
    _L.SpatialDropout2D,
    _L.SpatialDropout3D,
    _L.AlphaDropout,
    _L.GaussianDropout,
    _L.GaussianNoise,
    StatelessDropout,
    StrategyDropout,
    _L.Cropping1D,
    _L.Cropping2D,
    _L.Cropping3D,
)
_ZERO_KEEPING = (_L.ZeroPadding1D, _L.ZeroPadding2D, _L.ZeroPadding3D)
_A = keras.activations
_POINTWISE = {
    *(_A.linear, _A.relu, _A.elu, _A.selu, _A.gelu, _A.swish, _A.sigmoid, _A.hard_sigmoid),
    *(_A.tanh, _A.softplus, _A.softsign, _A.exponential),
}


def kind_of(layer: "keras.layers.Layer", inputs: Sequence["keras.KerasTensor"]) -> str:
    """The kind of a layer, by what it does to channels.

    Returns:
      `linear`: makes new channels.
      `depthwise` (without padding), `batch_norm`, `elementwise`: work on each channel separately and
        turn a constant channel into another constant.
      `constant_keeping`: works on each channel separately and keeps a constant.
      `zero_keeping`: works on each channel separately and keeps the constant 0 only.
      `merge`: combines the corresponding channels of several tensors.
      `concatenate`: appends the channels of several tensors.
      `flatten`: repeats channels.
      `opaque`: any other layer.
    """
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        return "opaque"
    kind = type(layer)
    if kind in LINEAR:
        known = getattr(layer, "groups", 1) == 1 and layer.activation in _POINTWISE
        return "linear" if known else "opaque"
    if kind is _L.DepthwiseConv2D:
        known = layer.depth_multiplier == 1 and layer.activation in _POINTWISE
        return "depthwise" if known else "opaque"
    if kind is _L.BatchNormalization:
        return "batch_norm" if tuple(layer.axis) == (inputs[0].shape.rank - 1,) else "opaque"
    if kind is _L.Activation:
        return "elementwise" if layer.activation in _POINTWISE else "opaque"
    if kind is _L.Rescaling:
        return "elementwise" if np.ndim(layer.scale) == np.ndim(layer.offset) == 0 else "opaque"
    if kind in _ELEMENTWISE:
        return "elementwise"
    if kind in _CONSTANT_KEEPING:
        return "constant_keeping"
    if kind in _ZERO_KEEPING:
        return "zero_keeping"
    if kind is _L.Flatten:
        return "flatten" if inputs[0].shape[-1] else "opaque"
    if kind in _MERGES:
        return "merge" if len({tuple(x.shape) for x in inputs}) == 1 else "opaque"
    if kind is _L.Concatenate:
        last = layer.axis in (-1, inputs[0].shape.rank - 1)
        return "concatenate" if last else "opaque"
    return "opaque"


def flat_kernel(layer: Any) -> NDArray[np.float64]:
    """The kernel of a linear layer as `(positions, inputs, outputs)`; dense layers have 1 position."""
    kernel = np.asarray(layer.get_weights()[0], np.float64)
    return kernel.reshape(-1, *kernel.shape[-2:])


def bias(layer: Any) -> NDArray[np.float64]:
    """The bias `(outputs,)` of a linear or depthwise layer; zeros if it has none."""
    if layer.use_bias:
        return np.asarray(layer.get_weights()[1], np.float64)
    return np.zeros(layer.get_weights()[0].shape[-2 if type(layer) is _L.DepthwiseConv2D else -1])


def foldable(layer: Any, constant: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether a bias can replace each constant input: always, but with padding only if it is 0."""
    padded = getattr(layer, "padding", "valid") != "valid" and max(layer.kernel_size) > 1
    return constant == 0 if padded else np.isfinite(constant)


def gather_constants(kernel: NDArray[np.float64], constant: NDArray[np.float64]) -> None:
    """Replaces all constant inputs of a padded convolution by one of them; changes `kernel` in place.

    A bias cannot replace a constant input, since the padding around it is 0. But constant inputs are
    multiples of each other, so that one of them suffices, with the weighted sum of their kernels.
    """
    fixed = np.flatnonzero(np.isfinite(constant) & (kernel != 0).any((0, 2)))
    if len(fixed) < 2:
        return
    one = fixed[np.argmax(np.abs(constant[fixed]))]
    kernel[:, one] = np.einsum("i,pio->po", constant[fixed] / constant[one], kernel[:, fixed])
    kernel[:, fixed[fixed != one]] = 0


def folded(layer: Any, constant: NDArray[np.float64]) -> NDArray[np.float64]:
    """The contribution `(outputs,)` of the constant inputs that a bias can replace."""
    values = np.where(foldable(layer, constant), constant, 0.0)
    return np.einsum("i,pio->o", values, flat_kernel(layer))


def activated(activation: Any, value: NDArray[np.float64]) -> NDArray[np.float64]:
    """An activation applied to values, in float64."""
    return np.asarray(activation(tf.constant(value, tf.float64)))


def normalisation(layer: Any, channels: int) -> list[NDArray[np.float64]]:
    """γ, β, moving mean and moving variance of a BatchNorm, `(channels,)` each."""
    weights = iter(np.asarray(weight, np.float64) for weight in layer.get_weights())
    gamma = next(weights) if layer.scale else np.ones(channels)
    beta = next(weights) if layer.center else np.zeros(channels)
    return [gamma, beta, next(weights), next(weights)]
