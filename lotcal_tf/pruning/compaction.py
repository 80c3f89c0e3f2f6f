"""Compaction: removes units and channels that pruning has made dead, so that the network is smaller.

A channel is dead if no layer reads it, or if it is constant (all weights that feed it are pruned) and
all layers that read it can take the constant into their bias. The smaller network computes the same
logits up to rounding. Layers with 'same' padding cannot take a constant into their bias, since they
read zeros at the border; one of their constant channels is kept and replaces the others.

Channels are followed through the network as *slots*. Channels in the same slot are kept or removed
together. A dense or convolutional layer makes new slots, layers that work on each channel separately
keep them, and a residual addition unites those of its inputs.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lotcal_tf.compat import keras
from lotcal_tf.models.keras3 import from_keras3, is_keras3
from lotcal_tf.models.keras_graph import copy_layer, flatten, replayed, steps
from lotcal_tf.pruning import channels, masking

# A gather before the first dense layer copies its inputs, so it must save this share of them.
_GATHER_SAVES = 0.25


@dataclasses.dataclass(frozen=True)
class Compaction:
    """A compacted network.

    Attributes:
      model: functional Keras model with the inputs and outputs of the original.
      before: shape of each kernel of the original, by its path in `model`, e.g. `dense/kernel`.
      after: shape of each kernel of `model`, by path.
      inputs_kept: number of inputs that a gather passes to the first dense layer; None without a
        gather.
    """

    model: "keras.Model"
    before: dict[str, tuple[int, ...]] = dataclasses.field(repr=False)
    after: dict[str, tuple[int, ...]] = dataclasses.field(repr=False)
    inputs_kept: int | None


@dataclasses.dataclass
class _Tensor:
    """The slot of each channel of a tensor, and its value if it is constant."""

    slots: NDArray[np.int64]
    constant: NDArray[np.float64]  # (channels,), NaN for channels that are not constant.


def compact(model: "keras.Model") -> Compaction:
    """Removes dead units and channels from a Keras model.

    Args:
      model: of tf_keras or Keras 3; functional or sequential, without masks; may be nested; channels
        last. Unusual layers, shared layers and softmax activations are kept as they are, with all
        channels that they read.

    Returns:
      The smaller model. Its logits differ from those of the original by rounding only, at most
      1e-5 × max(1, max |logit|) in float32.

    Raises:
      UsageError: the model is subclassed or not built, or a layer cannot be copied.
    """
    flat = flatten(from_keras3(model) if is_keras3(model) else model)
    plan = _Plan(flat)
    smaller = plan.build()
    kept = None if plan.gather is None else len(plan.gather)
    return Compaction(smaller, _kernels(flat), _kernels(smaller), kept)


def _kernels(model: "keras.Model") -> dict[str, tuple[int, ...]]:
    return {path: value.shape for path, value in masking.kernels(model).items()}


class _Plan:
    """Finds the channels of a flat network that are needed, and builds the smaller network."""

    def __init__(self, model: "keras.Model") -> None:
        self.model = model
        self.parent: list[int] = []
        self.tensors: dict[int, _Tensor] = {}
        self.steps = steps(model)
        seen = [id(node.layer) for node in self.steps]
        self.shared = {layer for layer in seen if seen.count(layer) > 1}
        for x in model.inputs:
            self.tensors[id(x)] = self._new(x)
        for node in self.steps:
            self._follow(node)
        self.keep: NDArray[np.bool_] = np.zeros(len(self.parent), bool)
        for x in (*model.inputs, *model.outputs):
            self._need(self.tensors[id(x)].slots)
        while self._spread():
            pass
        self.first = next((node.layer for node in self.steps if node.layer.weights), None)
        self.gather = self._worth_gathering()

    # Slots, as a union-find structure.

    def _root(self, slot: int) -> int:
        while self.parent[slot] != slot:
            self.parent[slot] = self.parent[self.parent[slot]]
            slot = self.parent[slot]
        return slot

    def _roots(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.array([self._root(slot) for slot in slots], np.int64)

    def _new(self, x: Any) -> _Tensor:
        count = x.shape[-1] if x.shape.rank and x.shape[-1] else 1
        first = len(self.parent)
        self.parent += range(first, first + count)
        return _Tensor(np.arange(first, first + count), np.full(count, np.nan))

    def _need(self, slots: NDArray[np.int64]) -> bool:
        """Marks slots as needed; returns whether one of them was not marked before."""
        roots = self._roots(slots)
        new = not self.keep[roots].all()
        self.keep[roots] = True
        return new

    def _kept(self, tensor: _Tensor) -> NDArray[np.bool_]:
        return self.keep[self._roots(tensor.slots)]

    # Forward pass: the slots of each tensor, and constant channels.

    def _inputs(self, node: Any) -> list[_Tensor]:
        return [self.tensors[id(x)] for x in tf.nest.flatten(node.keras_inputs)]

    def _output(self, node: Any) -> _Tensor:
        return self.tensors[id(node.outputs)]

    def _follow(self, node: Any) -> None:
        outputs = tf.nest.flatten(node.outputs)
        inputs = self._inputs(node)
        found = None
        if len(outputs) == 1 and self._kind(node) != "opaque":
            found = _FOLLOW[self._kind(node)](self, node.layer, inputs, outputs[0])
        for x in outputs:
            self.tensors[id(x)] = found or self._new(x)

    def _kind(self, node: Any) -> str:
        layer = node.layer
        if id(layer) in self.shared:
            return "opaque"
        return channels.kind_of(layer, tf.nest.flatten(node.keras_inputs))

    def _of_linear(self, layer: Any, inputs: Sequence[_Tensor], output: Any) -> _Tensor:
        made = self._new(output)
        constant, kernel = inputs[0].constant, channels.flat_kernel(layer)
        free = ~channels.foldable(layer, constant)
        fixed = ~(kernel[:, free] != 0).any((0, 1))
        value = channels.bias(layer) + channels.folded(layer, constant)
        made.constant[fixed] = channels.activated(layer.activation, value)[fixed]
        return made

    def _of_depthwise(self, layer: Any, inputs: Sequence[_Tensor], output: Any) -> _Tensor:
        kernel = np.asarray(layer.get_weights()[0], np.float64)[..., 0]
        kernel = kernel.reshape(-1, kernel.shape[-1])
        constant = inputs[0].constant
        empty = ~(kernel != 0).any(0)
        fixed = empty | channels.foldable(layer, constant)
        value = channels.bias(layer) + np.where(empty, 0.0, kernel.sum(0) * np.nan_to_num(constant))
        value = channels.activated(layer.activation, value)
        return _Tensor(inputs[0].slots, np.where(fixed, value, np.nan))

    def _of_batch_norm(self, layer: Any, inputs: Sequence[_Tensor], output: Any) -> _Tensor:
        gamma, beta, mean, variance = channels.normalisation(layer, len(inputs[0].slots))
        scale = gamma / np.sqrt(variance + layer.epsilon)
        constant = inputs[0].constant
        value = scale * (np.nan_to_num(constant) - mean) + beta
        return _Tensor(
            inputs[0].slots, np.where(np.isfinite(constant) | (scale == 0), value, np.nan)
        )

    def _of_elementwise(self, layer: Any, inputs: Sequence[_Tensor], output: Any) -> _Tensor:
        constant = inputs[0].constant
        # Some layers, such as Rescaling, give their own type.
        value = np.asarray(layer.call(tf.constant(np.nan_to_num(constant)[None])), np.float64)[0]
        return _Tensor(inputs[0].slots, np.where(np.isfinite(constant), value, np.nan))

    def _of_constant_keeping(self, layer: Any, inputs: Sequence[_Tensor], output: Any) -> _Tensor:
        return _Tensor(inputs[0].slots, inputs[0].constant.copy())

    def _of_zero_keeping(self, layer: Any, inputs: Sequence[_Tensor], output: Any) -> _Tensor:
        constant = inputs[0].constant
        return _Tensor(inputs[0].slots, np.where(constant == 0, 0.0, np.nan))

    def _of_flatten(self, layer: Any, inputs: Sequence[_Tensor], output: Any) -> _Tensor:
        times = output.shape[-1] // len(inputs[0].slots)
        return _Tensor(np.tile(inputs[0].slots, times), np.tile(inputs[0].constant, times))

    def _of_merge(self, layer: Any, inputs: Sequence[_Tensor], output: Any) -> _Tensor:
        for other in inputs[1:]:
            for a, b in zip(inputs[0].slots, other.slots, strict=True):
                self.parent[self._root(b)] = self._root(a)
        values = [tf.constant(np.nan_to_num(x.constant)[None]) for x in inputs]
        fixed = np.all([np.isfinite(x.constant) for x in inputs], 0)
        merged = layer.call(values).numpy()[0]
        return _Tensor(inputs[0].slots, np.where(fixed, merged, np.nan))

    def _of_concatenate(self, layer: Any, inputs: Sequence[_Tensor], output: Any) -> _Tensor:
        return _Tensor(
            np.concatenate([x.slots for x in inputs]), np.concatenate([x.constant for x in inputs])
        )

    # Backward pass: the slots that are needed.

    def _spread(self) -> bool:
        """Marks the slots that needed slots depend on; returns whether a new one was found."""
        changed = False
        for node in reversed(self.steps):
            kind, inputs = self._kind(node), self._inputs(node)
            if kind == "opaque":
                for x in (*inputs, *(self.tensors[id(x)] for x in tf.nest.flatten(node.outputs))):
                    changed |= self._need(x.slots)
            elif kind == "linear":
                kernel = self._live_kernel(node)
                needed = (kernel != 0).any((0, 2))
                changed |= self._need(inputs[0].slots[needed])
        for tensor in self.tensors.values():  # A layer keeps at least one channel.
            if not self._kept(tensor).any():
                changed |= self._need(tensor.slots[:1])
        return changed

    def _live_kernel(self, node: Any) -> NDArray[np.float64]:
        """The kernel `(positions, inputs, outputs)` with 0 for weights that are not needed any more."""
        inputs, output = self._inputs(node)[0], self._output(node)
        kernel = channels.flat_kernel(node.layer).copy()
        kernel[:, channels.foldable(node.layer, inputs.constant)] = 0
        channels.gather_constants(kernel, inputs.constant)
        kernel[:, :, ~self._kept(output) | np.isfinite(output.constant)] = 0
        return kernel

    def _worth_gathering(self) -> NDArray[np.int64] | None:
        """The indices of the inputs that a first dense layer reads; None if a gather saves too little."""
        if type(self.first) is not keras.layers.Dense:
            return None
        node = next(node for node in self.steps if node.layer is self.first)
        # A gather would lose a mask of the input, as `Masking` and `Embedding` give it.
        masked = any(getattr(x, "_keras_mask", None) is not None for x in node.keras_inputs)
        if self._kind(node) != "linear" or masked:
            return None
        read = self._live_kernel(node).any((0, 2))
        worth = read.any() and 1 - read.mean() >= _GATHER_SAVES
        return np.flatnonzero(read) if worth else None

    # The smaller network.

    def build(self) -> "keras.Model":
        """Builds the smaller network, with its weights."""
        nodes = {id(node.layer): node for node in self.steps}
        made: dict[int, keras.layers.Layer] = {}

        def call(layer: "keras.layers.Layer", *args: Any, **kwargs: Any) -> Any:
            if id(layer) not in made:
                made[id(layer)] = self._smaller(nodes[id(layer)])
            if layer is self.first and self.gather is not None:
                args = (tf.gather(args[0], self.gather.tolist(), axis=-1),)
            return made[id(layer)](*args, **kwargs)

        smaller = replayed(self.model, call)
        for layer_id, layer in made.items():
            layer.set_weights(self._weights(nodes[layer_id]))
        return smaller

    def _smaller(self, node: Any) -> "keras.layers.Layer":
        layer, config = node.layer, node.layer.get_config()
        kind = self._kind(node)
        if kind == "linear":
            config[channels.LINEAR[type(layer)]] = int(self._kept(self._output(node)).sum())
        if kind in ("linear", "depthwise", "batch_norm"):
            # Weights are set afterwards, and an initialiser may have the values of all channels.
            config |= {name: "zeros" for name in config if name.endswith("_initializer")}
        if kind in ("linear", "depthwise"):
            config["use_bias"] = layer.use_bias or bool(self._new_bias(node).any())
        return copy_layer(layer, config)

    def _new_bias(self, node: Any) -> NDArray[np.float64]:
        """The bias `(outputs,)`, including the contribution of constant inputs."""
        layer, inputs = node.layer, self._inputs(node)[0]
        if self._kind(node) == "depthwise":
            return channels.bias(layer)
        return channels.bias(layer) + channels.folded(layer, inputs.constant)

    def _weights(self, node: Any) -> list[NDArray]:
        kind, layer = self._kind(node), node.layer
        old = layer.get_weights()
        if kind not in ("linear", "depthwise", "batch_norm"):
            return old
        kept = self._kept(self._output(node))
        if kind == "batch_norm":
            return [weight[kept] for weight in old]
        if kind == "depthwise":
            kernel = old[0][..., kept, :]
        else:
            live = self._live_kernel(node).reshape(old[0].shape)
            kernel = live[..., self._kept(self._inputs(node)[0]), :][..., kept]
            if layer is self.first and self.gather is not None:
                kernel = kernel[self.gather]
        bias = self._new_bias(node)
        new = [kernel, bias[kept]] if layer.use_bias or bias.any() else [kernel]
        return [np.asarray(weight, old[0].dtype) for weight in new]


_FOLLOW = {
    "linear": _Plan._of_linear,
    "depthwise": _Plan._of_depthwise,
    "batch_norm": _Plan._of_batch_norm,
    "elementwise": _Plan._of_elementwise,
    "constant_keeping": _Plan._of_constant_keeping,
    "zero_keeping": _Plan._of_zero_keeping,
    "flatten": _Plan._of_flatten,
    "merge": _Plan._of_merge,
    "concatenate": _Plan._of_concatenate,
}
