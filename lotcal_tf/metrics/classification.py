"""Accuracy, NLL, Brier score and calibration errors of predictions, in NumPy and float64.

Every metric is a pure function of labels `(N,)`, integers in [0, K), and logits `(N, K)`, finite, with
N >= 1 and K >= 2. `nll` and `brier` also take labels as distributions `(N, K)`, e.g. those of mixup.
p denotes softmax(logits). Other arguments raise UsageError, a ValueError. For several stochastic passes, average
their probabilities and pass the logarithm as logits.
"""

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

DEFAULT_BINS = 15
CONFIDENT = 0.9  # A prediction above this confidence counts as confident.


def accuracy(labels: ArrayLike, logits: ArrayLike) -> float:
    """Share of examples whose predicted class (see `confidence`) is the label, in [0, 1]."""
    y, z = checked(labels, logits)
    return float(np.mean(z.argmax(axis=1) == y))


def nll(labels: ArrayLike, logits: ArrayLike) -> float:
    """Negative log-likelihood: mean of -log p[y] in nats, in [0, inf); finite for logits of ±1e4."""
    return float(_example_nll(labels, logits).mean())


def nll_standard_error(labels: ArrayLike, logits: ArrayLike) -> float:
    """Standard error of `nll` in nats: standard deviation (ddof 1) / sqrt(N); 0 for N = 1."""
    losses = _example_nll(labels, logits)
    return float(losses.std(ddof=1) / np.sqrt(losses.size)) if losses.size > 1 else 0.0


def brier(labels: ArrayLike, logits: ArrayLike) -> float:
    """Brier score: mean over examples of sum_k (p_k - 1[k = y])^2, in [0, 2].

    Brier, "Verification of forecasts expressed in terms of probability", 1950, eq. 2.
    `tfp.stats.brier_score` returns sum_k p_k^2 - 2 p_y per example, which is smaller by 1.
    """
    truth, z = _checked_distribution(labels, logits)
    return float(np.mean(np.sum((np.exp(log_softmax(z)) - truth) ** 2, axis=1)))


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
    predicted, y, conf = _predictions(labels, logits)
    return equal_mass_statistics(predicted == y, conf, bins).expected_gap


def classwise_ece(labels: ArrayLike, logits: ArrayLike, *, bins: int = DEFAULT_BINS) -> float:
    """Mean over classes k of the ECE of p_k for the event y = k, in [0, 1].

    All probabilities count, not only the highest (Kull et al. 2019, arXiv 1910.12656, eq. 3).
    """
    y, z = checked(labels, logits)
    p = np.minimum(np.exp(log_softmax(z)), 1.0)
    gaps = [bin_statistics(y == k, p[:, k], bins).expected_gap for k in range(p.shape[1])]
    return float(np.mean(gaps))


def mce(labels: ArrayLike, logits: ArrayLike, *, bins: int = DEFAULT_BINS) -> float:
    """Maximum calibration error: largest gap of a bin, in [0, 1] (Guo et al. 2017, eq. 5)."""
    return prediction_bins(labels, logits, bins=bins).maximum_gap


def overconfidence(labels: ArrayLike, logits: ArrayLike) -> float:
    """Mean confidence minus accuracy, in [-1, 1]; above 0 the network is over-confident."""
    predicted, y, conf = _predictions(labels, logits)
    return float(conf.mean() - np.mean(predicted == y))


def aurc(labels: ArrayLike, logits: ArrayLike) -> float:
    """Area under the risk-coverage curve, in [0, 1] (Geifman & El-Yaniv 2017, arXiv 1705.08500).

    Mean over n = 1 … N of the error among the n most confident examples. It is low if right
    predictions have higher confidence than wrong ones. Examples of equal confidence count with their
    mean error.
    """
    predicted, y, conf = _predictions(labels, logits)
    wrong = (predicted != y).astype(np.float64)
    _, group = np.unique(-conf, return_inverse=True)
    shared = (np.bincount(group, weights=wrong) / np.bincount(group))[group]
    order = np.argsort(-conf, kind="stable")
    risks = np.cumsum(shared[order]) / np.arange(1, y.size + 1)
    return float(risks.mean())


def wrong_confident(labels: ArrayLike, logits: ArrayLike) -> float:
    """Share of wrong predictions with confidence above 0.9, in [0, 1]; 0 if no prediction is wrong."""
    predicted, y, conf = _predictions(labels, logits)
    wrong = predicted != y
    return float(np.mean(conf[wrong] > CONFIDENT)) if wrong.any() else 0.0


