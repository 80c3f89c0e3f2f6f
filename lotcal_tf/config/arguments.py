"""The arguments of the library's functions, declared and checked like the fields of an experiment."""

import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from lotcal_tf.config.fields import between, checked, declared, path, positive, seconds
from lotcal_tf.config.registry import (
    CORRUPTIONS,
    DEFAULT_FORMATS,
    ENCODINGS,
    FORMATS,
    SEVERITIES,
    SIZE,
    SPEED,
)
from lotcal_tf.errors import FieldError, UsageError
from lotcal_tf.files import creation_problem

# Validation metrics by which a report ranks settings; accuracy is best if high, the others if low.
RANKED = tuple(
    f"val_{name}"
    for name in (
        *("nll", "ece", "brier", "accuracy", "adaptive_ece", "classwise_ece", "mce", "aurc"),
        *("nll_scaled", "ece_scaled"),
    )
)


def _formats(value: tuple[str, ...]) -> str | None:
    """At least one format."""
    known = value and all(name in FORMATS for name in value)
    if known and len(set(value)) < len(value):
        return "names a format twice: give each once"
    return None if known else f"choose from {', '.join(FORMATS)}"


def _shifts(value: tuple[str, ...]) -> str | None:
    known = all(name in CORRUPTIONS for name in value)
    return None if known else f"choose from {', '.join(CORRUPTIONS)}"


def _severities(value: tuple[int, ...]) -> str | None:
    known = value and all(severity in SEVERITIES for severity in value)
    return None if known else f"choose from {', '.join(map(str, SEVERITIES))}"


@dataclasses.dataclass(frozen=True)
class ExportArguments:
    """Arguments of `export_ticket`; see there."""

    formats: tuple[str, ...] = declared(DEFAULT_FORMATS, "", check=_formats)
    encoding: str | None = declared(None, "", choices=tuple(ENCODINGS))
    prefer: str = declared(SPEED, "", choices=(SPEED, SIZE))
    output: str = declared("logits", "", choices=("logits", "probabilities"))
    scaled: bool | None = declared(None, "")
    seconds: float = declared(0.5, "", check=seconds)
    reuse: bool = declared(False, "")
    license: str | None = declared(None, "")

    def __post_init__(self) -> None:
        for name in self.formats if self.encoding else ():
            if self.encoding not in (known := FORMATS[name].encodings):
                problem = f"{name} has no such encoding; choose from {', '.join(known)}"
                raise FieldError("encoding", self.encoding, problem)


@dataclasses.dataclass(frozen=True)
class MeasureArguments:
    """Arguments of `measure_model` and `measure_run`; see there."""

    split: str = declared("test", "", choices=("test", "val"))
    scaled: bool = declared(False, "")
    shifts: tuple[str, ...] = declared((), "", check=_shifts)
    severities: tuple[int, ...] = declared(SEVERITIES, "", check=_severities)
    input_range: float | None = declared(None, "", check=positive)
    trust_saved_model: bool = declared(False, "")
    progress: bool = declared(True, "")


def _densities(value: tuple[float, ...]) -> str | None:
    """Shares of the weights, each once."""
    if all(0 < one <= 1 for one in value) and len(set(value)) == len(value):
        return None
    return "must be different shares of the weights above 0 and up to 1, e.g. 1,0.21,0.036"


def page(value: str) -> str | None:
    """The path of an HTML page."""
    if PurePath(value).suffix.lower() in ("", ".html", ".htm"):
        return path(value)
    return "the page is HTML: name it .html; markdown, latex, csv and figures write other files"


@dataclasses.dataclass(frozen=True)
class ReportArguments:
    """Arguments of `write_report`; see there. Paths are texts; None: not given."""

    out: str | None = declared(None, "", check=page)
    figures: str | None = declared(None, "", check=path)
    csv: str | None = declared(None, "", check=path)
    markdown: str | None = declared(None, "", check=path)
    latex: str | None = declared(None, "", check=path)
    rank: str | None = declared(None, "", choices=RANKED)
    densities: tuple[float, ...] = declared((), "", check=_densities)


