"""Two mixtures of Gaussians with known conditionals p*(k | x), those of arXiv 2306.12190.

Two classes of equal size in D dimensions, covariance identity:

- `mixture_linear`: class 0 has the mean 0 and class 1 the mean nu · 1. A hyperplane separates them best.
- `mixture_xor`: class 0 has the means 0 and nu · 1, class 1 the means that are nu on one half of the
  dimensions and 0 on the other. Both means of a class are equally frequent.

The examples are the same for every seed, and up to their means for every nu. The seed splits off
validation data, which leaves 10 000 training examples, and draws label noise.
"""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import scipy.special
from numpy.typing import NDArray

from lotcal_tf.config.experiment import Experiment
from lotcal_tf.errors import FieldError
from lotcal_tf.seeds import generator

if TYPE_CHECKING:
    from lotcal_tf.data.splits import Dataset

TRAIN_SIZE, TEST_SIZE = 10_000, 5_000

_Values = NDArray[np.float64]


def load(experiment: Experiment) -> "Dataset":
    """Generates the mixture that `source` names, with the true conditionals of its test split.

    Raises:
      FieldError: `mixture_xor` has an odd number of dimensions.
    """
    # Imported late: a report needs the mixtures, but not TensorFlow.
    from lotcal_tf.data.arrays import from_arrays

    mixture = Mixture.of(experiment)
    validation = experiment.validation_size or TRAIN_SIZE // 10
    train, test = mixture.draw(TRAIN_SIZE + validation, "train"), mixture.draw(TEST_SIZE, "test")
    dataset = from_arrays(
        train,
        test,
        classes=2,
        validation_size=validation,
        seed=experiment.seed,
        half=experiment.half,
        subset=experiment.classes,
    )
    truth = mixture.conditional(test[0])
    if experiment.classes:
        truth = truth[:, experiment.classes]
    # Gaussian inputs have no largest value.
    return dataclasses.replace(dataset, input_range=None, truth=truth)


@dataclasses.dataclass(frozen=True)
class Mixture:
    """A mixture of two classes.

    Attributes:
      xor: whether it is `mixture_xor`.
      nu: distance of the means in each dimension in which they differ, above 0.
      dimensions: number of dimensions D.
    """

    xor: bool
    nu: float
    dimensions: int

    @classmethod
    def of(cls, experiment: Experiment) -> "Mixture":
        """The mixture of an experiment.

        Raises:
          FieldError: `mixture_xor` has an odd number of dimensions.
        """
        xor, dimensions = experiment.source == "mixture_xor", experiment.dimensions
        if xor and dimensions % 2:
            raise FieldError("dimensions", dimensions, "must be even with source=mixture_xor")
        return cls(xor, experiment.nu, dimensions)

    @property
    def means(self) -> _Values:
        """The means of each class, `(2, M, D)`, M = 1 or 2."""
        first = np.arange(self.dimensions) < self.dimensions // 2
        none, every = np.zeros(self.dimensions), np.ones(self.dimensions)
        classes = [[none, every], [~first, first]] if self.xor else [[none], [every]]
        return self.nu * np.array(classes, np.float64)

    def draw(self, count: int, split: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Draws examples `(count, D)` and their classes `(count,)`.

        The means are equally frequent, exactly if their number divides `count`.

        Args:
          count: number of examples.
          split: name of the split; each name has its own draws.
        """
        source, means = generator(0, f"mixture/{split}"), self.means
        components = source.permutation(count) % means[..., 0].size
        labels, clusters = np.unravel_index(components, means.shape[:2])
        inputs = means[labels, clusters] + source.normal(size=(count, self.dimensions))
        return inputs.astype(np.float32), labels

    def conditional(self, inputs: NDArray[np.floating]) -> _Values:
        """The true conditionals p*(k | x) of clean labels, `(N, 2)`."""
        means = self.means
        # log N(x; m, I) = x · m - |m|² / 2, up to a term that is the same for all means.
        exponents = np.tensordot(inputs.astype(np.float64), means, (1, 2)) - (means**2).sum(2) / 2
        shares: _Values = scipy.special.softmax(scipy.special.logsumexp(exponents, axis=2), axis=1)
        return shares

    @property
    def bayes_error(self) -> float:
        """The error of the best possible classifier on clean labels, in (0, 1/2).

        Linear: Φ(-nu √D / 2). XOR: the best classifier decides for each half of the dimensions by itself
        whether its mean is 0 or nu, and is wrong if exactly one of the two decisions is: 2 q (1 - q)
        with q = Φ(-nu √(D / 2) / 2).
        """
        differing = self.dimensions / (2 if self.xor else 1)
        wrong = float(scipy.special.ndtr(-self.nu * np.sqrt(differing) / 2))
        return 2 * wrong * (1 - wrong) if self.xor else wrong
