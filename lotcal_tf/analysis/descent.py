"""Finds double descent in one pruning run: threshold, peak, sweet spot, best ticket, collapse.

Under label noise, pruning first raises the test error, while the network is still large enough to
memorise the noise. Then the error falls below that of the dense network, and it rises again when
too few weights are left (sparse double descent: He et al. 2022, arXiv 2206.08684; Arora et al. 2023,
arXiv 2306.12190). The rule uses training and validation errors only, never test metrics.

All errors are measured against the noisy labels. With many classes, every level that has learnt the task
errs on the labels that the noise made wrong. These errors are common to all levels and have no standard
error. With few classes, a wrong prediction can be the wrong label: see `standard_error`.
"""

import dataclasses
import functools
import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

# A level interpolates if its training error is at most this.
INTERPOLATES = 0.01
# A level over-fits if its training error is at most this share of its validation error.
OVERFITS = 0.5
# Confidence level of rises and falls, over all pairs of levels of a run together.
CONFIDENCE = 0.95
# A peak has at least one level before it and one after it.
SHORTEST = 3


@dataclasses.dataclass(frozen=True)
class Descent:
    """The levels of a run at which its error changes direction; None where there is no such level.

    Attributes:
      threshold: interpolation threshold, the sparsest level that still interpolates.
      threshold_is_bound: whether the run still interpolates at its last level.
      peak: an over-fitting level with a significant rise before it and a significant fall after it.
      best: best ticket, the level with the lowest validation error after the peak.
      best_is_bound: whether the run ends inside its sweet spot, so that a sparser level may be
        better.
      sweet_spot: densest and sparsest level around the best one within one standard error of it.
      collapse: first level from which all levels are significantly worse than the best one.
      lowest: level with the lowest validation error of the whole run; never None.
      verdict: the shape of the curve in words.
    """

    threshold: int | None
    threshold_is_bound: bool
    peak: int | None
    best: int | None
    best_is_bound: bool
    sweet_spot: tuple[int, int] | None
    collapse: int | None
    lowest: int
    verdict: str


def find_descent(
    train_error: ArrayLike,
    validation_error: ArrayLike,
    examples: int,
    wrong_labels: float = 0.0,
    classes: int | None = None,
) -> Descent:
    """Finds the levels of a run at which its error changes direction.

    Two levels differ significantly if their errors differ by more than `significant_difference`.
    The peak is an over-fitting level that is significantly above a denser and a sparser level. Of
    several such levels it is the one whose smaller difference is largest. A run without a peak whose
    level 0 is significantly above its lowest level begins at its peak or after it; its lowest level
    is its best ticket. Of equal levels the sparser one counts.

    Args:
      train_error, validation_error: `(L,)`, one value per level from dense to sparse, in [0, 1].
      examples: number of validation examples, for the standard error.
      wrong_labels: share of the validation labels known to be wrong, in [0, 1).
      classes: number of classes; None: many.

    Raises:
      ValueError: the columns are empty, differ in length or hold values outside [0, 1]; `examples`
        is below 1; `wrong_labels` is outside [0, 1).
    """
    train, error = _checked(train_error), _checked(validation_error)
    if train.size != error.size:
        raise ValueError(
            "train_error and validation_error must have the same length, "
            f"got {train.size} and {error.size}"
        )
    if examples < 1:
        raise ValueError(f"examples must be at least 1, got {examples}")
    if not 0 <= wrong_labels < 1:
        raise ValueError(f"wrong_labels must be in [0, 1), got {wrong_labels}")
    deviation = standard_error(error, examples, wrong_labels, classes)
    threshold = _last(train <= INTERPOLATES)
    empty = Descent(
        threshold=threshold,
        threshold_is_bound=threshold == error.size - 1,
        peak=None,
        best=None,
        best_is_bound=False,
        sweet_spot=None,
        collapse=None,
        lowest=_lowest(error, 0),
        verdict=f"too short: {error.size} levels, a peak needs at least {SHORTEST}",
    )
    return empty if error.size < SHORTEST else _find_in_long_run(empty, train, error, deviation)


def _find_in_long_run(
    empty: Descent, train: np.ndarray, error: np.ndarray, deviation: np.ndarray
) -> Descent:
    """Fills in peak, best, sweet spot and collapse of a run with at least `SHORTEST` levels."""
    apart = significant_difference(deviation)
    peak = _peak(train, error, apart)
    if peak is None and not _falls(error, apart):
        return dataclasses.replace(empty, verdict=_why_no_best(train, error, apart))
    best = empty.lowest if peak is None else _lowest(error, peak + 1)
    sweet = _around(error, best, deviation[best], 0 if peak is None else peak + 1)
    is_bound = sweet[1] == error.size - 1
    worse = (
        i for i in range(best + 1, error.size) if (error[i:] - error[best] > apart[i:, best]).all()
    )
    words = "falls from level 0: begins at its peak or after it"
    if peak is not None:
        words = "double descent"
    if is_bound:
        words += "; ends before the error rises again, so the best is a bound"
    return dataclasses.replace(
        empty,
        peak=peak,
        best=best,
        best_is_bound=is_bound,
        sweet_spot=sweet,
        collapse=next(worse, None),
        verdict=words,
    )