@dataclasses.dataclass(frozen=True)
class FindArguments:
    """Arguments of `find_tickets`; see there."""

    progress: bool = declared(True, "")
    takeover: bool = declared(False, "")


def _cluster(value: str) -> str | None:
    """The address of a Ray cluster."""
    known = value == "auto" or re.fullmatch(r"(ray://)?[\w.-]+:\d{1,5}", value, re.ASCII)
    return None if known else "must be auto, HOST:PORT or ray://HOST:PORT"


@dataclasses.dataclass(frozen=True)
class SweepArguments:
    """Arguments of `run_sweep` and flags of `sweep`; see there."""

    workers: int | None = declared(None, "", check=between(1, 1024))
    ray: str | None = declared(None, "", check=_cluster)
    gpus: float = declared(0.0, "", check=between(0, 64))
    progress: bool = declared(True, "")

    def __post_init__(self) -> None:
        if self.gpus and self.ray is None:
            raise FieldError("gpus", self.gpus, "needs a Ray cluster: name it with ray, e.g. auto")


def custom_objects_of(given: Any) -> dict[str, Any]:
    """The argument `custom_objects` as a dictionary; empty for None.

    Raises:
      UsageError: it is not a dictionary by name.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise UsageError("custom_objects must be a dictionary of names and classes or functions")
    return dict(given)


def for_export(given: Mapping[str, Any], tolerance: Any, progress: Any) -> ExportArguments:
    """Checks arguments of `export_ticket`.

    Args:
      given: those of `ExportArguments`, by name.
      tolerance: a dataclass of numbers.
      progress: a function.

    Raises:
      FieldError: a value is of the wrong kind or outside its range.
    """
    if not dataclasses.is_dataclass(tolerance) or isinstance(tolerance, type):
        problem = "must be a lotcal_tf.Tolerance, e.g. Tolerance(accuracy=0.02)"
        raise FieldError("tolerance", tolerance, problem)
    if not callable(progress):
        raise FieldError("progress", progress, "must be a function that takes a line of text")
    return checked(ExportArguments, given)


def for_measure(**given: Any) -> dict[str, Any]:
    """Checks arguments of `measure_model`, those of `MeasureArguments`, and returns them by name.

    Raises:
      FieldError: a value is of the wrong kind or outside its range.
    """
    return vars(checked(MeasureArguments, given))


def for_report(**given: Any) -> ReportArguments:
    """Checks arguments of `write_report`.

    Raises:
      FieldError: a value is of the wrong kind or outside its range, or a file cannot be written.
      UsageError: nothing is asked for.
    """
    places = ("figures", "out", "csv", "markdown", "latex")
    if all(given[name] is None for name in (*places, "rank")):
        raise UsageError(
            "no output is named: give out (a page, e.g. report.html), rank (e.g. val_nll) or another file"
        )
    paths = {name: path_of(name, given[name]) for name in places if given[name] is not None}
    found: ReportArguments = checked(ReportArguments, given | {n: str(p) for n, p in paths.items()})
    known: dict[Path, str] = {}
    for name, one in paths.items():
        problem = creation_problem(one if name == "figures" else one.parent)
        if name != "figures" and one.exists() and not one.is_file():
            problem = "is not a file; choose another"
        same = known.setdefault(one.absolute(), name)
        if same != name:
            problem = f"is the path of {same}, too: choose another"
        if problem:
            raise FieldError(name, one, problem)
    return found


def directory_of(name: str, value: Any) -> Path:
    """The path of a directory that can be created or written to, as far as can be seen.

    Raises:
      FieldError: it cannot, or the value is not a path.
    """
    directory = path_of(name, value)
    if problem := creation_problem(directory):
        raise FieldError(name, value, problem)
    return directory


def path_of(name: str, value: Any, others: str = "") -> Path:
    """A path that was passed as text or as a path.

    Args:
      name: the argument.
      value: what was passed.
      others: what else the argument can be, for the message.

    Raises:
      FieldError: it is neither.
    """
    if isinstance(value, str | os.PathLike) and str(value):
        if problem := path(str(value)):
            raise FieldError(name, value, problem)
        return Path(value)
    kind = type(value).__name__ if value != "" else "an empty string"
    raise FieldError(name, kind, f"must be a path{others}")
