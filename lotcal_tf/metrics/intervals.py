"""Confidence intervals of the metrics of a classifier, and of the differences between two on the same examples."""

import functools
import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.stats import binomtest, norm

from lotcal_tf.errors import UsageError, shown
from lotcal_tf.metrics.bins import bin_index, checked_bins, debiased_squares
from lotcal_tf.metrics.classification import (
    DEFAULT_BINS,
    Outputs,
    checked,
)

LEVEL = 0.99
_MEANS = ("accuracy", "nll", "brier", "overconfidence")  # metrics that are means over examples
_DRAWS = 1000
_FEW = 200  # draws for an interval of one classifier: its width has a standard error of 5 %
_BINNED = ("ece", "debiased_ece", "mce")
# The metrics of `metric_intervals` with their ranges.
_RANGES = {
    "accuracy": (0.0, 1.0),
    "nll": (0.0, math.inf),
    "brier": (0.0, 2.0),
    "overconfidence": (-1.0, 1.0),
    **dict.fromkeys((*_BINNED, "classwise_ece", "adaptive_ece", "aurc"), (0.0, 1.0)),
}
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
    labels: ArrayLike,
    logits: ArrayLike,
    *,
    bins: int = DEFAULT_BINS,
    names: Collection[str] | None = None,
) -> dict[str, Estimate]:
    """Metrics of a classifier with 95 % intervals of their mean over test sets of the same size.

    The values of two test sets differ by more: that of another one lies inside with a probability of about
    83 %. On few examples the mean of an ECE is above the calibration error itself, see `debiased_ece`.

    The accuracy has Wilson's interval for a proportion (1927), which keeps a width where all predictions
    are right. The other intervals are m ± 1.96 s, where m is the metric on the N examples and s its
    bootstrap standard error, limited to the metric's range. For means over examples and the AURC, s is
    the limit for infinitely many draws: the standard deviation / sqrt(N), of the AURC that of its
    derivatives with respect to the weights of the examples. For the others, s is the standard deviation
    over 200 draws of N examples; the adaptive ECE has the same bins on all of them. The draws are the same for all
    classifiers on N examples, so that equal predictions have equal intervals. Percentiles are not used:
    the ECE of a draw is larger than that of the examples. The interval does not cover the spread over
    seeds.

    Args:
        labels: `(N,)`, integers in [0, K).
        logits: `(N, K)`.
        bins: number of bins of the calibration errors.
        names: the metrics to measure; None: all.

    Returns:
        The estimates by `accuracy`, `nll`, `brier`, `overconfidence`, `ece`, `debiased_ece`, `mce`,
        `classwise_ece`, `adaptive_ece` and `aurc`.
    """
    y, z = checked(labels, logits)
    bins = checked_bins(bins)
    asked = _asked(names)
    scores, sure, p = _scores(y, z)
    hits, gaps = (scores[:, _MEANS.index(name)] for name in ("accuracy", "overconfidence"))
    found = dict(
        zip(_MEANS, zip(scores.mean(0), scores.std(0) / np.sqrt(len(y)), strict=True), strict=True)
    )
    draws = _few_draws(len(y))
    if asked & {*_BINNED}:
        found |= _binned(hits, gaps, bin_index(sure, bins), bins, draws)
    if "classwise_ece" in asked:
        found["classwise_ece"] = _classwise(y, p, bins, draws)
    if asked & {"adaptive_ece", "aurc"}:
        _, group, counts = np.unique(sure, return_inverse=True, return_counts=True)
        found["adaptive_ece"] = _adaptive(group, counts, gaps, bins, draws)
        influence = _aurc_influence(group, counts, hits)
        found["aurc"] = influence.mean(), influence.std() / np.sqrt(len(y))
    half = norm.ppf((1 + ESTIMATE_LEVEL) / 2)
    estimates = {
        name: Estimate(m, max(float(m - half * s), low), min(float(m + half * s), high))
        for name, (low, high) in _RANGES.items()
        if name in asked
        for m, s in [map(float, found[name])]
    }
    if "accuracy" in asked:
        ends = binomtest(int(hits.sum()), len(y)).proportion_ci(ESTIMATE_LEVEL, method="wilson")
        estimates["accuracy"] = Estimate(float(hits.mean()), float(ends.low), float(ends.high))
    return estimates


def _asked(names: Collection[str] | None) -> set[str]:
    """The metrics to measure."""
    if names is None:
        return {*_RANGES}
    known = isinstance(names, Collection) and not isinstance(names, str | bytes)
    if not known or not all(isinstance(n, str) and n in _RANGES for n in names):
        raise UsageError(f"names must be some of {', '.join(_RANGES)}, got {shown(names)}")
    return {*names}


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
    (y, one), (_, two) = checked(labels, first, "first"), checked(labels, second, "second")
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
    scores, sure, _ = _scores(labels, z)
    return scores, bin_index(sure, bins)


