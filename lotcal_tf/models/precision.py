"""Mixed precision: networks whose layers compute in 16 bits and keep their weights in float32."""

import contextlib
from collections.abc import Iterator
from typing import Any

from lotcal_tf.compat import keras
from lotcal_tf.models.keras_graph import copy_layer, is_nested, rebuild


@contextlib.contextmanager
def policy(name: str) -> Iterator[None]:
    """Inside it, new layers get this dtype policy of Keras; afterwards the caller's again."""
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(name)
    try:
        yield
    finally:
        # None is Keras's default, which follows `floatx`.
        default = before.name == keras.backend.floatx()
        keras.mixed_precision.set_global_policy(None if default else before)


def uses_float16(model: "keras.Model") -> bool:
    """Whether a layer computes in float16, so that the loss must be scaled."""
    return "float16" in _compute_dtypes(model)


def is_mixed(model: "keras.Model") -> bool:
    """Whether a layer computes in 16 bits."""
    return bool(_compute_dtypes(model) & {"float16", "bfloat16"})


def _compute_dtypes(model: "keras.Model") -> set[str]:
    # A model has the policy that was global when it was made, and computes nothing itself.
    return {layer.compute_dtype for layer in model._flatten_layers() if not is_nested(layer)}


def in_float32(model: "keras.Model") -> "keras.Model":
    """A copy of a model, with the same weights, in which every layer computes in float32.

    Returns:
      The copy, or the model itself if no layer computes in 16 bits.
    """
    if not is_mixed(model):
        return model
    with policy("float32"):
        copy = rebuild(
            model, lambda layer: copy_layer(layer, _config_in_float32(layer.get_config()))
        )
    copy.set_weights(model.get_weights())
    return copy


def _config_in_float32(config: Any) -> Any:
    """A layer's configuration with the dtype float32 in place of mixed policies, at any depth."""
    if isinstance(config, list | tuple):
        return [_config_in_float32(part) for part in config]
    if not isinstance(config, dict):
        return config
    return {
        key: "float32" if key == "dtype" and _is_mixed_policy(value) else _config_in_float32(value)
        for key, value in config.items()
    }


def _is_mixed_policy(value: Any) -> bool:
    name = value.get("config", {}).get("name") if isinstance(value, dict) else value
    return name in ("mixed_float16", "mixed_bfloat16", "float16", "bfloat16")
