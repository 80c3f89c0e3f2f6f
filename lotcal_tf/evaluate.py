"""Measures a ticket or an exported file: accuracy, calibration, corrupted images, unseen data.

--model names a .tflite or .keras file, a SavedModel's directory, RUN/tickets/level_NN, or RUN for its
selected ticket. A model in a run directory is measured on the data, split and bins of that run, and a
ticket by its stored predictions. --dataset, --source or --config name other data;
other models need one of these.

--record measures the ticket of every level of a run, or of each run of a sweep, on corrupted and unseen
data, and writes conditions.csv in the run directory, which report shows.
"""

import functools
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from lotcal_tf.config import custom, fields, flags
from lotcal_tf.config.experiment import recorded
from lotcal_tf.config.registry import (
    CORRUPTIONS,
    FORMATS,
    SEVERITIES,
    corruption,
    format_of,
    summaries,
)
from lotcal_tf.config.run_data import (
    PLACE_FIELDS,
    check_model,
    data_experiment,
    data_path,
    has_named_data,
    has_stored,
    recorded_fields,
)
from lotcal_tf.config.run_directory import find_runs, stored_levels
from lotcal_tf.errors import FieldError, LotcalError, RunsFailed, UsageError

FLAGS = (
    flags.Flag("model", "what to measure", check=fields.path),
    flags.Flag("split", "the examples", "test", choices=("test", "val")),
    flags.Flag(
        "shift",
        f"corruptions of the images: a list of {', '.join(CORRUPTIONS)}, or all",
        names=summaries(CORRUPTIONS),
    ),
    flags.Flag(
        "severity", f"strengths of the corruptions; default: {','.join(map(str, SEVERITIES))}"
    ),
    flags.Flag("unseen", "other data of the same input shape: recipes, or TFDS data sets"),
    flags.Flag("scaled", "divide a ticket's logits by its temperature", switch=True),
    flags.CUSTOM_OBJECTS,
    flags.Flag(
        "trust_saved_model",
        "load an untrusted SavedModel, which can run any code on this machine",
        switch=True,
    ),
    flags.Flag(
        "record",
        "measure every level of a run or of a sweep's runs, with --shift or --unseen, for report",
        switch=True,
    ),
    flags.Flag("json", "print JSON instead of a table", switch=True),
)
FIELDS = (
    "dataset",
    "source",
    "data_dir",
    "validation_size",
    "memory_limit_mb",
    "ece_bins",
    "seed",
)
COMMAND = flags.Command("evaluate", __doc__, FLAGS, FIELDS)


def main(request: flags.Request) -> None:
    """Measures the model and prints the metrics.

    Raises:
      LotcalError: with a message of one line.
    """
    own = request.own
    if not own["model"]:
        raise UsageError(
            "--model is missing: give a .tflite or .keras file, a SavedModel, a ticket or a run"
        )
    model = Path(own["model"])
    if not model.exists():
        raise FieldError("model", model, "no such file or directory")
    custom.check_custom_objects(own["custom_objects"])
    shifts, severities = _shifts(own["shift"]), _severities(own["severity"])
    if own["severity"] is not None and not shifts:
        raise FieldError("severity", own["severity"], "applies only with --shift")
    if own["trust_saved_model"] and format_of(model) is not FORMATS["saved_model"]:
        raise UsageError(f"leave out --trust_saved_model: {model} is not a SavedModel")
    unseen = _names("unseen", own["unseen"])
    for name in unseen:
        if problem := fields.data_name(name):
            raise FieldError("unseen", name, problem)
    conditions: dict[str, Any] = {"shifts": shifts, "severities": severities, "unseen": unseen}
    if own["record"]:
        _record(model, request, conditions)
        return
    check_model(model)
    if has_stored(model, request.given, request.config, *shifts, *unseen):
        recorded(recorded_fields(model), **request.given)  # checks what is given
    else:
        data_path(data_experiment(model, request.given, request.config, unseen=bool(unseen)))
    # Imported late: TensorFlow takes seconds, and usage errors should not wait.
    flags.start_tensorflow()
    from lotcal_tf.api import measure_model

    found = measure_model(
        model,
        split=own["split"],
        scaled=own["scaled"],
        custom_objects=custom.load_custom_objects(own["custom_objects"]),
        trust_saved_model=own["trust_saved_model"],
        config=request.config,
        **conditions,
        **request.given,
    )
    print(json.dumps(found.as_dict(), indent=2) if own["json"] else found.table())


