"""The layout of a run directory, and its record. No TensorFlow here."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lotcal_tf.config.sealed import unseal
from lotcal_tf.errors import FieldError, NewerFormat, UsageError


def default_directory(run_id: str) -> Path:
    """The directory of a run without `out`: `runs/ID`.

    The id has the names of data set and model, which files can give. Only the slash of a TFDS data
    set with a configuration makes a directory of its own.
    """
    outside = any(part in ("", ".", "..") for part in run_id.split("/"))
    name = run_id.replace("/", "_").lstrip(".") if outside else run_id
    return Path("runs") / (name.replace("\0", "_") or "run")


def level_name(level: int) -> str:
    """The name of a level's directory."""
    return f"level_{level:02d}"


def level_path(run: Path, level: int) -> Path:
    """The directory of a level's ticket in a run."""
    return run / "tickets" / level_name(level)


def is_run(path: Path) -> bool:
    """Whether a directory is a run directory."""
    return (path / "tickets").is_dir()


def is_ticket(path: Path) -> bool:
    """Whether a directory is that of a ticket."""
    return (path / "ticket.json").is_file()


def read_experiment(run: Path) -> dict[str, Any]:
    """The content of a run's `experiment.json`.

    Raises:
      UsageError: it cannot be read, is damaged, or is of a newer version of the package.
    """
    path = run / "experiment.json"
    try:
        return checked_record(unseal(path))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except NewerFormat:
        raise
    except ValueError as error:
        raise UsageError(
            f"{path} cannot be read: it is damaged ({error}); the command that started the run "
            "writes it again if the run has a finished level"
        ) from error


def recorded_threads(run: Path) -> int | None:
    """The number of threads that a run began with; None for a new run."""
    try:
        found = read_experiment(run).get("realised", {}).get("threads")
    except UsageError:
        return None
    return found if isinstance(found, int) and found > 0 else None


def checked_record(record: dict[str, Any]) -> dict[str, Any]:
    """The content of `experiment.json`, if its parts are of the right types.

    Raises:
      ValueError: one is not.
    """
    for name in ("experiment", "identity", "content", "realised"):
        if not isinstance(record.get(name, {}), dict):
            raise ValueError(f"{name} is not an object")
    if not isinstance(record.get("run_id", ""), str):
        raise ValueError("run_id is not a string")
    return record


def check_ticket(path: str) -> None:
    """Raises FieldError if the field `ticket` is the path of neither a ticket nor a run."""
    if not (is_run(Path(path)) or is_ticket(Path(path))):
        problem = "is not a ticket: give RUN/tickets/level_NN, or RUN for each of its levels"
        raise FieldError("ticket", path, problem)


def level_of(directory: Path) -> int | None:
    """The level that a directory's name gives; None for other names."""
    match = re.fullmatch(r"level_(\d{2,})", directory.name)
    return int(match[1]) if match else None


def stored_levels(run: Path) -> list[int]:
    """The finished levels of a run, sorted; after a loss of files, some may be missing."""
    found = (run / "tickets").glob("level_*")
    levels = (level_of(directory) for directory in found if directory.is_dir())
    return sorted(level for level in levels if level is not None)


def finished_levels(run: Path) -> int:
    """The number of finished levels of a run, counted from 0 up to the first gap."""
    level = 0
    while level_path(run, level).is_dir():
        level += 1
    return level


def find_runs(directories: Sequence[Path]) -> list[Path]:
    """The run directories that are given, or lie directly below a given directory, each once.

    Raises:
      UsageError: a directory does not exist, or holds no run.
    """
    found: dict[Path, Path] = {}
    for directory in directories:
        if not directory.is_dir():
            raise UsageError(f"{directory}: no such directory")
        try:
            below = sorted(directory.iterdir())
            runs = [p for p in (directory, *below) if not p.name.startswith(".") and _has_begun(p)]
        except OSError as error:
            raise UsageError(f"{directory} cannot be read: {error.strerror}") from error
        if _has_begun(directory):
            runs = [directory]
        if not runs:
            raise UsageError(
                f"{directory} is not a run directory, and there is none directly below it; give RUN, or the "
                "directory of a sweep"
            )
        for run in runs:
            found.setdefault(run.resolve(), run)
    return list(found.values())


def _has_begun(path: Path) -> bool:
    """Whether a directory is that of a run that has begun."""
    has_record = os.path.lexists(path / "experiment.json")
    return path.is_dir() and (has_record or (is_run(path) and bool(stored_levels(path))))
