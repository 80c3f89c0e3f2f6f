"""Dropout without state: its mask is a function of the training step's seed, the layer's name and the call.

Keras's dropout has a hidden generator that checkpoints do not contain, so a resumed run would differ.
"""

import contextvars
import numbers
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from lotcal_tf.compat import keras
from lotcal_tf.errors import UsageError, shown
from lotcal_tf.models.keras_graph import copy_layer, is_nested, rebuild
from lotcal_tf.seeds import next_seed, random_bits

# Set while `Passes` traces a network: the id of the dropout layer that repeats its batch (None: the
# batch is repeated at the input), and the number of passes. All dropout is active then, also outside
# training.
_REPEAT: contextvars.ContextVar[tuple[int | None, int] | None] = contextvars.ContextVar(
    "repeat", default=None
)

# Each element of a mask uses 16 random bits.
_LEVELS = 1 << 16
_SPATIAL = {
    keras.layers.SpatialDropout1D: 1,
    keras.layers.SpatialDropout2D: 2,
    keras.layers.SpatialDropout3D: 3,
}


@keras.saving.register_keras_serializable("lotcal_tf")
class StatelessDropout(keras.layers.Layer):
    """Sets a share of its inputs to 0 in training and scales the others up (Srivastava et al. 2014).

    Args:
      rate: share to drop, in [0, 1); rounded to a multiple of 1/65536 below 1.
      shared_axes: axes along which all elements are dropped together, counted from 0; e.g. (1, 2) for
        spatial dropout of images with channels last.
      **kwargs: arguments of `keras.layers.Layer`.

    Raises:
      UsageError: the rate is outside [0, 1), or an axis is negative.
      RuntimeError: called with training=True outside a training step (see `seeds.step_seed`).
    """

    def __init__(self, rate: float, shared_axes: tuple[int, ...] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        known = isinstance(rate, numbers.Real) and not isinstance(rate, bool)
        if not known or not 0 <= rate < 1:
            raise UsageError(f"dropout rate {shown(rate)}: must lie in [0, 1)")
        axes = isinstance(shared_axes, Sequence) and all(isinstance(n, int) for n in shared_axes)
        if not axes or any(axis < 0 for axis in shared_axes):
            raise UsageError(
                f"shared_axes {shown(shared_axes)}: must be a tuple of axes, counted from 0, the batch axis"
            )
        self.rate = rate
        self.shared_axes = tuple(shared_axes)
        self.supports_masking = True

    def call(self, inputs: "tf.Tensor", training: bool | None = None) -> "tf.Tensor":
        """Drops inputs in training; repeats them first if `Passes` chose this layer for it."""
        passes = _REPEAT.get()
        if passes is not None and passes[0] == id(self):
            inputs = _repeated(inputs, passes[1])
        if not (training or passes):
            return inputs
        shape = [
            1 if axis in self.shared_axes else size
            for axis, size in enumerate(tf.unstack(tf.shape(inputs)))
        ]
        return drop(inputs, self.rate, tf.stack(shape), lambda: next_seed(self.name))

    def compute_mask(self, inputs: "tf.Tensor", mask: Any = None) -> Any:
        """Hands on Keras's mask of the inputs, repeated where the inputs are."""
        passes = _REPEAT.get()
        if mask is not None and passes is not None and passes[0] == id(self):
            return _repeated(mask, passes[1])
        return mask

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return super().get_config() | {"rate": self.rate, "shared_axes": list(self.shared_axes)}


@keras.saving.register_keras_serializable("lotcal_tf")
class StrategyDropout(StatelessDropout):
    """Dropout that a strategy requires in a built-in model.

    It belongs to the strategy, not to the model: if another strategy trains the ticket, that
    strategy's rate is used (0 if it has none).
    """


def drop(
    inputs: "tf.Tensor", rate: float, shape: "tf.Tensor", seed: Callable[[], "tf.Tensor"]
) -> "tf.Tensor":
    """Sets a share of inputs to 0 and scales the others up.

    Args:
      inputs: any shape.
      rate: share to drop, in [0, 1]; rounded to a multiple of 1/65536 below 1.
      shape: shape of the mask, which is broadcast to that of the inputs.
      seed: returns the seed of the mask, int32 `(2,)`; not called if the rate rounds to 0.
    """
    dropped = min(round(rate * _LEVELS), _LEVELS - 1)
    if dropped == 0:
        return inputs
    keep = _random_levels(shape, seed()) >= tf.constant(dropped, tf.uint16)
    scale = tf.cast(_LEVELS / (_LEVELS - dropped), inputs.dtype)
    return tf.where(keep, inputs * scale, tf.zeros_like(inputs))


def _random_levels(shape: "tf.Tensor", seed: "tf.Tensor") -> "tf.Tensor":
    """Random integers, uint16, uniform in [0, 65536)."""
    count = tf.reduce_prod(shape)
    levels = tf.bitcast(random_bits(seed, (count + 3) // 4), tf.uint16)  # Four per 64-bit draw.
    return tf.reshape(tf.reshape(levels, [-1])[:count], shape)


class Passes:
    """Runs T stochastic passes of a network over a batch, as one batch T times as large.

    Layers before the first dropout run once; the first dropout repeats the batch. If the first dropout
    is inside a branch, the batch is repeated at the input instead.

    Args:
      network: functional or sequential, with stateless dropout.
      count: number of passes T, at least 2.

    Raises:
      UsageError: the network has no dropout, or one whose mask all examples share, so that all passes would, too.
    """

    def __init__(self, network: "keras.Model", count: int) -> None:
        found = [
            part
            for part in network._flatten_layers()
            if isinstance(part, StatelessDropout) and part.rate
        ]
        for layer in found:
            if 0 in layer.shared_axes:
                raise UsageError(
                    f"layer {layer.name!r} drops the same for all examples, so for all passes: leave the batch axis "
                    "out of its shared_axes (of Keras's Dropout: give None as noise_shape[0])"
                )
        if not found:
            raise UsageError(
                f"model {network.name!r} has no dropout, and passes without it are all equal: give the model Dropout "
                "layers, or choose a strategy without passes and mc_eval=0"
            )
        self.network, self.count = network, count
        self.first = _first_dropout(network)

    def __call__(self, inputs: Any, training: bool = True) -> "tf.Tensor":
        """Logits `(T, N, K)` of inputs `(N, …)`; each pass has its own dropout masks.

        With `training=False`, dropout is active, but other layers behave as outside training, e.g.
        BatchNorm uses its moving averages.
        """
        if self.first is None:
            inputs = tf.nest.map_structure(lambda x: _repeated(x, self.count), inputs)
        token = _REPEAT.set((None if self.first is None else id(self.first), self.count))
        try:
            logits = self.network(inputs, training=training)
        finally:
            _REPEAT.reset(token)
        return tf.reshape(logits, [self.count, -1, logits.shape[-1]])


def _repeated(batch: "tf.Tensor", count: int) -> "tf.Tensor":
    """Repeats a batch `(N, …)` to `(T·N, …)`, pass by pass."""
    shape = batch.shape
    copies = tf.broadcast_to(batch[None], [count, *shape]) if shape.is_fully_defined() else None
    if copies is None:
        return tf.tile(batch, [count] + [1] * (shape.rank - 1))
    return tf.reshape(copies, [count * shape[0], *shape[1:]])


def _first_dropout(model: "keras.Model") -> "StatelessDropout | None":
    """The first dropout, if every path from input to output passes through it; otherwise None."""
    first = next((layer for layer in _in_order(model) if _draws(layer)), None)
    if first is None or len(_calls(model, first)) != 1 or _leads_around(model, first):
        return None
    if is_nested(first):
        return _first_dropout(first)
    return first if isinstance(first, StatelessDropout) else None


def _in_order(model: "keras.Model") -> "list[keras.layers.Layer]":
    depths = sorted(model._nodes_by_depth, reverse=True)
    return [node.layer for depth in depths for node in model._nodes_by_depth[depth]]


def _draws(layer: "keras.layers.Layer") -> bool:
    return any(isinstance(part, StatelessDropout) and part.rate for part in layer._flatten_layers())


def _calls(model: "keras.Model", layer: "keras.layers.Layer") -> list[Any]:
    nodes = [node for level in model._nodes_by_depth.values() for node in level]
    return [node for node in nodes if node.layer is layer]


def _leads_around(model: "keras.Model", layer: "keras.layers.Layer") -> bool:
    """Whether a path from input to output does not pass through the layer."""
    waiting = list(tf.nest.flatten(model.outputs))
    seen: set[int] = set()
    while waiting:
        source, node_index, _ = waiting.pop()._keras_history
        node = source._inbound_nodes[node_index]
        if source is layer or id(node) in seen:
            continue
        if node.is_input:
            return True
        seen.add(id(node))
        waiting += tf.nest.flatten(node.keras_inputs)
    return False


def replace_dropout(model: "keras.Model") -> "keras.Model":
    """Returns a copy of a model with new weights, in which Keras's dropout layers are stateless.

    Dropout inside other layers stays; see `random_layers.seed_layers`.
    """

    def replaced(layer: "keras.layers.Layer") -> "keras.layers.Layer":
        if type(layer) is keras.layers.Dropout:
            shape = layer.noise_shape or ()
            shared = tuple(axis for axis, size in enumerate(shape) if size == 1)
            return StatelessDropout(layer.rate, shared, name=layer.name, dtype=layer.dtype_policy)
        if type(layer) in _SPATIAL:
            first = 2 if getattr(layer, "data_format", None) == "channels_first" else 1
            axes = tuple(range(first, first + _SPATIAL[type(layer)]))
            return StatelessDropout(layer.rate, axes, name=layer.name, dtype=layer.dtype_policy)
        return copy_layer(layer)

    return rebuild(model, replaced)


def plain_dropout(layer: StatelessDropout) -> "keras.layers.Dropout":
    """The Keras dropout with the rate and axes of a stateless one, which has been called."""
    rank = len(layer.input_shape)
    shape = tuple(1 if axis in layer.shared_axes else None for axis in range(rank))
    noise_shape = shape if layer.shared_axes else None
    return keras.layers.Dropout(layer.rate, noise_shape=noise_shape, name=layer.name)