def _record(directory: Path, request: flags.Request, conditions: Mapping[str, Any]) -> None:
    """Measures every level of the runs in a directory, and prints a line for each run.

    A run that cannot be measured has a line that says why, and the others are measured.

    Raises:
      UsageError: a flag is unsuitable, the data of a run is missing, or no run can be measured under these
        conditions. Nothing is measured.
      RunsFailed: some runs cannot be measured; the others are.
    """
    own = request.own
    if not conditions["shifts"] and not conditions["unseen"]:
        raise UsageError("--record needs --shift, --unseen, or both")
    others = [name for name in ("scaled", "trust_saved_model", "json") if own[name]]
    others += ["split"] if own["split"] != "test" else []
    others += [name for name in request.given if name not in PLACE_FIELDS]
    others += ["config"] if request.config is not None else []
    if others:
        taken = "--shift, --severity, --unseen, --custom_objects, --data_dir and --memory_limit_mb"
        raise UsageError(f"leave out --{others[0]}: --record takes {taken} only")
    found = find_runs([directory])
    runs = [run for run in found if stored_levels(run) and has_named_data(run)]
    if not runs:
        raise UsageError(f"{directory} holds no run on named data with a finished level")
    for run in runs:
        data_path(data_experiment(run, request.given, unseen=bool(conditions["unseen"])))
    flags.start_tensorflow()
    from lotcal_tf.api import measure_run

    known = custom.load_custom_objects(own["custom_objects"])
    measure = functools.partial(measure_run, custom_objects=known, **conditions, **request.given)
    _measure_runs(found, runs, measure)


def _measure_runs(
    found: Sequence[Path], runs: Collection[Path], measure: Callable[[Path], Sequence[Any]]
) -> None:
    """Measures runs, and prints a line for each of those found; see `_record`.

    Args:
      found: all runs.
      runs: those that can be measured, as far as is known.
      measure: measures a run, and returns what was measured now.
    """
    lines, failed, suitable = list[str](), 0, False
    unsuitable: UsageError | None = None
    for number, run in enumerate(found, start=1):
        done = "left out: it has no finished level, or data without a name"
        if run in runs:
            try:
                measured = measure(run)
                done = f"levels measured: {len(measured)}" if measured else "nothing new to measure"
                suitable = True
            except UsageError as error:
                done, failed, unsuitable = f"failed: {error}", failed + 1, unsuitable or error
            except LotcalError as error:
                done, failed, suitable = f"failed: {error}", failed + 1, True
        lines.append(f"{number} of {len(found)}: {run}, {done}")
        if suitable:
            print(*lines, sep="\n", flush=True)
            lines.clear()
    if unsuitable is not None and not suitable:
        raise unsuitable  # the request suits no run
    if failed:
        raise RunsFailed(f"{failed} of {len(runs)} runs failed; the others are measured")


def _names(flag: str, value: str | None) -> tuple[str, ...]:
    """The names of a list, each once."""
    names = tuple(dict.fromkeys(name.strip() for name in value.split(","))) if value else ()
    if value is not None and not all(names or [""]):
        raise FieldError(flag, value, "give names, with commas between them")
    return names


def _shifts(value: str | None) -> tuple[str, ...]:
    names = _names("shift", value)
    if names == ("all",):
        return tuple(CORRUPTIONS)
    for name in names:
        corruption(name)
    return names


def _severities(value: str | None) -> tuple[int, ...]:
    if value is None:
        return SEVERITIES
    known = {str(severity): severity for severity in SEVERITIES}
    names = _names("severity", value)
    for name in names:
        if name not in known:
            raise FieldError("severity", value, f"give a list of {', '.join(known)}")
    return tuple(known[name] for name in names)


def run(argv: list[str] | None = None) -> None:
    """Runs the command and exits with its exit code."""
    flags.run(COMMAND, main, argv)


if __name__ == "__main__":
    run()
