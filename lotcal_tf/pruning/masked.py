"""The masking layer: multiplies a Keras layer's prunable weights by masks of zeros and ones.

The product stands in for the weight while the wrapped layer computes, so a pruned weight
contributes exactly 0 and receives a gradient of exactly 0, whatever the optimizer, the layer or the
training loop do. TFMOT's registry says which weights of which layers are prunable; a layer of
one's own says so itself by TFMOT's `PrunableLayer`.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf
from tensorflow_model_optimization.python.core.sparsity.keras import prune_registry

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


def refuse_unknown(layer: "keras.layers.Layer") -> None:
    """Raises UsageError where an unknown layer holds a kernel that would escape pruning unnoticed."""
    if prune_registry.PruneRegistry.supports(layer):
        return
    kernels = [w.name for w in layer.trainable_weights if w.shape.rank >= 2]
    if kernels:
        raise UsageError(
            f"layer {layer.name!r} ({type(layer).__name__}) holds {kernels[0]!r} and nothing says "
            "whether to prune it: let the layer implement tfmot.sparsity.keras.PrunableLayer "
            f"(get_prunable_weights), or leave it whole with exclude={layer.name}"
        )
