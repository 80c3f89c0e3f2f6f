"""The losses of the strategies, as pure functions of labels and logits.

Labels are integers `(N,)` in [0, K). Logits are `(N, K)`, or `(T, N, K)` for T stochastic passes of a
batch. Losses are computed in float32 by log-softmax and are finite for logits of ±1e4. Weights that
depend on the prediction (α, β) get no gradient; otherwise a network could lower its loss by lowering
the weight. What does not fit raises UsageError; the range of labels is not checked.
"""

import math
import numbers
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from lotcal_tf.config import fields
from lotcal_tf.errors import UsageError, shown

_MAX_BINS = 10**6


def cross_entropy(labels: "tf.Tensor", logits: "tf.Tensor") -> "tf.Tensor":
    """Cross-entropy −log p[y] of each example.

    Args:
      labels: `(N,)` classes, or `(N, K)` distributions over them.
      logits: `(…, N, K)`.

    Returns:
      `(…, N)` float32, 0 or more.
    """
    log_p = _log_softmax(logits)
    return -tf.reduce_sum(_distribution(labels, log_p) * log_p, -1)


def mean(losses: "tf.Tensor", weights: "tf.Tensor | None" = None) -> "tf.Tensor":
    """The mean of w·loss over a batch, as Keras weights examples: divided by N, not by Σ w.

    Args:
      losses: `(N,)`.
      weights: w, `(N,)`; None: all 1.

    Returns:
      A float32 scalar.
    """
    losses = _checked("losses", losses, (1,))
    return tf.reduce_mean(losses if weights is None else losses * _example_weights(weights, losses))


def vwcc(labels: "tf.Tensor", logits: "tf.Tensor") -> "tf.Tensor":
    """Variance-weighted confidence calibration (Seo et al., CVPR 2019; arXiv 2002.03875).

    The loss of each pass is (1 − α)·CE + α·KL(U‖p), with the uniform distribution U. The normalised
    variance α = 1 − mean_t Σ_k √(p̄_k p_tk) is 1 minus the mean Bhattacharyya coefficient between
    the passes and their mean p̄.

    Args:
      labels: `(N,)`.
      logits: `(T, N, K)`.

    Returns:
      `(N,)` float32, the mean over passes.
    """
    log_p = _log_softmax(logits, ranks=(3,))
    agreement = tf.reduce_sum(tf.exp((_log_mean(log_p, 0) + log_p) / 2), -1)
    # For identical passes, rounding can make the agreement larger than 1.
    alpha = tf.stop_gradient(tf.clip_by_value(1 - tf.reduce_mean(agreement, 0), 0.0, 1.0))
    losses = (1 - alpha) * cross_entropy(labels, logits) + alpha * _from_uniform(log_p)
    return tf.reduce_mean(losses, 0)


def mda(
    labels: "tf.Tensor",
    logits: "tf.Tensor",
    *,
    weight: float = 0.1,
    prior: Sequence[float] = (),
    example_weights: "tf.Tensor | None" = None,
) -> "tf.Tensor":
    """Marginal distribution alignment (Arazo et al. 2019; arXiv 2002.03875).

    mean CE + w·Σ_k q_k log(q_k / p̄_k), which pulls the mean prediction p̄ of a batch towards the
    prior q.

    Args:
      labels: `(N,)`.
      logits: `(N, K)`.
      weight: w, 0 or more.
      prior: q, K shares that add up to 1; empty for uniform.
      example_weights: `(N,)` weights of the cross-entropy; None: all 1.

    Returns:
      A float32 scalar.
    """
    log_p = _log_softmax(logits)
    classes = log_p.shape[-1]
    _check_number("weight", weight)
    _check_prior(prior, classes)
    shares = list(prior) or [1.0 / classes] * classes
    entropy = sum(q * math.log(q) for q in shares if q > 0)
    distance = entropy - tf.reduce_sum(tf.constant(shares, tf.float32) * _log_mean(log_p, 0))
    return mean(cross_entropy(labels, logits), example_weights) + weight * distance


