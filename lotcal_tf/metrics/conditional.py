"""How far predictions are from the true conditional distribution of the labels, in NumPy and float64.

The truth is an array `(N, K)`: row i is p*(k | x_i), 0 or more, adding up to 1. Where clean labels
are noisy by a known rule it has a closed form: p* of the clean labels, seen through the noise.
Figures are means over the N examples, in nats where they are of information. K >= 2, N >= 1.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lotcal_tf.metrics.classification import log_softmax


def label_maps(kind: str, classes: int, image: Sequence[int] = ()) -> NDArray[np.int64]:
    """The maps of a kind of noise: a noisy label has gone through one of them, each equally likely.

    Args:
      kind: `symmetric`: to any other class, all alike. `uniform`: to any class, its own included.
        `asymmetric`: each class to its image.
      classes: K.
      image: of each class, for `asymmetric`.

    Returns:
      `(M, K)`: row m takes class k to entry k.

    Raises:
      ValueError: there is no such kind, or `image` is no map of K classes.
    """
    if kind == "asymmetric":
        maps = np.array([image], np.int64)
        if maps.shape != (1, classes) or maps.min() < 0 or maps.max() >= classes:
            raise ValueError(f"image must hold {classes} classes of 0 … {classes - 1}, got {image}")
        return maps
    numbers = np.arange(classes)
    rotations = (numbers + numbers[:, None]) % classes
    if kind == "uniform":
        return rotations
    if kind == "symmetric":
        return rotations[1:]
    raise ValueError(f"kind must be symmetric, uniform or asymmetric, got {kind!r}")


def seen_through_noise(
    conditional: ArrayLike, rate: float, maps: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The conditional of noisy labels, `(N, K)`, from that of clean ones.

    Of a sure label y it is 1 - r on y and r / (K - 1) elsewhere (symmetric), 1 - r + r / K and r / K
    (uniform), 1 - r on y and r on its image (asymmetric).

    Args:
      conditional: `(N, K)`, of the clean labels.
      rate: r in [0, 1], the share of labels that are noisy.
      maps: see `label_maps`.
    """
    clean = _checked(conditional)
    moved = np.eye(clean.shape[1])[maps].mean(axis=0)  # (K, K): from row to column
    return (1.0 - rate) * clean + rate * (clean @ moved)


def kl_divergence(truth: ArrayLike, logits: ArrayLike) -> float:
    """Mean KL(p* || p) in nats, in [0, inf); finite for logits +-1e4."""
    p_star, log_p = _pair(truth, logits)
    return float(np.mean(np.sum(p_star * (_log(p_star) - log_p), axis=1)))


def total_variation(truth: ArrayLike, logits: ArrayLike) -> float:
    """Mean of (1/2) sum_k |p*_k - p_k|, in [0, 1]."""
    p_star, log_p = _pair(truth, logits)
    return float(np.mean(0.5 * np.abs(p_star - np.exp(log_p)).sum(axis=1)))


def bayes_error(truth: ArrayLike) -> float:
    """Mean of 1 - max_k p*_k: the error that the best of all classifiers is expected to make.

    It counts errors against labels drawn from p*: with noise, against noisy labels.
    """
    return float(np.mean(1.0 - _checked(truth).max(axis=1)))


def excess_error(truth: ArrayLike, logits: ArrayLike) -> float:
    """What the predictions' expected error has over `bayes_error`, in [0, 1].

    The mean of max_k p*_k - p*[predicted class]: 0 where the Bayes classifier could have said the
    same. It is an expectation over labels drawn from p*; no drawn label has a part in it.
    """
    p_star, log_p = _pair(truth, logits)
    predicted = log_p.argmax(axis=1)
    return float(np.mean(p_star.max(axis=1) - p_star[np.arange(len(p_star)), predicted]))


def entropy(logits: ArrayLike) -> float:
    """Mean entropy of the predictions in nats, in [0, log K]."""
    log_p = log_softmax(logits)
    return float(np.mean(-np.sum(np.exp(log_p) * log_p, axis=1)))


def true_entropy(truth: ArrayLike) -> float:
    """Mean entropy of p* in nats, in [0, log K]; no predictions have a lower NLL on labels drawn from it."""
    p_star = _checked(truth)
    return float(np.mean(-np.sum(p_star * _log(p_star), axis=1)))


def measure(truth: ArrayLike, logits: ArrayLike) -> dict[str, float]:
    """All of the above, by the names they have as columns."""
    return {
        "kl_true": kl_divergence(truth, logits),
        "tv_true": total_variation(truth, logits),
        "bayes_error": bayes_error(truth),
        "excess_error": excess_error(truth, logits),
        "entropy": entropy(logits),
        "entropy_true": true_entropy(truth),
    }


def _log(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """log p, and 0 where p is 0: 0 log 0 = 0."""
    return np.log(np.where(p > 0, p, 1.0))


def _pair(truth: ArrayLike, logits: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    p_star, log_p = _checked(truth), log_softmax(logits)
    if p_star.shape != log_p.shape:
        raise ValueError(f"truth must have the logits' shape {log_p.shape}, got {p_star.shape}")
    return p_star, log_p


def _checked(distribution: ArrayLike) -> NDArray[np.float64]:
    p = np.asarray(distribution, np.float64)
    if p.ndim != 2 or p.shape[0] < 1 or p.shape[1] < 2:
        raise ValueError(f"a conditional must have shape (N, K), N >= 1, K >= 2, got {p.shape}")
    if not ((p >= 0).all() and np.allclose(p.sum(axis=1), 1.0, atol=1e-9)):
        raise ValueError("a conditional must be 0 or more and add up to 1 for each example")
    return p
