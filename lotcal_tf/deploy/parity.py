"""Parity: a written file must agree with its ticket within tolerance, or it is not exported.

A file that is not quantised computes what the ticket computes, apart from rounding: its metrics are
compared as they are. Quantisation changes predictions, and on few examples a metric then changes by
chance. A quantised file is therefore refused only if the examples show that it is worse by more than
the tolerance: if the lower end of the 99 % interval of the paired difference lies above it.
"""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from lotcal_tf import metrics
from lotcal_tf.config.fields import not_negative
from lotcal_tf.errors import ExportMismatch, FieldError
from lotcal_tf.formats.outputs import logits_of
from lotcal_tf.metrics.bins import bin_index
from lotcal_tf.metrics.intervals import LEVEL, Interval

# The metrics that are compared: their names in `metrics.measure`, and in messages.
COMPARED = {"accuracy": "accuracy", "ece": "ECE", "nll": "NLL", "brier": "Brier score"}


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """How much a file may differ from its ticket.

    Attributes:
      exact: for files that are not quantised: the largest difference in accuracy, ECE, NLL and Brier
        score, in either direction; and the largest difference of a logit, relative to the largest
        logit or to 1, whichever is larger. Rounding can move an example to another class or bin,
        and accuracy and ECE then change by a step: one such step in accuracy, and the steps in ECE
        of all moved examples, are allowed in addition.
      accuracy: for quantised files: how much lower the accuracy may be, as a fraction. A file is
        refused if the whole 99 % interval of the decrease lies above it, see
        `metrics.paired_intervals`: on few examples, only large decreases are.
      ece: for quantised files: how much higher the ECE may be, likewise.
    """

    exact: float = 1e-4
    accuracy: float = 0.01
    ece: float = 0.005

    def __post_init__(self) -> None:
        """Raises FieldError if one of them is not a number, 0 or more."""
        for name, value in vars(self).items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not_negative(value):
                raise FieldError(f"tolerance.{name}", value, "must be a finite number, 0 or more")


DEFAULT_TOLERANCE = Tolerance()


@dataclasses.dataclass(frozen=True)
class Parity:
    """A file compared with its ticket.

    Attributes:
      largest_difference: of a logit, or of a probability.
      ticket, measured: the `COMPARED` metrics of ticket and file, on the same examples.
      intervals: of a quantised file: by how much its metrics exceed the ticket's, with the ends of a
        99 % interval, see `metrics.paired_intervals`; else empty.
    """

    largest_difference: float
    ticket: Mapping[str, float]
    measured: Mapping[str, float]
    intervals: Mapping[str, Interval]


def compare(
    name: str,
    labels: NDArray,
    truth: NDArray,
    found: NDArray,
    *,
    bins: int,
    exact: bool,
    tolerance: Tolerance,
    probabilities: bool = False,
) -> Parity:
    """Compares the outputs of a file with those of its ticket.

    Args:
      name: the file's name, for messages.
      labels: `(N,)`.
      truth: `(N, K)`, the outputs of the ticket.
      found: `(N, K)`, the outputs of the file.
      bins: of the ECE.
      exact: whether the file is not quantised.
      tolerance: how much they may differ.
      probabilities: whether the outputs are probabilities; else they are logits.

    Raises:
      ExportMismatch: they differ more, or the file gives a value that is not finite.
    """
    if not np.isfinite(found).all():
        raise ExportMismatch(f"{name} gives NaN or infinity: nothing was exported")

    if probabilities:
        expected, given = logits_of(truth, 0.0), logits_of(found, 0.0)
    else:
        expected, given = truth, found
    ticket, measured = (_measured(labels, logits, bins) for logits in (expected, given))
    largest = float(np.abs(found - truth).max())
    if exact:
        limit = tolerance.exact * max(1.0, float(np.abs(truth).max()))
        what = "a probability" if probabilities else "a logit"
        _check(name, what, largest, limit, "float_tolerance")
        limits = dict.fromkeys(COMPARED, tolerance.exact)
        limits["accuracy"] = max(tolerance.exact, 1 / len(labels))
        # A moved example takes its gap, at most 1, from one sum and adds it to another.
        limits["ece"] += 2 * _moved(expected, given, bins) / len(labels)
        for key, label in COMPARED.items():
            _check(name, label, abs(measured[key] - ticket[key]), limits[key], "float_tolerance")
        return Parity(largest, ticket, measured, {})
    intervals = metrics.paired_intervals(labels, expected, given, bins=bins)
    accuracy, ece = intervals["accuracy"], intervals["ece"]
    fall = Interval(-accuracy.difference, -accuracy.high, -accuracy.low)
    _check_interval(name, "accuracy", fall, tolerance.accuracy, "accuracy_tolerance")
    _check_interval(name, "ECE", ece, tolerance.ece, "ece_tolerance")
    return Parity(largest, ticket, measured, intervals)


def _measured(labels: NDArray, logits: NDArray, bins: int) -> dict[str, float]:
    """The `COMPARED` metrics."""
    found = {"ece": metrics.ece(labels, logits, bins=bins)}
    found |= {key: getattr(metrics, key)(labels, logits) for key in COMPARED if key != "ece"}
    return {key: found[key] for key in COMPARED}


def _moved(truth: NDArray, found: NDArray, bins: int) -> int:
    """The number of examples that change their class or bin from one array of logits to the other."""
    (class_of, confidence), (other_class, other) = map(metrics.confidence, (truth, found))
    same = (class_of == other_class) & (bin_index(confidence, bins) == bin_index(other, bins))
    return int((~same).sum())


def _check(name: str, what: str, difference: float, limit: float, flag: str) -> None:
    """Raises ExportMismatch if a difference is greater than its limit."""
    if _exceeds(difference, limit):
        raise _mismatch(name, f"{difference:.3g} in {what}", limit, flag)


def _check_interval(name: str, what: str, found: Interval, limit: float, flag: str) -> None:
    """Raises ExportMismatch if the whole interval of a difference lies above its limit."""
    if _exceeds(found.low, limit):
        interval = f"{100 * LEVEL:.0f} % interval {found.low:.3g} to {found.high:.3g}"
        raise _mismatch(name, f"{found.difference:.3g} in {what} ({interval})", limit, flag)


def _exceeds(value: float, limit: float) -> bool:
    """Whether a value is greater than its limit, apart from rounding."""
    return value > limit and not math.isclose(value, limit, rel_tol=1e-9)


def _mismatch(name: str, difference: str, limit: float, flag: str) -> ExportMismatch:
    return ExportMismatch(
        f"{name} differs from the ticket by {difference}, more than {limit:.3g} ({flag}): "
        "nothing was exported; allow more, or choose another format"
    )
