"""The configuration of a layer of one Keras, as the other Keras takes it: Keras 3 and tf_keras.

Both write a layer's configuration in nearly the same form. What differs is in the tables here: names
of arguments, arguments that only one of them has, and functions that have the same name but compute
something else.
"""

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

from lotcal_tf.compat import keras, keras3
from lotcal_tf.errors import UsageError, first_line

# Arguments that Keras 3 calls differently, by class of the layer.
_NEW_NAMES: Mapping[str, Mapping[str, str]] = {"LeakyReLU": {"alpha": "negative_slope"}}
# Arguments that change how a value is computed, but not the value.
_WITHOUT_EFFECT = {"autocast", "flash_attention", "force_generator", "implementation", "rng_type"}
_WITHOUT_EFFECT |= {"seed", "trainable", "use_cudnn"}
# Arguments that belong to the layer's place in a model.
_OF_PLACE = {"batch_input_shape", "batch_shape", "input_shape", "input_length"}
_OF_PLACE |= {"query_shape", "key_shape", "value_shape"}
# Values that a layer without the argument has as well.
_USUAL: Mapping[str, Any] = {"data_format": "channels_last", "rms_scaling": False}
# Arguments that these classes take without naming them.
_TAKEN: Mapping[str, set[str]] = {"RNN": {"zero_output_for_mask"}}
# Arguments that tf_keras lists for these layers but does not use.
_UNUSED_BY = ("SeparableConv", "DepthwiseConv")
_UNUSED = {"kernel_initializer", "kernel_regularizer", "kernel_constraint"}
_OF_ANY_LAYER = {"name", "trainable", "dtype", "activity_regularizer"}
# Activations that the two compute differently, or that only Keras 3 has.
OWN_ACTIVATIONS = {"hard_sigmoid", "hard_silu", "hard_swish"}


class NoTwin(Exception):
    """Something that the other Keras does not have; the text continues "layer 'name' (Class) …"."""


