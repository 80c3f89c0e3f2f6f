"""Exporting a ticket: files are written, run, compared with the ticket, and only then put in place."""

import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lotcal_tf import tables
from lotcal_tf.compat import keras
from lotcal_tf.config.export_record import (
    PARITY,
    SPARSITY_REPORT,
    damaged_file,
    foreign_file,
    read_export,
    seal_export,
)
from lotcal_tf.config.registry import DEFAULT_FORMATS, ENCODINGS, FORMATS, SIZE, SPEED, file_format
from lotcal_tf.data.splits import is_class_name
from lotcal_tf.deploy.background import Background
from lotcal_tf.deploy.examples import Examples
from lotcal_tf.deploy.parity import COMPARED, DEFAULT_TOLERANCE, Tolerance
from lotcal_tf.deploy.report_tables import FILE_WORDS, report_text
from lotcal_tf.deploy.steps import Job, report, verify, write
from lotcal_tf.errors import FieldError, LotcalError, NewerFormat, UsageError, shown
from lotcal_tf.evaluation.open_model import temperature_of
from lotcal_tf.files import remove_leftovers, replacing
from lotcal_tf.formats.outputs import LOGITS, PROBABILITIES
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
    examples: Examples,
    *,
    formats: Sequence[str] = DEFAULT_FORMATS,
    encoding: str | None = None,
    prefer: str = SPEED,
    output: str = LOGITS,
    scaled: bool = True,
    tolerance: Tolerance = DEFAULT_TOLERANCE,
    bins: int = DEFAULT_BINS,
    dense: "keras.Model | None" = None,
    origin: Mapping[str, Any] | None = None,
    class_names: Sequence[str] | None = None,
    license: str | None = None,
    seconds: float = 0.5,
    progress: Callable[[str], None] = lambda line: None,
) -> Exported:
    """Writes a ticket to files of several formats, each of which is verified against the ticket.

    Args:
      ticket: the ticket.
      directory: replaced by the new export once that is verified; it must be empty, missing, or hold
        an earlier export.
      examples: on which files are compared with the ticket, and the data for quantisation.
      formats: names in `registry.FORMATS`.
      encoding: a name in `registry.ENCODINGS` for all files; None: selected by `prefer`.
      prefer: `speed`: without dead units, and sparse only where LiteRT has a faster sparse kernel;
        `size`: the smallest of each file. The other one is measured, too.
      output: what files give: `logits` or `probabilities`.
      scaled: whether to fold in the ticket's temperature; a new one is fitted to quantised files.
      tolerance: how much a file may differ from the ticket, a `Tolerance`.
      bins: of the ECE.
      dense: the network before pruning; None: the ticket's network with its rewind weights.
      origin: the run's `experiment.json`, for the model card.
      class_names: the name of each class, for `labels.txt` and the model card; None: those of the
        ticket, if any.
      license: of the files, for the model card, e.g. `apache-2.0`.
      seconds: how long to measure the latency of each file at each number of threads; 0: not at all.
      progress: called with a line for each step.

    Raises:
      UsageError: the directory holds something else, or ticket, data and formats do not fit.
      ExportMismatch: a file differs from the ticket by more than the tolerance, or a zero of the
        ticket is not zero in the file; the directory is then unchanged.
    """
    origin = origin or {}
    job = Job(
        ticket, examples, tuple(formats), encoding, prefer, output, scaled, tolerance, bins, dense,
        origin, _names(class_names, ticket), license, seconds, progress,
    )  # fmt: skip
    check_target(directory)
    _check(job)
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
    if lost := [name for name in earlier if name not in job.formats]:
        job.progress(
            f"{directory} has {', '.join(lost)}, too: the new export takes its place without them"
        )


def _names(given: Sequence[str] | None, ticket: Ticket) -> tuple[str, ...]:
    """The names of the classes: given, or those of the ticket.

    Raises:
      FieldError: they are not a list.
    """
    if not isinstance(given, list | tuple | None):
        raise FieldError("class_names", given, "must be a list of strings")
    return tuple(ticket.class_names if given is None else given)


def exported(
    ticket: Ticket,
    directory: Path,
    *,
    formats: Sequence[str],
    scaled: bool,
    output: str,
    encoding: str | None,
    prefer: str,
) -> Exported | None:
    """An earlier export of the same ticket with the same arguments, see `export`; it may have more formats.

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
    temperature = temperature_of(ticket) if scaled else 1.0
    same = recorded == (ticket.digest, temperature, output, encoding, prefer)
    return earlier if same and of_run is True and set(earlier.files) >= set(formats) else None


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


def _check(job: Job) -> None:
    """Refuses what cannot be exported, before anything is written."""
    for field, value, choices in (
        ("encoding", job.encoding, (None, *ENCODINGS)),
        ("prefer", job.prefer, (SPEED, SIZE)),
        ("output", job.output, (LOGITS, PROBABILITIES)),
    ):
        if value not in choices:
            raise FieldError(field, value, f"choose from {', '.join(c for c in choices if c)}")
    if not job.formats:
        raise FieldError("formats", "", f"choose from {', '.join(FORMATS)}")
    for name in job.formats:
        row = file_format(name)
        if job.encoding and job.encoding not in row.encodings:
            problem = f"{name} has no such encoding; choose from {', '.join(row.encodings)}"
            raise FieldError("encoding", job.encoding, problem)
        job.examples.material.require(row.needs, name)
    _check_card(job)


def _check_card(job: Job) -> None:
    """Refuses class names and a licence that the labels file or the card cannot hold."""
    names = job.class_names
    if names:
        classes = classes_of(job.ticket.dense())
        if len(names) != classes:
            problem = f"{len(names)} names for {classes} classes: give one for each, in their order"
            raise FieldError("class_names", ",".join(map(str, names)), problem)
        for name in names:
            if not is_class_name(name):
                raise FieldError("class_names", repr(name), "must be a string of one line")
    if job.license is not None and not isinstance(job.license, str):
        raise FieldError("license", repr(job.license), "must be a string, e.g. apache-2.0")
