"""Accuracy, NLL, Brier score and calibration errors of predictions, in NumPy and float64.

Every metric is a pure function of labels `(N,)`, integers in [0, K), and logits `(N, K)`, finite, with
N >= 1 and K >= 2. `nll` and `brier` also take labels as distributions `(N, K)`, e.g. those of mixup.
p denotes softmax(logits). Other arguments raise UsageError, a ValueError. For several stochastic passes, average
their probabilities and pass the logarithm as logits.
"""

import functools
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lotcal_tf.errors import UsageError
from lotcal_tf.metrics.bins import (
    BinStatistics,
    array,
    bin_statistics,
    equal_mass_statistics,
    numbers,
)

_Matrix: TypeAlias = NDArray[np.float64]
DEFAULT_BINS = 15
CONFIDENT = 0.9  # A prediction above this confidence counts as confident.


class Outputs:
    """What the metrics share of logits: each is computed once, when it is needed.

    Args:
      logits: `(N, K)` float64, checked.
    """

    def __init__(self, logits: _Matrix) -> None:
        self.logits = logits

    @functools.cached_property
    def _exponentials(self) -> tuple[_Matrix, _Matrix, _Matrix]:
        """Logits less their maximum `(N, K)`, their exponentials `(N, K)`, and the sums `(N, 1)`."""
        shifted: _Matrix = self.logits - self.logits.max(axis=1, keepdims=True)
        exponentials: _Matrix = np.exp(shifted)
        return shifted, exponentials, exponentials.sum(axis=1, keepdims=True)

    @functools.cached_property
    def log_p(self) -> _Matrix:
        """Log-probabilities `(N, K)`."""
        shifted, _, sums = self._exponentials
        return shifted - np.log(sums)

    @functools.cached_property
    def p(self) -> _Matrix:
        """Probabilities `(N, K)`."""
        return np.exp(self.log_p)

    @functools.cached_property
    def confidence(self) -> NDArray[np.float64]:
        """Probability of the predicted class, `(N,)`."""
        # max_k p_k is exp(0) / sum, so n equal logits far above the others give exactly 1/n.
        return 1.0 / self._exponentials[2][:, 0]


class _Predictions(Outputs):
    """Labels and logits, and what the metrics share.

    Args:
      labels: `(N,)` integers.
      logits: `(N, K)`.
      soft: whether labels may be distributions `(N, K)`, as `losses` and `brier` take them.

    Raises:
      UsageError: they have the wrong type, shape or range.
    """

    def __init__(self, labels: ArrayLike, logits: ArrayLike, soft: bool = False) -> None:
        given = array("labels", labels)
        self.truth: _Matrix | None = None
        if soft and given.ndim != 1:
            self.truth, z = _checked_distribution(given, logits)
        else:
            self.labels, z = checked(given, logits)
        super().__init__(z)

    @functools.cached_property
    def losses(self) -> NDArray[np.float64]:
        """-log p[y] of each example, `(N,)`."""
        if self.truth is not None:
            return -np.sum(self.truth * self.log_p, axis=1)
        return -self.log_p[np.arange(self.labels.size), self.labels]

    @functools.cached_property
    def correct(self) -> NDArray[np.bool_]:
        """Whether the predicted class is the label, `(N,)`."""
        return self.logits.argmax(axis=1) == self.labels

    def accuracy(self) -> float:
        return float(np.mean(self.correct))

    def nll(self) -> float:
        return float(self.losses.mean())

    def nll_standard_error(self) -> float:
        losses = self.losses
        return float(losses.std(ddof=1) / np.sqrt(losses.size)) if losses.size > 1 else 0.0

    def brier(self) -> float:
        if self.truth is not None:
            gaps = self.p - self.truth
        else:
            gaps = self.p.copy()
            gaps[np.arange(self.labels.size), self.labels] -= 1.0
        return float(np.mean(np.sum(gaps**2, axis=1)))

    def bins(self, bins: int) -> BinStatistics:
        return bin_statistics(self.correct, self.confidence, bins)

    def adaptive_ece(self, bins: int) -> float:
        return equal_mass_statistics(self.correct, self.confidence, bins).expected_gap

    def classwise_ece(self, bins: int) -> float:
        columns = np.minimum(self.p.T, 1.0, order="C")
        gaps = [
            bin_statistics(self.labels == k, p, bins).expected_gap for k, p in enumerate(columns)
        ]
        return float(np.mean(gaps))

    def overconfidence(self) -> float:
        return float(self.confidence.mean() - np.mean(self.correct))

    def aurc(self) -> float:
        conf, wrong = self.confidence, (~self.correct).astype(np.float64)
        _, group = np.unique(-conf, return_inverse=True)
        shared = (np.bincount(group, weights=wrong) / np.bincount(group))[group]
        order = np.argsort(-conf, kind="stable")
        risks = np.cumsum(shared[order]) / np.arange(1, conf.size + 1)
        return float(risks.mean())

    def wrong_confident(self) -> float:
        wrong = ~self.correct
        return float(np.mean(self.confidence[wrong] > CONFIDENT)) if wrong.any() else 0.0


