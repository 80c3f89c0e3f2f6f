"""Quantisation-aware fine-tuning that keeps zeros (TFMOT), then TFLite in whole numbers of 8 bits."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lotcal_tf.compat import keras, tfmot
from lotcal_tf.data.splits import Split
from lotcal_tf.errors import UsageError
from lotcal_tf.formats import tflite, zeros
from lotcal_tf.formats.format import Material, without_softmax
from lotcal_tf.models.keras_graph import copy_layer, flatten, rebuild
from lotcal_tf.seeds import named_seed

_STEPS, _BATCH, _RATE = 200, 64, 1e-4
# Passes that find the activations' ranges, before and in fine-tuning. TFMOT's own 0.999 takes
# thousands of steps to leave the range that it begins with.
_RANGE_PASSES, _RANGE_DECAY = 40, 0.9

_L = keras.layers
_FOLDED_INTO = (_L.Conv2D, _L.DepthwiseConv2D, _L.Dense)


def write(model: "keras.Model", path: Path, material: Material) -> None:
    """Fine-tunes a copy of the network as it will be rounded, and writes it as int8.

    The copy learns the network's own probabilities, not the labels, so that its confidence stays
    what it was. Dropout drops nothing. BatchNorm stands still; where no linear layer is before it,
    it is computed in float32. Input and output stay float32.

    Raises:
      UsageError: validation or training data are missing, or a layer with weights cannot be
        quantised.
      ExportMismatch: a zero was lost.
    """
    inputs, _ = material.of_validation("int8_qat")
    if material.training is None:
        raise UsageError("int8_qat needs training data: give some, or choose the format int8")
    plain = without_softmax(model)
    tuned = fine_tuned(plain, inputs, material.training, material.seed)
    written = tflite.convert(tuned, False, optimizations=[tf.lite.Optimize.DEFAULT])
    path.write_bytes(tflite.finished(written, model))
    zeros.check(path, plain)


def fine_tuned(
    model: "keras.Model", inputs: NDArray[np.float32], training: Split, seed: int
) -> "keras.Model":
    """A flat copy that rounds as int8 does, ranges found and weights fine-tuned.

    Args:
      model: plain; gives logits.
      inputs: `(N, …)` that activations get their first ranges from.
      training: what it is tuned over, 200 steps.
      seed: of the order.

    Raises:
      UsageError: see `write`.
    """
    flat = flatten(model)
    tuned = _quantised(flat)
    wrapped = {layer.name.removeprefix("quant_"): layer for layer in tuned.layers}
    masks = []
    for layer in flat.layers:
        for weight, copy in zip(layer.weights, _own(wrapped.get(layer.name), layer), strict=False):
            if weight.shape.rank > 1:
                masks.append((copy, tf.cast(tf.not_equal(weight, 0), weight.dtype)))
        if isinstance(layer, _L.BatchNormalization) and layer.name in wrapped:
            wrapped[layer.name].trainable = False

    def remask(*_: Any) -> None:
        for kernel, mask in masks:
            kernel.assign(kernel * mask)

    batch = min(_BATCH, training.count)
    examples = _examples(training, batch, seed)
    teacher = [flat(examples[i : i + 1000], training=False) for i in range(0, len(examples), 1000)]
    with _quick_ranges():
        for number in range(_RANGE_PASSES):
            places = np.arange(number * batch, (number + 1) * batch) % len(inputs)
            tuned(inputs[places], training=True)
        tuned.compile(
            keras.optimizers.Adam(_RATE), keras.losses.CategoricalCrossentropy(from_logits=True)
        )
        tuned.fit(
            examples,
            tf.nn.softmax(tf.concat(teacher, 0)).numpy(),
            batch_size=batch,
            shuffle=False,
            verbose=0,
            callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=remask)],
        )
    remask()
    return tuned


def _quantised(flat: "keras.Model") -> "keras.Model":
    """TFMOT's wrapping of every layer that it knows, with the weights.

    Raises:
      UsageError: it does not know a layer that has weights.
    """
    scheme = tfmot.experimental.combine.Default8BitPrunePreserveQuantizeScheme()
    registry = scheme.get_quantize_registry()
    known = {layer.name for layer in flat.layers if _is_known(layer)}
    strange = [
        f"{layer.name} ({type(layer).__name__})"
        for layer in flat.layers
        if layer.weights
        and not isinstance(layer, _L.BatchNormalization)
        and (layer.name not in known or not registry.supports(layer))
    ]
    if strange:
        raise UsageError(
            f"TFMOT cannot fine-tune {', '.join(strange)} for int8: choose the format int8"
        )

    def replace(layer: "keras.layers.Layer") -> "keras.layers.Layer":
        config = layer.get_config()
        # Dropout drops nothing: the copy learns what the network computes, the same at every run.
        still = {"rate": 0.0} if "rate" in config and not layer.weights else {}
        copy = copy_layer(layer, {**config, **still})
        if layer.name in known:
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
        line = str(error).strip().splitlines()[0]
        raise UsageError(
            f"TFMOT cannot fine-tune this network for int8 ({line}): choose the format int8"
        ) from error


class _OutputOnly(tfmot.quantization.keras.QuantizeConfig):
    """Rounds what a layer gives: of layers without weights that TFMOT does not know."""

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


def _is_known(layer: "keras.layers.Layer") -> bool:
    """Whether TFMOT quantises a layer; BatchNorm only where it can be folded into the one before."""
    if isinstance(layer, _L.BatchNormalization):
        before = layer.inbound_nodes[0].inbound_layers
        return isinstance(before, _FOLDED_INTO) and before.activation is keras.activations.linear
    registry = tfmot.quantization.keras.default_8bit.Default8BitQuantizeRegistry()
    return bool(registry.supports(layer))


def _own(wrapper: Any, layer: "keras.layers.Layer") -> list[Any]:
    """The variables of a wrapped layer that are the plain layer's, in its order."""
    variables = {} if wrapper is None else {v.name.rpartition("/")[2]: v for v in wrapper.weights}
    found = [variables.get(weight.name.rpartition("/")[2]) for weight in layer.weights]
    return [variable for variable in found if variable is not None]


def _examples(training: Split, batch: int, seed: int) -> NDArray[np.float32]:
    """Inputs of `_STEPS` batches, in an order of the seed's, epoch after epoch."""
    found: list[NDArray] = []
    missing, epoch = _STEPS * batch, 0
    while missing:
        for inputs, _ in training.shuffled(batch, _STEPS, named_seed(seed, "qat", epoch)):
            found.append(inputs[:missing].numpy().astype(np.float32))
            missing -= len(found[-1])
            if not missing:
                break
        epoch += 1
    return np.concatenate(found)


@contextlib.contextmanager
def _quick_ranges() -> Iterator[None]:
    """Lets the ranges of activations follow what passes, rather than TFMOT's first guess."""
    from tensorflow_model_optimization.python.core.quantization.keras import quant_ops

    slow = quant_ops.MovingAvgQuantize

    def quick(*args: Any, **options: Any) -> Any:
        # Its callers name a decay themselves.
        return slow(*args, **{**options, "ema_decay": _RANGE_DECAY})

    quant_ops.MovingAvgQuantize = quick
    try:
        yield
    finally:
        quant_ops.MovingAvgQuantize = slow
