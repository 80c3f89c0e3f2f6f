"""Metrics of classifiers and reliability diagrams, without TensorFlow."""

from lotcal_tf.metrics.classification import (
    CONFIDENT,
    DEFAULT_BINS,
    accuracy,
    adaptive_ece,
    aurc,
    brier,
    classwise_ece,
    confidence,
    ece,
    log_softmax,
    mce,
    measure,
    nll,
    nll_standard_error,
    overconfidence,
    prediction_bins,
    wrong_confident,
)
from lotcal_tf.metrics.intervals import Interval, paired_intervals

__all__ = [
    "CONFIDENT",
    "DEFAULT_BINS",
    "Interval",
    "accuracy",
    "adaptive_ece",
    "aurc",
    "brier",
    "classwise_ece",
    "confidence",
    "ece",
    "log_softmax",
    "mce",
    "measure",
    "nll",
    "nll_standard_error",
    "overconfidence",
    "paired_intervals",
    "prediction_bins",
    "wrong_confident",
]
