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
from lotcal_tf.config.recipes import read_recipe, recipe_directory, recipe_names, resolve
from lotcal_tf.config.run_directory import is_ticket, read_experiment
from lotcal_tf.errors import FieldError, UsageError, shown

# The fields that determine the examples, and how metrics of predictions on them are computed.
DATA_FIELDS = (
    *(n for n, f in FIELDS.items() if f.metadata["section"] in ("Data", "Label noise")),
    "ece_bins",
    "seed",
)
# Those that only say where the data lies and how it is read.
PLACE_FIELDS = ("data_dir", "memory_limit_mb")
# Those of a recipe that choose no examples: it may have them beside the data of a run that has others.
_OF_TRAINING = ("augment", "input_mean", "input_std", "shuffle_buffer")


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
    record, given = recorded_fields(path), dict(given)
    own = is_of_run(record, given, config)
    apart = {"data_dir": given.pop("data_dir")} if unseen and "data_dir" in given else {}
    experiment = (
        _data_of_run(record, path, given, config)
        if own
        else _other_data(record, path, given, config)
    )
    if own and registry.source(experiment.source).needs:
        return experiment
    return dataclasses.replace(experiment, **apart)


def is_of_run(record: Mapping[str, Any], given: Mapping[str, Any], config: str | None) -> bool:
    """Whether the data of a model's run is described: then its splits are measured, whatever names it.

    Data of the same source is that of the run; files are if they are in the same place, or no place is given.

    Args:
      record: the fields of the run, see `recorded_fields`.
      given, config: see `data_experiment`.

    Raises:
      UsageError: see `data_experiment`.
    """
    named = {"dataset", "source"} & given.keys()
    if not record or (config is None and not named):
        return bool(record)
    if config is None and named == {"dataset"} and given["dataset"] == record.get("dataset"):
        return True
    source = resolve({name: given[name] for name in named}, config).source
    if _without_version(source) != _without_version(str(record.get("source"))):
        return False
    place = given.get("data_dir", _recipe(given, config).get("data_dir"))
    files = registry.source(source).needs
    return not files or place is None or _absolute(place) == _absolute(record.get("data_dir"))


def _without_version(source: str) -> str:
    """The name of a data set without the version that TFDS takes: `mnist` of `mnist:3.0.1`."""
    return source.partition(":")[0]


def _absolute(place: Any) -> Path:
    return Path(str(place)).expanduser().resolve()


def _recipe(given: Mapping[str, Any], config: str | None) -> dict[str, Any]:
    """What the recipe that names the data sets; empty if none does."""
    if config is not None:
        return read_recipe(Path(config))
    name = given.get("dataset")
    return read_recipe(recipe_directory() / f"{name}.toml") if name in recipe_names() else {}


def _data_of_run(
    record: Mapping[str, Any], path: Path, given: Mapping[str, Any], config: str | None
) -> Experiment:
    """The run's own data: what is given may only repeat what the run has, so that its splits are measured.

    Raises:
      UsageError: the data has no name.
      FieldError: a field is not that of the run.
    """
    if _is_fingerprint(str(record.get("source"))):
        raise UsageError(
            f"dataset is missing: {path} was trained on data that was passed as objects; name a data set "
            "with --dataset, or pass the data to lotcal_tf.measure_model or export_ticket"
        )
    named = dict(given)
    # A recipe of the run's own name is that of the run, which can have other fields by flags.
    if config is not None or given.get("dataset") != record.get("dataset"):
        recipe = _recipe(given, config)
        named = {n: recipe[n] for n in recipe.keys() & {*DATA_FIELDS} - {*_OF_TRAINING}} | named
    named = {n: value for n, value in named.items() if n not in ("dataset", "source")}
    experiment, of_run = recorded(record, **named), recorded(record)
    check_together(experiment, given)
    for name in DATA_FIELDS:
        value = getattr(of_run, name)
        may_differ = name in (*PLACE_FIELDS, "ece_bins")
        if not may_differ and getattr(experiment, name) != value:
            out = "it" if name in given else "the recipe"
            problem = f"is {shown(value)} in the run, whose splits are measured: leave {out} out"
            raise FieldError(name, named[name], problem)
    return experiment


def _other_data(
    record: Mapping[str, Any], path: Path, given: Mapping[str, Any], config: str | None
) -> Experiment:
    """Other data than that of the run, which only has the seed and the bins.

    Raises:
      UsageError: no data is named.
    """
    if config is None and not {"dataset", "source"} & given.keys():
        raise UsageError(
            f"dataset is missing: {path} is not in a run directory, which would name it"
        )
    kept = {name: record[name] for name in ("seed", "ece_bins") if name in record} | dict(given)
    if config is None and "dataset" not in given:
        experiment = Experiment(**kept)  # so that a wrong name is reported as that of `source`
        check_together(experiment, given)
        return dataclasses.replace(experiment, dataset=experiment.source)
    return resolve(kept, config)


def has_stored(path: Path, given: Mapping[str, Any], config: str | None, *conditions: str) -> bool:
    """Whether a model is measured by stored predictions, without data: a ticket or run on its own data.

    Args:
      path: the model.
      given, config: see `data_experiment`.
      *conditions: corruptions and unseen data on which it is measured, too.
    """
    other = config is not None or given.keys() - {"ece_bins"} or conditions
    return not other and registry.format_of(path) is None and bool(recorded_fields(path))


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
