"""Gradients of whole data sets with respect to a network's masked weights, for pruning criteria."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lotcal_tf import metrics
from lotcal_tf.calibration.losses import cross_entropy
from lotcal_tf.compat import keras
from lotcal_tf.data.splits import Dataset, Split
from lotcal_tf.metrics.bins import bin_index
from lotcal_tf.pruning import masking

# Examples per step; few enough for convolutional networks.
_BATCH = 500


def gradient(
    of: str,
    network: "keras.Model",
    dataset: Dataset,
    predict: Callable[[Split], tuple[NDArray, NDArray]],
    bins: int,
) -> dict[str, NDArray]:
    """The gradient with respect to each masked weight, by path; dropout is off.

    Args:
      of: `loss`, the mean cross-entropy on the training data; `validation_nll`, that on the
        validation data; or `calibration`, Σ_m n_m/N · (conf_m − acc_m)² over equal-width bins of
        confidence on the validation data, with each example's bin held fixed.
      network: wrapped, with weights and masks set.
      dataset: its training and validation data are read.
      predict: labels and logits of a split, with the network as it is.
      bins: of the calibration error.

    Raises:
      ValueError: `of` is none of these.
    """
    if of == "calibration":
        labels, logits = predict(dataset.validation)
        return _mean_gradient(network, dataset.validation, *_gap_weights(labels, logits, bins))
    splits = {"loss": dataset.train, "validation_nll": dataset.validation}
    if of not in splits:
        raise ValueError(f"gradient of {of!r}: choose one of loss, calibration, validation_nll")
    return _mean_gradient(network, splits[of])


def _gap_weights(
    labels: NDArray, logits: NDArray, bins: int
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """For each example 2 · (conf_m − acc_m) of its bin, and its predicted class.

    The squared error's gradient is the mean of these times the gradients of the confidences.
    """
    predicted, confidence = metrics.confidence(logits)
    gaps = np.nan_to_num(metrics.prediction_bins(labels, logits, bins=bins).gap)
    places = bin_index(confidence, bins)
    return (2 * gaps[places]).astype(np.float32), predicted.astype(np.int32)


def _mean_gradient(
    network: "keras.Model",
    split: Split,
    weights: NDArray[np.float32] | None = None,
    classes: NDArray[np.int32] | None = None,
) -> dict[str, NDArray]:
    """The mean gradient of −log p[label]; with weights of weight × p[class] instead."""
    masks = masking.mask_variables(network)
    variables = masking.weight_variables(network)
    kernels = [variables[name] for name in masks]

    @tf.function(reduce_retracing=True)
    def step(inputs: "tf.Tensor", labels: "tf.Tensor", scale: "tf.Tensor") -> "list[tf.Tensor]":
        with tf.GradientTape() as tape:
            logits = tf.cast(network(tf.cast(inputs, tf.float32), training=False), tf.float32)
            each = cross_entropy(labels, logits)
            total = tf.reduce_sum(each if weights is None else scale * tf.exp(-each))
        return list(tape.gradient(total, kernels))

    sums = [np.zeros(kernel.shape, np.float64) for kernel in kernels]
    first = 0
    for inputs, labels in split.in_order(_BATCH):
        rows = slice(first, first + len(labels))
        truth = labels if classes is None else tf.constant(classes[rows])
        scale = tf.ones(len(labels)) if weights is None else tf.constant(weights[rows])
        for total, part in zip(sums, step(inputs, truth, scale), strict=True):
            total += part.numpy()
        first += len(labels)
    return {name: total / first for name, total in zip(masks, sums, strict=True)}
