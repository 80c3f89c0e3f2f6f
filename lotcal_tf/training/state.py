"""The state of the training after an epoch, from which another process goes on bit-identically.

Data order and random draws need no state: they come from the seed, the level, the epoch and the step.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lotcal_tf.calibration.strategy import Strategy
from lotcal_tf.compat import keras
from lotcal_tf.training.optimizer import LevelRate, state_of

# What Keras's EarlyStopping counts within a level, beside the weights that it keeps.
_COUNTED = ("wait", "best", "best_epoch")


@dataclasses.dataclass(frozen=True)
class TrainingState:
    """The state of a level after some of its epochs.

    Attributes:
      epochs: how many epochs are done.
      tensors: the variables of network and strategy, masks included (`weights/NNNNN`), those of the
        optimizer with slots, step, moving averages and loss scale (`optimizer/NNNNN`), the learning
        rate that a callback has set (`rate`), and the weights that early stopping keeps (`best/NNNNN`).
      stopping: what early stopping counts; empty without early stopping.
      callbacks: the states of the user's callbacks, see `training.callbacks`.
    """

    epochs: int
    tensors: Mapping[str, NDArray]
    stopping: Mapping[str, float] = dataclasses.field(default_factory=dict)
    callbacks: Sequence[Mapping[str, Any]] = ()


def take(
    epochs: int,
    strategy: Strategy,
    rate: LevelRate,
    stopping: "keras.callbacks.EarlyStopping | None",
    callbacks: Sequence[Mapping[str, Any]],
) -> TrainingState:
    """Copies the state after an epoch.

    Args:
      epochs: how many epochs of the level are done.
      strategy: has the network and the optimizer.
      rate: its learning rate.
      stopping: the callback for early stopping, if there is one.
      callbacks: the states of the user's callbacks.
    """
    tensors = {
        name: np.asarray(value.numpy()) for name, value in _variables(strategy, rate).items()
    }
    counted: dict[str, float] = {}
    if stopping is not None:
        counted = {name: float(getattr(stopping, name)) for name in _COUNTED}
        tensors |= _numbered("best", stopping.best_weights or ())
    return TrainingState(epochs, tensors, counted, callbacks)


def give(
    state: TrainingState,
    strategy: Strategy,
    rate: LevelRate,
    stopping: "keras.callbacks.EarlyStopping | None",
) -> None:
    """Sets the state in a trainer of the same kind, except for that of the user's callbacks."""
    for name, variable in _variables(strategy, rate).items():
        variable.assign(state.tensors[name])
    if stopping is not None:
        stopping.best = state.stopping["best"]
        stopping.wait, stopping.best_epoch = (
            int(state.stopping[name]) for name in ("wait", "best_epoch")
        )
        best = [state.tensors[name] for name in sorted(state.tensors) if name.startswith("best/")]
        stopping.best_weights = best or None


def fits(state: TrainingState, strategy: Strategy, rate: LevelRate, stopping: bool) -> bool:
    """Whether a state has the variables that a trainer has."""
    ours = {
        name: (tuple(variable.shape), np.dtype(variable.dtype.as_numpy_dtype))
        for name, variable in _variables(strategy, rate).items()
    }
    theirs = {
        name: (value.shape, value.dtype)
        for name, value in state.tensors.items()
        if not name.startswith("best/")
    }
    return ours == theirs and (set(_COUNTED) if stopping else set()) == set(state.stopping)


def _variables(strategy: Strategy, rate: LevelRate) -> dict[str, Any]:
    """The variables by name; their order is that of the layers and the optimizer's attributes."""
    return {
        **_numbered("weights", strategy.variables),
        **_numbered("optimizer", state_of(strategy.optimizer)),
        "rate": rate.fixed,
    }


def _numbered(kind: str, values: Sequence[Any]) -> dict[str, Any]:
    return {f"{kind}/{number:05d}": value for number, value in enumerate(values)}
