"""Masking layers: Keras layers whose prunable weights are multiplied by a mask of zeros and ones.

The product stands in for the weight while the wrapped layer computes, so a pruned weight
contributes exactly 0 and receives a gradient of exactly 0, whatever the optimizer, the layer or the
training loop do. TFMOT's registry says which weights of which layers are prunable; a layer of
one's own says so itself by TFMOT's `PrunableLayer`.
"""

import contextlib
import difflib
import fnmatch
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf
from tensorflow_model_optimization.python.core.sparsity.keras import prune_registry

from lotcal_tf.cloning import check_walkable, copy_layer, is_nested, rebuild
from lotcal_tf.compat import keras, tfmot
from lotcal_tf.errors import UsageError

PrunableLayer = tfmot.sparsity.keras.PrunableLayer


def _places(layer: "keras.layers.Layer", weight: "tf.Variable") -> list[tuple[dict[str, Any], str]]:
    """The attributes, as (dictionary, key), by which `layer` or a layer inside it reads `weight`."""
    found = [
        (part.__dict__, name)
        for part in layer._flatten_layers()
        for name, value in part.__dict__.items()
        if value is weight
    ]
    if not found:
        raise UsageError(
            f"layer {layer.name!r} ({type(layer).__name__}): its prunable weight {weight.name!r} is "
            "no attribute of the layer; keep it as one (self.kernel = self.add_weight(…))"
        )
    return found


@contextlib.contextmanager
def _standing_in(
    places: Sequence[tuple[dict[str, Any], str]], values: Sequence[Any]
) -> Iterator[None]:
    """Lets `values` be read at `places`; what stood there comes back, also after an error."""
    originals = [attributes[name] for attributes, name in places]
    # Straight into __dict__: Keras's own attribute setting would track the tensors.
    for (attributes, name), value in zip(places, values, strict=True):
        attributes[name] = value
    try:
        yield
    finally:
        for (attributes, name), original in zip(places, originals, strict=True):
            attributes[name] = original


