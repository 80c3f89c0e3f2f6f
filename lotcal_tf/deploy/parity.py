"""The parity gate: a written file must say what its ticket says, or it is not exported."""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from lotcal_tf import metrics
from lotcal_tf.errors import ExportMismatch
from lotcal_tf.evaluation.open_model import logits_of
from lotcal_tf.metrics.bins import bin_index

Figures = Mapping[str, float]

# What is compared, by name in `evaluation.metrics.measure` and as a person reads it.
COMPARED = {"accuracy": "accuracy", "ece": "ECE", "nll": "NLL", "brier": "Brier score"}


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """How far a file may be from its ticket.

    Attributes:
      exact: of files that keep every digit: each of accuracy, ECE, NLL and Brier score, either way;
        and the largest difference of a logit, as a share of the largest logit, at least of 1.
        Accuracy and ECE move in steps, which the last digit of a logit can decide: a step of one
        example's accuracy, and the step in ECE of each example that came into another bin or class,
        are let pass besides.
      accuracy: of quantised files: how much lower their accuracy may be, as a share of 1.
      ece: of quantised files: how much higher their ECE may be.
    """

    exact: float = 1e-4
    accuracy: float = 0.01
    ece: float = 0.01


DEFAULT_TOLERANCE = Tolerance()


@dataclasses.dataclass(frozen=True)
class Parity:
    """A file beside its ticket.

    Attributes:
      largest_difference: of a logit.
      ticket, measured: `COMPARED` of both, on the same examples.
    """

    largest_difference: float
    ticket: Figures
    measured: Figures


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
    """Holds what a file gives against what its ticket gives.

    Args:
      name: the file's.
      labels: `(N,)`.
      truth: `(N, K)` of the ticket: logits, or probabilities.
      found: `(N, K)` of the file, likewise.
      bins: of the ECE.
      exact: whether the file keeps every digit; else it is quantised.
      tolerance: how far they may be apart.
      probabilities: whether both are probabilities.

    Raises:
      ExportMismatch: they are farther apart, or the file gives a value that is not finite.
    """
    if not np.isfinite(found).all():
        raise ExportMismatch(
            f"{name} differs from the ticket by a value that is not finite: nothing was exported"
        )

    if probabilities:
        wanted, given = logits_of(truth, 0.0), logits_of(found, 0.0)
    else:
        wanted, given = truth, found
    both = [metrics.measure(labels, logits, bins=bins) for logits in (wanted, given)]
    ticket, measured = ({key: figures[key] for key in COMPARED} for figures in both)
    parity = Parity(float(np.abs(found - truth).max()), ticket, measured)
    apart = {key: parity.measured[key] - parity.ticket[key] for key in COMPARED}
    if exact:
        limit = tolerance.exact * max(1.0, float(np.abs(truth).max()))
        what = "a probability" if probabilities else "a logit"
        _check(name, what, parity.largest_difference, limit, "float_tolerance")
        limits = dict.fromkeys(COMPARED, tolerance.exact)
        limits["accuracy"] = max(tolerance.exact, 1 / len(labels))
        # An example that moves takes its gap, at most 1, out of one sum and adds it to another.
        limits["ece"] += 2 * _moved(wanted, given, bins) / len(labels)
        for key, words in COMPARED.items():
            _check(name, words, abs(apart[key]), limits[key], "float_tolerance")
    else:
        _check(name, "accuracy", -apart["accuracy"], tolerance.accuracy, "accuracy_tolerance")
        _check(name, "ECE", apart["ece"], tolerance.ece, "ece_tolerance")
    return parity


def _moved(truth: NDArray, found: NDArray, bins: int) -> int:
    """How many examples are in another bin, or of another class, by these logits than by those."""
    (class_of, sure), (other_class, as_sure) = map(metrics.confidence, (truth, found))
    same = (class_of == other_class) & (bin_index(sure, bins) == bin_index(as_sure, bins))
    return int((~same).sum())


def _check(name: str, what: str, apart: float, limit: float, flag: str) -> None:
    """Raises where a difference is more than its limit; one that is just the limit is not."""
    if apart > limit and not math.isclose(apart, limit, rel_tol=1e-9):
        raise ExportMismatch(
            f"{name} differs from the ticket by {apart:.3g} in {what}, more than {limit:.3g} "
            f"({flag}): nothing was exported"
        )
