"""Accuracy, NLL, Brier score and calibration error of predictions, in NumPy and float64.

Every metric is a pure function `(labels, logits, *, ...)`: labels `(N,)` integers in [0, K),
logits `(N, K)` finite reals, N >= 1, K >= 2, with p = softmax(logits). Anything else raises
ValueError before a figure is computed. Predictions of several stochastic passes are averaged as
probabilities first; their logarithm serves as logits.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

DEFAULT_BINS = 15

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


def accuracy(labels: ArrayLike, logits: ArrayLike) -> float:
    """Share of examples whose predicted class is the label, in [0, 1]; ties as in `confidence`."""
    y, z = _checked(labels, logits)
    return float(np.mean(z.argmax(axis=1) == y))


def nll(labels: ArrayLike, logits: ArrayLike) -> float:
    """Negative log-likelihood, mean of -log p[y] in nats, in [0, inf); finite for logits +-1e4."""
    return float(_example_nll(labels, logits).mean())


def nll_standard_error(labels: ArrayLike, logits: ArrayLike) -> float:
    """Standard error of `nll` in nats: deviation of -log p[y] (ddof 1) / sqrt(N); 0.0 for N = 1."""
    losses = _example_nll(labels, logits)
    return float(losses.std(ddof=1) / np.sqrt(losses.size)) if losses.size > 1 else 0.0


def brier(labels: ArrayLike, logits: ArrayLike) -> float:
    """Brier score, mean over examples of sum_k (p_k - 1[k = y])^2, in [0, 2].

    Brier, "Verification of forecasts expressed in terms of probability", 1950, eq. 2.
    `tfp.stats.brier_score` returns sum_k p_k^2 - 2 p_y an example, which is this minus 1.
    """
    y, z = _checked(labels, logits)
    error = np.exp(log_softmax(z))
    error[np.arange(y.size), y] -= 1.0
    return float(np.mean(np.sum(error**2, axis=1)))


def ece(labels: ArrayLike, logits: ArrayLike, *, bins: int = DEFAULT_BINS) -> float:
    """Expected calibration error of the predicted class, in [0, 1].

    Sum over bins of |B_m|/N * |acc(B_m) - conf(B_m)|: Naeini et al. 2015; Guo et al. 2017 (arXiv
    1706.04599), eq. 3. It depends on `bins` (see `bin_statistics`): record it beside the figure.
    """
    return prediction_bins(labels, logits, bins=bins).expected_gap


def measure(labels: ArrayLike, logits: ArrayLike, *, bins: int = DEFAULT_BINS) -> dict[str, float]:
    """All of the above by name: accuracy, nll, nll_se, brier, ece (with `bins` bins)."""
    return {
        "accuracy": accuracy(labels, logits),
        "nll": nll(labels, logits),
        "nll_se": nll_standard_error(labels, logits),
        "brier": brier(labels, logits),
        "ece": ece(labels, logits, bins=bins),
    }


def log_softmax(logits: ArrayLike) -> NDArray[np.float64]:
    """Log-probabilities `(N, K)`, each in (-inf, 0], of logits `(N, K)`; finite for +-1e4."""
    z = _checked_logits(logits)
    shifted: NDArray[np.float64] = z - z.max(axis=1, keepdims=True)
    log_sum: NDArray[np.float64] = np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted - log_sum


def confidence(logits: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Predicted class `(N,)`, ties to the lowest index, and its probability `(N,)` in [1/K, 1]."""
    z = _checked_logits(logits)
    # max_k p_k is exp(0) over the sum: n equal logits far above the rest give 1/n to the last bit.
    highest = 1.0 / np.exp(z - z.max(axis=1, keepdims=True)).sum(axis=1)
    return z.argmax(axis=1), highest


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
    bins = _checked_bins(bins)
    # Not linspace: that multiplies by a rounded step, and its 3/5 is 0.6000000000000001.
    edges = np.arange(bins + 1) / bins
    # The number of inner edges that lie below the confidence is the bin's index: 0 to M - 1.
    index = np.searchsorted(edges[1:-1] + _EDGE_TOLERANCE, conf, side="left")
    counts = np.bincount(index, minlength=bins)

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        sums = np.bincount(index, weights=values, minlength=bins)
        means = np.full(bins, np.nan)
        np.divide(sums, counts, out=means, where=counts > 0)
        return means

    return BinStatistics(edges, counts, confidence=mean(conf), accuracy=mean(hits))


def prediction_bins(
    labels: ArrayLike, logits: ArrayLike, *, bins: int = DEFAULT_BINS
) -> BinStatistics:
    """`bin_statistics` of the predicted classes: what `ece` sums and the diagram shows."""
    y, z = _checked(labels, logits)
    predicted, conf = confidence(z)
    return bin_statistics(predicted == y, conf, bins)


def _example_nll(labels: ArrayLike, logits: ArrayLike) -> NDArray[np.float64]:
    y, z = _checked(labels, logits)
    return -log_softmax(z)[np.arange(y.size), y]


def _checked_logits(logits: ArrayLike) -> NDArray[np.float64]:
    z = np.asarray(logits, dtype=np.float64)
    if z.ndim != 2 or z.shape[0] < 1 or z.shape[1] < 2:
        raise ValueError(f"logits must have shape (N, K) with N >= 1 and K >= 2, got {z.shape}")
    finite = np.isfinite(z).all(axis=1)
    if not finite.all():
        raise ValueError(f"logits must be finite, got inf or NaN in row {finite.argmin()}")
    return z


def _checked(labels: ArrayLike, logits: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    y, z = np.asarray(labels), _checked_logits(logits)
    examples, classes = z.shape
    if y.shape != (examples,):
        raise ValueError(f"labels must have shape ({examples},) as logits {z.shape}, got {y.shape}")
    if not np.issubdtype(y.dtype, np.integer):
        raise ValueError(f"labels must be integers (class indices), got dtype {y.dtype}")
    if y.min() < 0 or y.max() >= classes:
        raise ValueError(f"labels must lie in [0, {classes}), got {y.min()} to {y.max()}")
    return y.astype(np.int64), z


def _checked_bins(bins: int) -> int:
    if isinstance(bins, bool) or not isinstance(bins, (int, np.integer)) or bins < 1:
        raise ValueError(f"bins must be an integer >= 1, got {bins!r}")
    return int(bins)
