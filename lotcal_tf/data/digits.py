"""Scikit-learn's handwritten digits: 1 797 images of 8x8 pixels with values 0 … 16, no download."""

import dataclasses

from lotcal_tf.config.experiment import Experiment
from lotcal_tf.data.arrays import from_arrays
from lotcal_tf.data.splits import Dataset
from lotcal_tf.seeds import generator

TEST_SIZE = 360


def load(experiment: Experiment) -> Dataset:
    """Loads the digits; 360 fixed images, the same for every seed, are the test split."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    inputs, labels = bunch.images[..., None].astype("float32"), bunch.target
    order = generator(0, "digits/test").permutation(len(labels))
    test, train = order[:TEST_SIZE], order[TEST_SIZE:]
    dataset = from_arrays(
        (inputs[train], labels[train]),
        (inputs[test], labels[test]),
        classes=10,
        validation_size=experiment.validation_size,
        seed=experiment.seed,
        half=experiment.half,
        subset=experiment.classes,
        input_range=16.0,
    )
    return dataclasses.replace(dataset, class_names=tuple(map(str, range(10))))
