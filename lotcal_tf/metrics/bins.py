"""Bins of confidence, from which calibration errors and reliability diagrams are computed."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lotcal_tf.errors import UsageError, shown

# A confidence that equals a bin's edge exactly (1/5, or softmax of log 0.6 and log 0.4) may be about
# 1e-16 above it after exp and log. The tolerance is far below the 1e-7 that float32 logits resolve.
_EDGE_TOLERANCE = 1e-12
_MAX_BINS = 10**6


@dataclass(frozen=True, eq=False)
class BinStatistics:
    """Counts, mean confidence and accuracy of M bins of confidence.

    Attributes:
        edges: `(M + 1,)`, ascending; bin m is (edges[m], edges[m + 1]], the first one also includes
            its lower edge.
        counts: `(M,)`, number of examples |B_m|.
        confidence: `(M,)`, mean confidence conf(B_m) in [0, 1], NaN for empty bins.
        accuracy: `(M,)`, share of correct predictions acc(B_m) in [0, 1], NaN for empty bins.
    """

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @property
    def gap(self) -> NDArray[np.float64]:
        """conf(B_m) - acc(B_m), `(M,)` in [-1, 1]: above 0 is over-confident, NaN for empty bins."""
        return self.confidence - self.accuracy

    @property
    def expected_gap(self) -> float:
        """Sum over m of |B_m|/N * |acc(B_m) - conf(B_m)|, in [0, 1]; empty bins count 0."""
        return float(np.nansum(self.counts * np.abs(self.gap)) / self.counts.sum())

    @property
    def maximum_gap(self) -> float:
        """The largest |acc(B_m) - conf(B_m)| of the non-empty bins, in [0, 1]."""
        return float(np.nanmax(np.abs(self.gap)))

    @property
    def debiased_squared_gap(self) -> float:
        """An unbiased estimate of the sum over m of |B_m|/N * (acc - conf)^2; may be below 0.

        Kumar, Liang & Ma 2019 (arXiv 1909.10155), section 5.1; see `classification.debiased_ece`.
        """
        hits, gaps = (np.nan_to_num(x) * self.counts for x in (self.accuracy, self.gap))
        return float(debiased_squares(self.counts, hits, gaps).sum() / self.counts.sum())


def debiased_squares(counts: NDArray, hits: NDArray, gaps: NDArray) -> NDArray[np.float64]:
    """|B_m| * (gap^2 - acc * (1 - acc) / (|B_m| - 1)) of each bin, `(..., M)`; 0 for fewer than two examples.

    Args:
        counts: `(..., M)`, number of examples of each bin.
        hits: the sum over its examples of whether the event occurred.
        gaps: the sum over its examples of confidence minus that.
    """
    known = np.maximum(counts, 2)
    share = hits / known
    squares = (gaps / known) ** 2 - share * (1 - share) / (known - 1)
    return np.where(counts > 1, counts * squares, 0.0)


def bin_statistics(correct: ArrayLike, confidence: ArrayLike, bins: int) -> BinStatistics:
    """Counts, mean confidence and accuracy in bins of equal width on (0, 1], closed on the right.

    No example is dropped: a confidence on an edge (within 1e-12) falls into the lower bin, 1 into the
    last one, and 0 into the first one.

    Args:
        correct: `(N,)` of 0 and 1 (or booleans), whether the predicted event occurred; N >= 1.
        confidence: `(N,)` in [0, 1], the predicted probability of the event.
        bins: number of bins M >= 1.

    Raises:
        ValueError: an argument has another shape or range.
    """
    hits, conf = _checked_events(correct, confidence)
    bins = checked_bins(bins)
    edges, index = _edges(bins), bin_index(conf, bins)
    counts = np.bincount(index, minlength=bins)

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return means(np.bincount(index, weights=values, minlength=bins), counts)

    return BinStatistics(edges, counts, confidence=mean(conf), accuracy=mean(hits))


def means(sums: NDArray, counts: NDArray) -> NDArray[np.float64]:
    """Sums divided by counts of the same shape; NaN where there is nothing to count."""
    found = np.full(counts.shape, np.nan)
    np.divide(sums, counts, out=found, where=counts > 0)
    return found


def bin_index(confidence: NDArray[np.float64], bins: int) -> NDArray[np.intp]:
    """The bin of each confidence in `bin_statistics`, `(N,)` from 0 to `bins` - 1."""
    # The index of the bin is the number of inner edges below the confidence.
    return np.searchsorted(_edges(bins)[1:-1] + _EDGE_TOLERANCE, confidence, side="left")


def _edges(bins: int) -> NDArray[np.float64]:
    # linspace multiplies by a rounded step: its 3/5 is 0.6000000000000001.
    return np.arange(bins + 1) / bins


def equal_mass_statistics(correct: ArrayLike, confidence: ArrayLike, bins: int) -> BinStatistics:
    """Like `bin_statistics`, in bins whose numbers of examples differ by at most one.

    Equal confidences may fall into neighbouring bins. Each of them counts with their mean accuracy, so
    that the order of the examples does not matter. The edges are the lowest confidence of each bin,
    and 1. There are at most N bins.
    """
    hits, conf = _checked_events(correct, confidence)
    _, tied = np.unique(conf, return_inverse=True)
    hits = (np.bincount(tied, weights=hits) / np.bincount(tied))[tied]
    bins = min(checked_bins(bins), hits.size)
    order = np.argsort(conf, kind="stable")
    parts = np.array_split(order, bins)
    edges = np.array([0.0, *(conf[part[0]] for part in parts[1:]), 1.0])
    return BinStatistics(
        edges,
        np.array([part.size for part in parts]),
        confidence=np.array([conf[part].mean() for part in parts]),
        accuracy=np.array([hits[part].mean() for part in parts]),
    )


def _checked_events(
    correct: ArrayLike, confidence: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    hits, conf = numbers("correct", correct), numbers("confidence", confidence)
    if hits.ndim != 1 or hits.shape != conf.shape or not hits.size:
        raise UsageError(
            "correct and confidence must both have shape (N,) with N >= 1, "
            f"got {hits.shape} and {conf.shape}"
        )
    if not ((hits == 0.0) | (hits == 1.0)).all():
        raise UsageError("correct must hold only 0 and 1, or booleans, got other values")
    if not ((conf >= 0.0) & (conf <= 1.0)).all():  # False for NaN, too.
        raise UsageError(f"confidence must lie in [0, 1], got {conf.min()} to {conf.max()}")
    return hits, conf


def numbers(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """Values as float64.

    Raises:
      UsageError: they are not an array of real numbers.
    """
    given = array(name, values)
    if given.dtype.kind not in "buif":
        raise UsageError(f"{name} must be numbers, got an array of type {given.dtype}")
    return given.astype(np.float64)


def array(name: str, values: ArrayLike) -> NDArray:
    """Values as an array.

    Raises:
      UsageError: they do not form one.
    """
    try:
        return np.asarray(values)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name} must be an array, got {shown(values)}: {error}") from error


def checked_bins(bins: int) -> int:
    """A number of bins; raises UsageError if it is not one."""
    known = isinstance(bins, int | np.integer) and not isinstance(bins, bool)
    if not known or bins < 1:
        raise UsageError(f"bins must be an integer >= 1, got {shown(repr(bins))}")
    if bins > _MAX_BINS:
        raise UsageError(f"bins must be at most {_MAX_BINS:,}, got {shown(bins)}")
    return int(bins)
