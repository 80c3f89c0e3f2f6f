"""Label noise: training and validation labels made wrong at a known rate; test labels stay clean.

Noise is applied once, to the labels alone: no step of training knows of it. Of n labels exactly
round(rate · n) are noisy, halves up; which ones, and what becomes of them, are draws of the seed.
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from lotcal_tf.config.experiment import Experiment
from lotcal_tf.data.splits import Dataset, Split
from lotcal_tf.errors import FieldError
from lotcal_tf.metrics.conditional import label_maps, seen_through_noise
from lotcal_tf.rounding import half_up
from lotcal_tf.seeds import generator


def with_label_noise(dataset: Dataset, experiment: Experiment) -> Dataset:
    """The dataset as `label_noise`, `noise_kind` and `noise_map` want it; as it is without noise.

    Its test labels stay; beside them there are noisy ones, and what is known of the truth.

    Raises:
      FieldError: the map is none of the dataset's classes.
    """
    rate, classes = experiment.label_noise, dataset.classes
    if not rate:
        return dataset
    try:
        maps = label_maps(experiment.noise_kind, classes, experiment.noise_map)
    except ValueError as error:
        problem = (
            f"the data has {classes} classes: give so many of 0 … {classes - 1}, the image of each"
        )
        raise FieldError("noise_map", experiment.noise_map, problem) from error
    clean = {name: _labels(split) for name, split in dataset.named_splits().items()}
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
    """Labels of which exactly round(rate · n) have gone through one of `maps`, drawn by seed.

    Args:
      labels: `(n,)`, clean.
      rate: in [0, 1).
      maps: `(M, K)`, see `label_maps`.
      seed: the experiment's.
      split: whose labels these are; each split draws by itself.
    """
    draw = generator(seed, f"label_noise/{split}")
    places = draw.permutation(len(labels))[: half_up(rate * len(labels))]
    noisy = labels.copy()
    noisy[places] = maps[draw.integers(len(maps), size=len(places)), labels[places]]
    return noisy


def _labels(split: Split) -> NDArray[np.int32]:
    return np.concatenate([labels.numpy() for _, labels in split.in_order(1000)])