def _scores(
    labels: NDArray, z: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The values of `_MEANS` of each example, `(N, 4)`; its confidence, `(N,)`; probabilities, `(N, K)`."""
    rows, found = np.arange(len(z)), Outputs(z)
    p, sure = found.p, found.confidence
    correct = (z.argmax(axis=1) == labels).astype(np.float64)
    brier = np.einsum("ij,ij->i", p, p) - 2 * p[rows, labels] + 1
    scores = np.stack([correct, -found.log_p[rows, labels], brier, sure - correct], axis=1)
    return scores, sure, p


def _in_bins(values: NDArray, index: NDArray[np.intp], bins: int) -> NDArray[np.float64]:
    """The values `(N,)` in the columns of their examples' bins, `(N, bins)`; 0 elsewhere."""
    spread = np.zeros((len(values), bins))
    spread[np.arange(len(values)), index] = values
    return spread


_Found: TypeAlias = tuple[float, float]  # a metric of the examples, and its standard error


def _binned(
    hits: NDArray, gaps: NDArray, index: NDArray, bins: int, draws: NDArray
) -> dict[str, _Found]:
    """ECE, debiased ECE and MCE of hits and gaps `(N,)` in bins of the confidence."""
    rows = index[:, None] + bins * np.arange(3)
    parts = np.stack([np.ones(len(hits)), hits, gaps], axis=1)
    values, drawn = (
        _calibration_errors(*np.split(sums, 3)) for sums in _sums(rows, parts, 3 * bins, draws)
    )
    errors = zip(values, drawn, strict=True)
    return {n: (v.item(), d.std()) for n, (v, d) in zip(_BINNED, errors, strict=True)}


def _sums(
    rows: NDArray, values: NDArray, count: int, draws: NDArray
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums of the values `(N, V)` that go to the rows `(N, V)`: of the examples `(count, 1)`, and of draws.

    Returns:
        The sums over the examples, `(count, 1)`, and over each draw, `(count, draws)`.
    """
    examples, each = values.shape
    starts = np.arange(0, values.size + 1, each)
    terms = (values.astype(np.float32).ravel(), rows.ravel(), starts)
    drawn = sparse.csc_array(terms, shape=(count, examples)) @ draws
    sums = np.bincount(rows.ravel(), values.ravel(), count)[:, None]
    return sums.astype(np.float64), drawn.astype(np.float64)


def _calibration_errors(
    counts: NDArray, hits: NDArray, gaps: NDArray
) -> tuple[NDArray, NDArray, NDArray]:
    """ECE, debiased ECE and MCE `(D,)` from the sums of ones, hits and gaps in each bin, `(bins, D)`."""
    total = counts.sum(0)
    squares = debiased_squares(counts, hits, gaps).sum(0) / total
    largest = (np.abs(gaps) / np.maximum(counts, 1)).max(0)
    return np.abs(gaps).sum(0) / total, np.sqrt(np.maximum(squares, 0)), largest


def _classwise(labels: NDArray, p: NDArray, bins: int, draws: NDArray) -> _Found:
    """Class-wise ECE of probabilities `(N, K)`."""
    p = np.minimum(p, 1.0)
    rows = bin_index(p, bins) + bins * np.arange(p.shape[1])
    p[np.arange(len(p)), labels] -= 1
    sums = _sums(rows, p, bins * p.shape[1], draws)
    value, drawn = (np.abs(one).sum(0) / p.size for one in sums)
    return value.item(), drawn.std()


def _adaptive(group: NDArray, counts: NDArray, gaps: NDArray, bins: int, draws: NDArray) -> _Found:
    """Adaptive ECE, with the bins of the examples for all draws.

    Args:
      group: of equal confidence, of each example, `(N,)`; ascending.
      counts: the sizes of the groups.
      gaps: `(N,)`.
    """
    # Where groups of equal confidence and bins overlap: an example counts in each bin of its group with the
    # share of the group that lies in the bin, since `adaptive_ece` gives equal confidences their mean accuracy.
    ends = np.cumsum([len(part) for part in np.array_split(group, min(bins, len(group)))])
    upto = np.cumsum(counts)
    cuts = np.union1d(ends, upto)
    own, place = np.searchsorted(upto, cuts), np.searchsorted(ends, cuts)
    shares = np.diff(cuts, prepend=0) / counts[own]
    overlap = sparse.csc_array((shares, (place, own)), shape=(len(ends), len(counts)))
    value = np.abs(overlap @ np.bincount(group, gaps)).sum() / len(group)
    terms = overlap[:, group].multiply(gaps).tocsc().astype(np.float32)
    drawn = np.abs((terms @ draws).astype(np.float64)).sum(0) / len(group)
    return value, drawn.std()


def _aurc_influence(group: NDArray, counts: NDArray, hits: NDArray) -> NDArray[np.float64]:
    """The derivative of N AURC with respect to the weight of each example, `(N,)`; see `_adaptive`.

    Its mean is the AURC, and its standard deviation / sqrt(N) the standard error by the infinitesimal
    jackknife (Efron & Tibshirani 1993, chapter 21). In descending order of confidence, let group g of
    equal confidence have n examples with the error rate r, after C examples with E errors. Then
    N AURC = sum over g of n r + (E - r C) h with h = H(C + n) - H(C), H the harmonic numbers, whose
    derivative is 1 / C.
    """
    wrong, group, n = 1 - hits, len(counts) - 1 - group, counts[::-1]
    errors = np.bincount(group, wrong)
    r = errors / n
    upto = np.cumsum(n)
    before, errors_before = upto - n, np.cumsum(errors) - errors
    harmonic = np.cumsum(np.r_[0, 1 / np.arange(1, len(group) + 1)])
    h, excess = harmonic[upto] - harmonic[before], errors_before - r * before
    # An example adds to E and C of the groups after its own; the first group has excess 0.
    in_c = excess * (1 / upto - 1 / np.maximum(before, 1)) - r * h
    by_e, by_c = (np.cumsum(x[::-1])[::-1] - x for x in (h, in_c))
    # It adds to n of its own group, and changes its r.
    in_n, in_r = excess / upto, -before * h / n
    return (
        wrong + (wrong - r[group]) * in_r[group] + in_n[group] + wrong * by_e[group] + by_c[group]
    )


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
