"""Loads the data of an experiment."""

import dataclasses
from collections.abc import Mapping
from typing import TypeVar

from lotcal_tf.config import registry
from lotcal_tf.config.experiment import Experiment
from lotcal_tf.data.noise import with_label_noise
from lotcal_tf.data.splits import Dataset, Part, with_train_size
from lotcal_tf.data.subsets import class_names
from lotcal_tf.errors import FieldError, UsageError

Named = TypeVar("Named", Dataset, Part)


def load(experiment: Experiment) -> Dataset:
    """Loads the data set `experiment.source`, see `arranged`.

    Raises:
      UsageError: the source cannot provide the data.
      FieldError: `noise_map`, `classes` or `train_size` does not fit the data.
    """
    dataset: Dataset = registry.source(experiment.source).load()(experiment)
    return arranged(_with_names(dataset, experiment), experiment)


def arranged(dataset: Dataset, experiment: Experiment) -> Dataset:
    """A data set with the experiment's number of training examples and label noise.

    Raises:
      FieldError: `train_size` or `noise_map` does not fit the data.
    """
    dataset = with_train_size(dataset, experiment.train_size, experiment.seed)
    return with_label_noise(dataset, experiment)


def content(experiment: Experiment) -> dict[str, str]:
    """A digest of the experiment's data as `data`, for files that can change; empty for other data.

    Raises:
      UsageError: the files cannot be read.
    """
    digest = registry.source(experiment.source).load_digest()
    return {} if digest is None else {"data": digest(experiment)}


def check_unchanged(experiment: Experiment, recorded: Mapping[str, str]) -> None:
    """Checks that files still hold the data that a run was trained on.

    Args:
      experiment: the experiment of the run.
      recorded: its content, as `content` gave it at the time of the run.

    Raises:
      UsageError: the files have changed.
    """
    if recorded.get("data") != content(experiment).get("data"):
        raise UsageError(
            f"the data in {experiment.data_dir} has changed since the run, so its test examples may be training "
            "examples of the run: restore it, or train again"
        )


def load_part(experiment: Experiment, split: str) -> Part:
    """One split of named data, `val` or `test`; the test split alone where that can be had.

    Raises:
      UsageError: the data cannot be loaded, or has no such split.
    """
    alone = registry.source(experiment.source).load_test() if split == "test" else None
    if alone is not None:
        part: Part = alone(experiment)
        return _with_names(part, experiment)
    return load(experiment).part(split)


def _with_names(data: Named, experiment: Experiment) -> Named:
    """The data with the names of the classes that `classes` keeps; sources give the names of all classes.

    Raises:
      FieldError: the source has not restricted its data to these classes.
    """
    chosen = experiment.classes
    if not chosen:
        return data
    if data.classes != len(chosen):
        problem = f"source={experiment.source} gives all classes: leave this out"
        raise FieldError("classes", chosen, problem)
    return dataclasses.replace(data, class_names=class_names(chosen, data.class_names))