@keras.saving.register_keras_serializable("lotcal_tf")
class Masked(keras.layers.Wrapper):
    """Wraps a layer and masks its prunable weights.

    Args:
      layer: a layer that `is_prunable`; it is wrapped as it is, not copied.
      mask_shapes: known of a saved layer, and needed where its weights are only made in its first
        call (attention).
      **kwargs: of `keras.layers.Wrapper`, e.g. `name` (default: `masked_` and the layer's).

    Attributes:
      layer: the wrapped layer.
      masks: after building, one float32 variable of zeros and ones a prunable weight, not
        trainable, in the weights' shapes and order.

    Raises:
      UsageError: the layer has no prunable weights.
    """

    def __init__(
        self, layer: "keras.layers.Layer", mask_shapes: Sequence[Sequence[int]] = (), **kwargs: Any
    ) -> None:
        """See the class."""
        if not is_prunable(layer):
            raise UsageError(
                f"layer {layer.name!r} ({type(layer).__name__}) has no prunable weights"
            )
        kwargs.setdefault("name", f"masked_{layer.name}")
        # The layer's own policy, and its own casting of inputs: an Embedding's are not to be cast.
        kwargs.setdefault("dtype", layer._dtype_policy)
        super().__init__(layer, autocast=False, **kwargs)
        self._mask_shapes = mask_shapes
        self.masks: list[tf.Variable] = []

    def build(self, input_shape: Any) -> None:
        """Builds the wrapped layer, and a mask of ones for each of its prunable weights."""
        if not self.layer.built:
            # Named here as Keras would name them outside a wrapper: scopes tell layers apart.
            with tf.name_scope(self.layer.name):
                self.layer.build(input_shape)
            self.layer.built = True
        weights = self.prunable_weights if self._has_weights() else []
        for weight in weights:
            _places(self.layer, weight)  # An error here is told as it is; in `call` Keras wraps it.
        self._add_masks([weight.shape for weight in weights] or self._mask_shapes)
        self.built = True

    def _has_weights(self) -> bool:
        """False while the layer makes its weights in its first call only, as attention does."""
        try:
            return bool(self.prunable_weights)
        except AttributeError:
            return False

    def _add_masks(self, shapes: Sequence[Sequence[int]]) -> None:
        self.masks = [
            self.add_weight(
                name=f"mask_{place}",
                shape=shape,
                initializer="ones",
                trainable=False,
                dtype=tf.float32,
            )
            for place, shape in enumerate(shapes)
        ]

    @property
    def prunable_weights(self) -> list["tf.Variable"]:
        """The wrapped layer's weights that are masked."""
        return _prunable_weights(self.layer)

    def call(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """The wrapped layer's output with every pruned weight 0."""
        if not self._has_weights():
            self.layer(inputs, *args, **kwargs)
        if not self.masks:
            with tf.init_scope():
                self._add_masks([weight.shape for weight in self.prunable_weights])
        places, masked = [], []
        for weight, mask in zip(self.prunable_weights, self.masks, strict=True):
            product = weight * tf.cast(mask, weight.dtype)
            for place in _places(self.layer, weight):
                places.append(place)
                masked.append(product)
        with _standing_in(places, masked):
            return self.layer(inputs, *args, **kwargs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The wrapped layer's."""
        return self.layer.compute_output_shape(input_shape)

    def get_config(self) -> dict[str, Any]:
        """Every argument of the constructor."""
        shapes = [mask.shape for mask in self.masks] or self._mask_shapes
        return super().get_config() | {"mask_shapes": [list(shape) for shape in shapes]}

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> "Masked":
        """The layer of a configuration; the wrapped one may be a registered layer of one's own."""
        config = dict(config)
        inner = config.pop("layer")
        # By the name it is registered under: `Wrapper` and Keras's older formats take the class's.
        name = inner.get("registered_name") or inner["class_name"]
        inner = {"class_name": name, "config": inner["config"]}
        layer = keras.layers.deserialize(inner, custom_objects, use_legacy_format=True)
        return cls(layer, **config)


def _base_name(variable: "tf.Variable") -> str:
    """`dense/kernel:0` → `kernel`."""
    return variable.name.rpartition("/")[2].partition(":")[0]


def _prunable_weights(layer: "keras.layers.Layer") -> list["tf.Variable"]:
    if not hasattr(layer, "get_prunable_weights"):
        prune_registry.PruneRegistry.make_prunable(layer)
    return list(layer.get_prunable_weights())


def is_prunable(layer: "keras.layers.Layer") -> bool:
    """Whether TFMOT's registry, or the layer itself, names weights to prune; need not be built."""
    if isinstance(layer, PrunableLayer):
        return True
    registry = prune_registry.PruneRegistry
    if not registry.supports(layer):
        return False
    return registry._is_rnn_layer(layer) or bool(registry._weight_names(layer))


def _refuse_unknown(layer: "keras.layers.Layer") -> None:
    """Raises where an unknown layer holds a kernel that would escape pruning unnoticed."""
    if prune_registry.PruneRegistry.supports(layer):
        return
    kernels = [w.name for w in layer.trainable_weights if w.shape.rank >= 2]
    if kernels:
        raise UsageError(
            f"layer {layer.name!r} ({type(layer).__name__}) holds {kernels[0]!r} and nothing says "
            "whether to prune it: let the layer implement tfmot.sparsity.keras.PrunableLayer "
            f"(get_prunable_weights), or leave it whole with exclude={layer.name}"
        )


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
      UsageError: the model is subclassed; or a layer holds a kernel and nothing says whether it
        may be pruned; or a name in `exclude` is no layer's.
    """
    check_walkable(model)
    paths = {id(layer): path for path, layer in leaf_layers(model)}
    for name in exclude:
        if not set(name) & set("*?[") and not any(_fits(path, [name]) for path in paths.values()):
            near = difflib.get_close_matches(name, paths.values(), n=5, cutoff=0)
            raise UsageError(
                f"exclude={name}: none of the model's {len(paths)} layers has that name; near it "
                f"come {', '.join(near)}"
            )

    def masked(layer: "keras.layers.Layer") -> "keras.layers.Layer":
        if paths[id(layer)] in whole or _fits(paths[id(layer)], exclude):
            return copy_layer(layer)
        if is_prunable(layer):
            return Masked(copy_layer(layer))
        _refuse_unknown(layer)
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
