"""Draws new initial weights for a model, by its own initializers and a named seed."""

from typing import Any

from lotcal_tf.compat import keras
from lotcal_tf.models.keras_graph import copy_layer, rebuild
from lotcal_tf.models.stateless_dropout import StatelessDropout
from lotcal_tf.seeds import named_seed


def redraw(model: "keras.Model", seed: int, use: str, *indices: int) -> "keras.Model":
    """Returns a copy of a model with new weights.

    Layers that contain layers, and custom layers whose configuration does not show their
    initializers, draw from the global generators, which are first set from the same seed.

    Args:
      model: functional or sequential; may be nested.
      seed: the experiment's seed.
      use, *indices: see `seeds.named_seed`; the same values give the same weights.
    """
    keras.utils.set_random_seed(named_seed(seed, use, *indices)[0])
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

    return rebuild(model, reseeded)


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
