"""The initial weights of a model: their distributions, and new draws by a named seed."""

import math
import random
from typing import Any

import numpy as np

from lotcal_tf.compat import keras
from lotcal_tf.models.keras_graph import copy_layer, rebuild
from lotcal_tf.models.stateless_dropout import StatelessDropout
from lotcal_tf.seeds import named_seed


def with_starts(
    model: "keras.Model", use_bias: bool, bias_initializer: str, norm_initializer: str
) -> "keras.Model":
    """Returns a copy of a model whose biases and BatchNorm scales exist and start as named.

    Args:
      model: functional or sequential; may be nested.
      use_bias: False removes the biases of layers with a kernel. BatchNorm keeps its shift.
      bias_initializer: `zeros`; or `fan_in_uniform`: uniform in ±1/sqrt(fan_in), as in PyTorch's
        linear and convolutional layers. fan_in is the number of inputs of a unit or channel.
      norm_initializer: initial scales of BatchNorm: `ones`; or `uniform`: in (0, 1).
    """

    def changed(layer: "keras.layers.Layer") -> "keras.layers.Layer":
        config = layer.get_config()
        if config.get("use_bias"):
            config["use_bias"] = use_bias
            if bias_initializer == "fan_in_uniform":
                limit = 1 / math.sqrt(math.prod(layer.kernel.shape[:-1]))
                uniform = keras.initializers.RandomUniform(-limit, limit)
                config["bias_initializer"] = keras.initializers.serialize(uniform)
        if isinstance(layer, keras.layers.BatchNormalization) and norm_initializer == "uniform":
            uniform = keras.initializers.RandomUniform(0.0, 1.0)
            config["gamma_initializer"] = keras.initializers.serialize(uniform)
        return copy_layer(layer, config)

    return rebuild(model, changed)


def redraw(model: "keras.Model", seed: int, use: str, *indices: int) -> "keras.Model":
    """Returns a copy of a model with new weights.

    Layers that contain layers, and custom layers whose configuration does not show their
    initializers, draw from the global generators, which are first set from the same seed. Those of
    Python and NumPy are then set back.

    Args:
      model: functional or sequential; may be nested.
      seed: the experiment's seed.
      use, *indices: see `seeds.named_seed`; the same values give the same weights.
    """
    number = 0

    def reseeded(layer: "keras.layers.Layer") -> "keras.layers.Layer":
        nonlocal number
        # Dropout layers do not count, so that a seed gives the same weights with and without them.
        number += not isinstance(layer, StatelessDropout | keras.layers.Dropout)
        config = layer.get_config()
        # A layer that contains layers (attention, Bidirectional) draws several weights by one
        # configuration; with a fixed seed they would all be equal.
        composite = any(layer._flatten_layers(include_self=False))
        for place, initializer in enumerate(_initializers(config)):
            own = named_seed(seed, use, *indices, number, place)[0]
            initializer["config"]["seed"] = None if composite else own
        return copy_layer(layer, config)

    before = random.getstate(), np.random.get_state()
    try:
        keras.utils.set_random_seed(named_seed(seed, use, *indices)[0])
        return rebuild(model, reseeded)
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])


def _initializers(config: Any) -> list[dict[str, Any]]:
    """All serialised initializers with a seed in a layer's configuration, however deeply nested."""
    found: list[dict[str, Any]] = []
    if isinstance(config, dict):
        if "class_name" in config and "seed" in (config.get("config") or {}):
            found.append(config)
        for value in config.values():
            found += _initializers(value)
    elif isinstance(config, list | tuple):
        for value in config:
            found += _initializers(value)
    return found
