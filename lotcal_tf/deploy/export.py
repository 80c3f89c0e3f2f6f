"""Exporting a ticket: files are written, run, compared with the ticket, and only then put in place."""

import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lotcal_tf import tables
from lotcal_tf.compat import keras
from lotcal_tf.config.arguments import ExportArguments
from lotcal_tf.config.export_record import (
    PARITY,
    SPARSITY_REPORT,
    damaged_file,
    foreign_file,
    read_export,
    seal_export,
)
from lotcal_tf.data.splits import is_class_name
from lotcal_tf.deploy.background import Background
from lotcal_tf.deploy.examples import Examples
from lotcal_tf.deploy.parity import COMPARED, DEFAULT_TOLERANCE, Tolerance
from lotcal_tf.deploy.report_tables import FILE_WORDS, report_text
from lotcal_tf.deploy.steps import Job, report, verify, write
from lotcal_tf.errors import FieldError, LotcalError, NewerFormat, UsageError, shown
from lotcal_tf.evaluation.open_model import temperature_of
from lotcal_tf.files import remove_leftovers, replacing
from lotcal_tf.lottery.ticket import Ticket
from lotcal_tf.metrics import DEFAULT_BINS
from lotcal_tf.models.checks import classes_of


@dataclasses.dataclass(frozen=True)
class Exported:
    """A finished export.

    Attributes:
      directory: it has the files, `parity.json`, `sparsity_report.json`, the model card `README.md`,
        and `labels.txt` if the names of the classes are known.
      files: the exported files by format.
      parity: the content of `parity.json`.
      sparsity_report: the content of `sparsity_report.json`.
    """

    directory: Path
    files: Mapping[str, Path]
    parity: Mapping[str, Any] = dataclasses.field(repr=False)
    sparsity_report: Mapping[str, Any] = dataclasses.field(repr=False)

    @property
    def examples(self) -> int:
        """The number of examples on which the files were compared with the ticket."""
        return int(self.parity["examples"])

    @classmethod
    def read(cls, directory: Path) -> "Exported":
        """Reads an export from its directory, and verifies its files.

        Raises:
          OSError, ValueError, KeyError, TypeError: it is missing or damaged.
        """
        parity = read_export(directory)
        if damaged := damaged_file(directory, parity):
            raise ValueError(f"{directory / damaged} does not match its checksum")
        files = {name: directory / row["file"] for name, row in parity["files"].items()}
        return cls(directory, files, parity, json.loads((directory / SPARSITY_REPORT).read_text()))

    def table(self) -> str:
        """The ticket and the files, and the sparsity report, as text for a terminal."""
        files = list(self.parity["files"].values())
        rows = [["file", "encoding", "bytes", *COMPARED.values()]]
        rows.append(["the ticket", "", "", *_metric_cells(files[0]["ticket"])])
        for row in files:
            size = f"{row['bytes']:,}"
            rows.append([row["file"], row["encoding"], size, *_metric_cells(row["measured"])])
        return f"{tables.plain(rows, FILE_WORDS)}\n\n{report_text(self.sparsity_report)}"


def _metric_cells(metrics: Mapping[str, float]) -> list[str]:
    return [f"{metrics[key]:.4f}" for key in COMPARED]


