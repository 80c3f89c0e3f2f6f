"""The masking layer: multiplies the prunable weights of a Keras layer by masks of zeros and ones.

The product replaces the weight while the wrapped layer is called. So a pruned weight contributes
exactly 0 and receives a gradient of exactly 0, independent of optimizer, layer and training loop.
TFMOT's registry and `_KERNELS` determine which weights of which layers are prunable; custom layers
implement TFMOT's `PrunableLayer`.
"""

import contextlib
import dataclasses
import operator
import re
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf
from tensorflow_model_optimization.python.core.sparsity.keras import prune_registry

from lotcal_tf.compat import keras, tfmot
from lotcal_tf.config.fields import checked, declared
from lotcal_tf.errors import UsageError, shown
from lotcal_tf.models.keras_graph import is_nested

PrunableLayer = tfmot.sparsity.keras.PrunableLayer

_L = keras.layers
_RECURRENT = ("cell.kernel", "cell.recurrent_kernel")
# The prunable weights of layers that TFMOT does not know.
_KERNELS: dict[type, tuple[str, ...]] = {
    _L.Conv1DTranspose: ("kernel",),
    _L.EinsumDense: ("kernel",),
    _L.DepthwiseConv1D: (),
    _L.PReLU: (),
    _L.ConvLSTM1D: _RECURRENT,
    _L.ConvLSTM2D: _RECURRENT,
    _L.ConvLSTM3D: _RECURRENT,
}
# Weights of any number of dimensions that are not kernels: biases of GRU, EinsumDense and MultiHeadAttention, slopes of
# PReLU, scales and statistics of normalisation over several axes.
_NO_KERNEL = re.compile(r"(bias|alpha|gamma|beta|(moving_)?(mean|variance))(_\d+)?")
# Their depthwise kernels, which are small, are pruned on request only.
_DEPTHWISE = (_L.DepthwiseConv1D, _L.DepthwiseConv2D, _L.SeparableConv1D, _L.SeparableConv2D)


def is_kernel(path: str, weight: Any) -> bool:
    """Whether a weight is a kernel: it has two or more dimensions, and is not a bias, slope, scale or statistic.

    Args:
      path: its name or path; only the part after the last `/` counts.
      weight: an array or a variable.
    """
    name = path.rpartition("/")[2].partition(":")[0]
    return len(weight.shape) >= 2 and _NO_KERNEL.fullmatch(name) is None


def _places(layer: "keras.layers.Layer", weight: "tf.Variable") -> list[tuple[dict[str, Any], str]]:
    """The attributes of `layer` or of a layer inside it that hold `weight`, as (dictionary, key)."""
    found = [
        (part.__dict__, name)
        for part in layer._flatten_layers()
        for name, value in part.__dict__.items()
        if value is weight
    ]
    if not found:
        raise UsageError(
            f"layer {layer.name!r} ({type(layer).__name__}): its prunable weight {weight.name!r} must be "
            "an attribute of the layer: self.kernel = self.add_weight(…)"
        )
    return found


def is_depthwise(path: str) -> bool:
    """Whether a path is that of a depthwise kernel."""
    return path.rpartition("/")[2].startswith("depthwise_kernel")


@contextlib.contextmanager
def _replaced(
    places: Sequence[tuple[dict[str, Any], str]], values: Sequence[Any]
) -> Iterator[None]:
    """Replaces attributes inside the `with` block and restores them at its end."""
    originals = [attributes[name] for attributes, name in places]
    # Written to __dict__ directly, since Keras would track tensors that are set as attributes.
    for (attributes, name), value in zip(places, values, strict=True):
        attributes[name] = value
    try:
        yield
    finally:
        for (attributes, name), original in zip(places, originals, strict=True):
            attributes[name] = original


@dataclasses.dataclass(frozen=True)
class _Arguments:
    depthwise: bool = declared(False, "")


def _list(name: str, value: Any) -> Any:
    """Raises UsageError if a value is not a list or tuple."""
    if isinstance(value, list | tuple | tf.TensorShape):
        return value
    raise UsageError(f"{name}={shown(value)}: must be a list")


