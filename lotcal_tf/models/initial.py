"""Fresh weights for a model, drawn by its own initializers from a named seed."""

from typing import Any

from lotcal_tf.compat import keras
from lotcal_tf.models.keras_graph import copy_layer, rebuild
from lotcal_tf.models.stateless_dropout import StatelessDropout
from lotcal_tf.seeds import named_seed


def redraw(model: "keras.Model", seed: int, use: str, *indices: int) -> "keras.Model":
    """A copy of the model with all its weights drawn anew.

    Args:
      model: functional or sequential, maybe nested.
      seed: the experiment's.
      use, *indices: name the draw (see `seeds.named_seed`): the same ones give the same weights.

    A layer whose weights come from initializers its configuration does not show (in a layer of
    one's own), or that is made of layers, draws from the global generators, which are set from the
    same seed first.
    """
    keras.utils.set_random_seed(named_seed(seed, use, *indices)[0])
    number = 0

    def reseeded(layer: "keras.layers.Layer") -> "keras.layers.Layer":
        nonlocal number
        # Dropout is not counted: with it and without, a seed gives the same weights.
        number += not isinstance(layer, StatelessDropout | keras.layers.Dropout)
        config = layer.get_config()
        # A layer made of layers (attention, Bidirectional) makes several weights from one
        # configuration: of one seed they would all come out the same.
        composite = any(layer._flatten_layers(include_self=False))
        for place, initializer in enumerate(_initializers(config)):
            own = named_seed(seed, use, *indices, number, place)[0]
            initializer["config"]["seed"] = None if composite else own
        return copy_layer(layer, config)

    return rebuild(model, reseeded)


def _initializers(config: Any) -> list[dict[str, Any]]:
    """The serialised initializers, anywhere in a layer's configuration, that take a seed."""
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
