"""A mixture of Gaussians whose true conditionals p*(k | x) are exact for every x; no network needed.

Each of K classes is made of `mixture_clusters` Gaussians of one deviation, whose centres are corners
of the cube {-1, 1}^d. The more clusters a class has, the more its border turns about: that is how
hard the task is. Classes are equally likely, and so are the clusters of one. Corners and examples are
the same for every seed, which cuts validation and draws label noise as of any other set.
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
    """The mixture of the fields `mixture_…`, with the truth of its test split.

    Raises:
      FieldError: there are fewer corners than clusters.
    """
    classes, clusters = experiment.mixture_classes, experiment.mixture_clusters
    dimensions = experiment.mixture_dimensions
    if classes * clusters > 2**dimensions:
        problem = (
            f"cannot be placed: with {clusters} clusters each they need {classes * clusters} corners, a cube of "
            f"{dimensions} dimensions has {2**dimensions}"
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
    # A Gaussian has no largest value.
    return dataclasses.replace(dataset, input_range=None, truth=conditional(centres, test[0]))


def corners(classes: int, clusters: int, dimensions: int) -> _Values:
    """The clusters' centres, `(classes, clusters, dimensions)`: corners, all different, -1 or 1."""
    source, chosen = generator(0, f"mixture/corners/{dimensions}"), dict[int, None]()
    while len(chosen) < classes * clusters:
        chosen[int(source.integers(2**dimensions))] = None
    bits = np.array(list(chosen))[:, None] >> np.arange(dimensions) & 1
    # Round after round, one cluster a class: an easier task's centres are some of a harder one's.
    return np.swapaxes((2.0 * bits - 1.0).reshape(clusters, classes, dimensions), 0, 1)


def draw(centres: _Values, count: int, split: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Examples `(count, d)` and their classes `(count,)`.

    Args:
      centres: see `corners`.
      count: how many.
      split: names the draw.
    """
    classes, clusters, dimensions = centres.shape
    source = generator(0, f"mixture/{split}", classes, clusters)
    labels = source.integers(classes, size=count)
    means = centres[labels, source.integers(clusters, size=count)]
    inputs = means + DEVIATION * source.normal(size=(count, dimensions))
    return inputs.astype(np.float32), labels


def conditional(centres: _Values, inputs: NDArray[np.floating]) -> _Values:
    """p*(k | x) of each input, `(N, K)`: its class's share of the density there."""
    classes, clusters, dimensions = centres.shape
    means = centres.reshape(-1, dimensions)
    # Corners are equally far from 0: of their squared distances to x only -2 x · centre differs.
    exponents = inputs.astype(np.float64) @ means.T / DEVIATION**2
    densities = scipy.special.logsumexp(exponents.reshape(-1, classes, clusters), axis=2)
    shares: _Values = scipy.special.softmax(densities, axis=1)
    return shares
