"""Int8 after quantisation-aware fine-tuning that keeps zeros (TFMOT)."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lotcal_tf.compat import keras, tfmot
from lotcal_tf.data.splits import Split
from lotcal_tf.errors import UsageError, first_line
from lotcal_tf.formats import zeros
from lotcal_tf.formats.format import NO_MATERIAL, Material
from lotcal_tf.formats.outputs import without_softmax
from lotcal_tf.formats.tflite import TFLite, with_float_softmax
from lotcal_tf.formats.tflite_file.converter import convert
from lotcal_tf.inputs import Specs, by_name, concatenated, single_or_list, specs_of
from lotcal_tf.models.keras_graph import copy_layer, flatten, rebuild
from lotcal_tf.pruning.masked import is_kernel
from lotcal_tf.seeds import named_seed

STEPS, _BATCH, _RATE = 200, 64, 1e-4
# Batches that find the ranges of activations before fine-tuning, and the decay of their moving
# averages. TFMOT's decay of 0.999 takes thousands of steps to leave its initial range.
_RANGE_PASSES, _RANGE_DECAY = 40, 0.9

_L = keras.layers
_FOLDED_INTO = (_L.Conv2D, _L.DepthwiseConv2D, _L.Dense)


class Int8Qat(TFLite):
    """Int8 weights and activations of a network that was fine-tuned with rounding.

    A copy of the network learns the network's own probabilities, not the labels, so that its
    confidence does not change. Dropout is off and BatchNorm is frozen; a BatchNorm that is not the only
    reader of a linear layer is computed in float32. Input and output stay float32.
    """

    def write(self, model: "keras.Model", path: Path, material: Material = NO_MATERIAL) -> None:
        """Fine-tunes a copy of the network and converts it.

        Raises:
          UsageError: validation or training data is missing, or a layer with weights cannot be
            quantised.
          ExportMismatch: a zero was lost.
        """
        inputs, _ = material.of_validation("int8_qat")
        material.require(("training",), "int8_qat")
        assert material.training is not None
        plain = without_softmax(model)
        tuned = fine_tuned(plain, inputs, material.training, material.seed)
        content = convert(tuned, optimizations=[tf.lite.Optimize.DEFAULT])
        path.write_bytes(with_float_softmax(content, model))
        zeros.check(path.name, self.stored_tensors(path), plain)


def fine_tuned(model: "keras.Model", inputs: Any, training: Split, seed: int) -> "keras.Model":
    """A flat copy that rounds as int8 does, with ranges found and weights fine-tuned.

    Args:
      model: plain; gives logits.
      inputs: `(N, …)`, see `lotcal_tf.inputs`, for the initial ranges of activations.
      training: the examples of fine-tuning, 200 steps.
      seed: determines their order.

    Raises:
      UsageError: a layer with weights cannot be quantised.
    """
    flat = flatten(model)
    tuned = _quantised(flat)
    masks = _masks(flat, tuned)

    def remask(*_: Any) -> None:
        for kernel, mask in masks:
            kernel.assign(kernel * mask)

    batch = min(_BATCH, training.count)
    examples = _examples(training, batch, seed, specs_of(flat))
    ranges = list(by_name(inputs, specs_of(flat)).values())
    starts = range(0, len(examples[0]), 1000)
    teacher = [flat(_part(examples, slice(i, i + 1000)), training=False) for i in starts]
    with _fast_ranges():
        for number in range(_RANGE_PASSES):
            places = np.arange(number * batch, (number + 1) * batch) % len(ranges[0])
            tuned(_part(ranges, places), training=True)
        tuned.compile(
            keras.optimizers.Adam(_RATE), keras.losses.CategoricalCrossentropy(from_logits=True)
        )
        tuned.fit(
            single_or_list(examples),
            tf.nn.softmax(tf.concat(teacher, 0)).numpy(),
            batch_size=batch,
            shuffle=False,
            verbose=0,
            callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=remask)],
        )
    remask()
    return tuned


def _masks(flat: "keras.Model", tuned: "keras.Model") -> list[tuple[Any, "tf.Tensor"]]:
    """Each kernel of the quantised copy with its mask; freezes the copy's BatchNorm layers."""
    wrapped = {layer.name.removeprefix("quant_"): layer for layer in tuned.layers}
    masks = []
    for layer in flat.layers:
        copies = _plain_variables(wrapped.get(layer.name), layer)
        for weight, copy in zip(layer.weights, copies, strict=False):
            if is_kernel(weight.name, weight):
                masks.append((copy, tf.cast(tf.not_equal(weight, 0), weight.dtype)))
        if isinstance(layer, _L.BatchNormalization) and layer.name in wrapped:
            wrapped[layer.name].trainable = False
    return masks


