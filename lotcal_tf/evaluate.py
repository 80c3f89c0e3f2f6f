"""Measures a ticket or an exported file: accuracy, calibration, corrupted images, unseen data.

--model names a .tflite or .keras file, a SavedModel's directory, RUN/tickets/level_NN, or RUN for its
selected ticket. A model in a run directory is measured on the data, split and bins of that run, and a
ticket by its stored predictions. --dataset, --source or --config name other data;
other models need one of these.
"""

import json
from pathlib import Path

from lotcal_tf.config import custom, fields, flags
from lotcal_tf.config.registry import CORRUPTIONS, SEVERITIES, corruption
from lotcal_tf.config.run_data import check_model, data_experiment, data_path
from lotcal_tf.errors import FieldError, UsageError

FLAGS = (
    flags.Flag("model", "what to measure", check=fields.path),
    flags.Flag("split", "the examples", "test", choices=("test", "val")),
    flags.Flag("shift", f"corruptions of the images: a list of {', '.join(CORRUPTIONS)}, or all"),
    flags.Flag("severity", "strengths of the corruptions, 1 … 5", ",".join(map(str, SEVERITIES))),
    flags.Flag("unseen", "other data of the same input shape: recipes, or TFDS data sets"),
    flags.Flag("scaled", "divide a ticket's logits by its temperature", switch=True),
    flags.CUSTOM_OBJECTS,
    flags.Flag(
        "trust_saved_model",
        "load an untrusted SavedModel, which can run any code on this machine",
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
    check_model(model)
    custom.check_custom_objects(own["custom_objects"])
    shifts, severities = _shifts(own["shift"]), _severities(own["severity"])
    unseen = _names("unseen", own["unseen"])
    for name in unseen:
        if problem := fields.data_name(name):
            raise FieldError("unseen", name, problem)
    data_path(data_experiment(model, request.given, request.config, unseen=bool(unseen)))
    # Imported late: TensorFlow takes seconds, and usage errors should not wait.
    flags.start_tensorflow()
    from lotcal_tf.api import measure_model

    found = measure_model(
        model,
        split=own["split"],
        scaled=own["scaled"],
        shifts=shifts,
        severities=severities,
        unseen=unseen,
        custom_objects=custom.load_custom_objects(own["custom_objects"]),
        trust_saved_model=own["trust_saved_model"],
        config=request.config,
        **request.given,
    )
    print(json.dumps(found.as_dict(), indent=2) if own["json"] else found.table())


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


def _severities(value: str) -> tuple[int, ...]:
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