def lwcc(
    labels: "tf.Tensor", logits: "tf.Tensor", *, weight: float = 0.3, form: str = "additive"
) -> "tf.Tensor":
    """Likelihood-weighted confidence calibration (arXiv 2002.03875).

    CE + w·β·KL(U‖p), where β is 1 for a wrong prediction and 1 − confidence for a right one. It pulls
    wrong or low-confidence predictions towards the uniform distribution U. The convex form
    (1 − w·β)·CE + w·β·KL(U‖p) balances both terms, as `vwcc` does.

    Args:
      labels: `(N,)`.
      logits: `(N, K)`.
      weight: w, 0 or more; of the convex form at most 1.
      form: `additive` or `convex`.

    Returns:
      `(N,)` float32.
    """
    log_p = _log_softmax(logits)
    _check_number("weight", weight)
    if form not in ("additive", "convex"):
        raise UsageError(f"form={shown(form)}: choose additive or convex")
    if form == "convex" and weight > 1:
        raise UsageError(f"weight={weight}: must be at most 1 with form=convex")
    _checked("labels", labels, (1,))
    _distribution(labels, log_p)  # checks the labels
    right = tf.equal(tf.argmax(log_p, -1, tf.int32), tf.cast(labels, tf.int32))
    confidence = tf.exp(tf.reduce_max(log_p, -1))
    share = weight * tf.stop_gradient(1 - tf.where(right, confidence, 0.0))
    kept = 1 - share if form == "convex" else 1.0
    return kept * cross_entropy(labels, logits) + share * _from_uniform(log_p)


def lwcc_si(
    labels: "tf.Tensor", logits: "tf.Tensor", *, weight: float = 0.3, form: str = "additive"
) -> "tf.Tensor":
    """LWCC on the mean of stochastic inferences: `lwcc` of p̄ = mean_t p_t (arXiv 2002.03875).

    Args:
      labels: `(N,)`.
      logits: `(T, N, K)`.
      weight, form: see `lwcc`.

    Returns:
      `(N,)` float32.
    """
    return lwcc(labels, _log_mean(_log_softmax(logits, ranks=(3,)), 0), weight=weight, form=form)


def nba(
    labels: "tf.Tensor",
    logits: "tf.Tensor",
    *,
    weight: float = 0.3,
    bins: int = 10,
    width: float = 0.02,
    example_weights: "tf.Tensor | None" = None,
) -> "tf.Tensor":
    """Normalised bin assignment (arXiv 2002.03875): penalises confidences in the extreme bins.

    mean CE + w·Σ_m v_m n_m / N with the `soft_counts` n_m of the confidences. The weight of a bin with
    centre c_m is v_m = (2 c_m − 1)², i.e. 0 in the middle and almost 1 at the ends.

    Args:
      labels: `(N,)`.
      logits: `(N, K)`.
      weight: w, 0 or more.
      bins: number of bins M.
      width: width of the soft edges of the bins, in units of confidence, above 0.
      example_weights: `(N,)` weights of the cross-entropy; None: all 1.

    Returns:
      A float32 scalar.
    """
    _check_number("weight", weight)
    confidence = tf.exp(tf.reduce_max(_log_softmax(logits), -1))
    shares = soft_counts(confidence, bins=bins, width=width) / tf.cast(
        tf.size(confidence), tf.float32
    )
    centres = (tf.range(bins, dtype=tf.float32) + 0.5) / bins
    extremity = tf.square(2 * centres - 1)
    penalty = tf.reduce_sum(extremity * shares)
    return mean(cross_entropy(labels, logits), example_weights) + weight * penalty


