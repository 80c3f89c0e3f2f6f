"""Parity: a written file must agree with its ticket within tolerance, or it is not exported."""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from lotcal_tf import metrics
from lotcal_tf.errors import ExportMismatch
from lotcal_tf.formats.outputs import logits_of
from lotcal_tf.metrics.bins import bin_index

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
      accuracy: for quantised files: how much lower the accuracy may be, as a fraction.
      ece: for quantised files: how much higher the ECE may be.
    """

    exact: float = 1e-4
    accuracy: float = 0.01
    ece: float = 0.01


DEFAULT_TOLERANCE = Tolerance()


@dataclasses.dataclass(frozen=True)
class Parity:
    """A file compared with its ticket.

    Attributes:
      largest_difference: of a logit, or of a probability.
      ticket, measured: the `COMPARED` metrics of ticket and file, on the same examples.
    """

    largest_difference: float
    ticket: Mapping[str, float]
    measured: Mapping[str, float]


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
    both = [metrics.measure(labels, logits, bins=bins) for logits in (expected, given)]
    ticket, measured = ({key: row[key] for key in COMPARED} for row in both)
    parity = Parity(float(np.abs(found - truth).max()), ticket, measured)
    differences = {key: parity.measured[key] - parity.ticket[key] for key in COMPARED}
    if exact:
        limit = tolerance.exact * max(1.0, float(np.abs(truth).max()))
        what = "a probability" if probabilities else "a logit"
        _check(name, what, parity.largest_difference, limit, "float_tolerance")
        limits = dict.fromkeys(COMPARED, tolerance.exact)
        limits["accuracy"] = max(tolerance.exact, 1 / len(labels))
        # A moved example takes its gap, at most 1, from one sum and adds it to another.
        limits["ece"] += 2 * _moved(expected, given, bins) / len(labels)
        for key, label in COMPARED.items():
            _check(name, label, abs(differences[key]), limits[key], "float_tolerance")
    else:
        _check(name, "accuracy", -differences["accuracy"], tolerance.accuracy, "accuracy_tolerance")
        _check(name, "ECE", differences["ece"], tolerance.ece, "ece_tolerance")
    return parity


def _moved(truth: NDArray, found: NDArray, bins: int) -> int:
    """The number of examples that change their class or bin from one array of logits to the other."""
    (class_of, confidence), (other_class, other) = map(metrics.confidence, (truth, found))
    same = (class_of == other_class) & (bin_index(confidence, bins) == bin_index(other, bins))
    return int((~same).sum())


def _check(name: str, what: str, difference: float, limit: float, flag: str) -> None:
    """Raises ExportMismatch if a difference is greater than its limit, apart from rounding."""
    if difference > limit and not math.isclose(difference, limit, rel_tol=1e-9):
        raise ExportMismatch(
            f"{name} differs from the ticket by {difference:.3g} in {what}, more than {limit:.3g} "
            f"({flag}): nothing was exported; allow more, or choose another format"
        )
