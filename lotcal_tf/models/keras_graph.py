"""Copies Keras models layer by layer, including nested models.

Masking, unmasking and replacing dropout are such copies; each only defines what happens to one layer.
"""

import itertools
import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from lotcal_tf.compat import keras
from lotcal_tf.errors import UsageError
from lotcal_tf.models.safe_config import FIX

Replace = Callable[["keras.layers.Layer"], "keras.layers.Layer"]


def copy_layer(
    layer: "keras.layers.Layer", config: dict[str, Any] | None = None
) -> "keras.layers.Layer":
    """Returns a new, unbuilt layer with the layer's configuration, or with `config` if given.

    Raises:
      UsageError: the layer cannot be created from its own `get_config`.
    """
    try:
        copy = layer.__class__.from_config(config or layer.get_config())
    except (NotImplementedError, TypeError, ValueError) as error:
        raise UsageError(
            f"layer {layer.name!r} ({type(layer).__name__}) cannot be copied: its get_config must "
            f"return every argument of its constructor ({reason(error)}); a custom class or function: {FIX}"
        ) from error
    # Weights are found by the layer's name, which the configuration of a custom layer may lack.
    copy._name = layer.name
    return copy


def reason(error: Exception) -> str:
    """The first sentence of an error message, without the configuration that Keras repeats."""
    text = (str(error).strip() or type(error).__name__).rpartition("Exception encountered:")[2]
    text = re.sub(r"\s*'?\{.*\}'?", "", text)
    return " ".join(text.split()).partition(". ")[0][:200]


def is_nested(layer: "keras.layers.Layer") -> bool:
    """Whether a layer is itself a functional or sequential model."""
    return isinstance(layer, keras.Model) and bool(layer._is_graph_network)


def check_walkable(model: "keras.Model") -> None:
    """Checks that a model's layers can be copied one by one.

    Raises:
      UsageError: the model is subclassed, or sequential and not built yet.
    """
    if isinstance(model, keras.Sequential) and not model.built:
        raise UsageError(
            f"model {model.name!r} has no weights yet: let it begin with keras.Input(shape)"
        )
    if not is_nested(model):
        raise UsageError(
            f"{type(model).__name__} is a subclassed model, and a functional or sequential one is needed: implement "
            "tfmot.sparsity.keras.PrunableLayer and get_config in it, and put it into a functional model: "
            "x = keras.Input(…); keras.Model(x, model(x))"
        )


def rebuild(model: "keras.Model", replace: Replace) -> "keras.Model":
    """Returns a copy of a model in which each layer is replaced; the copy has new weights.

    Args:
      model: functional or sequential; layers of nested models are replaced too.
      replace: returns the new layer for a layer; called once per layer, also for shared layers.
    """
    # Layers that several nested models share stay shared.
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


def steps(model: "keras.Model") -> list[Any]:
    """The layer calls (nodes) of a functional or sequential model, in topological order."""
    depths = sorted(model._nodes_by_depth, reverse=True)
    return [node for depth in depths for node in model._nodes_by_depth[depth] if not node.is_input]


def replay(model: "keras.Model", inputs: Sequence[Any], call: Callable[..., Any]) -> list[Any]:
    """Calls a model's layers again on other inputs.

    Args:
      model: functional or sequential.
      inputs: one value for each input of the model.
      call: `call(layer, *args, **kwargs)` returns the value for the layer's output.

    Returns:
      The values for the model's outputs.
    """
    uses = model._tensor_usage_count
    known = {str(id(x)): [y] * uses[str(id(x))] for x, y in zip(model.inputs, inputs, strict=True)}
    for node in steps(model):
        args, kwargs = node.map_arguments(known)
        outputs = tf.nest.flatten(call(node.layer, *args, **kwargs))
        known |= {
            name: [y] * uses[name] for name, y in zip(node.flat_output_ids, outputs, strict=True)
        }
    return [known[str(id(x))].pop() for x in model.outputs]


def replayed(
    model: "keras.Model",
    call: Callable[..., Any],
    name_of: Callable[["keras.layers.Layer"], str] = lambda layer: layer.name,
) -> "keras.Model":
    """Replays a model on new inputs and returns the result as a functional model.

    Args:
      model, call: see `replay`.
      name_of: returns the new name of the model and of its input layers.
    """
    inputs = [keras.Input(batch_shape=x.shape, dtype=x.dtype) for x in model.inputs]
    for given, new in zip(model.inputs, inputs, strict=True):
        new.node.layer._name = name_of(given.node.layer)
    outputs = replay(model, inputs, call)
    return keras.Model(inputs, outputs if len(outputs) > 1 else outputs[0], name=name_of(model))


