"""Copies of Keras models, layer by layer, into nested models too, with their weights.

Wrapping, stripping and replacing dropout are all such copies; each names only what it does to one
layer.
"""

from collections.abc import Callable
from typing import Any

from lotcal_tf.compat import keras
from lotcal_tf.errors import UsageError

Replace = Callable[["keras.layers.Layer"], "keras.layers.Layer"]


def copy_layer(
    layer: "keras.layers.Layer", config: dict[str, Any] | None = None
) -> "keras.layers.Layer":
    """A new, unbuilt layer of the same configuration, or of `config` where that is given.

    Raises:
      UsageError: the layer cannot be made from its own `get_config`.
    """
    try:
        copy = layer.__class__.from_config(config or layer.get_config())
    except (NotImplementedError, TypeError, ValueError) as error:
        raise UsageError(
            f"layer {layer.name!r} ({type(layer).__name__}) cannot be copied: its get_config must "
            f"name every argument of its constructor ({str(error).splitlines()[0]})"
        ) from error
    # A configuration of one's own may leave the name out; weights are found by it.
    copy._name = layer.name
    return copy


def is_nested(layer: "keras.layers.Layer") -> bool:
    """Whether the layer is itself a functional or sequential model, whose layers can be walked."""
    return isinstance(layer, keras.Model) and bool(layer._is_graph_network)


def check_walkable(model: "keras.Model") -> None:
    """Raises UsageError where the model's layers cannot be walked: it is subclassed or unbuilt."""
    if isinstance(model, keras.Sequential) and not model.built:
        raise UsageError(f"model {model.name!r} has no weights yet: give it an Input")
    if not is_nested(model):
        raise UsageError(
            f"{type(model).__name__} is a subclassed model, whose layers cannot be walked: let it implement "
            "tfmot.sparsity.keras.PrunableLayer and get_config, and put it into a functional model: "
            "x = keras.Input(…); keras.Model(x, model(x))"
        )


def rebuild(model: "keras.Model", replace: Replace) -> "keras.Model":
    """The model with each of its layers replaced, nested models kept as such; weights are new.

    Args:
      model: functional or sequential; layers inside nested models of these kinds count as its own.
      replace: gives the new layer for a layer; called once for each layer, shared ones included.
    """
    # Also what models nested in each other share stays shared.
    made: dict[int, keras.layers.Layer] = {}

    def replace_any(layer: "keras.layers.Layer") -> "keras.layers.Layer":
        if id(layer) not in made:
            made[id(layer)] = (
                keras.models.clone_model(layer, clone_function=replace_any)
                if is_nested(layer)
                else replace(layer)
            )
        return made[id(layer)]

    return replace_any(model)
