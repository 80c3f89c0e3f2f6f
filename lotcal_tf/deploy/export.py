"""Exporting a ticket: written, reloaded, compared on examples, and only then put in place."""

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lotcal_tf.deploy import saved_model, tflite
from lotcal_tf.deploy.reader import TicketRunner
from lotcal_tf.deploy.scaling import fold_temperature, temperature_of
from lotcal_tf.errors import ExportMismatch, UsageError
from lotcal_tf.lottery.ticket import Ticket

# Float32 sums in another order: this much of the largest logit, at least of 1.
TOLERANCE = 1e-4

SAVED_MODEL, TFLITE, PARITY = "saved_model", "ticket.tflite", "parity.json"


@dataclasses.dataclass(frozen=True)
class Exported:
    """What an export left.

    Attributes:
      directory: holds the following and `parity.json`.
      saved_model: the SavedModel's directory.
      tflite: the TFLite file.
      examples: how many it was compared on.
      difference: the largest difference of a logit from the Keras model's, by file.
    """

    directory: Path
    saved_model: Path
    tflite: Path
    examples: int
    difference: dict[str, float]


def export(ticket: Ticket, directory: Path, inputs: NDArray, *, scaled: bool = False) -> Exported:
    """Writes a ticket as SavedModel and TFLite file, both giving logits.

    Args:
      ticket: what to export.
      directory: replaced by the new export once that is verified, and only if it holds an
        earlier one.
      inputs: `(N, …)` examples, best the whole test set, to compare on.
      scaled: whether the logits are to be divided by the ticket's temperature.

    Raises:
      UsageError: the directory holds something else than an export, there are no inputs, or the
        ticket has no temperature to scale by.
      ExportMismatch: a file's logits differ from the Keras model's; nothing is left behind.
    """
    if not len(inputs):
        raise UsageError("export compares the files with the ticket on examples: give at least one")
    taken = directory.exists() and not (directory / PARITY).exists()
    if taken and (not directory.is_dir() or any(directory.iterdir())):
        raise UsageError(
            f"{directory} holds something else than an export: choose another directory"
        )
    runner = TicketRunner(ticket)
    temperature = temperature_of(ticket) if scaled else 1.0
    inputs = np.asarray(inputs, np.float32)
    # Before the temperature is folded in, so that the comparison covers that step too.
    raw = runner(inputs)
    truth = np.divide(raw, temperature, dtype=np.float32)
    if scaled:
        fold_temperature(runner.model, temperature)
    directory.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}."))
    try:
        saved_model.write(runner.model, work / SAVED_MODEL)
        tflite.write(work / SAVED_MODEL, work / TFLITE)
        readers: dict[str, Callable[[Path, NDArray[np.float32]], NDArray[np.float32]]]
        readers = {SAVED_MODEL: saved_model.logits, TFLITE: tflite.logits}
        difference = {
            name: _compare(name, read(work / name, inputs), truth) for name, read in readers.items()
        }
        parity = {
            "ticket": ticket.digest,
            "level": ticket.level,
            "temperature": temperature,
            "examples": len(inputs),
            "largest_difference": difference,
        }
        (work / PARITY).write_text(json.dumps(parity, indent=2) + "\n")
        work.chmod(0o755)
        if directory.exists():
            shutil.rmtree(directory)
        work.rename(directory)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return _exported(directory, parity)


def exported(ticket: Ticket, directory: Path, *, scaled: bool = False) -> Exported | None:
    """What an earlier export of just this ticket, so scaled, left there; None without one."""
    try:
        parity = json.loads((directory / PARITY).read_text())
    except (OSError, ValueError):
        return None
    temperature = temperature_of(ticket) if scaled else 1.0
    if (parity.get("ticket"), parity.get("temperature")) != (ticket.digest, temperature):
        return None
    there = _exported(directory, parity)
    return there if there.saved_model.is_dir() and there.tflite.is_file() else None


def _exported(directory: Path, parity: dict[str, Any]) -> Exported:
    return Exported(
        directory,
        directory / SAVED_MODEL,
        directory / TFLITE,
        parity["examples"],
        parity["largest_difference"],
    )


def _compare(name: str, found: NDArray[np.float32], truth: NDArray[np.float32]) -> float:
    """The largest difference of a logit; raises where it is more than rounding."""
    difference = float(np.abs(found - truth).max())
    limit = TOLERANCE * max(1.0, float(np.abs(truth).max()))
    # Written so that a NaN is caught too.
    if not difference <= limit:
        raise ExportMismatch(
            f"{name} differs from the ticket by {difference:.3g} in a logit, more than {limit:.3g}: "
            "nothing was exported"
        )
    return difference
