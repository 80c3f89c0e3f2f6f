"""Masking models: prunable layers wrapped in `Masked` and unwrapped, weights and masks by name."""

import difflib
import fnmatch
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from lotcal_tf.compat import keras
from lotcal_tf.errors import UsageError
from lotcal_tf.models.keras_graph import check_walkable, copy_layer, is_nested, rebuild
from lotcal_tf.pruning.masked import Masked, is_prunable, refuse_unknown


def leaf_layers(model: "keras.Model") -> Iterator[tuple[str, "keras.layers.Layer"]]:
    """Every layer of the model and of models nested in it, in model order, once, with its path.

    Yields:
      `("encoder/dense_1", layer)`; a wrapped layer goes by the name of what it wraps.
    """
    seen: set[int] = set()

    def walk(model: "keras.Model", prefix: str) -> Iterator[tuple[str, "keras.layers.Layer"]]:
        for layer in model.layers:
            if id(layer) in seen:
                continue
            seen.add(id(layer))
            if is_nested(layer):
                yield from walk(layer, f"{prefix}{layer.name}/")
            else:
                yield prefix + (layer.layer if isinstance(layer, Masked) else layer).name, layer

    yield from walk(model, "")


def output_layer(model: "keras.Model") -> str:
    """The name of the layer that makes the logits: the last that has a kernel to prune.

    Raises:
      UsageError: the model has no prunable layer at all.
    """
    names = [
        path
        for path, layer in leaf_layers(model)
        if isinstance(layer, Masked) or is_prunable(layer)
    ]
    if not names:
        raise UsageError("the model has no layer with weights to prune (Dense, Conv2D, …)")
    return names[-1]


def wrap(
    model: "keras.Model", exclude: Sequence[str] = (), whole: Collection[str] = ()
) -> "keras.Model":
    """A copy of the model, weights included, whose prunable layers are masked.

    Args:
      model: functional or sequential, built, maybe with models nested in it. A subclassed model
        takes part as a layer of one, by implementing TFMOT's `PrunableLayer`.
      exclude: names or paths of layers to leave whole; `*` and `?` stand for letters. A pattern
        that has them may fit no layer, as a recipe's does with another model; a name may not.
      whole: paths of layers to leave whole, as `leaf_layers` gives them.

    Raises:
      UsageError: the model is subclassed, or no weight of it is trainable; or a layer holds a kernel
        and nothing says whether it may be pruned; or a name in `exclude` is not a layer's.

    A layer with `trainable=False` is not pruned either.
    """
    check_walkable(model)
    if not model.trainable_weights:
        raise UsageError(
            f"model {model.name!r} is frozen: none of its weights is trainable; set model.trainable = True"
        )
    paths = {id(layer): path for path, layer in leaf_layers(model)}
    for name in exclude:
        if not set(name) & set("*?[") and not any(_fits(path, [name]) for path in paths.values()):
            near = difflib.get_close_matches(name, paths.values(), n=5, cutoff=0)
            raise UsageError(
                f"exclude={name}: none of the model's {len(paths)} layers has that name; near it "
                f"come {', '.join(near)}"
            )

    def masked(layer: "keras.layers.Layer") -> "keras.layers.Layer":
        left_whole = paths[id(layer)] in whole or _fits(paths[id(layer)], exclude)
        if left_whole or not layer.trainable:
            return copy_layer(layer)
        if is_prunable(layer):
            return Masked(copy_layer(layer))
        refuse_unknown(layer)
        return copy_layer(layer)

    wrapped = rebuild(model, masked)
    assign(wrapped, values(model))
    return wrapped


def _fits(path: str, patterns: Sequence[str]) -> bool:
    name = path.rpartition("/")[2]
    return any(fnmatch.fnmatchcase(text, p) for p in patterns for text in (path, name))


def strip(model: "keras.Model") -> "keras.Model":
    """A plain Keras copy of a wrapped model: no masks, every pruned weight exactly 0."""

    def plain(layer: "keras.layers.Layer") -> "keras.layers.Layer":
        return copy_layer(layer.layer if isinstance(layer, Masked) else layer)

    stripped = rebuild(model, plain)
    masks = mask_variables(model)
    kept = {
        name: tf.where(masks[name] > 0, value, tf.zeros_like(value)).numpy()
        if name in masks
        else value
        for name, value in values(model).items()
    }
    assign(stripped, kept)
    return stripped


def weight_variables(model: "keras.Model") -> dict[str, "tf.Variable"]:
    """The model's weights by path, `layer/kernel`; the same names whether wrapped or plain.

    A weight's place within its layer is added where two of a layer's weights share a name.
    """
    found: dict[str, tf.Variable] = {}
    for path, layer in leaf_layers(model):
        inner = layer.layer if isinstance(layer, Masked) else layer
        for place, weight in enumerate(inner.weights):
            name = f"{path}/{_base_name(weight)}"
            found[name if name not in found else f"{name}_{place}"] = weight
    return found


def frozen_weights(model: "keras.Model") -> list[str]:
    """The paths of the weights of layers with `trainable=False`, which keep their values."""
    frozen = {
        id(weight)
        for _, layer in leaf_layers(model)
        if not layer.trainable
        for weight in layer.weights
    }
    return [name for name, weight in weight_variables(model).items() if id(weight) in frozen]


def mask_variables(model: "keras.Model") -> dict[str, "tf.Variable"]:
    """The masks of a wrapped model, in model order, by the path of the weight they mask."""
    names = {id(weight): name for name, weight in weight_variables(model).items()}
    return {
        names[id(weight)]: mask
        for _, layer in leaf_layers(model)
        if isinstance(layer, Masked)
        for weight, mask in zip(layer.prunable_weights, layer.masks, strict=True)
    }


def values(model: "keras.Model") -> dict[str, Any]:
    """The weights as NumPy arrays, by path."""
    return {name: weight.numpy() for name, weight in weight_variables(model).items()}


def mismatches(variables: Mapping[str, "tf.Variable"], arrays: Mapping[str, Any]) -> list[str]:
    """Where arrays by path do not fit a model's variables: names and shapes, each in some words."""
    problems = [f"{name} is missing" for name in variables if name not in arrays]
    problems += [f"{name} is not in the model" for name in arrays if name not in variables]
    return problems + [
        f"{name} is {arrays[name].shape}, the model's {tuple(v.shape)}"
        for name, v in variables.items()
        if name in arrays and tuple(v.shape) != arrays[name].shape
    ]


def assign(model: "keras.Model", arrays: dict[str, Any]) -> None:
    """Sets the weights from arrays by path, all of them.

    Raises:
      UsageError: names or shapes differ; every difference is listed.
    """
    variables = weight_variables(model)
    problems = mismatches(variables, arrays)
    if problems:
        raise UsageError(f"the weights do not fit the model: {'; '.join(problems)}")
    for name, variable in variables.items():
        variable.assign(arrays[name])


def assign_masks(model: "keras.Model", masks: dict[str, Any]) -> None:
    """Sets the masks of a wrapped model from boolean arrays by the path of the weight they mask."""
    for name, variable in mask_variables(model).items():
        variable.assign(masks[name].astype("float32"))


def _base_name(variable: "tf.Variable") -> str:
    """`dense/kernel:0` → `kernel`."""
    return variable.name.rpartition("/")[2].partition(":")[0]
