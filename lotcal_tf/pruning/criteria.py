"""Pruning criteria: the score of each weight; the survivors with the lowest scores are pruned.

A custom criterion only overrides `scores`. `selection` determines exact counts and ties, and protects
the last survivor of each tensor.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lotcal_tf.compat import keras
from lotcal_tf.config import hyperparameters
from lotcal_tf.config.fields import checked
from lotcal_tf.pruning.selection import Masks
from lotcal_tf.seeds import generator

Arrays = dict[str, NDArray]


@dataclasses.dataclass(frozen=True)
class State:
    """The information for a criterion: a trained level, and the survivors of the current round.

    Attributes:
      weights: all trained weights by path, including those that are not prunable; pruned ones are 0.
      masks: boolean masks of the weights to score by path, in model order; True for survivors.
      rewind: the weights from which the level was trained, by path.
      network: returns the network with `weights` and `masks`, without dropout.
      gradient: returns the gradient with respect to each masked weight, by path, of `loss` (mean
        cross-entropy on the training data), `calibration` (squared calibration error on the
        validation data) or `validation_nll`.
      seed: the experiment's seed.
      level: number of the level that is pruned.
      round: number of the round, from 0.
    """

    weights: Mapping[str, NDArray] = dataclasses.field(repr=False)
    masks: Masks = dataclasses.field(repr=False)
    rewind: Mapping[str, NDArray] = dataclasses.field(repr=False)
    network: Callable[[], "keras.Model"] = dataclasses.field(repr=False)
    gradient: Callable[[str], Mapping[str, NDArray]] = dataclasses.field(repr=False)
    seed: int
    level: int
    round: int = 0

    def draw(self, use: str) -> np.random.Generator:
        """A random generator for one use; a resumed run gets the same one."""
        return generator(self.seed, f"criterion/{use}", self.level, self.round)


class Criterion:
    """Scores weights for pruning.

    Args:
      **given: hyperparameters, by the field names of `Hyperparameters`.

    Attributes:
      hyper: the hyperparameters, an instance of `Hyperparameters`.
      Hyperparameters: a dataclass whose fields all have defaults.
      rounds: number of rounds in which a level is pruned, each with new scores.

    Raises:
      FieldError: a hyperparameter is unknown or invalid.
    """

    Hyperparameters: type = hyperparameters.NoHyperparameters
    rounds: int = 1

    def __init__(self, **given: Any) -> None:
        self.hyper: Any = checked(self.Hyperparameters, given)

    def scores(self, state: State) -> Mapping[str, NDArray]:
        """Returns the score of each weight; every criterion overrides it.

        Returns:
          For each path of `state.masks`, an array of the weight's shape. Weights with larger scores
          survive; the scores of pruned weights do not matter.

        Raises:
          TypeError: the criterion does not override this method.
        """
        raise TypeError(f"{type(self).__name__} must override scores")


class Magnitude(Criterion):
    """|w|: large trained weights survive (Han et al. 2015, arXiv 1506.02626)."""

    def scores(self, state: State) -> Arrays:
        """Returns the absolute trained weights."""
        return {name: np.abs(state.weights[name]) for name in state.masks}


class Random(Criterion):
    """Random scores: the control for all other criteria."""

    def scores(self, state: State) -> Arrays:
        """Returns uniform draws in [0, 1), from one random generator per tensor."""
        return {name: state.draw(name).random(mask.shape) for name, mask in state.masks.items()}


class MagnitudeIncrease(Criterion):
    """|w| − |w at the start|: weights that grew survive (Zhou et al. 2019, arXiv 1905.01067)."""

    def scores(self, state: State) -> Arrays:
        """Returns the increase of each absolute weight in the training of the level."""
        return {
            name: np.abs(state.weights[name]) - np.abs(state.rewind[name]) for name in state.masks
        }


class Gradient(Criterion):
    """|g·w|: weights whose removal changes the objective most survive (SNIP, Lee et al. 2019).

    It is the first-order estimate of the change if a weight is set to 0 (arXiv 1810.02340, eq. 3).
    """

    Hyperparameters = hyperparameters.Gradient

    def scores(self, state: State) -> Arrays:
        """Returns the absolute product of gradient and weight."""
        gradient = state.gradient(self.hyper.gradient_of)
        return {name: np.abs(gradient[name] * state.weights[name]) for name in state.masks}
