"""Rewinding: the weights from which the survivors of pruning are trained again."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray


@dataclasses.dataclass(frozen=True)
class Rewind:
    """The weights to which survivors are rewound.

    Attributes:
      kind: `init`: the weights the run began with; `pretrained`: the same, of a model that came with
        trained weights; `late`: weights after some steps of level 0; `random`: new initial
        weights at each level (the control); `none`: no rewinding (fine-tuning).
      steps: for `late`, the number of steps of level 0.
    """

    kind: str
    steps: int = 0

    @classmethod
    def parse(cls, text: str, steps_per_epoch: int) -> "Rewind":
        """Parses `init`, `pretrained`, `step:K`, `epoch:K`, `random` or `none`; `Experiment` has checked the text."""
        unit, _, amount = text.partition(":")
        if not amount:
            return cls(unit)
        return cls("late", int(amount) * (steps_per_epoch if unit == "epoch" else 1))


def masked_start(
    start: Mapping[str, NDArray], masks: Mapping[str, NDArray[np.bool_]]
) -> dict[str, NDArray]:
    """The weights with which a level starts: bit-equal to `start` for survivors, 0 for pruned ones.

    Args:
      start: all weights of the model by path, including those that are not prunable.
      masks: the masks of the prunable weights by path, True for survivors.
    """
    return {
        name: np.where(masks[name], value, np.zeros((), value.dtype)) if name in masks else value
        for name, value in start.items()
    }