def measure(labels: ArrayLike, logits: ArrayLike, *, bins: int = DEFAULT_BINS) -> dict[str, float]:
    """All of the above by name (`nll_standard_error` as `nll_se`), with `bins` bins where they apply."""
    return {
        "accuracy": accuracy(labels, logits),
        "nll": nll(labels, logits),
        "nll_se": nll_standard_error(labels, logits),
        "brier": brier(labels, logits),
        "ece": ece(labels, logits, bins=bins),
        "adaptive_ece": adaptive_ece(labels, logits, bins=bins),
        "classwise_ece": classwise_ece(labels, logits, bins=bins),
        "mce": mce(labels, logits, bins=bins),
        "overconfidence": overconfidence(labels, logits),
        "aurc": aurc(labels, logits),
        "wrong_confident": wrong_confident(labels, logits),
    }


def log_softmax(logits: ArrayLike) -> NDArray[np.float64]:
    """Log-probabilities `(N, K)` in (-inf, 0] of logits `(N, K)`; finite for logits of ±1e4."""
    return unchecked_log_softmax(_checked_logits(logits))


def unchecked_log_softmax(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """`log_softmax` of logits that have been checked."""
    shifted: NDArray[np.float64] = z - z.max(axis=1, keepdims=True)
    log_sum: NDArray[np.float64] = np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted - log_sum


def confidence(logits: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Predicted class `(N,)`, of equal ones the first, and its probability `(N,)` in [1/K, 1]."""
    z = _checked_logits(logits)
    # max_k p_k is exp(0) / sum, so n equal logits far above the others give exactly 1/n.
    highest = 1.0 / np.exp(z - z.max(axis=1, keepdims=True)).sum(axis=1)
    return z.argmax(axis=1), highest


def prediction_bins(
    labels: ArrayLike, logits: ArrayLike, *, bins: int = DEFAULT_BINS
) -> BinStatistics:
    """`bin_statistics` of the predicted classes, used by `ece`, `mce` and the reliability diagram."""
    predicted, y, conf = _predictions(labels, logits)
    return bin_statistics(predicted == y, conf, bins)


def _predictions(
    labels: ArrayLike, logits: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Predicted classes, labels and confidences, `(N,)` each."""
    y, z = checked(labels, logits)
    predicted, conf = confidence(z)
    return predicted, y, conf


def _example_nll(labels: ArrayLike, logits: ArrayLike) -> NDArray[np.float64]:
    truth, z = _checked_distribution(labels, logits)
    return -np.sum(truth * log_softmax(z), axis=1)


def _checked_logits(logits: ArrayLike) -> NDArray[np.float64]:
    z = numbers("logits", logits)
    if z.ndim != 2 or z.shape[0] < 1 or z.shape[1] < 2:
        raise UsageError(f"logits must have shape (N, K) with N >= 1 and K >= 2, got {z.shape}")
    finite = np.isfinite(z).all(axis=1)
    if not finite.all():
        raise UsageError(f"logits must be finite, got inf or NaN in row {finite.argmin()}")
    return z


def _checked_distribution(
    labels: ArrayLike, logits: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Labels as distributions `(N, K)` (class labels as one-hot), and logits."""
    given = array("labels", labels)
    if given.ndim == 1:
        y, z = checked(given, logits)
        return np.eye(z.shape[1])[y], z
    z = _checked_logits(logits)
    if given.shape != z.shape:
        raise UsageError(f"labels must have shape {z.shape[:1]} or {z.shape}, got {given.shape}")
    truth = numbers("labels", given)
    if not ((truth >= 0).all() and np.allclose(truth.sum(axis=1), 1.0, atol=1e-5)):
        raise UsageError("soft labels must be 0 or more and add up to 1 for each example")
    return truth, z


def checked(labels: ArrayLike, logits: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Labels `(N,)` and logits `(N, K)` as arrays; raises UsageError if they do not fit together."""
    y, z = array("labels", labels), _checked_logits(logits)
    examples, classes = z.shape
    if y.shape != (examples,):
        raise UsageError(f"labels must have shape ({examples},) as logits {z.shape}, got {y.shape}")
    if not np.issubdtype(y.dtype, np.integer):
        raise UsageError(f"labels must be integers (class indices), got dtype {y.dtype}")
    if y.min() < 0 or y.max() >= classes:
        raise UsageError(f"labels must lie in [0, {classes}), got {y.min()} to {y.max()}")
    return y.astype(np.int64), z
