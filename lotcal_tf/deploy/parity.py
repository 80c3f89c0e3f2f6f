"""Parity: a written file must agree with its ticket within tolerance, or it is not exported.

A file that is not quantised computes what the ticket computes, apart from rounding: its metrics are
compared as they are. Quantisation changes predictions, and on few examples a metric then changes by
chance. A quantised file is therefore refused only if the examples show that it is worse by more than
the tolerance: if the lower end of the 99 % interval of the paired difference lies above it.

Metrics of few examples do not show every fault. So the file must also have the confidence of the
ticket, and its logits, apart from the noise of quantisation.
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

# Quantisation adds noise of similar size to all examples: of Gaussian noise, no example in 10,000 is
# off by five times the median. Logits that are off by more than this many medians, and by more than
# this share of the ticket's, have another cause.
_OUTLYING_MEDIANS, _OUTLYING_SHARE = 10, 0.25
# Logarithms of probabilities below this say nothing about a file.
_LEAST_PROBABILITY = 1e-6


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
        `metrics.paired_intervals`: on few examples, only large decreases are. Also the share of
        examples whose logits may be off by far more than those of the others.
      ece: for quantised files: how much higher the ECE may be, likewise; and, if the NLL rises, how
        much the mean confidence minus the accuracy may change, in either direction.
      logits: for quantised files: the error of logits, as a share of the ticket's; both are root mean
        squares of logits minus their mean. One common factor, the temperature, is not an error.
    """

    exact: float = 1e-4
    accuracy: float = 0.01
    ece: float = 0.005
    logits: float = 0.3

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
    fall = _negative(accuracy)
    _check_interval(name, "accuracy", fall, tolerance.accuracy, "accuracy_tolerance")
    _check_interval(name, "ECE", ece, tolerance.ece, "ece_tolerance")
    if intervals["nll"].difference > 0:
        shift, what = _size(intervals["overconfidence"]), "confidence minus accuracy"
        _check_interval(name, what, shift, tolerance.ece, "ece_tolerance")
    if probabilities:
        least = np.log(_LEAST_PROBABILITY)
        expected, given = np.maximum(expected, least), np.maximum(given, least)
    _check_logits(name, expected, given, tolerance)
    return Parity(largest, ticket, measured, intervals)


def _check_logits(name: str, truth: NDArray, found: NDArray, tolerance: Tolerance) -> None:
    """Compares the logits of a quantised file with those of its ticket, `(N, K)` each.

    Raises:
      ExportMismatch: they differ by more than the noise of quantisation.
    """
    expected, given = (np.asarray(z, np.float64) for z in (truth, found))
    expected, given = (z - z.mean(axis=1, keepdims=True) for z in (expected, given))
    size, given_size = (float(np.sqrt(np.mean(z**2))) for z in (expected, given))
    if not size:
        return  # the same logits for all classes: there is nothing to compare with
    # A file has a temperature of its own. A factor below 0 would exchange the classes.
    factor = max(0.0, float(np.mean(expected * given))) / given_size**2 if given_size else 0.0
    errors = np.abs(factor * given - expected)
    error = float(np.sqrt(np.mean(errors**2))) / size
    _check(name, "logits, relative to the ticket's", error, tolerance.logits, "logit_tolerance")
    worst = errors.max(axis=1)
    least = max(_OUTLYING_MEDIANS * float(np.median(worst)), _OUTLYING_SHARE * size)
    outlying, limit = float(np.mean(worst > least)), max(tolerance.accuracy, 1 / len(worst))
    _check(name, "the share of examples with wrong logits", outlying, limit, "accuracy_tolerance")


def _size(found: Interval) -> Interval:
    """The interval of the size of a difference in either direction."""
    return found if found.difference >= 0 else _negative(found)


def _negative(found: Interval) -> Interval:
    return Interval(-found.difference, -found.high, -found.low)


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
