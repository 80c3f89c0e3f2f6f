"""Confidence of a network on images of another task, whose classes it does not know.

Hendrycks & Gimpel 2017 (arXiv 1610.02136) use the highest probability to detect such images.
"""

import numpy as np
from numpy.typing import ArrayLike

from lotcal_tf.errors import UsageError
from lotcal_tf.metrics.bins import numbers
from lotcal_tf.metrics.classification import confidence


def auroc(known: ArrayLike, unseen: ArrayLike) -> float:
    """Area under the ROC curve of a score that should be higher for known examples, in [0, 1].

    It is the share of pairs (known, unseen) in which the known example has the higher score; equal
    scores count half.

    Args:
      known: `(N,)` finite scores, N >= 1.
      unseen: `(M,)` finite scores, M >= 1.

    Raises:
      ValueError: a score is not finite, or there are none.
    """
    # Imported here because it takes a second, and usage errors should not wait for it.
    from sklearn.metrics import roc_auc_score

    positive, negative = numbers("known", known), numbers("unseen", unseen)
    for scores in (positive, negative):
        if scores.ndim != 1 or not scores.size or not np.isfinite(scores).all():
            raise UsageError(f"scores must be finite, of shape (N,), N >= 1; got {scores.shape}")
    labels = np.repeat([1, 0], [positive.size, negative.size])
    return float(roc_auc_score(labels, np.concatenate([positive, negative])))


def measure_unseen(known_logits: ArrayLike, unseen_logits: ArrayLike) -> dict[str, float]:
    """Compares the confidence on a data set of another task with that on the known test split.

    Args:
      known_logits: `(N, K)` logits of known examples.
      unseen_logits: `(M, K)` logits of examples that belong to none of the K classes.

    Returns:
      `confidence`: mean confidence on unseen examples, in [1/K, 1]; 1/K is ideal, since all of these
      predictions are wrong. `known_confidence`: mean confidence on known examples. `auroc`: that of
      the confidence, known against unseen; 0.5 means that it does not distinguish them.
    """
    _, known = confidence(known_logits)
    _, unseen = confidence(unseen_logits)
    return {
        "confidence": float(unseen.mean()),
        "known_confidence": float(known.mean()),
        "auroc": auroc(known, unseen),
    }
