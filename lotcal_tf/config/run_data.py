"""The named data on which a model is measured or exported: that of its run, unless other data is named.

No TensorFlow here: the commands check their arguments before they import it.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lotcal_tf.config import registry
from lotcal_tf.config.experiment import FIELDS, Experiment, check_together, recorded
from lotcal_tf.config.recipes import recipe_names, resolve
from lotcal_tf.config.run_directory import is_ticket, read_experiment
from lotcal_tf.errors import FieldError, UsageError

# The fields that determine the examples, and how metrics of predictions on them are computed.
DATA_FIELDS = (
    *(n for n, f in FIELDS.items() if f.metadata["section"] in ("Data", "Label noise")),
    "ece_bins",
    "seed",
)
# Those that only say where the data lies and how it is read.
PLACE_FIELDS = ("data_dir", "memory_limit_mb")


def check_model(path: Path) -> None:
    """Checks by names alone that a path is a ticket, a run, or a file of a registered format.

    Raises:
      UsageError: it is none of these.
    """
    if not path.exists():
        raise UsageError(f"{path}: no such file or directory")
    if registry.format_of(path) or is_ticket(path) or (path / "experiment.json").is_file():
        return
    raise UsageError(
        f"{path} is not a model: give {registry.accepted_files()}, RUN/tickets/level_NN, or RUN for "
        "its selected level"
    )


def data_path(experiment: Experiment) -> Path | None:
    """The path that `data_dir` names; None if it names none.

    Raises:
      FieldError: the source needs it, and it is missing or does not exist.
    """
    given, needs = experiment.data_dir, registry.source(experiment.source).needs
    path = None if given is None else Path(given).expanduser()
    if needs and path is None:
        raise FieldError("data_dir", "", f"is missing; give {needs}")
    if needs and path is not None and not path.exists():
        raise FieldError("data_dir", given, f"no such file or directory; give {needs}")
    return path


def recorded_fields(path: Path) -> dict[str, Any]:
    """The recorded fields of the run that contains a model (`RUN`, `RUN/tickets/…`, `RUN/export/…`); else {}.

    Raises:
      UsageError: its `experiment.json` cannot be read.
    """
    return dict(_record(path).get("experiment", {}))


def recorded_content(path: Path) -> dict[str, str]:
    """The digests of the data of the run that contains a model; see `recorded_fields`."""
    return dict(_record(path).get("content", {}))


def _record(path: Path) -> dict[str, Any]:
    whole = path.resolve()
    for directory in (whole, *whole.parents[1:2]):
        if (directory / "experiment.json").is_file():
            return read_experiment(directory)
    return {}


def data_experiment(
    path: Path, given: Mapping[str, Any], config: str | None = None, *, unseen: bool = False
) -> Experiment:
    """The experiment that describes the data on which a model is measured or exported.

    Args:
      path: the model, ticket or run directory.
      given: fields set explicitly, by name. All others come from the run that contains the model, so
        that the splits are those of its training.
      config: a recipe file that names other data.
      unseen: whether the model is also measured on unseen data, which is read from `data_dir` even
        if the model's own data is not. For a run on own files, `data_dir` names that of the unseen data only.

    Raises:
      UsageError: no data is named, or a field is not valid.
    """
    given = dict(given)
    apart = {"data_dir": given.pop("data_dir")} if unseen and "data_dir" in given else {}
    record = recorded_fields(path)
    experiment = _data_experiment(record, path, given, config)
    if is_of_run(record, given, config) and registry.source(experiment.source).needs:
        return experiment
    return dataclasses.replace(experiment, **apart)


def is_of_run(record: Mapping[str, Any], given: Mapping[str, Any], config: str | None) -> bool:
    """Whether `data_experiment` describes data of the model's run, which other fields may split otherwise.

    Args:
      record: the fields of the run, see `recorded_fields`.
      given, config: see `data_experiment`.
    """
    named = {"dataset", "source"} & given.keys()
    same = not named or (named == {"dataset"} and given["dataset"] == record.get("dataset"))
    return bool(record) and config is None and same


def _data_experiment(
    record: Mapping[str, Any], path: Path, given: Mapping[str, Any], config: str | None
) -> Experiment:
    if is_of_run(record, given, config):
        if _is_fingerprint(str(record.get("source"))):
            raise UsageError(
                f"dataset is missing: {path} was trained on data that was passed as objects; name a data set "
                "with --dataset, or pass the data to lotcal_tf.measure_model or export_ticket"
            )
        experiment = recorded(record, **given)
        check_together(experiment, given)
        _check_same_split(experiment, recorded(record), given)
        return experiment
    if config is None and not {"dataset", "source"} & given.keys():
        raise UsageError(
            f"dataset is missing: {path} is not in a run directory, which would name it"
        )
    # For other data, the run's validation split and bins still apply.
    kept = {name: record[name] for name in ("seed", "ece_bins") if name in record} | dict(given)
    if config is None and "dataset" not in given:
        experiment = Experiment(**kept)  # so that a wrong name is reported as that of `source`
        check_together(experiment, given)
        experiment = dataclasses.replace(experiment, dataset=experiment.source)
        return experiment
    return resolve(kept, config)


def _check_same_split(experiment: Experiment, of_run: Experiment, given: Mapping[str, Any]) -> None:
    """Refuses fields that divide the run's data otherwise, so that training examples would be measured.

    Raises:
      FieldError: a field is not that of the run.
    """
    for name in given.keys() & {*DATA_FIELDS} - {*PLACE_FIELDS, "ece_bins"}:
        if getattr(experiment, name) != (value := getattr(of_run, name)):
            problem = f"is {value} in the run, whose splits are measured: leave it out"
            raise FieldError(name, given[name], problem)


def unseen_dir(experiment: Experiment, given: Mapping[str, Any]) -> str | None:
    """The `data_dir` of unseen data: that of the model's own data, unless this is in own files.

    Args:
      experiment: of `data_experiment`.
      given: the fields that it was given.
    """
    if not registry.source(experiment.source).needs:
        return experiment.data_dir
    other = given.get("data_dir")
    return None if other == experiment.data_dir else other


def unseen_experiment(name: str, experiment: Experiment, given: Mapping[str, Any]) -> Experiment:
    """The data of a recipe, or else of the TFDS data set of that name, in the directory of `unseen_dir`."""
    other = (
        resolve({"dataset": name})
        if name in recipe_names()
        else Experiment(dataset=name, source=name)
    )
    limit = experiment.memory_limit_mb
    place = unseen_dir(experiment, given)
    return dataclasses.replace(other, data_dir=place, memory_limit_mb=limit)


def has_named_data(run: Path) -> bool:
    """Whether the data of a run is named, so that it can be loaded again; not passed as objects."""
    return not _is_fingerprint(str(recorded_fields(run).get("source")))


def _is_fingerprint(source: str) -> bool:
    """Whether a recorded source is a digest of data passed as objects, see `data.given.dataset`."""
    return re.fullmatch(r"[0-9a-f]{10}", source) is not None
