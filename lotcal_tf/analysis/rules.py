"""The rules by which a level of a run under label noise is the best, and its size."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from lotcal_tf.analysis.descent import OVERFITS
from lotcal_tf.analysis.runs import RecordedRun

# A chain starts over-parameterised if the training error of its dense network is at most this share of
# its validation error. For the narrowest published ones, 50 units on MNIST, it is 0.60 and 0.71.
OVER_PARAMETERISED = 0.75
# Calibration errors against clean and against noisy test labels.
ECES: Mapping[str, str] = {"test_ece": "clean labels", "test_noisy_ece": "noisy labels"}


@dataclasses.dataclass(frozen=True)
class Lowest:
    """A level with a lowest value.

    Attributes:
      level: of equal levels the sparsest.
      is_bound: whether the run ends there, so that a sparser level may be lower.
    """

    level: int
    is_bound: bool


def by_validation(run: RecordedRun) -> Lowest | None:
    """The best ticket of a run, see `find_descent`; None if it has none."""
    found = run.descent
    return None if found.best is None else Lowest(found.best, found.best_is_bound)


def by_test(run: RecordedRun) -> Lowest | None:
    """The best pruned model as published: the level with the lowest error on clean test labels.

    None if the chain does not start over-parameterised (see `OVER_PARAMETERISED`), or if pruning does
    not lower the test error.
    """
    found = lowest_pruned(run, OVER_PARAMETERISED)
    errors = run.error("test")
    return None if found is None or errors[found.level] > errors[0] else found


def lowest_pruned(run: RecordedRun, share: float = OVERFITS) -> Lowest | None:
    """The pruned level with the lowest error on clean test labels, for a comparison with the full network.

    Other than by `by_test`, it may have a higher error than the full network. None if the training error
    of the full network is above a `share` of its validation error; by default it must over-fit.
    """
    if len(run.weights) < 2 or run.error("train")[0] > share * run.error("val")[0]:
        return None
    found = _lowest(run.error("test")[1:])
    return dataclasses.replace(found, level=found.level + 1)


Rule = Callable[[RecordedRun], Lowest | None]
# The rules by which a level is the best: ours, and that of arXiv 2306.12190.
RULES: Mapping[str, Rule] = {"validation": by_validation, "test, as published": by_test}


def ece_minimum(run: RecordedRun, column: str) -> Lowest | None:
    """The level with the lowest ECE before the collapse; None if the run lacks the column.

    A collapsed network predicts all classes alike, which is calibrated but useless. If the ECE still
    falls where the collapse begins, the level is a bound.

    Args:
      run: the run.
      column: one of `ECES`.
    """
    whole = run.columns.get(column, np.zeros(0))
    values = whole[: run.descent.collapse]
    if not values.size or not np.isfinite(whole).all():
        return None
    found = _lowest(values)
    rises = found.level + 1 < whole.size and whole[found.level + 1] > whole[found.level]
    return Lowest(found.level, found.is_bound and not rises)


def _lowest(values: np.ndarray) -> Lowest:
    level = values.size - 1 - int(values[::-1].argmin())
    return Lowest(level, level == values.size - 1)


def size_at(run: RecordedRun, found: Lowest | None) -> int | None:
    """Non-zero weights of a level, output layer included; None without a level, or for a bound."""
    return None if found is None or found.is_bound else int(run.weights[found.level])


def best_size(run: RecordedRun, rule: Rule = by_validation) -> int | None:
    """Weights of a run's best ticket; None if it has none, or only a bound."""
    return size_at(run, rule(run))


def best_sizes(runs: Sequence[RecordedRun], rule: Rule = by_validation) -> list[int]:
    """The sizes that a rule finds, of the runs that have one."""
    return [size for run in runs if (size := best_size(run, rule)) is not None]
