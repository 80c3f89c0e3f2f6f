"""Metrics that compare predictions with the true conditionals of the labels, in NumPy and float64.

The truth is an array `(N, K)` with N >= 1 and K >= 2: row i is p*(k | x_i), 0 or more, adding up to 1.
For known label noise it follows from the conditionals of the clean labels. Metrics are means over the
N examples; divergences and entropies are in nats.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lotcal_tf.errors import UsageError
from lotcal_tf.metrics.bins import numbers
from lotcal_tf.metrics.classification import log_softmax


def label_maps(kind: str, classes: int, image: Sequence[int] = ()) -> NDArray[np.int64]:
    """The maps of a kind of label noise; each noisy label is changed by one of them at random.

    Args:
      kind: `symmetric`: to another class, all equally likely. `uniform`: to any class, including the
        same one. `asymmetric`: each class to a fixed one.
      classes: number of classes K.
      image: for `asymmetric`, the class that each class is changed to.

    Returns:
      `(M, K)`: entry (m, k) is the class that map m changes class k to. All M maps are equally likely.

    Raises:
      ValueError: `kind` is unknown, or `image` does not hold K classes.
    """
    if kind == "asymmetric":
        maps = np.array([image], np.int64)
        if maps.shape != (1, classes) or maps.min() < 0 or maps.max() >= classes:
            raise UsageError(f"image must hold {classes} classes of 0 … {classes - 1}, got {image}")
        return maps
    order = np.arange(classes)
    rotations = (order + order[:, None]) % classes
    if kind == "uniform":
        return rotations
    if kind == "symmetric":
        return rotations[1:]
    raise UsageError(f"kind must be symmetric, uniform or asymmetric, got {kind!r}")


def seen_through_noise(
    conditional: ArrayLike, rate: float, maps: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The conditionals of noisy labels, `(N, K)`, from those of clean labels.

    For a certain label y they are 1 - r for y and r / (K - 1) for other classes (symmetric),
    1 - r + r / K and r / K (uniform), or 1 - r for y and r for its image (asymmetric).

    Args:
      conditional: `(N, K)`, conditionals of the clean labels.
      rate: share r of noisy labels, in [0, 1].
      maps: `(M, K)`, see `label_maps`.
    """
    clean = _checked(conditional)
    moved = np.eye(clean.shape[1])[maps].mean(axis=0)  # (K, K), from row to column.
    return (1.0 - rate) * clean + rate * (clean @ moved)


def kl_divergence(truth: ArrayLike, logits: ArrayLike) -> float:
    """Mean KL(p* || p) in nats, in [0, inf); finite for logits of ±1e4."""
    p_star, log_p = _pair(truth, logits)
    return float(np.mean(np.sum(p_star * (_log(p_star) - log_p), axis=1)))


def total_variation(truth: ArrayLike, logits: ArrayLike) -> float:
    """Mean total variation distance (1/2) sum_k |p*_k - p_k|, in [0, 1]."""
    p_star, log_p = _pair(truth, logits)
    return float(np.mean(0.5 * np.abs(p_star - np.exp(log_p)).sum(axis=1)))


def bayes_error(truth: ArrayLike) -> float:
    """Mean of 1 - max_k p*_k in [0, 1): the expected error of the best possible classifier.

    Errors count against labels drawn from p*, i.e. against noisy labels under label noise.
    """
    return float(np.mean(1.0 - _checked(truth).max(axis=1)))


def excess_error(truth: ArrayLike, logits: ArrayLike) -> float:
    """Expected error of the predictions minus `bayes_error`, in [0, 1].

    Mean of max_k p*_k - p*[predicted class]. It is an expectation over labels and needs none.
    """
    p_star, log_p = _pair(truth, logits)
    predicted = log_p.argmax(axis=1)
    return float(np.mean(p_star.max(axis=1) - p_star[np.arange(len(p_star)), predicted]))


def entropy(logits: ArrayLike) -> float:
    """Mean entropy of the predictions in nats, in [0, log K]."""
    log_p = log_softmax(logits)
    return float(np.mean(-np.sum(np.exp(log_p) * log_p, axis=1)))


def true_entropy(truth: ArrayLike) -> float:
    """Mean entropy of p* in nats, in [0, log K]: the lowest expected NLL on labels drawn from p*."""
    p_star = _checked(truth)
    return float(np.mean(-np.sum(p_star * _log(p_star), axis=1)))


def measure(truth: ArrayLike, logits: ArrayLike) -> dict[str, float]:
    """All of the above by the names of their columns."""
    return {
        "kl_true": kl_divergence(truth, logits),
        "tv_true": total_variation(truth, logits),
        "bayes_error": bayes_error(truth),
        "excess_error": excess_error(truth, logits),
        "entropy": entropy(logits),
        "entropy_true": true_entropy(truth),
    }


def _log(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """log p, with 0 for p = 0, since 0 log 0 counts as 0."""
    return np.log(np.where(p > 0, p, 1.0))


def _pair(truth: ArrayLike, logits: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    p_star, log_p = _checked(truth), log_softmax(logits)
    if p_star.shape != log_p.shape:
        raise UsageError(f"truth must have the logits' shape {log_p.shape}, got {p_star.shape}")
    return p_star, log_p


def _checked(distribution: ArrayLike) -> NDArray[np.float64]:
    p = numbers("conditionals", distribution)
    if p.ndim != 2 or p.shape[0] < 1 or p.shape[1] < 2:
        raise UsageError(f"conditionals must have shape (N, K), N >= 1, K >= 2, got {p.shape}")
    if not ((p >= 0).all() and np.allclose(p.sum(axis=1), 1.0, atol=1e-9)):
        raise UsageError("conditionals must be 0 or more and add up to 1 for each example")
    return p
