"""What the convolutional networks are compared with: their layers by hand, in NumPy, float64."""

import types

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from lotcal_tf.compat import keras
from lotcal_tf.config import registry
from lotcal_tf.models.keras_graph import copy_layer, rebuild
from lotcal_tf.models.stateless_dropout import StatelessDropout, plain_dropout
from lotcal_tf.pruning import masking


def convolve(x, kernel, stride=1):
    """PyTorch's: as many zeros on both sides as keep the size at stride 1."""
    around = kernel.shape[0] // 2
    x = np.pad(x, [(0, 0), (around, around), (around, around), (0, 0)])
    windows = sliding_window_view(x, kernel.shape[:2], (1, 2))[:, ::stride, ::stride]
    return np.einsum("nhwcij,ijco->nhwo", windows, kernel)


def normalise(x, weights, layer):
    """BatchNorm outside training."""
    gamma, beta, mean, variance = (
        weights[f"{layer}/{part}"] for part in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    return (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta


def relu(x):
    return np.maximum(x, 0)


def randomise(model, seed=0):
    """Sets every weight, BatchNorm's moving ones too, at random; gives them by path, float64."""
    draw = np.random.default_rng(seed)
    weights = {
        path: (
            draw.uniform(0.5, 2, value.shape)
            if path.endswith(("variance", "gamma"))
            else draw.normal(size=value.shape) / np.sqrt(max(1, np.prod(value.shape[:-1])))
        ).astype("float32")
        for path, value in masking.values(model).items()
    }
    masking.assign(model, weights)
    return {path: value.astype("float64") for path, value in weights.items()}


def build(
    module,
    name,
    shape,
    classes=10,
    initializer=keras.initializers.GlorotNormal,
    dropout=lambda place, x: x,
):
    """The network of one module, without what `build_model` adds."""
    inputs = keras.Input(shape, name="inputs")
    arguments = registry.model(name)[1]
    return keras.Model(inputs, module.build(inputs, classes, initializer, dropout, **arguments))


def trainable(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


@pytest.fixture(scope="session")
def with_keras_dropout():
    """Makes a copy of a model with new weights, in which stateless dropout is Keras's."""

    def plain(layer):
        return plain_dropout(layer) if isinstance(layer, StatelessDropout) else copy_layer(layer)

    return lambda model: rebuild(model, plain)


@pytest.fixture(scope="session")
def by_hand():
    functions = (convolve, normalise, relu, randomise, build, trainable)
    return types.SimpleNamespace(**{function.__name__: function for function in functions})