def accuracy(labels: ArrayLike, logits: ArrayLike) -> float:
    """Share of examples whose predicted class (see `confidence`) is the label, in [0, 1]."""
    return _Predictions(labels, logits).accuracy()


def nll(labels: ArrayLike, logits: ArrayLike) -> float:
    """Negative log-likelihood: mean of -log p[y] in nats, in [0, inf); finite for logits of ±1e4."""
    return _Predictions(labels, logits, soft=True).nll()


def nll_standard_error(labels: ArrayLike, logits: ArrayLike) -> float:
    """Standard error of `nll` in nats: standard deviation (ddof 1) / sqrt(N); 0 for N = 1."""
    return _Predictions(labels, logits, soft=True).nll_standard_error()


def brier(labels: ArrayLike, logits: ArrayLike) -> float:
    """Brier score: mean over examples of sum_k (p_k - 1[k = y])^2, in [0, 2].

    Brier, "Verification of forecasts expressed in terms of probability", 1950, eq. 2.
    `tfp.stats.brier_score` returns sum_k p_k^2 - 2 p_y per example, which is smaller by 1.
    """
    return _Predictions(labels, logits, soft=True).brier()


def ece(labels: ArrayLike, logits: ArrayLike, *, bins: int = DEFAULT_BINS) -> float:
    """Expected calibration error of the predicted class, in [0, 1].

    Sum over bins of |B_m|/N * |acc(B_m) - conf(B_m)|: Naeini et al. 2015; Guo et al. 2017 (arXiv
    1706.04599), eq. 3. It depends on `bins` (see `bin_statistics`), so report both together.
    """
    return prediction_bins(labels, logits, bins=bins).expected_gap


def debiased_ece(labels: ArrayLike, logits: ArrayLike, *, bins: int = DEFAULT_BINS) -> float:
    """Debiased calibration error of the predicted class, in [0, 1]; 0 for a calibrated network.

    The binned ECE of a calibrated network is above 0, by chance, the more so the fewer examples a bin
    has. Kumar, Liang & Ma 2019 (arXiv 1909.10155, "Verified uncertainty calibration", section 5.1)
    subtract the expected part of chance from the square of each gap:

        E^2 = sum over bins of |B_m|/N * ((acc(B_m) - conf(B_m))^2 - acc(B_m) (1 - acc(B_m)) / (|B_m| - 1))

    which estimates the squared calibration error of the bins without bias. This is the root of E^2, and
    0 where chance makes E^2 negative. Bins with fewer than two examples count 0. It is a root of a mean
    square, so it is at least as large as the mean of the gaps that the ECE estimates; apart from chance,
    both are equal if all gaps are.
    """
    squared = prediction_bins(labels, logits, bins=bins).debiased_squared_gap
    return float(np.sqrt(max(squared, 0.0)))


def adaptive_ece(labels: ArrayLike, logits: ArrayLike, *, bins: int = DEFAULT_BINS) -> float:
    """ECE in bins of equal numbers of examples, in [0, 1] (Nixon et al. 2019, arXiv 1904.01685)."""
    return _Predictions(labels, logits).adaptive_ece(bins)


def classwise_ece(labels: ArrayLike, logits: ArrayLike, *, bins: int = DEFAULT_BINS) -> float:
    """Mean over classes k of the ECE of p_k for the event y = k, in [0, 1].

    All probabilities count, not only the highest (Kull et al. 2019, arXiv 1910.12656, eq. 3).
    """
    return _Predictions(labels, logits).classwise_ece(bins)


def mce(labels: ArrayLike, logits: ArrayLike, *, bins: int = DEFAULT_BINS) -> float:
    """Maximum calibration error: largest gap of a bin, in [0, 1] (Guo et al. 2017, eq. 5)."""
    return prediction_bins(labels, logits, bins=bins).maximum_gap


