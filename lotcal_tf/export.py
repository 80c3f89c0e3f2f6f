"""Exports a level of a run: small files, each verified against its ticket.

--run names a run directory. Without --formats a float32 and an int8 TFLite file are written, without
dead units, and sparse only where LiteRT has a faster sparse kernel; --prefer=size writes the smallest
files. Every file is run over the whole test split. If one differs from its ticket by more than the
tolerances, the exit code is 1 and no file is kept. The data is that of the run unless --dataset, --source
or --config names other data.
"""

import sys
from pathlib import Path

from lotcal_tf.config import custom, fields, flags
from lotcal_tf.config.arguments import ExportArguments, directory_of
from lotcal_tf.config.registry import DEFAULT_FORMATS, ENCODINGS, FORMATS, SIZE, SPEED, summaries
from lotcal_tf.config.run_data import data_experiment, data_path
from lotcal_tf.config.run_directory import finished_levels, is_run
from lotcal_tf.errors import FieldError, UsageError

BY_PREFERENCE = "auto"

FLAGS = (
    flags.Flag("run", "the run directory", check=fields.path),
    flags.Flag("level", "a level's number; or selected, by validation data", "selected"),
    flags.Flag(
        "formats",
        f"a list of {', '.join(FORMATS)}",
        ",".join(DEFAULT_FORMATS),
        names=summaries(FORMATS),
    ),
    flags.Flag(
        "encoding",
        "how zeros are stored; auto: selected by prefer",
        BY_PREFERENCE,
        choices=(BY_PREFERENCE, *ENCODINGS),
    ),
    flags.Flag(
        "prefer",
        "choose the encoding for speed, or for the smallest file",
        SPEED,
        choices=(SPEED, SIZE),
    ),
    flags.Flag(
        "output",
        "whether files return logits or probabilities",
        "logits",
        choices=("logits", "probabilities"),
    ),
    flags.Flag(
        "float_tolerance",
        "for float files: how far accuracy, ECE, NLL and Brier score may be from the ticket's, and each "
        "logit, relative to the largest",
        "1e-4",
    ),
    flags.Flag(
        "accuracy_tolerance",
        "for quantised files: how much accuracy may fall; compared with the lower end of a 99 % interval",
        "0.01",
    ),
    flags.Flag(
        "ece_tolerance",
        "for quantised files: how much the ECE may rise and, if the NLL rises, confidence minus accuracy "
        "may change; compared with the lower end of a 99 % interval",
        "0.005",
    ),
    flags.Flag(
        "logit_tolerance",
        "for quantised files: the error of the logits, as a share of the ticket's logits",
        "0.3",
    ),
    flags.Flag("license", "the licence of the files, for the model card, e.g. apache-2.0"),
    flags.CUSTOM_OBJECTS,
    flags.Flag("seconds", "how long each file's latency is measured; 0: not at all", "0.5"),
    flags.Flag(
        "out",
        "directory of the files; default: RUN/export, for a numbered level RUN/export_level_NN",
        check=fields.path,
    ),
)
FIELDS = ("dataset", "source", "data_dir", "memory_limit_mb", "ece_bins", "export_logits")
COMMAND = flags.Command("export", __doc__, FLAGS, FIELDS)


def main(request: flags.Request) -> None:
    """Exports the ticket and prints the files with their metrics.

    Raises:
      LotcalError: with a message of one line.
    """
    own, given = request.own, request.given
    if not own["run"]:
        raise UsageError("--run is missing: give a run directory")
    run = Path(own["run"])
    if not is_run(run):
        raise FieldError("run", run, "is not a run directory")
    level = _level(own["level"], run)
    custom.check_custom_objects(own["custom_objects"])
    formats = _formats(own["formats"])
    names = ("float_tolerance", "accuracy_tolerance", "ece_tolerance", "logit_tolerance")
    tolerances = [_number(name, own[name]) for name in names]
    seconds = _number("seconds", own["seconds"])
    if own["out"]:
        directory_of("out", own["out"])
    chosen = {
        "formats": formats,
        "encoding": None if own["encoding"] == BY_PREFERENCE else own["encoding"],
        **{name: own[name] for name in ("prefer", "output", "license")},
        "seconds": seconds,
    }
    fields.checked(ExportArguments, chosen)
    data_path(data_experiment(run, given, request.config))
    # Imported late: TensorFlow takes seconds, and usage errors should not wait.
    flags.start_tensorflow()
    from lotcal_tf.api import export_ticket
    from lotcal_tf.deploy.parity import Tolerance

    done = export_ticket(
        run,
        own["out"],
        level=level,
        tolerance=Tolerance(*tolerances),
        progress=lambda line: print(line, file=sys.stderr),
        custom_objects=custom.load_custom_objects(own["custom_objects"]),
        config=request.config,
        **chosen,
        **given,
    )
    print(done.table())
    print(f"\nexported to {done.directory}:", *(path.name for path in done.files.values()))


def _level(value: str, run: Path) -> int | str:
    """The level's number, or `selected`."""
    if value == "selected":
        return value
    if not (value.isascii() and value.isdecimal() and len(value) < 10):
        raise FieldError("level", value, "give a level's number, or selected")
    finished = finished_levels(run)
    if int(value) >= finished:
        there = f"0 … {finished - 1}" if finished else "none"
        raise FieldError("level", value, f"{run} has not finished it; finished: {there}")
    return int(value)


def _formats(value: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in value.split(",")))
    for name in names:
        if name not in FORMATS:
            raise FieldError("formats", value, f"give a list of {', '.join(FORMATS)}")
    return names


def _number(flag: str, value: str) -> float:
    try:
        number = float(value) if value.isascii() else -1.0
    except ValueError:
        number = -1.0
    check = fields.seconds if flag == "seconds" else fields.not_negative
    if problem := check(number):
        raise FieldError(flag, value, problem)
    return number


def run(argv: list[str] | None = None) -> None:
    """Runs the command and exits with its exit code."""
    again = "nothing was exported; run the same command again"
    flags.run(COMMAND, main, argv, interrupted=again)


if __name__ == "__main__":
    run()
