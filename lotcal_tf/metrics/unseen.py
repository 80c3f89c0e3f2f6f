"""How sure a network is of what it was never taught: its confidence on another task's images.

Hendrycks & Gimpel 2017 (arXiv 1610.02136): the highest probability as a detector of such images.
"""

import numpy as np
from numpy.typing import ArrayLike

from lotcal_tf.metrics.classification import confidence


def auroc(known: ArrayLike, unseen: ArrayLike) -> float:
    """Area under the ROC curve of a score that ought to be higher on what is known, in [0, 1].

    The share of pairs (known, unseen) in which the known one scores higher; ties count half.

    Args:
      known: `(N,)` finite scores, N >= 1.
      unseen: `(M,)` finite scores, M >= 1.

    Raises:
      ValueError: a score is not finite, or there are none.
    """
    # Here: its import takes a second, and usage errors are answered faster than that.
    from sklearn.metrics import roc_auc_score

    positive, negative = np.asarray(known, np.float64), np.asarray(unseen, np.float64)
    for scores in (positive, negative):
        if scores.ndim != 1 or not scores.size or not np.isfinite(scores).all():
            raise ValueError(f"scores must be finite, of shape (N,), N >= 1; got {scores.shape}")
    labels = np.repeat([1, 0], [positive.size, negative.size])
    return float(roc_auc_score(labels, np.concatenate([positive, negative])))


def measure_unseen(known_logits: ArrayLike, unseen_logits: ArrayLike) -> dict[str, float]:
    """Confidence on a set of another task, beside that on the known test set.

    Args:
      known_logits: `(N, K)`.
      unseen_logits: `(M, K)`; whatever classes those images have, none is among the K.

    Returns:
      `confidence`, the mean on the unseen ones, in [1/K, 1]; nothing is right there, so all of it
      that is above 1/K is claimed too much. `known_confidence`, the mean on the known ones.
      `auroc` of the confidence, known against unseen: 0.5 where it tells nothing apart.
    """
    _, known = confidence(known_logits)
    _, unseen = confidence(unseen_logits)
    return {
        "confidence": float(unseen.mean()),
        "known_confidence": float(known.mean()),
        "auroc": auroc(known, unseen),
    }
