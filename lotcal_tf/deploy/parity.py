"""The parity gate: a written file must say what its ticket says, or it is not exported."""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from lotcal_tf.deploy.reader import logits_of
from lotcal_tf.errors import ExportMismatch
from lotcal_tf.evaluation import metrics

Figures = Mapping[str, float]

# What is compared, by name in `evaluation.metrics.measure` and as a person reads it.
COMPARED = {"accuracy": "accuracy", "ece": "ECE", "nll": "NLL", "brier": "Brier score"}


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """How far a file may be from its ticket.

    Attributes:
      exact: of files that keep every digit: each of accuracy, ECE, NLL and Brier score, either way;
        and the largest difference of a logit, as a share of the largest logit, at least of 1.
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

    def figures(outputs: NDArray) -> dict[str, float]:
        logits = logits_of(outputs, 0.0) if probabilities else outputs
        measured = metrics.measure(labels, logits, bins=bins)
        return {key: measured[key] for key in COMPARED}

    parity = Parity(float(np.abs(found - truth).max()), figures(truth), figures(found))
    apart = {key: parity.measured[key] - parity.ticket[key] for key in COMPARED}
    if exact:
        limit = tolerance.exact * max(1.0, float(np.abs(truth).max()))
        what = "a probability" if probabilities else "a logit"
        _check(name, what, parity.largest_difference, limit, "float_tolerance")
        for key, words in COMPARED.items():
            _check(name, words, abs(apart[key]), tolerance.exact, "float_tolerance")
    else:
        _check(name, "accuracy", -apart["accuracy"], tolerance.accuracy, "accuracy_tolerance")
        _check(name, "ECE", apart["ece"], tolerance.ece, "ece_tolerance")
    return parity


def _check(name: str, what: str, apart: float, limit: float, flag: str) -> None:
    """Raises where a difference is more than its limit; one that is just the limit is not."""
    if apart > limit and not math.isclose(apart, limit, rel_tol=1e-9):
        raise ExportMismatch(
            f"{name} differs from the ticket by {apart:.3g} in {what}, more than {limit:.3g} "
            f"({flag}): nothing was exported"
        )