def standard_error(
    error: np.ndarray | float,
    examples: int,
    wrong_labels: float = 0.0,
    classes: int | None = None,
) -> np.ndarray:
    """Binomial standard error of validation errors in [0, 1], of the same shape.

    A network with the error e on right labels predicts a wrong label with probability e / (classes − 1), if the
    noise is symmetric: with two classes it errs on 1 − e of the wrong labels, with many on all of them. An e of
    0 or 1 would have a standard error of 0; it counts as one wrong or one right example instead.
    """
    right, other = 1 - wrong_labels, 0.0 if classes is None else 1 / (classes - 1)
    least = min(1 / (right * examples), 0.5)
    learnt = max(right - wrong_labels * other, least)  # how much the measured error tells of e
    own = np.clip((error - wrong_labels) / learnt, least, 1 - least)
    hit = own * other
    return np.sqrt((right * own * (1 - own) + wrong_labels * hit * (1 - hit)) / examples)


def significant_difference(deviation: np.ndarray) -> np.ndarray:
    """The difference `(L, L)` from which two levels with standard errors `(L,)` differ significantly.

    Tukey's honest significant difference (Tukey–Kramer for unequal deviations): if all levels were
    equally good, the largest difference of any two would stay below it in 95 % of runs.
    """
    squares = deviation**2
    return _studentized_range(deviation.size) * np.sqrt((squares[:, None] + squares[None, :]) / 2)


@functools.lru_cache
def _studentized_range(levels: int) -> float:
    return float(stats.studentized_range.ppf(CONFIDENCE, levels, math.inf))


def _peak(train: np.ndarray, error: np.ndarray, apart: np.ndarray) -> int | None:
    """The over-fitting level whose smaller difference to both sides is largest and significant."""
    found: dict[int, float] = {}
    for level in range(1, error.size - 1):
        before, after = int(error[:level].argmin()), _lowest(error, level + 1)
        rise, fall = error[level] - error[before], error[level] - error[after]
        sure = rise > apart[level, before] and fall > apart[level, after]
        if sure and train[level] <= OVERFITS * error[level]:
            found[level] = min(rise, fall)
    # Of equal differences the higher error counts, then the sparser level.
    return max(found, key=lambda i: (found[i], error[i], i)) if found else None


def _falls(error: np.ndarray, apart: np.ndarray) -> bool:
    """Whether the error falls significantly from level 0 to its lowest value.

    The fall starts at level 0: the highest of many levels may be high by chance.
    """
    lowest = _lowest(error, 0)
    return bool(error[0] - error[lowest] > apart[0, lowest])


def _why_no_best(train: np.ndarray, error: np.ndarray, apart: np.ndarray) -> str:
    """Why a run without a peak and without a fall from level 0 has no best ticket."""
    if train[-1] <= INTERPOLATES:
        return "no peak: ends before the interpolation threshold; train more levels"
    lowest = _lowest(error, 0)
    if (error[lowest:] - error[lowest] > apart[lowest:, lowest]).any():
        return "no peak: the error rises significantly without a significant fall before"
    return "no peak: no significant fall from level 0, no significant rise after the lowest level"


def _around(error: np.ndarray, best: int, deviation: float, first: int) -> tuple[int, int]:
    """The densest and the sparsest level next to the best one within one standard error of it.

    Levels before `first` do not count.
    """
    near = error <= error[best] + deviation
    low = high = best
    while low > first and near[low - 1]:
        low -= 1
    while high < error.size - 1 and near[high + 1]:
        high += 1
    return low, high


def _lowest(error: np.ndarray, first: int) -> int:
    """The level with the lowest error from `first` on; of equal levels the sparsest."""
    return error.size - 1 - int(error[first:][::-1].argmin())


def _last(where: np.ndarray) -> int | None:
    found = np.flatnonzero(where)
    return int(found[-1]) if found.size else None


def _checked(column: ArrayLike) -> np.ndarray:
    values = np.asarray(column, np.float64)
    if values.ndim != 1 or not values.size or not ((values >= 0) & (values <= 1)).all():
        raise ValueError("errors must have shape (L,) with L >= 1 and values in [0, 1]")
    return values
