"""Exports a level of a run: small files, each held against its ticket before it counts.

--run names a run directory. Without --formats a float32 and an int8 TFLite file are written, each in
the smallest of its encodings: dense, sparse, compact (dead units removed) or both. Every file is run
over the whole test split; one that is farther from its ticket than the tolerances ends in exit code
1, and nothing is left. Fields that are not given come from the run.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from lotcal_tf.config import flags
from lotcal_tf.config.registry import DEFAULT_FORMATS, ENCODINGS, FORMATS
from lotcal_tf.config.run_directory import finished_levels, is_run
from lotcal_tf.errors import FieldError, UsageError

SMALLEST = "smallest"

FLAGS = (
    flags.Flag("run", "the run directory"),
    flags.Flag("level", "a level's number; or best: chosen by validation data", "best"),
    flags.Flag("formats", f"of {', '.join(FORMATS)}", ",".join(DEFAULT_FORMATS)),
    flags.Flag("encoding", "how weights are stored", SMALLEST, choices=(SMALLEST, *ENCODINGS)),
    flags.Flag("output", "what files give", "logits", choices=("logits", "probabilities")),
    flags.Flag(
        "float_tolerance",
        "of files that keep every digit: how far accuracy, ECE, NLL and Brier score may be from the ticket's",
        "1e-4",
    ),
    flags.Flag(
        "accuracy_tolerance", "of quantised files: how much accuracy may fall, of 1", "0.01"
    ),
    flags.Flag("ece_tolerance", "of quantised files: how much the ECE may rise", "0.01"),
    flags.Flag("seconds", "how long each file's latency is measured; 0: not at all", "0.5"),
    flags.Flag(
        "out", "where the files go; default: RUN/export, of a numbered level RUN/export_level_NN"
    ),
)
FIELDS = ("data_dir", "memory_limit_mb", "ece_bins", "export_logits")


def main(request: flags.Request) -> None:
    """Exports what is asked for and prints what became of it.

    Raises:
      LotcalError: what went wrong, in one line.
    """
    own = request.own
    if not own["run"]:
        raise UsageError("--run is missing: give a run directory")
    run = Path(own["run"])
    if not is_run(run):
        raise FieldError("run", run, "is no run directory")
    level = _level(own["level"], run)
    formats = _formats(own["formats"])
    numbers = {
        name: _number(name, own[name])
        for name in ("float_tolerance", "accuracy_tolerance", "ece_tolerance", "seconds")
    }
    # Only now: importing TensorFlow takes seconds, wrong flags are told at once.
    flags.start_tensorflow()
    from lotcal_tf import exporting

    done = exporting.export_level(
        run,
        level,
        {name: getattr(request.experiment, name) for name in request.given},
        directory=Path(own["out"]) if own["out"] else None,
        formats=formats,
        encoding=None if own["encoding"] == SMALLEST else own["encoding"],
        output=own["output"],
        progress=lambda line: print(line, file=sys.stderr),
        **numbers,
    )
    print(done.table())
    print(f"\nexported to {done.directory}:", *(path.name for path in done.files.values()))


def _level(value: str, run: Path) -> int | None:
    """The level's number; None: the best."""
    if value == "best":
        return None
    if not value.isdecimal():
        raise FieldError("level", value, "give a level's number, or best")
    finished = finished_levels(run)
    if int(value) >= finished:
        there = f"0 … {finished - 1}" if finished else "none"
        raise FieldError("level", value, f"{run} has not finished it; finished: {there}")
    return int(value)


def _formats(value: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in value.split(",")))
    for name in names:
        if name not in FORMATS:
            raise FieldError("formats", value, f"choose of {', '.join(FORMATS)}")
    return names


def _number(flag: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise FieldError(flag, value, "must be a finite number, 0 or more")
    return number


def run(argv: Sequence[str] | None = None) -> NoReturn:
    """The command; leaves with its exit code."""
    given = sys.argv[1:] if argv is None else argv
    flags.leave("export", lambda: main(flags.read("export", __doc__, given, FLAGS, FIELDS)))


if __name__ == "__main__":
    run()