def with_free_batch(model: "keras.Model") -> "keras.Model":
    """Returns a copy of a model with a fixed batch size that takes batches of any size.

    The weights are copied. A model with a free batch size is returned as it is.

    Args:
      model: functional or sequential; may be nested.

    Raises:
      UsageError: a recurrent layer keeps its state between batches, so that it needs the fixed size.
    """
    layers = model._flatten_layers()
    inputs = [layer for layer in layers if isinstance(layer, keras.layers.InputLayer)]
    inputs += [x.node.layer for x in model.inputs]
    if all(layer._batch_input_shape[0] is None for layer in inputs):
        return model
    kinds = {}
    for layer in model._flatten_layers():
        if getattr(layer, "stateful", False) and isinstance(layer, keras.layers.RNN):
            raise UsageError(
                f"layer {layer.name!r} ({type(layer).__name__}) has stateful=True, so that the result for a "
                "batch depends on the batches before: a layer without state is needed (stateful=False)"
            )
        kinds[type(layer).__name__] = type(layer)

    def freed(config: Any) -> Any:
        if isinstance(config, dict):
            free = {key: freed(value) for key, value in config.items()}
            if config.get("batch_input_shape"):
                free["batch_input_shape"] = [None, *config["batch_input_shape"][1:]]
            free.pop("build_config", None)  # Layers would be built for the fixed size.
            return free
        return [freed(value) for value in config] if isinstance(config, list) else config

    with keras.saving.custom_object_scope(kinds):
        copy = type(model).from_config(freed(model.get_config()))
    copy.set_weights(model.get_weights())
    return copy


def with_stable_names(model: "keras.Model") -> "keras.Model":
    """Renames automatically named layers of a model, counting from 1 within the model.

    Keras counts over the process: the second model of a notebook has a layer `dense_2` where the
    first one has `dense`, and its masks and weights would not be found by name. Layers are renamed
    in nested models and inside other layers (of `Bidirectional`, say) too. A model whose names need
    no change is returned as it is.

    Args:
      model: functional or sequential; may be nested.

    Returns:
      A copy with the same weights, or the model itself if no name changes.
    """
    names = _stable_names(model)
    configs, changed = {}, False
    for key, (layer, _) in names.items():
        if not is_nested(layer):
            configs[key], inside = _stable_config(layer)
            changed = changed or inside
    if all(layer.name == name for layer, name in names.values()) and not changed:
        return model
    made: dict[int, tuple[keras.layers.Layer, keras.layers.Layer]] = {}

    def name_of(layer: "keras.layers.Layer") -> str:
        return names[id(layer)][1]

    def renamed(layer: "keras.layers.Layer") -> "keras.layers.Layer":
        if id(layer) not in made:
            copy = renamed_model(layer) if is_nested(layer) else renamed_leaf(layer)
            copy._name = name_of(layer)
            made[id(layer)] = (layer, copy)
        return made[id(layer)][1]

    def renamed_leaf(layer: "keras.layers.Layer") -> "keras.layers.Layer":
        config = configs[id(layer)]
        # Keras may repeat the arguments that a layer was made with, the name among them.
        named = {"name": name_of(layer)} if "name" in config else {}
        return copy_layer(layer, config | named)

    def renamed_model(model: "keras.Model") -> "keras.Model":
        if not isinstance(model, keras.Sequential):
            return replayed(model, lambda layer, *a, **k: renamed(layer)(*a, **k), name_of)
        (given,) = model.inputs
        first = keras.Input(
            batch_shape=given.shape, dtype=given.dtype, name=name_of(given.node.layer)
        )
        return keras.Sequential([first, *map(renamed, model.layers)], name=name_of(model))

    copy = renamed_model(model)
    for layer, new in made.values():
        new.set_weights(layer.get_weights())
    return copy