def export(
    ticket: Ticket,
    directory: Path,
    read: Callable[[], Examples],
    options: ExportArguments,
    *,
    tolerance: Tolerance = DEFAULT_TOLERANCE,
    bins: int = DEFAULT_BINS,
    dense: "keras.Model | None" = None,
    origin: Mapping[str, Any] | None = None,
    class_names: Sequence[str] | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> Exported:
    """Writes a ticket to files of several formats, each of which is verified against the ticket.

    Args:
      ticket: the ticket.
      directory: replaced by the new export once that is verified; it must be empty, missing, or hold
        an earlier export.
      read: returns the examples on which files are compared with the ticket, and the data for
        quantisation. It is called after the other arguments were checked.
      options: checked; see `ExportArguments`.
      tolerance: how much a file may differ from the ticket, a `Tolerance`.
      bins: of the ECE.
      dense: the network before pruning; None: the ticket's network with its rewind weights.
      origin: the run's `experiment.json`, for the model card.
      class_names: the name of each class, for `labels.txt` and the model card; None: those of the
        ticket, if any.
      progress: called with a line for each step.

    Raises:
      UsageError: the directory holds something else, or ticket, data and formats do not fit.
      ExportMismatch: a file differs from the ticket by more than the tolerance, or a zero of the
        ticket is not zero in the file; the directory is then unchanged.
    """
    check_target(directory)
    temperature, names = _temperature(ticket, options), _names(class_names, ticket)
    job = Job(
        ticket, read(), options, temperature, tolerance, bins, dense, origin or {}, names, progress
    )
    _name_lost_formats(job, directory)
    with replacing(directory) as (files, scratch), Background() as background:
        written = write(job, files, scratch, background)
        verified = verify(job, written)
        report(job, files, written, verified)
        seal_export(files)
        check_target(directory)  # Files may have been put there meanwhile.
    return Exported.read(directory)


def _name_lost_formats(job: Job, directory: Path) -> None:
    """Says which formats of an earlier export the new one has not."""
    try:
        earlier = Exported.read(directory).files
    except (LotcalError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return
    if lost := [name for name in earlier if name not in job.options.formats]:
        job.progress(
            f"{directory} has {', '.join(lost)}, too: the new export takes its place without them"
        )


def _names(given: Sequence[str] | None, ticket: Ticket) -> tuple[str, ...]:
    """The names of the classes: given, or those of the ticket.

    Raises:
      FieldError: they are not a list of one name for each class, which the labels file can hold.
    """
    if not isinstance(given, list | tuple | None):
        raise FieldError("class_names", given, "must be a list of strings")
    names = tuple(ticket.class_names if given is None else given)
    classes = classes_of(ticket.dense()) if names else 0
    if len(names) != classes:
        problem = f"{len(names)} names for {classes} classes: give one for each, in their order"
        raise FieldError("class_names", ",".join(map(str, names)), problem)
    for name in names:
        if not is_class_name(name):
            raise FieldError("class_names", repr(name), "must be a string of one line")
    return names


def _temperature(ticket: Ticket, options: ExportArguments) -> float:
    """The divisor of the network's logits in the files."""
    return 1.0 if options.scaled is False else temperature_of(ticket)


def exported(ticket: Ticket, directory: Path, options: ExportArguments) -> Exported | None:
    """An earlier export of the same ticket with the same options; it may have more formats.

    None if there is none, or if it is damaged, or was measured on data that is not the run's. Remains of a
    killed export are removed.

    Raises:
      NewerFormat: it is of a newer version of the package.
    """
    remove_leftovers(directory)
    try:
        earlier = Exported.read(directory)
        keys = ("ticket", "temperature", "output", "requested_encoding", "prefer")
        recorded = tuple(earlier.parity[key] for key in keys)
        of_run = earlier.parity["of_run"]
    except NewerFormat:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    asked = options.output, options.encoding, options.prefer
    same = recorded == (ticket.digest, _temperature(ticket, options), *asked)
    return earlier if same and of_run is True and set(earlier.files) >= {*options.formats} else None


def check_target(directory: Path) -> None:
    """Refuses a directory that an export cannot replace.

    Raises:
      UsageError: it is a mount point, holds the working directory, or something other than an export.
      NewerFormat: it holds an export of a newer version of the package.
    """
    if os.path.ismount(directory) or directory.resolve() in (Path.cwd(), *Path.cwd().parents):
        raise UsageError(
            f"{directory} is a mount point or holds the working directory, so it cannot be replaced: "
            "name a new directory"
        )
    taken = directory.exists() and not (directory / PARITY).exists()
    if taken and (not directory.is_dir() or any(directory.iterdir())):
        raise UsageError(
            f"{directory} holds something other than an export: choose another directory"
        )
    if foreign := foreign_file(directory):
        raise UsageError(
            f"{directory} holds {shown(foreign)}, which is not part of the export in it: move that, or choose another "
            "directory"
        )
