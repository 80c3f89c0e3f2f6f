"""Confidence intervals of the metrics of a classifier, and of the differences between two on the same examples."""

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.stats import norm

from lotcal_tf.metrics.bins import bin_index, checked_bins, debiased_squares
from lotcal_tf.metrics.classification import DEFAULT_BINS, checked, unchecked_log_softmax

LEVEL = 0.99
_MEANS = ("accuracy", "nll", "brier", "overconfidence")  # metrics that are means over examples
_DRAWS = 1000
_FEW = 200  # draws for an interval of one classifier: its width has a standard error of 5 %
# The ranges of `_MEANS`, and of both calibration errors.
_RANGES = ((0.0, 1.0), (0.0, math.inf), (0.0, 2.0), (-1.0, 1.0), (0.0, 1.0), (0.0, 1.0))
_AT_ONCE = 50  # draws in one matrix product
ESTIMATE_LEVEL = 0.95


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


@dataclass(frozen=True)
class Estimate:
    """A metric with its confidence interval.

    Attributes:
        value: the metric of the examples.
        low, high: the ends of the interval.
    """

    value: float
    low: float
    high: float


def metric_intervals(
    labels: ArrayLike, logits: ArrayLike, *, bins: int = DEFAULT_BINS
) -> dict[str, Estimate]:
    """Metrics of a classifier with 95 % intervals: what another test set of the same size could give.

    They are accuracy, NLL, Brier score, over-confidence, ECE and debiased ECE (`debiased_ece`). The
    intervals are m ± 1.96 s, where m is the metric on the N examples and s its bootstrap standard error,
    limited to the metric's range. For means over examples, s is the limit for infinitely many draws, the
    standard deviation / sqrt(N). For the others, s is the standard deviation over 200 draws of N examples.
    The draws are the same for all classifiers on N examples, so that equal predictions have equal
    intervals. Percentiles are not used: the ECE of a draw is larger than that of the examples. The
    interval does not cover the spread over seeds.

    Args:
        labels: `(N,)`, integers in [0, K).
        logits: `(N, K)`.
        bins: number of bins of both ECEs.

    Returns:
        The estimates by `accuracy`, `nll`, `brier`, `overconfidence`, `ece` and `debiased_ece`.
    """
    y, z = checked(labels, logits)
    bins = checked_bins(bins)
    scores, index = _terms(y, z, bins)
    hits, gaps = scores[:, _MEANS.index("accuracy")], scores[:, _MEANS.index("overconfidence")]
    # One row for each bin of ones, hits and gaps; an example is in one bin, so the matrix is sparse.
    rows = np.concatenate([index, index + bins, index + 2 * bins])
    parts = np.concatenate([np.ones(len(y)), hits, gaps])
    columns = np.tile(np.arange(len(y)), 3)
    shape = (3 * bins, len(y))
    terms = sparse.csr_array((parts.astype(np.float32), (rows, columns)), shape=shape)
    sums = np.bincount(rows, parts, 3 * bins)
    values = [*scores.mean(axis=0), *_calibration_errors(sums, bins)]
    draws = _calibration_errors((terms @ _few_draws(len(y))).T.astype(np.float64), bins)
    errors = [*scores.std(axis=0) / np.sqrt(len(y)), *(error.std() for error in draws)]
    half = norm.ppf((1 + ESTIMATE_LEVEL) / 2)
    return {
        name: Estimate(float(v), max(float(v - half * s), low), min(float(v + half * s), high))
        for name, v, s, (low, high) in zip(
            (*_MEANS, "ece", "debiased_ece"), values, errors, _RANGES, strict=True
        )
    }


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
    (y, one), (_, two) = checked(labels, first), checked(labels, second)
    bins = checked_bins(bins)
    (scores, index), (others, other_index) = (_terms(y, z, bins) for z in (one, two))
    changes, place = others - scores, _MEANS.index("overconfidence")
    both = np.concatenate(
        [_in_bins(scores[:, place], index, bins), _in_bins(others[:, place], other_index, bins)],
        axis=1,
    )

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
    labels: NDArray, z: NDArray[np.float64], bins: int
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """What each example adds to the metrics: `(N, 4)` values of `_MEANS`; and its bin, `(N,)`."""
    rows, log_p = np.arange(len(z)), unchecked_log_softmax(z)
    p = np.exp(log_p)
    correct = (z.argmax(axis=1) == labels).astype(np.float64)
    brier = np.einsum("ij,ij->i", p, p) - 2 * p[rows, labels] + 1
    sure = p.max(axis=1)
    scores = np.stack([correct, -log_p[rows, labels], brier, sure - correct], axis=1)
    return scores, bin_index(sure, bins)


def _in_bins(values: NDArray, index: NDArray[np.intp], bins: int) -> NDArray[np.float64]:
    """The values `(N,)` in the columns of their examples' bins, `(N, bins)`; 0 elsewhere."""
    spread = np.zeros((len(values), bins))
    spread[np.arange(len(values)), index] = values
    return spread


def _calibration_errors(sums: NDArray, bins: int) -> tuple[NDArray, NDArray]:
    """ECE and debiased ECE `(...)` from sums of ones, hits and gaps in each bin, `(..., 3 * bins)`."""
    counts, hits, gaps = np.moveaxis(sums.reshape(*sums.shape[:-1], 3, bins), -2, 0)
    squares = debiased_squares(counts, hits, gaps).sum(-1) / counts.sum(-1)
    return np.abs(gaps).sum(-1) / counts.sum(-1), np.sqrt(np.maximum(squares, 0))


def _resampled_sums(terms: NDArray[np.float64]) -> NDArray[np.float32]:
    """The sums of the rows of `terms`, `(N, C)`, over each draw with replacement: `(draws, C)`."""
    generator, values = np.random.default_rng(0), terms.astype(np.float32)
    sums = [_draws(len(terms), generator) @ values for _ in range(_DRAWS // _AT_ONCE)]
    return np.concatenate(sums)


def _draws(count: int, generator: np.random.Generator) -> NDArray[np.float32]:
    """How often each of `count` examples is in each of some draws, `(_AT_ONCE, count)`."""
    weights = np.empty((_AT_ONCE, count), np.float32)
    for row in weights:
        row[:] = np.bincount(generator.integers(count, size=count), minlength=count)
    return weights


@functools.lru_cache(maxsize=2)
def _few_draws(count: int) -> NDArray[np.float32]:
    """The first `_FEW` draws of `_resampled_sums`, `(count, _FEW)`."""
    generator = np.random.default_rng(0)
    parts = [_draws(count, generator) for _ in range(_FEW // _AT_ONCE)]
    return np.ascontiguousarray(np.concatenate(parts).T)
