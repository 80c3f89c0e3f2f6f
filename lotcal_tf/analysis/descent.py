"""Reading one chain: interpolation threshold, peak, sweet spot, best ticket, collapse.

Under label noise the test error of a chain first rises while the network is still large enough to
learn the noise by heart, then falls below where it began, and rises again when too little is left
(sparse double descent: He et al. 2022, arXiv 2206.08684; Arora et al. 2023, arXiv 2306.12190). The rule
here finds these places from training and validation error alone; test figures are never looked at.

All errors are those on the labels as they are trained and validated, noisy ones included. A label
known to be wrong is an error of every level that learnt the task, so it tells no two of them apart:
what chance there is in a level's error comes from the other labels.
"""

import dataclasses
import functools
import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

# A level interpolates where it gets no more than this share of its training labels wrong.
INTERPOLATES = 0.01
# A level over-fits where its training error is at most this share of its validation error.
OVERFITS = 0.5
# How sure a rise and a fall must be, over all pairs of levels of the chain together.
CONFIDENCE = 0.95
# A rise, a peak and a fall.
SHORTEST = 3


@dataclasses.dataclass(frozen=True)
class Descent:
    """What a chain shows, as numbers of its levels; None: it does not show it.

    Attributes:
      threshold: interpolation threshold, the sparsest level that still interpolates.
      threshold_is_bound: the chain ends before the threshold is passed.
      peak: highest validation error among over-fitting levels, with a rise before and a fall after.
      best: best ticket, lowest validation error after the peak.
      best_is_bound: the chain ends within the sweet spot, so the best may be sparser.
      sweet_spot: densest and sparsest level around the best within a standard error of it.
      collapse: the level from which on validation error stays above the best's for sure.
      lowest: lowest validation error of the whole chain, whatever its shape; not None.
      verdict: the shape in words.
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


def read_chain(
    train_error: ArrayLike,
    validation_error: ArrayLike,
    examples: int,
    wrong_labels: float = 0.0,
) -> Descent:
    """Reads a chain.

    Args:
      train_error, validation_error: one a level, from dense to sparse, each in [0, 1].
      examples: how many examples the validation error is taken over; gives its standard error.
      wrong_labels: share of the validation labels known to be wrong, in [0, 1).

    Raises:
      ValueError: the columns are empty, unequally long or hold values outside [0, 1]; `examples` is
        below 1; `wrong_labels` is outside [0, 1).

    The rule. Two levels differ for sure where their errors are further apart than chance would
    bring any two levels of such a chain in all but 5 % of cases (`surely_apart`). The peak is the
    over-fitting level with the largest of the smaller of its rise and its fall; both must be sure.
    A chain without a peak whose level 0 is surely above its lowest begins at its peak or after it:
    it has a best ticket, its lowest. Ties go to the sparser level.
    """
    train, error = _checked(train_error), _checked(validation_error)
    if train.size != error.size:
        raise ValueError(f"{train.size} training errors, {error.size} validation errors")
    if examples < 1:
        raise ValueError(f"examples must be at least 1, got {examples}")
    if not 0 <= wrong_labels < 1:
        raise ValueError(f"wrong_labels must be in [0, 1), got {wrong_labels}")
    deviation = standard_error(error, examples, wrong_labels)
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
        verdict=f"too short: {error.size} of at least {SHORTEST} levels, no peak can be told",
    )
    return empty if error.size < SHORTEST else _read_long(empty, train, error, deviation)


def _read_long(
    empty: Descent, train: np.ndarray, error: np.ndarray, deviation: np.ndarray
) -> Descent:
    """Fills in what levels that are long enough show."""
    apart = surely_apart(deviation)
    peak = _peak(train, error, apart)
    if peak is None and not _falls(error, apart):
        return dataclasses.replace(empty, verdict=_without(train, error, apart))
    best = empty.lowest if peak is None else _lowest(error, peak + 1)
    sweet = _around(error, best, deviation[best], 0 if peak is None else peak + 1)
    is_bound = sweet[1] == error.size - 1
    worse = (
        i for i in range(best + 1, error.size) if (error[i:] - error[best] > apart[i:, best]).all()
    )
    words = "falls from the start: begins at its peak or after it"
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
    error: np.ndarray | float, examples: int, wrong_labels: float = 0.0
) -> np.ndarray:
    """Standard error of an error in [0, 1] over so many examples, as far as levels can differ by it.

    Binomial, over the examples whose labels are not known to be wrong; all levels err on the others.
    No error at all, or no right answer, is no proof of there being no chance: one example is taken
    as wrong, or right.
    """
    right = 1 - wrong_labels
    least = min(1 / (right * examples), 0.5)
    share = np.clip((error - wrong_labels) / right, least, 1 - least)
    return np.sqrt(right * share * (1 - share) / examples)


def surely_apart(deviation: np.ndarray) -> np.ndarray:
    """How far apart each two levels `(L, L)` must be to differ for sure, by their standard errors.

    Tukey's honest significant difference (Tukey–Kramer for unequal deviations): if all levels were
    equally good, the largest of all differences would stay below it in 95 % of chains.
    """
    squares = deviation**2
    return _studentized_range(deviation.size) * np.sqrt((squares[:, None] + squares[None, :]) / 2)


@functools.lru_cache
def _studentized_range(levels: int) -> float:
    return float(stats.studentized_range.ppf(CONFIDENCE, levels, math.inf))


def _peak(train: np.ndarray, error: np.ndarray, apart: np.ndarray) -> int | None:
    """The over-fitting level that stands out most on both sides, if any surely does."""
    found: dict[int, float] = {}
    for level in range(1, error.size - 1):
        before, after = int(error[:level].argmin()), _lowest(error, level + 1)
        rise, fall = error[level] - error[before], error[level] - error[after]
        sure = rise > apart[level, before] and fall > apart[level, after]
        if sure and train[level] <= OVERFITS * error[level]:
            found[level] = min(rise, fall)
    # By the higher error where both sides tie, then the sparser.
    return max(found, key=lambda i: (found[i], error[i], i)) if found else None


def _falls(error: np.ndarray, apart: np.ndarray) -> bool:
    """Whether the error surely falls from level 0 to its lowest.

    Level 0 alone: the highest of many levels is as likely an accident of training as a fall.
    """
    lowest = _lowest(error, 0)
    return bool(error[0] - error[lowest] > apart[0, lowest])


def _without(train: np.ndarray, error: np.ndarray, apart: np.ndarray) -> str:
    """Why a chain that neither peaks nor falls has no best ticket."""
    if train[-1] <= INTERPOLATES:
        return "no peak: ends before the interpolation threshold, give it more levels"
    lowest = _lowest(error, 0)
    if (error[lowest:] - error[lowest] > apart[lowest:, lowest]).any():
        return "no peak: the error rises for sure, and did not fall for sure before"
    return "no peak: no two levels surely differ"


def _around(error: np.ndarray, best: int, deviation: float, first: int) -> tuple[int, int]:
    """The levels next to the best, from `first` on, within one standard error of it."""
    near = error <= error[best] + deviation
    low = high = best
    while low > first and near[low - 1]:
        low -= 1
    while high < error.size - 1 and near[high + 1]:
        high += 1
    return low, high


def _lowest(error: np.ndarray, first: int) -> int:
    """The level of the lowest error from `first` on, ties to the sparser."""
    return error.size - 1 - int(error[first:][::-1].argmin())


def _last(where: np.ndarray) -> int | None:
    found = np.flatnonzero(where)
    return int(found[-1]) if found.size else None


def _checked(column: ArrayLike) -> np.ndarray:
    values = np.asarray(column, np.float64)
    if values.ndim != 1 or not values.size or not ((values >= 0) & (values <= 1)).all():
        raise ValueError("errors must be a column of values in [0, 1]")
    return values
