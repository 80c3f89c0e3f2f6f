"""Loads the data of an experiment."""

from collections.abc import Mapping

from lotcal_tf.config import registry
from lotcal_tf.config.experiment import Experiment
from lotcal_tf.data.noise import with_label_noise
from lotcal_tf.data.splits import Dataset, Part
from lotcal_tf.errors import UsageError


def load(experiment: Experiment) -> Dataset:
    """Loads the data set `experiment.source` and applies the experiment's label noise.

    Raises:
      UsageError: the source cannot provide the data.
      FieldError: `noise_map` does not fit the classes of the data.
    """
    dataset: Dataset = registry.source(experiment.source).load()(experiment)
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
        return part
    return load(experiment).part(split)
