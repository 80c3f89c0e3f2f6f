"""The layout of a run directory, and its record. No TensorFlow here."""

import json
from pathlib import Path
from typing import Any

from lotcal_tf.errors import FieldError, UsageError


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
      UsageError: it cannot be read.
    """
    path = run / "experiment.json"
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error


def check_ticket(path: str) -> None:
    """Raises FieldError if the field `ticket` is the path of neither a ticket nor a run."""
    if not (is_run(Path(path)) or is_ticket(Path(path))):
        problem = "is not a ticket: give RUN/tickets/level_NN, or RUN for each of its levels"
        raise FieldError("ticket", path, problem)


def finished_levels(run: Path) -> int:
    """The number of finished levels of a run, counted from 0 up to the first gap."""
    level = 0
    while level_path(run, level).is_dir():
        level += 1
    return level