@keras.saving.register_keras_serializable("lotcal_tf")
class Masked(keras.layers.Wrapper):
    """Wraps a layer and masks its prunable weights.

    Args:
      layer: a prunable layer (see `is_prunable`); it is not copied.
      mask_shapes: shapes of the masks; needed when a saved layer is loaded that creates its weights
        in its first call, as attention does.
      depthwise: whether depthwise kernels are masked too.
      **kwargs: arguments of `keras.layers.Wrapper`, e.g. `name` (default: `masked_` and the layer's
        name).

    Attributes:
      layer: the wrapped layer.
      masks: after building, one non-trainable float32 variable of zeros and ones for each prunable
        weight, of its shape and in the order of `prunable_weights`.

    Raises:
      UsageError: the layer has no prunable weights.
    """

    # Which rows and columns of the kernel of a fully connected layer are used, see `narrow`.
    units: tuple[Any, Any] = (None, None)

    def __init__(
        self,
        layer: "keras.layers.Layer",
        mask_shapes: Sequence[Sequence[int]] = (),
        depthwise: bool = False,
        **kwargs: Any,
    ) -> None:
        if not isinstance(layer, keras.layers.Layer):
            raise UsageError(f"layer={shown(layer)}: must be a tf_keras layer")
        checked(_Arguments, {"depthwise": depthwise})
        if not is_prunable(layer, depthwise):
            raise UsageError(
                f"layer {layer.name!r} ({type(layer).__name__}) has no prunable weights"
            )
        sizes = (
            size
            for shape in _list("mask_shapes", mask_shapes)
            for size in _list("mask_shapes", shape)
        )
        if not all(isinstance(size, int) and size > 0 for size in sizes):
            raise UsageError(f"mask_shapes={shown(mask_shapes)}: must be a list of shapes")
        kwargs.setdefault("name", f"masked_{layer.name}")
        # The wrapped layer casts its inputs itself: those of an Embedding must not be cast.
        kwargs.setdefault("dtype", layer._dtype_policy)
        super().__init__(layer, autocast=False, **kwargs)
        # The wrapped layer hands on Keras's mask; Keras need not compute it again.
        self._supports_masking = layer.supports_masking
        self._compute_output_and_mask_jointly = True
        self._mask_shapes, self._depthwise = mask_shapes, depthwise
        # Kept, since `trainable` can change after the masks were made.
        self._frozen = _frozen(layer)
        self.masks: list[tf.Variable] = []

    def build(self, input_shape: Any) -> None:
        """Builds the wrapped layer and a mask of ones for each of its prunable weights."""
        if not self.layer.built:
            # Gives weights the names that they would have without the wrapper.
            with tf.name_scope(self.layer.name):
                self.layer.build(input_shape)
            self.layer.built = True
        weights = self.prunable_weights if self._has_weights() else []
        for weight in weights:
            _places(self.layer, weight)  # Raises here, because Keras would wrap an error in `call`.
        self._add_masks([weight.shape for weight in weights] or self._mask_shapes)
        self.built = True

    def _has_weights(self) -> bool:
        """Whether the wrapped layer has its weights; attention creates them in its first call."""
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
        """The weights of the wrapped layer that are masked."""
        found = {
            id(weight): weight
            for place, part in enumerate(_parts(self.layer))
            if place not in self._frozen
            for weight in _kernels(part, self._depthwise)
        }
        return list(found.values())

    def call(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Calls the wrapped layer with masked weights."""
        # Keras passes its mask to every layer with **kwargs. A layer without the argument `mask` reads
        # it from the inputs, where it hands it on.
        if not self.layer._expects_mask_arg:
            kwargs.pop("mask", None)
        if not self._has_weights():
            self.layer(inputs, *args, **kwargs)
        if not self.masks:
            with tf.init_scope():
                self._add_masks([weight.shape for weight in self.prunable_weights])
        places, masked = [], []
        for weight, mask in zip(self.prunable_weights, self.masks, strict=True):
            # Under mixed precision, variables have the layer's compute dtype when they are read.
            value = tf.convert_to_tensor(weight)
            product = self._of_units(value * tf.cast(mask, value.dtype))
            for place in _places(self.layer, weight):
                places.append(place)
                masked.append(product)
        if "units" in self.__dict__:
            # The layer would refuse inputs of another width.
            places.append((self.layer.__dict__, "_input_spec"))
            masked.append(None)
        with _replaced(places, masked):
            return self.layer(inputs, *args, **kwargs)

    def _of_units(self, kernel: "tf.Tensor") -> "tf.Tensor":
        """The rows and columns of a kernel that `units` names; the whole kernel without them."""
        for axis, units in enumerate(self.units):
            if units is not None:
                kernel = tf.gather(kernel, units, axis=axis)
        return kernel

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """Returns the mask that the wrapped layer hands on."""
        return self.layer.compute_mask(inputs, mask)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the output shape of the wrapped layer."""
        return self.layer.compute_output_shape(input_shape)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        shapes = [mask.shape for mask in self.masks] or self._mask_shapes
        own = {"mask_shapes": [list(shape) for shape in shapes], "depthwise": self._depthwise}
        return super().get_config() | own

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> "Masked":
        """Creates the layer from a configuration; the wrapped layer may be a registered custom layer."""
        config = dict(config)
        inner = config.pop("layer")
        # `Wrapper` and Keras's older formats would look for the class name, not the registered name.
        name = inner.get("registered_name") or inner["class_name"]
        inner = {"class_name": name, "config": inner["config"]}
        layer = keras.layers.deserialize(inner, custom_objects, use_legacy_format=True)
        return cls(layer, **config)


def is_prunable(layer: "keras.layers.Layer", depthwise: bool = False) -> bool:
    """Whether a layer has prunable weights that are not frozen; it need not be built.

    Args:
      layer: a layer that is not a nested model.
      depthwise: whether depthwise kernels are prunable too.
    """
    frozen = _frozen(layer)
    return any(
        _has_kernels(part, depthwise)
        for place, part in enumerate(_parts(layer))
        if place not in frozen
    )


def refuse_unknown(layer: "keras.layers.Layer") -> None:
    """Raises UsageError if nothing is known about a kernel in a layer, which would not be pruned."""
    for part in _parts(layer):
        if _is_known(part):
            continue
        kernels = [w.name for w in part.trainable_weights if is_kernel(w.name, w)]
        if kernels:
            where = "" if part is layer else f" in {part.name!r} ({type(part).__name__})"
            raise UsageError(
                f"layer {layer.name!r} ({type(layer).__name__}) holds {kernels[0]!r}{where}, and it is not known "
                "whether that is prunable: implement tfmot.sparsity.keras.PrunableLayer (get_prunable_weights) in "
                f"the layer, or exclude it from pruning with exclude={layer.name}"
            )


def _parts(layer: "keras.layers.Layer") -> list["keras.layers.Layer"]:
    """The layers whose weights a layer uses: those inside a wrapper of Keras, else the layer itself."""
    if type(layer) is _L.Bidirectional:
        inner = [layer.forward_layer, layer.backward_layer]
    elif type(layer) is _L.TimeDistributed:
        inner = [layer.layer]
    elif is_nested(layer):  # inside a TimeDistributed
        inner = layer.layers
    else:
        return [layer]
    found = {id(part): part for one in inner for part in _parts(one)}
    return list(found.values())


def _frozen(layer: "keras.layers.Layer") -> frozenset[int]:
    """The places in `_parts` of layers with `trainable=False` inside a wrapper."""
    parts = enumerate(_parts(layer))
    return frozenset(n for n, part in parts if part is not layer and not part.trainable)


def _is_known(part: "keras.layers.Layer") -> bool:
    known = type(part) in _KERNELS or prune_registry.PruneRegistry.supports(part)
    return known or isinstance(part, PrunableLayer)


def _has_kernels(part: "keras.layers.Layer", depthwise: bool) -> bool:
    if isinstance(part, PrunableLayer) or (depthwise and type(part) in _DEPTHWISE):
        return True
    if type(part) in _KERNELS:
        return bool(_KERNELS[type(part)])
    registry = prune_registry.PruneRegistry
    if not registry.supports(part):
        return False
    return registry._is_rnn_layer(part) or bool(registry._weight_names(part))


def _kernels(part: "keras.layers.Layer", depthwise: bool) -> list["tf.Variable"]:
    if isinstance(part, PrunableLayer):
        return list(part.get_prunable_weights())
    found = [part.depthwise_kernel] if depthwise and type(part) in _DEPTHWISE else []
    if type(part) in _KERNELS:
        return found + [operator.attrgetter(name)(part) for name in _KERNELS[type(part)]]
    if not prune_registry.PruneRegistry.supports(part):
        return found
    if not hasattr(part, "get_prunable_weights"):
        prune_registry.PruneRegistry.make_prunable(part)
    return found + list(part.get_prunable_weights())