@dataclasses.dataclass(frozen=True)
class Translation:
    """From one Keras to the other.

    Attributes:
      source, target: their modules.
      custom_objects: classes of custom layers and functions in the target, by name.
    """

    source: Any
    target: Any
    custom_objects: Mapping[str, Any]

    @classmethod
    def from_keras3(cls, custom_objects: Mapping[str, Any] | None = None) -> "Translation":
        """From Keras 3 to tf_keras."""
        return cls(keras3(), keras, dict(custom_objects or {}))

    @classmethod
    def to_keras3(cls, custom_objects: Mapping[str, Any] | None = None) -> "Translation":
        """From tf_keras to Keras 3."""
        return cls(keras, keras3(), dict(custom_objects or {}))

    @property
    def name(self) -> str:
        """The target as messages call it."""
        return "tf_keras" if self.target is keras else "Keras 3"

    def refusal(self, layer: Any, problem: object) -> UsageError:
        """The error for a layer without a twin; it names the way out."""
        kind = type(layer).__name__
        return UsageError(
            f"layer {layer.name!r} ({kind}) {problem}: use another layer in its place, or pass its "
            f"{self.name} class as custom_objects={{{kind!r}: …}}"
        )

    def layer(self, layer: Any, **changes: Any) -> Any:
        """A new layer of the target, not yet built.

        Args:
          layer: a layer of the source; not a model.
          **changes: values in its configuration that replace its own.

        Raises:
          UsageError: the target has no such layer.
        """
        try:
            target = self._class_of(layer)
            config = self._config({**layer.get_config(), **changes}, type(layer), target)
            with self.target.saving.custom_object_scope(dict(self.custom_objects)):
                # In tf_keras, `from_config` of attention wants shapes that only a built layer has.
                attention = target is keras.layers.MultiHeadAttention
                twin = target(**config) if attention else target.from_config(config)
        except NoTwin as error:
            raise self.refusal(layer, error) from error
        except (NotImplementedError, TypeError, ValueError) as error:
            line = first_line(error)
            raise self.refusal(layer, f"cannot be made in {self.name} ({line})") from error
        twin.trainable = layer.trainable
        return twin

    def _class_of(self, layer: Any) -> Any:
        """The class of a layer in the target."""
        kind = type(layer)
        if kind.__name__ in self.custom_objects:
            return self.custom_objects[kind.__name__]
        if kind.__name__ == "Lambda":
            raise NoTwin("holds Python code")
        if is_built_in(kind):
            found = getattr(self.target.layers, kind.__name__, None)
        else:
            registered = self.source.saving.get_registered_name(kind)
            found = self.target.saving.get_registered_object(registered)
        if found is None:
            raise NoTwin(f"does not exist in {self.name}")
        return found

    def _config(self, config: Mapping[str, Any], source: type, target: type) -> dict[str, Any]:
        """A configuration as the class `target` takes it."""
        new_names = _NEW_NAMES.get(source.__name__, {})
        if self.target is keras:
            new_names = {new: old for old, new in new_names.items()}
        defaults = {name: found.default for name, found in _parameters(source).items()}
        known = _parameters(target)
        translated = {}
        for name, value in config.items():
            new = new_names.get(name, name)
            if new in known or not is_built_in(target):
                drawn = new == "seed" and not isinstance(value, int)
                translated[new] = None if drawn else self._value(new, value)
            elif name in _UNUSED and source.__name__.startswith(_UNUSED_BY):
                continue
            elif name not in _OF_PLACE | _WITHOUT_EFFECT and value not in (
                defaults.get(name),
                _USUAL.get(name),
            ):
                raise NoTwin(f"has {name}={value!r}, which {self.name} does not have")
        return translated

    def _value(self, name: str, value: Any) -> Any:
        """One value of a configuration; initializers, policies and layers inside it are translated."""
        if name == "axis" and isinstance(value, list | tuple) and len(value) == 1:
            return value[0]  # BatchNormalization of Keras 3 takes no list
        if isinstance(value, list | tuple):
            found = [self._value(name, item) for item in value]
            return tuple(found) if isinstance(value, tuple) else found
        if isinstance(value, str) and name.endswith("activation") and value in OWN_ACTIVATIONS:
            raise NoTwin(f"has {name}={value!r}, which {self.name} computes differently")
        if not isinstance(value, Mapping):
            return value
        kind, config = str(value.get("class_name", "")), value.get("config")
        if not kind:
            return {key: self._value(key, item) for key, item in value.items()}
        if kind in ("DTypePolicy", "Policy") and isinstance(config, Mapping):
            return config["name"]
        module = str(value.get("module"))
        if module.split(".")[0] != "keras" or not isinstance(config, Mapping):
            return value  # A registered class or function, which is found by its name.
        if kind in ("Functional", "Sequential"):
            raise NoTwin("holds a model")
        source, target = _public(self.source, module, kind), _public(self.target, module, kind)
        if source is None or target is None:
            raise NoTwin(f"has {name}={kind}, which {self.name} does not have")
        config = self._config(config, source, target)
        return {"module": module, "class_name": kind, "config": config, "registered_name": None}


def is_built_in(kind: type) -> bool:
    """Whether a class is part of Keras 3 or tf_keras."""
    return kind.__module__.startswith(("keras.src.", "tf_keras.src."))


def _public(found: Any, module: str, name: str) -> Any:
    """A public class by the name of its module, e.g. `keras.initializers`; None: there is none."""
    for part in module.split(".")[1:]:
        found = getattr(found, part, None)
    return getattr(found, name, None)


def _parameters(kind: type) -> dict[str, inspect.Parameter]:
    """The arguments that a class's constructor takes, also those that it hands on, by name."""
    found: dict[str, inspect.Parameter] = {}
    for base in kind.__mro__:
        if "__init__" not in base.__dict__ or not is_built_in(base):
            continue
        own = inspect.signature(base.__dict__["__init__"]).parameters
        found = {**own, **found}
        if all(each.kind is not each.VAR_KEYWORD for each in own.values()):
            break
        found |= dict.fromkeys(_TAKEN.get(base.__name__, ()), _OPTIONAL)
        if base.__name__ == "Layer":
            found |= {name: own.get(name, _OPTIONAL) for name in _OF_ANY_LAYER}
    return {name: each for name, each in found.items() if name not in ("self", "args", "kwargs")}


_OPTIONAL = inspect.Parameter("optional", inspect.Parameter.KEYWORD_ONLY, default=None)
