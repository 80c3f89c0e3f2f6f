"""Finds levels whose network has learned nothing, or has lost a layer.

A loss or a weight that is not finite ends the run at once, see `errors.TrainingDiverged`.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lotcal_tf import metrics, tables
from lotcal_tf.errors import Unhealthy
from lotcal_tf.lottery.ticket import Record

# The 95 % point of the normal distribution: a one-sided test at 5 %.
_QUANTILE = 1.645


def problems(
    masks: Collection[str],
    trained: Mapping[str, NDArray],
    labels: NDArray[np.integer],
    logits: NDArray[np.floating],
) -> dict[str, str]:
    """What is wrong with a trained level, by name; empty: it is healthy.

    Args:
      masks: the paths of the weights that are pruned.
      trained: the weights after training, by path; pruned ones are 0.
      labels: `(N,)` integers, of the validation split.
      logits: `(N, K)`, its predictions.

    Returns:
      One line for each problem:
        `empty_layer`: every prunable weight of a layer is pruned or 0.
        `one_class`: all examples are predicted as the same class.
        `chance`: the accuracy is no better than chance, see `is_chance`.
    """
    found = {}
    empty = [name for name in masks if not trained[name].any()]
    if empty:
        found["empty_layer"] = (
            f"no weight is left in {', '.join(empty)}: prune less (prune_rate, levels) or exclude the layer"
        )
    predicted = np.unique(np.argmax(logits, axis=1))
    if len(predicted) == 1 and len(np.unique(labels)) > 1:
        found["one_class"] = (
            f"every validation example is predicted as class {predicted[0]}: check learning rate, inputs and epochs"
        )
    accuracy, share = metrics.accuracy(labels, logits), _largest_share(labels)
    if is_chance(accuracy, share, len(labels)):
        found["chance"] = (
            f"validation accuracy {tables.percent(accuracy)} is not significantly better than chance (the most "
            f"frequent class has {tables.percent(share)}): check labels, inputs, learning rate and epochs"
        )
    return found


def is_chance(accuracy: float, share: float, count: int) -> bool:
    """Whether an accuracy is not significantly better than always predicting the most frequent class.

    Args:
      accuracy: in [0, 1].
      share: of the most frequent class, in (0, 1].
      count: number of examples.

    Returns:
      Whether the accuracy is above the share by at most 1.645 standard errors.
    """
    return bool(accuracy <= share + _QUANTILE * np.sqrt(share * (1 - share) / count))


def _largest_share(labels: NDArray[np.integer]) -> float:
    return float(np.bincount(labels).max() / len(labels))


def check(policy: str, records: Sequence[Record]) -> None:
    """Ends a run whose last level has a problem, if the policy is `stop`.

    Args:
      policy: the field `on_unhealthy`.
      records: the rows of the finished levels. Those of older versions do not name problems.

    Raises:
      Unhealthy: the run must not go on.
    """
    if policy == "stop" and records and records[-1].get("health"):
        raise Unhealthy(records[-1]["level"], records[-1]["health"])
