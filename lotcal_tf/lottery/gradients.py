"""Gradients with respect to a network's masked weights over whole data sets, for pruning criteria."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lotcal_tf import metrics
from lotcal_tf.calibration.losses import cross_entropy
from lotcal_tf.compat import keras
from lotcal_tf.data.splits import Dataset, Split
from lotcal_tf.inputs import cast, specs_of
from lotcal_tf.metrics.bins import bin_index
from lotcal_tf.pruning import masking

# Examples per step; few enough for convolutional networks.
_BATCH = 500


class Gradients:
    """Gradients with respect to each masked weight, without dropout; compiled once for all levels.

    Args:
      network: a wrapped network; its current weights and masks are used.
      dataset: its training and validation data are read.
      predict: returns labels and logits of a split for the current weights.
      bins: the number of bins of the calibration error.
    """

    def __init__(
        self,
        network: "keras.Model",
        dataset: Dataset,
        predict: Callable[[Split], tuple[NDArray, NDArray]],
        bins: int,
    ) -> None:
        self.dataset, self.predict, self.bins = dataset, predict, bins
        self._names = list(masking.mask_variables(network))
        variables = masking.weight_variables(network)
        kernels = [variables[name] for name in self._names]

        specs = specs_of(network)

        def step(inputs: Any, classes: "tf.Tensor", of_loss: "tf.Tensor", of_p: "tf.Tensor") -> Any:
            """The gradients of Σ_i of_loss_i · (−log p_i[class_i]) + of_p_i · p_i[class_i]."""
            with tf.GradientTape() as tape:
                logits = tf.cast(network(cast(inputs, specs), training=False), tf.float32)
                losses = cross_entropy(classes, logits)
                total = tf.reduce_sum(of_loss * losses + of_p * tf.exp(-losses))
            # A kernel behind `tf.stop_gradient` has none.
            return tape.gradient(total, kernels, unconnected_gradients="zero")

        self._step = tf.function(step, reduce_retracing=True)

    def __call__(self, of: str) -> dict[str, NDArray]:
        """The gradient, by path.

        Args:
          of: `loss`, the mean cross-entropy on the training data, without weights of examples;
            `validation_nll`, that on the validation data; or `calibration`, Σ_m n_m/N ·
            (conf_m − acc_m)² over equal-width bins of confidence on the validation data, with each
            example's bin held fixed.

        Raises:
          ValueError: `of` is none of these.
        """
        splits = {"loss": self.dataset.train, "validation_nll": self.dataset.validation}
        if of == "calibration":
            labels, logits = self.predict(self.dataset.validation)
            return self._mean(self.dataset.validation, *_gap_weights(labels, logits, self.bins))
        if of not in splits:
            raise ValueError(f"gradient of {of!r}: choose one of loss, calibration, validation_nll")
        return self._mean(splits[of])

    def _mean(
        self,
        split: Split,
        scale: NDArray[np.float32] | None = None,
        classes: NDArray[np.int32] | None = None,
    ) -> dict[str, NDArray]:
        """The mean gradient over a split: of the cross-entropy, or of scale · p[class] if `scale` is given."""
        sums: list[Any] = [0.0] * len(self._names)
        first = 0
        for inputs, labels in split.in_order(_BATCH):
            rows = slice(first, first + len(labels))
            truth = labels if classes is None else tf.constant(classes[rows])
            zeros, ones = np.zeros(len(labels), np.float32), np.ones(len(labels), np.float32)
            factors = (ones, zeros) if scale is None else (zeros, scale[rows])
            parts = self._step(inputs, truth, *map(tf.constant, factors))
            sums = [
                total + part.numpy().astype(np.float64)
                for total, part in zip(sums, parts, strict=True)
            ]
            first += len(labels)
        return {name: total / first for name, total in zip(self._names, sums, strict=True)}


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
