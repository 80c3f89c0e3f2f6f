"""Pruning criteria: the score of each weight; the survivors with the lowest scores are pruned.

A custom criterion overrides `scores` alone. Exact counts, ties and the protection of a tensor's last
survivor are those of `selection`, whatever the scores.
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
    """What a criterion can look at: a trained level, and the survivors of the current round.

    Attributes:
      weights: the trained weights by path, pruned ones 0; also those that are not prunable.
      masks: the survivors by path, in model order; the weights to be scored.
      rewind: the weights that the level's survivors started from.
      network: gives the network with `weights` and `masks`, dropout off.
      gradient: gives the gradient with respect to each masked weight, by path, of `loss` (mean
        cross-entropy on the training data), `calibration` (squared calibration error on the
        validation data) or `validation_nll`.
      seed: the experiment's.
      level: the level that is pruned.
      round: the round, counted from 0.
    """

    weights: Mapping[str, NDArray]
    masks: Masks
    rewind: Mapping[str, NDArray]
    network: Callable[[], "keras.Model"]
    gradient: Callable[[str], Mapping[str, NDArray]]
    seed: int
    level: int
    round: int = 0

    def draw(self, use: str) -> np.random.Generator:
        """A generator for one use of randomness; the same after a resume."""
        return generator(self.seed, f"criterion/{use}", self.level, self.round)


class Criterion:
    """Scores weights for pruning.

    Args:
      **given: hyperparameters, by the names of the fields of `Hyperparameters`.

    Attributes:
      hyper: the hyperparameters, a record of `Hyperparameters`.
      Hyperparameters: a dataclass whose fields all have defaults.
      rounds: in how many rounds a level's weights are pruned, each with new scores.

    Raises:
      FieldError: a hyperparameter is not valid.
    """

    Hyperparameters: type = hyperparameters.NoHyperparameters
    rounds: int = 1

    def __init__(self, **given: Any) -> None:
        self.hyper: Any = checked(self.Hyperparameters, given)

    def scores(self, state: State) -> Mapping[str, NDArray]:
        """The score of each weight; to be overridden.

        Returns:
          By path of `state.masks`, an array of the weight's shape; larger scores survive. Scores of
          pruned places do not matter.

        Raises:
          TypeError: a criterion does not override this.
        """
        raise TypeError(f"{type(self).__name__} must override scores")


class Magnitude(Criterion):
    """|w|: large trained weights survive (Han et al. 2015, arXiv 1506.02626)."""

    def scores(self, state: State) -> Arrays:
        """The absolute trained weights."""
        return {name: np.abs(state.weights[name]) for name in state.masks}


class Random(Criterion):
    """Uniform draws: the control that any criterion must beat."""

    def scores(self, state: State) -> Arrays:
        """Uniform draws in [0, 1), a stream per tensor."""
        return {name: state.draw(name).random(mask.shape) for name, mask in state.masks.items()}


class MagnitudeIncrease(Criterion):
    """|w| − |w at the start|: weights that grew survive (Zhou et al. 2019, arXiv 1905.01067)."""

    def scores(self, state: State) -> Arrays:
        """How much each absolute weight grew in the level's training."""
        return {
            name: np.abs(state.weights[name]) - np.abs(state.rewind[name]) for name in state.masks
        }


class Gradient(Criterion):
    """|g·w|: weights whose removal changes the objective most survive (Lee et al. 2019, SNIP).

    The first-order estimate of what setting a weight to 0 changes (arXiv 1810.02340, eq. 3).
    """

    Hyperparameters = hyperparameters.Gradient

    def scores(self, state: State) -> Arrays:
        """The absolute products of gradient and weight."""
        gradient = state.gradient(self.hyper.gradient_of)
        return {name: np.abs(gradient[name] * state.weights[name]) for name in state.masks}
