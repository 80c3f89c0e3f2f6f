"""Bins of confidence: what calibration errors sum and the reliability diagram shows."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

# A confidence that is a bin's edge on paper (1/5, or softmax of log 0.6 and log 0.4) can come out
# of exp and log some 1e-16 above it. So much is forgiven; float32 logits resolve only 1e-7.
_EDGE_TOLERANCE = 1e-12


@dataclass(frozen=True, eq=False)
class BinStatistics:
    """What happened in each of M bins of confidence.

    Attributes:
        edges: `(M + 1,)`, ascending; bin m is (edges[m], edges[m + 1]], the first one closed.
        counts: `(M,)`, number of examples |B_m|.
        confidence: `(M,)`, mean confidence conf(B_m) in [0, 1], NaN where the bin is empty.
        accuracy: `(M,)`, share of correct predictions acc(B_m) in [0, 1], NaN where it is empty.
    """

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @property
    def gap(self) -> NDArray[np.float64]:
        """conf(B_m) - acc(B_m), `(M,)` in [-1, 1]: above 0 is overconfident, NaN is empty."""
        return self.confidence - self.accuracy

    @property
    def expected_gap(self) -> float:
        """Sum over m of |B_m|/N * |acc(B_m) - conf(B_m)|, in [0, 1]; empty bins add 0."""
        return float(np.nansum(self.counts * np.abs(self.gap)) / self.counts.sum())

    @property
    def maximum_gap(self) -> float:
        """The largest |acc(B_m) - conf(B_m)| of a bin that is not empty, in [0, 1]."""
        return float(np.nanmax(np.abs(self.gap)))


def bin_statistics(correct: ArrayLike, confidence: ArrayLike, bins: int) -> BinStatistics:
    """Counts, mean confidence and accuracy in bins of equal width on (0, 1], closed on the right.

    A confidence of 1 is in the last bin, one on an edge (within 1e-12) in the lower bin, and 0,
    which a softmax's maximum never is, in the first: no example is dropped.

    Args:
        correct: `(N,)` of 0 and 1 (or booleans), whether the event came true; N >= 1.
        confidence: `(N,)` in [0, 1], the probability given to it.
        bins: M >= 1.

    Raises:
        ValueError: arguments of other shapes or ranges.
    """
    hits, conf = _checked_events(correct, confidence)
    bins = _checked_bins(bins)
    edges, index = _edges(bins), bin_index(conf, bins)
    counts = np.bincount(index, minlength=bins)

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        sums = np.bincount(index, weights=values, minlength=bins)
        means = np.full(bins, np.nan)
        np.divide(sums, counts, out=means, where=counts > 0)
        return means

    return BinStatistics(edges, counts, confidence=mean(conf), accuracy=mean(hits))


def bin_index(confidence: NDArray[np.float64], bins: int) -> NDArray[np.intp]:
    """The bin of `bin_statistics` that each confidence is in, `(N,)` from 0 to `bins` - 1."""
    # So many inner edges lie below the confidence.
    return np.searchsorted(_edges(bins)[1:-1] + _EDGE_TOLERANCE, confidence, side="left")


def _edges(bins: int) -> NDArray[np.float64]:
    # Not linspace: that multiplies by a rounded step, and its 3/5 is 0.6000000000000001.
    return np.arange(bins + 1) / bins


def equal_mass_statistics(correct: ArrayLike, confidence: ArrayLike, bins: int) -> BinStatistics:
    """Like `bin_statistics`, in bins that hold equally many examples, as near as N allows.

    Equal confidences may fall into neighbouring bins, and nothing tells which of them belongs where:
    each counts with the accuracy they have together, so that the order given means nothing.
    The edges are the lowest confidence of each bin, and 1.
    """
    hits, conf = _checked_events(correct, confidence)
    _, tied = np.unique(conf, return_inverse=True)
    hits = (np.bincount(tied, weights=hits) / np.bincount(tied))[tied]
    bins = min(_checked_bins(bins), hits.size)
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
    hits, conf = np.asarray(correct, dtype=np.float64), np.asarray(confidence, dtype=np.float64)
    if hits.ndim != 1 or hits.shape != conf.shape or not hits.size:
        raise ValueError(
            "correct and confidence must both have shape (N,) with N >= 1, "
            f"got {hits.shape} and {conf.shape}"
        )
    if not np.isin(hits, (0.0, 1.0)).all():
        raise ValueError("correct must hold only 0 and 1, or booleans, got other values")
    if not ((conf >= 0.0) & (conf <= 1.0)).all():  # also refuses NaN
        raise ValueError(f"confidence must lie in [0, 1], got {conf.min()} to {conf.max()}")
    return hits, conf


def _checked_bins(bins: int) -> int:
    if isinstance(bins, bool) or not isinstance(bins, (int, np.integer)) or bins < 1:
        raise ValueError(f"bins must be an integer >= 1, got {bins!r}")
    return int(bins)
