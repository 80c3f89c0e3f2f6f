"""A generated mixture of Gaussians, whose true conditionals p*(k | x) are known for every x.

Each of K classes consists of `mixture_clusters` Gaussians of one standard deviation, centred at
corners of the cube {-1, 1}^d. The more clusters a class has, the harder the task. Classes are equally
likely, and so are the clusters of a class. Centres and examples are the same for every seed; the seed
splits off validation data and draws label noise.
"""

import dataclasses

import numpy as np
import scipy.special
from numpy.typing import NDArray

from lotcal_tf.config.experiment import Experiment
from lotcal_tf.data.arrays import from_arrays
from lotcal_tf.data.splits import Dataset
from lotcal_tf.errors import FieldError
from lotcal_tf.seeds import generator

TRAIN_SIZE, TEST_SIZE = 5000, 5000
DEVIATION = 1.1

_Values = NDArray[np.float64]


def load(experiment: Experiment) -> Dataset:
    """Generates the mixture of the fields `mixture_…`, with the true conditionals of its test split.

    Raises:
      FieldError: the cube has fewer corners than there are clusters.
    """
    classes, clusters = experiment.mixture_classes, experiment.mixture_clusters
    dimensions = experiment.mixture_dimensions
    if classes * clusters > 2**dimensions:
        problem = (
            f"{clusters} clusters per class need {classes * clusters} corners, and a cube of {dimensions} dimensions "
            f"has {2**dimensions}; reduce mixture_classes or mixture_clusters, or raise mixture_dimensions"
        )
        raise FieldError("mixture_classes", classes, problem)
    centres = corners(classes, clusters, dimensions)
    train, test = (
        draw(centres, count, split) for split, count in (("train", TRAIN_SIZE), ("test", TEST_SIZE))
    )
    dataset = from_arrays(
        train,
        test,
        classes=classes,
        validation_size=experiment.validation_size,
        seed=experiment.seed,
        half=experiment.half,
    )
    # Gaussian inputs have no largest value.
    return dataclasses.replace(dataset, input_range=None, truth=conditional(centres, test[0]))


def corners(classes: int, clusters: int, dimensions: int) -> _Values:
    """The centres of the clusters, `(classes, clusters, dimensions)`: distinct corners of -1 and 1."""
    source, chosen = generator(0, f"mixture/corners/{dimensions}"), dict[int, None]()
    while len(chosen) < classes * clusters:
        chosen[int(source.integers(2**dimensions))] = None
    bits = np.array(list(chosen))[:, None] >> np.arange(dimensions) & 1
    # One cluster per class in turn, so that an easier task uses a subset of a harder task's centres.
    return np.swapaxes((2.0 * bits - 1.0).reshape(clusters, classes, dimensions), 0, 1)


def draw(centres: _Values, count: int, split: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Draws examples `(count, d)` and their classes `(count,)`.

    Args:
      centres: `(K, clusters, d)`, see `corners`.
      count: number of examples.
      split: name of the split; each split has its own seed.
    """
    classes, clusters, dimensions = centres.shape
    source = generator(0, f"mixture/{split}", classes, clusters)
    labels = source.integers(classes, size=count)
    means = centres[labels, source.integers(clusters, size=count)]
    inputs = means + DEVIATION * source.normal(size=(count, dimensions))
    return inputs.astype(np.float32), labels


def conditional(centres: _Values, inputs: NDArray[np.floating]) -> _Values:
    """The true conditionals p*(k | x), `(N, K)`: each class's share of the density at x."""
    classes, clusters, dimensions = centres.shape
    means = centres.reshape(-1, dimensions)
    # All corners have the same norm, so only -2 x · centre of the squared distance differs.
    exponents = inputs.astype(np.float64) @ means.T / DEVIATION**2
    densities = scipy.special.logsumexp(exponents.reshape(-1, classes, clusters), axis=2)
    shares: _Values = scipy.special.softmax(densities, axis=1)
    return shares