def soft_counts(confidence: "tf.Tensor", *, bins: int, width: float) -> "tf.Tensor":
    """A differentiable histogram: counts in M bins of equal width on [0, 1] with soft edges.

    Args:
      confidence: `(N,)` in [0, 1].
      bins: number of bins M.
      width: width of the sigmoid at each edge, above 0; smaller is closer to exact counts.

    Returns:
      `(M,)` float32, which add up to N.
    """
    confidence = _checked("confidence", confidence, (1,))
    _check_number("width", width, above=True)
    if isinstance(bins, bool) or not isinstance(bins, int) or not 1 <= bins <= _MAX_BINS:
        raise UsageError(f"bins={shown(bins)}: must be an integer, 1 to {_MAX_BINS:,}")
    edges = tf.range(1, bins, dtype=tf.float32) / bins
    above = tf.sigmoid((confidence[:, None] - edges) / width)
    # The outermost bins extend to infinity, so that all confidences count.
    ones, zeros = tf.ones_like(confidence[:, None]), tf.zeros_like(confidence[:, None])
    above = tf.concat([ones, above, zeros], -1)
    return tf.reduce_sum(above[:, :-1] - above[:, 1:], 0)


def _log_softmax(logits: "tf.Tensor", ranks: tuple[int, ...] = (2, 3)) -> "tf.Tensor":
    return tf.nn.log_softmax(_checked("logits", logits, ranks))


def _checked(name: str, value: Any, ranks: tuple[int, ...]) -> "tf.Tensor":
    """A tensor as float32.

    Raises:
      UsageError: it is not a tensor of numbers with one of the ranks.
    """
    try:
        found = tf.convert_to_tensor(value)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name} must be a tensor, not {shown(value)}: {error}") from error
    if not (found.dtype.is_floating or found.dtype.is_integer):
        raise UsageError(f"{name} must be numbers, not of type {found.dtype.name}")
    if found.shape.rank not in (None, *ranks):
        wanted = " or ".join(map(str, ranks))
        raise UsageError(f"{name} must have {wanted} axes, not the shape {tuple(found.shape)}")
    return tf.cast(found, tf.float32)


def _check_number(name: str, value: Any, above: bool = False) -> None:
    """Raises UsageError if a number is negative or, if `above`, 0; tensors are not checked."""
    if tf.is_tensor(value):
        return
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not number or not 0 <= value < math.inf or (above and value == 0):
        least = "above 0" if above else "0 or more"
        raise UsageError(f"{name}={shown(value)}: must be a finite number, {least}")


def _check_prior(prior: Any, classes: int) -> None:
    """Raises UsageError if a prior is not one share for each class."""
    shares = isinstance(prior, Sequence) and all(isinstance(q, numbers.Real) for q in prior)
    if not shares or (prior and (len(prior) != classes or fields.prior(tuple(prior)))):
        raise UsageError(
            f"prior={shown(prior)}: must be {classes} shares that are 0 or more and add up to 1"
        )


def _example_weights(weights: Any, losses: "tf.Tensor") -> "tf.Tensor":
    """Weights of examples; raises UsageError if they are not one for each loss."""
    found = _checked("weights", weights, (1,))
    if not found.shape.is_compatible_with(losses.shape):
        raise UsageError(f"weights must have the shape {losses.shape}, not {found.shape}")
    return found


def _log_mean(log_p: "tf.Tensor", axis: int) -> "tf.Tensor":
    """Logarithm of the mean probability along an axis."""
    count = tf.cast(tf.shape(log_p)[axis], tf.float32)
    return tf.reduce_logsumexp(log_p, axis) - tf.math.log(count)


def _from_uniform(log_p: "tf.Tensor") -> "tf.Tensor":
    """KL(U‖p) = −(1/K) Σ_k log p_k − log K, 0 or more."""
    return -tf.reduce_mean(log_p, -1) - math.log(log_p.shape[-1])


def _distribution(labels: "tf.Tensor", log_p: "tf.Tensor") -> "tf.Tensor":
    """Labels as distributions over the classes."""
    checked = _checked("labels", labels, (1, 2))
    wanted = log_p.shape[-2:] if checked.shape.rank == 2 else log_p.shape[-2:-1]
    if not checked.shape.is_compatible_with(wanted):
        raise UsageError(f"labels must have the shape {wanted}, not {checked.shape}")
    if checked.shape.rank == 2:
        return checked
    labels = tf.convert_to_tensor(labels)
    if not labels.dtype.is_integer:
        raise UsageError(f"labels must be class numbers, not of type {labels.dtype.name}")
    return tf.one_hot(labels, log_p.shape[-1], dtype=tf.float32)
