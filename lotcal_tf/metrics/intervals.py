"""Confidence intervals of the differences between two classifiers on the same examples."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from lotcal_tf.metrics.bins import bin_index, checked_bins
from lotcal_tf.metrics.classification import DEFAULT_BINS, checked, log_softmax

LEVEL = 0.99
_MEANS = ("accuracy", "nll", "brier", "overconfidence")  # metrics that are means over examples
_DRAWS = 1000
_AT_ONCE = 50  # draws in one matrix product


@dataclass(frozen=True)
class Interval:
    """A difference between two values of a metric, with its confidence interval.

    Attributes:
        difference: the difference on the examples.
        low, high: the ends of the interval.
    """

    difference: float
    low: float
    high: float


def paired_intervals(
    labels: ArrayLike, first: ArrayLike, second: ArrayLike, *, bins: int = DEFAULT_BINS
) -> dict[str, Interval]:
    """By how much the second classifier's metrics exceed the first's.

    They are accuracy, NLL, Brier score, ECE, and over-confidence: mean confidence minus accuracy.
    That one is much more precise than the ECE, since chance in the labels cancels: if both predict the
    same classes, only confidences count.

    The 99 % intervals are d ± 2.576 s, where d is the difference on the N examples and s its standard
    error. For all but the ECE, d is a mean of differences per example, and s is their
    standard deviation / sqrt(N). The ECE is not a mean: s is the standard deviation of the difference
    over 1,000 bootstrap draws of N examples, on each of which both classifiers are measured (Efron &
    Tibshirani 1993, chapters 6 and 13). Only what differs between the classifiers counts in both
    cases. The draws have a fixed seed, so that the same predictions have the same intervals.

    Percentiles of the draws are not used: the ECE of a draw is larger than that of the examples, more
    so for a calibrated classifier, so that percentiles miss a rise of the ECE, and mirrored ones
    (the basic bootstrap) find a rise where confidences only moved from below to above the accuracy.

    Args:
        labels: `(N,)`, integers in [0, K).
        first, second: `(N, K)`, logits.
        bins: number of bins of the ECE.

    Returns:
        The intervals by `accuracy`, `nll`, `brier`, `overconfidence` and `ece`, in units of the metric.
    """
    (y, _), _ = checked(labels, first), checked(labels, second)
    bins = checked_bins(bins)
    (scores, gaps), (others, other_gaps) = (_terms(y, z, bins) for z in (first, second))
    changes, both = others - scores, np.concatenate([gaps, other_gaps], axis=1)

    def rise(sums: NDArray) -> NDArray:
        """The differences `(...)` of the ECE for sums `(..., 2 * bins)` of gaps."""
        eces = np.abs(sums).reshape(*sums.shape[:-1], 2, bins).sum(-1) / len(y)
        return eces[..., 1] - eces[..., 0]

    differences = [*changes.mean(axis=0), rise(both.sum(axis=0))]
    errors = [*changes.std(axis=0) / np.sqrt(len(y)), rise(_resampled_sums(both)).std()]
    half = norm.ppf((1 + LEVEL) / 2)
    return {
        name: Interval(float(d), float(d - half * s), float(d + half * s))
        for name, d, s in zip((*_MEANS, "ece"), differences, errors, strict=True)
    }


def _terms(
    labels: NDArray, logits: ArrayLike, bins: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What each example adds to the metrics: `(N, 4)` values of `_MEANS`, and `(N, bins)` gaps.

    A gap is confidence minus correctness, and stands in the column of the example's bin.
    """
    z = np.asarray(logits)
    rows, log_p = np.arange(len(z)), log_softmax(z)
    p = np.exp(log_p)
    correct = (z.argmax(axis=1) == labels).astype(np.float64)
    brier = np.einsum("ij,ij->i", p, p) - 2 * p[rows, labels] + 1
    sure = p.max(axis=1)
    gaps = np.zeros((len(z), bins))
    gaps[rows, bin_index(sure, bins)] = sure - correct
    return np.stack([correct, -log_p[rows, labels], brier, sure - correct], axis=1), gaps


def _resampled_sums(terms: NDArray[np.float64]) -> NDArray[np.float32]:
    """The sums of the rows of `terms`, `(N, C)`, over each draw with replacement: `(draws, C)`."""
    count, generator, values = len(terms), np.random.default_rng(0), terms.astype(np.float32)
    sums = []
    for _ in range(_DRAWS // _AT_ONCE):
        weights = np.empty((_AT_ONCE, count), np.float32)
        for row in weights:
            row[:] = np.bincount(generator.integers(count, size=count), minlength=count)
        sums.append(weights @ values)
    return np.concatenate(sums)