def _quantised(flat: "keras.Model") -> "keras.Model":
    """A copy with TFMOT's wrapper around every supported layer, with the same weights.

    Raises:
      UsageError: TFMOT does not support a layer that has weights.
    """
    scheme = tfmot.experimental.combine.Default8BitPrunePreserveQuantizeScheme()
    registry = scheme.get_quantize_registry()
    supported = {layer.name for layer in flat.layers if _is_supported(layer)}
    unsupported = [
        f"{layer.name} ({type(layer).__name__})"
        for layer in flat.layers
        if layer.weights
        and not isinstance(layer, _L.BatchNormalization)
        and (layer.name not in supported or not registry.supports(layer))
    ]
    if unsupported:
        raise UsageError(
            f"TFMOT cannot fine-tune {', '.join(unsupported)} for int8: choose the format int8"
        )

    def replace(layer: "keras.layers.Layer") -> "keras.layers.Layer":
        config = layer.get_config()
        # Without dropout and noise, as the copy learns the outputs of the network in inference.
        off = {name: 0.0 for name in ("rate", "stddev") if name in config and not layer.weights}
        copy = copy_layer(layer, {**config, **off})
        if layer.name in supported:
            return tfmot.quantization.keras.quantize_annotate_layer(copy)
        if layer.weights or isinstance(layer, _L.InputLayer):
            return copy
        return tfmot.quantization.keras.quantize_annotate_layer(copy, _OutputOnly())

    annotated = rebuild(flat, replace)
    annotated.set_weights(flat.get_weights())
    try:
        with tfmot.quantization.keras.quantize_scope({"_OutputOnly": _OutputOnly}):
            return tfmot.quantization.keras.quantize_apply(annotated, scheme)
    except (RuntimeError, TypeError, ValueError, AttributeError, KeyError) as error:
        line = first_line(error)
        raise UsageError(
            f"TFMOT cannot fine-tune this network for int8 ({line}): choose the format int8"
        ) from error


class _OutputOnly(tfmot.quantization.keras.QuantizeConfig):
    """Rounds the output of a layer without weights that TFMOT does not support."""

    def get_weights_and_quantizers(self, layer: Any) -> list[Any]:
        return []

    def get_activations_and_quantizers(self, layer: Any) -> list[Any]:
        return []

    def set_quantize_weights(self, layer: Any, quantize_weights: Any) -> None:
        pass

    def set_quantize_activations(self, layer: Any, quantize_activations: Any) -> None:
        pass

    def get_output_quantizers(self, layer: Any) -> list[Any]:
        quantizers = tfmot.quantization.keras.quantizers
        return [
            quantizers.MovingAverageQuantizer(
                num_bits=8, per_axis=False, symmetric=False, narrow_range=False
            )
        ]

    def get_config(self) -> dict[str, Any]:
        return {}


def _is_supported(layer: "keras.layers.Layer") -> bool:
    """Whether TFMOT quantises a layer; BatchNorm only if it can be folded into the layer before."""
    if isinstance(layer, _L.BatchNormalization):
        before = layer.inbound_nodes[0].inbound_layers
        linear = isinstance(before, _FOLDED_INTO) and before.activation is keras.activations.linear
        # Folding would change the outputs that another layer reads.
        return linear and len(before.inbound_nodes) == len(before.outbound_nodes) == 1
    registry = tfmot.quantization.keras.default_8bit.Default8BitQuantizeRegistry()
    return bool(registry.supports(layer))


def _plain_variables(wrapper: Any, layer: "keras.layers.Layer") -> list[Any]:
    """The variables of a wrapped layer that correspond to the plain layer's weights, in their order."""
    variables = {} if wrapper is None else {v.name.rpartition("/")[2]: v for v in wrapper.weights}
    found = [variables.get(weight.name.rpartition("/")[2]) for weight in layer.weights]
    return [variable for variable in found if variable is not None]


def _part(inputs: list[NDArray], rows: Any) -> Any:
    """Some examples, as a model with one or several inputs takes them."""
    return single_or_list([values[rows] for values in inputs])


def _examples(training: Split, batch: int, seed: int, specs: Specs) -> list[NDArray]:
    """Inputs for `STEPS` batches, in the model's order.

    The seed determines the order of the examples, which changes every epoch.
    """
    found: list[dict[str, NDArray]] = []
    missing, epoch = STEPS * batch, 0
    while missing:
        for inputs, labels, *_ in training.shuffled(batch, STEPS, named_seed(seed, "qat", epoch)):
            kept = tf.nest.map_structure(lambda x, end=missing: x[:end].numpy(), inputs)
            found.append(by_name(kept, specs))
            missing -= min(missing, len(labels))
            if not missing:
                break
        epoch += 1
    return list(concatenated(found).values())


@contextlib.contextmanager
def _fast_ranges() -> Iterator[None]:
    """Lowers the decay of the ranges' moving averages, so that they leave TFMOT's initial values."""
    from tensorflow_model_optimization.python.core.quantization.keras import quant_ops

    original = quant_ops.MovingAvgQuantize

    def fast(*args: Any, **options: Any) -> Any:
        # Replaces the decay that TFMOT passes.
        return original(*args, **{**options, "ema_decay": _RANGE_DECAY})

    quant_ops.MovingAvgQuantize = fast
    try:
        yield
    finally:
        quant_ops.MovingAvgQuantize = original