def overconfidence(labels: ArrayLike, logits: ArrayLike) -> float:
    """Mean confidence minus accuracy, in [-1, 1]; above 0 the network is over-confident."""
    return _Predictions(labels, logits).overconfidence()


def aurc(labels: ArrayLike, logits: ArrayLike) -> float:
    """Area under the risk-coverage curve, in [0, 1] (Geifman & El-Yaniv 2017, arXiv 1705.08500).

    Mean over n = 1 … N of the error among the n most confident examples. It is low if right
    predictions have higher confidence than wrong ones. Examples of equal confidence count with their
    mean error.
    """
    return _Predictions(labels, logits).aurc()


def wrong_confident(labels: ArrayLike, logits: ArrayLike) -> float:
    """Share of wrong predictions with confidence above 0.9, in [0, 1]; 0 if no prediction is wrong."""
    return _Predictions(labels, logits).wrong_confident()


def measure(labels: ArrayLike, logits: ArrayLike, *, bins: int = DEFAULT_BINS) -> dict[str, float]:
    """The above except `debiased_ece`, by name (`nll_standard_error` as `nll_se`).

    `bins` is the number of bins of those that have some.
    """
    found = _Predictions(labels, logits)
    binned = found.bins(bins)
    return {
        "accuracy": found.accuracy(),
        "nll": found.nll(),
        "nll_se": found.nll_standard_error(),
        "brier": found.brier(),
        "ece": binned.expected_gap,
        "adaptive_ece": found.adaptive_ece(bins),
        "classwise_ece": found.classwise_ece(bins),
        "mce": binned.maximum_gap,
        "overconfidence": found.overconfidence(),
        "aurc": found.aurc(),
        "wrong_confident": found.wrong_confident(),
    }


def log_softmax(logits: ArrayLike) -> NDArray[np.float64]:
    """Log-probabilities `(N, K)` in (-inf, 0] of logits `(N, K)`; finite for logits of ±1e4."""
    return Outputs(_checked_logits(logits)).log_p


def confidence(logits: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Predicted class `(N,)`, of equal ones the first, and its probability `(N,)` in [1/K, 1]."""
    found = Outputs(_checked_logits(logits))
    return found.logits.argmax(axis=1), found.confidence


def prediction_bins(
    labels: ArrayLike, logits: ArrayLike, *, bins: int = DEFAULT_BINS
) -> BinStatistics:
    """`bin_statistics` of the predicted classes, used by `ece`, `mce` and the reliability diagram."""
    return _Predictions(labels, logits).bins(bins)


def _checked_logits(logits: ArrayLike, name: str = "logits") -> NDArray[np.float64]:
    z = numbers(name, logits)
    if z.ndim != 2 or z.shape[0] < 1 or z.shape[1] < 2:
        raise UsageError(f"{name} must have shape (N, K) with N >= 1 and K >= 2, got {z.shape}")
    finite = np.isfinite(z).all(axis=1)
    if not finite.all():
        raise UsageError(f"{name} must be finite, got inf or NaN in row {finite.argmin()}")
    return z


def _checked_distribution(labels: NDArray, logits: ArrayLike) -> tuple[_Matrix, _Matrix]:
    """Labels as distributions `(N, K)`, and logits."""
    z = _checked_logits(logits)
    if labels.shape != z.shape:
        raise UsageError(f"labels must have shape {z.shape[:1]} or {z.shape}, got {labels.shape}")
    truth = numbers("labels", labels)
    if not ((truth >= 0).all() and np.allclose(truth.sum(axis=1), 1.0, atol=1e-5)):
        raise UsageError("soft labels must be 0 or more and add up to 1 for each example")
    return truth, z


def checked(
    labels: ArrayLike, logits: ArrayLike, name: str = "logits"
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Labels `(N,)` and logits `(N, K)` as arrays.

    Raises:
      UsageError: they do not fit together; it calls the logits by `name`.
    """
    y, z = array("labels", labels), _checked_logits(logits, name)
    examples, classes = z.shape
    if y.shape != (examples,):
        raise UsageError(f"labels must have shape ({examples},) as {name} {z.shape}, got {y.shape}")
    if not np.issubdtype(y.dtype, np.integer):
        raise UsageError(f"labels must be integers (class indices), got dtype {y.dtype}")
    if y.min() < 0 or y.max() >= classes:
        raise UsageError(f"labels must lie in [0, {classes}), got {y.min()} to {y.max()}")
    return y.astype(np.int64), z