def _stable_names(model: "keras.Model") -> dict[int, tuple["keras.layers.Layer", str]]:
    """All layers and nested models and the model itself, each with its new name, by id."""
    found: dict[int, keras.layers.Layer] = {}

    def walk(layer: "keras.layers.Layer") -> None:
        """Visits layers in the order in which a program usually makes them."""
        if id(layer) in found:
            return
        if is_nested(layer):
            parts = [*(x.node.layer for x in layer.inputs), *layer.layers]
            if not isinstance(layer, keras.Sequential):  # Models that it calls are made before it.
                parts.sort(key=lambda part: not is_nested(part))
            for part in parts:
                walk(part)
        found[id(layer)] = layer

    walk(model)
    stems = {key: _automatic_stem(layer) for key, layer in found.items()}
    taken = {layer.name for key, layer in found.items() if not stems[key]}
    names = {}
    for key, layer in found.items():
        name = _free_name(stems[key], taken) if stems[key] else layer.name
        names[key] = layer, name
    # The input of a sequential model is named after its first layer.
    after = {f"{layer.name}_input": f"{name}_input" for layer, name in names.values()}
    # The inputs of a model that was built with a dictionary are named by its keys, as in the data.
    given = getattr(model, "_nested_inputs", None)
    keys = {id(x.node.layer): key for key, x in given.items()} if isinstance(given, dict) else {}
    for key, (layer, name) in names.items():
        if isinstance(layer, keras.layers.InputLayer):
            names[key] = layer, keys.get(key, after.get(name, name))
    return names


def _free_name(stem: str, taken: set[str]) -> str:
    """The first automatic name that is free, counted as Keras does; adds it to `taken`."""
    numbered = (f"{stem}_{n}" for n in itertools.count(1))
    name = next(n for n in itertools.chain([stem], numbered) if n not in taken | {"input"})
    taken.add(name)
    return name


def _automatic_stem(layer: "keras.layers.Layer") -> str:
    """What Keras's automatic name of a layer begins with; empty if the user chose the name."""
    if type(layer).__module__.endswith(".tf_op_layer"):  # of a bare operation, `tf.math.abs_1`
        return re.sub(r"_\d+$", "", layer.name)
    return _stem(type(layer).__name__, layer.name)


def _stem(kind: str, name: str) -> str:
    """The beginning of automatic names of a class of layers; empty if `name` is not such a name."""
    words = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", kind)  # as Keras makes its names
    snake = re.sub(r"([a-z])([A-Z])", r"\1_\2", words).lower()
    snake = f"private{snake}" if snake.startswith("_") else snake
    stem = {"Functional": "model", "InputLayer": "input"}.get(kind, snake)
    return stem if re.fullmatch(rf"{stem}(_\d+)?", name) else ""


def _stable_config(layer: "keras.layers.Layer") -> tuple[dict[str, Any], bool]:
    """A layer's configuration with layers inside it renamed, and whether any needed a new name.

    The configuration is empty if the layer has none, which `copy_layer` reports.
    """
    try:
        config = layer.get_config()
    except NotImplementedError:
        return {}, False
    taken: set[str] = set()

    def renamed(part: Any) -> Any:
        """The part with new names; the same object where it needs none."""
        if isinstance(part, list | tuple):
            items = [renamed(item) for item in part]
            return part if all(map(operator.is_, items, part)) else items
        # The names in a model's configuration also stand in its connections: it stays as it is.
        if not isinstance(part, dict) or "layers" in part:
            return part
        values = {key: renamed(value) for key, value in part.items()}
        part = part if all(values[key] is part[key] for key in part) else values
        inner = part.get("config")
        if "class_name" in part and isinstance(inner, dict) and "name" in inner:
            stem = _stem(str(part["class_name"]), str(inner["name"]))
            name = _free_name(stem, taken) if stem else inner["name"]
            if name != inner["name"]:
                part = {**part, "config": {**inner, "name": name}}
        return part

    found = renamed(config)
    return found, found is not config


def flatten(model: "keras.Model") -> "keras.Model":
    """Returns a functional copy with the same weights in which no model is nested.

    A layer of a nested model is named by its path, e.g. `encoder_dense_1`. Shared layers stay shared.

    Raises:
      UsageError: the model is subclassed or not built, or a layer cannot be copied.
    """
    check_walkable(model)
    made: dict[int, tuple[keras.layers.Layer, keras.layers.Layer]] = {}
    names: set[str] = set()

    def copied(layer: "keras.layers.Layer", prefix: str) -> "keras.layers.Layer":
        if id(layer) not in made:
            copy, name = copy_layer(layer), prefix + layer.name
            while name in names:
                name += "_"
            names.add(name)
            copy._name = name
            made[id(layer)] = (layer, copy)
        return made[id(layer)][1]

    def calling(prefix: str) -> Callable[..., Any]:
        def call(layer: "keras.layers.Layer", *args: Any, **kwargs: Any) -> Any:
            if is_nested(layer):
                # In the order of the nested model's inputs, also from a dictionary.
                given = layer._flatten_to_reference_inputs(args[0])
                return replay(layer, given, calling(f"{prefix}{layer.name}_"))
            return copied(layer, prefix)(*args, **kwargs)

        return call

    flat = replayed(model, calling(""))
    for layer, copy in made.values():
        copy.set_weights(layer.get_weights())
    return flat
