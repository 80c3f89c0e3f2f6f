"""Where a run directory keeps its levels, by name alone. No TensorFlow here."""

from pathlib import Path


def level_name(level: int) -> str:
    """The name of a level's directory."""
    return f"level_{level:02d}"


def level_path(run: Path, level: int) -> Path:
    """Where a run keeps a level's ticket."""
    return run / "tickets" / level_name(level)


def is_run(path: Path) -> bool:
    """Whether a directory is a run's; a ticket's is not."""
    return (path / "tickets").is_dir()


def finished_levels(run: Path) -> int:
    """How many levels of a run, counted from 0 without a gap, are finished."""
    level = 0
    while level_path(run, level).is_dir():
        level += 1
    return level
