"""Label noise: changes training and validation labels at a given rate; test labels stay clean.

Noise is applied once, before training. Of n labels exactly round(rate · n) are noisy (halves are
rounded up). The seed determines which labels these are and what they become.
"""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lotcal_tf.config.experiment import Experiment
from lotcal_tf.config.rounding import half_up
from lotcal_tf.errors import FieldError
from lotcal_tf.metrics.conditional import label_maps, seen_through_noise
from lotcal_tf.seeds import generator

if TYPE_CHECKING:  # a report draws the noise again, without TensorFlow
    from lotcal_tf.data.splits import Dataset


def with_label_noise(dataset: "Dataset", experiment: Experiment) -> "Dataset":
    """Applies `label_noise`, `noise_kind` and `noise_map` of an experiment to a data set.

    Returns:
      The data set with noisy training and validation labels. Its test labels stay clean; noisy test
      labels and the true conditionals are added. Without noise, the data set itself.

    Raises:
      FieldError: `noise_map` does not map the classes of the data set.
    """
    rate, classes = experiment.label_noise, dataset.classes
    if not rate:
        return dataset
    try:
        maps = label_maps(experiment.noise_kind, classes, experiment.noise_map)
    except ValueError as error:
        problem = (
            f"the data has {classes} classes: give {classes} of the numbers 0 … {classes - 1}, the "
            "class that each class is changed to"
        )
        raise FieldError("noise_map", experiment.noise_map, problem) from error
    clean = {name: np.asarray(split.labels) for name, split in dataset.named_splits().items()}
    noisy = {
        name: noisy_labels(labels, rate, maps, experiment.seed, name)
        for name, labels in clean.items()
    }
    found = dataclasses.replace(
        dataset,
        train=dataset.train.relabelled(noisy["train"]),
        validation=dataset.validation.relabelled(noisy["val"]),
        wrong_labels={
            name: float(np.mean(noisy[name] != clean[name])) for name in ("train", "val")
        },
    )
    if "test" not in clean:
        return found
    truth = np.eye(classes)[clean["test"]] if dataset.truth is None else dataset.truth
    return dataclasses.replace(
        found,
        truth=seen_through_noise(truth, rate, maps),
        noisy_test_labels=noisy["test"],
    )


def noisy_labels(
    labels: NDArray[np.int32], rate: float, maps: NDArray[np.int64], seed: int, split: str
) -> NDArray[np.int32]:
    """Changes exactly round(rate · n) of n labels, each by a randomly chosen map.

    Args:
      labels: `(n,)`, clean.
      rate: share of noisy labels, in [0, 1).
      maps: `(M, K)`, see `label_maps`.
      seed: the experiment's seed.
      split: name of the split; each split has its own draws.

    Returns:
      `(n,)` noisy labels.
    """
    draw = generator(seed, f"label_noise/{split}")
    places = draw.permutation(len(labels))[: half_up(rate * len(labels))]
    noisy = labels.copy()
    noisy[places] = maps[draw.integers(len(maps), size=len(places)), labels[places]]
    return noisy
