"""The named data that a model is measured or exported on: its run's own, unless other data is named."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lotcal_tf.config import registry
from lotcal_tf.config.experiment import Experiment, check_together, recorded
from lotcal_tf.config.recipes import recipe_names, resolve
from lotcal_tf.data import arrays, sources
from lotcal_tf.data.splits import Part
from lotcal_tf.errors import UsageError
from lotcal_tf.lottery.store import RunStore


def recorded_fields(path: Path) -> dict[str, Any]:
    """The fields of the run that a model lies in (`RUN`, `RUN/tickets/…`, `RUN/export/…`); {} in none.

    Raises:
      UsageError: its `experiment.json` cannot be read.
    """
    whole = path.resolve()
    for directory in (whole, *whole.parents[1:2]):
        if (directory / "experiment.json").is_file():
            found = RunStore(directory).experiment().get("experiment", {})
            return dict(found) if isinstance(found, dict) else {}
    return {}


def data_experiment(path: Path, given: Mapping[str, Any], config: str | None = None) -> Experiment:
    """The experiment whose data a model is measured or exported on.

    Args:
      path: the model, ticket or run directory.
      given: fields set explicitly, by name. All others come from the run that the model lies in, so
        that its splits are those of its training.
      config: a recipe file that names other data.

    Raises:
      UsageError: no data is named, or a field is not valid.
    """
    record = recorded_fields(path)
    named = {"dataset", "source"} & given.keys()
    own = not named or (named == {"dataset"} and given["dataset"] == record.get("dataset"))
    if config is None and own and record:
        if arrays.is_fingerprint(record["source"]):
            raise UsageError(
                f"dataset is missing: {path} was trained on data that was passed as objects; name a data set "
                "with --dataset, or pass the data to lotcal_tf.measure_model or export_ticket"
            )
        experiment = recorded(record, **given)
        check_together(experiment, given)
        return experiment
    if config is None and not named:
        raise UsageError(f"dataset is missing: {path} does not lie in a run, which would name it")
    # Other data: the run's draw of a validation split and its bins are kept.
    kept = {name: record[name] for name in ("seed", "ece_bins") if name in record} | dict(given)
    if config is None and "dataset" not in given:
        return Experiment(**kept, dataset=given["source"])
    return resolve(kept, config)


def unseen_experiment(name: str, experiment: Experiment) -> Experiment:
    """The data of a recipe, else of the TFDS set of that name, from the experiment's own `data_dir`."""
    other = (
        resolve({"dataset": name})
        if name in recipe_names()
        else Experiment(dataset=name, source=name)
    )
    limit = experiment.memory_limit_mb
    return dataclasses.replace(other, data_dir=experiment.data_dir, memory_limit_mb=limit)


def load_part(experiment: Experiment, split: str) -> Part:
    """One split of named data, `val` or `test`; the test split alone where that can be had.

    Raises:
      UsageError: the data cannot be loaded, or has no such split.
    """
    alone = registry.source(experiment.source).load_test() if split == "test" else None
    if alone is not None:
        part: Part = alone(experiment)
        return part
    return sources.load(experiment).part(split)
