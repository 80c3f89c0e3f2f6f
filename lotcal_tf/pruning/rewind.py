"""What the survivors of a pruning start from again."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray


@dataclasses.dataclass(frozen=True)
class Rewind:
    """Where the survivors are rewound to.

    Attributes:
      kind: `init`; `late`, the weights after some steps of level 0; `random`, a fresh draw a
        level (the control); `none`, no rewinding (fine-tuning).
      steps: for `late`, how many steps of level 0.
    """

    kind: str
    steps: int = 0

    @classmethod
    def parse(cls, text: str, steps_per_epoch: int) -> "Rewind":
        """Reads `init`, `step:K`, `epoch:K`, `random` or `none`, as an `Experiment` has checked it."""
        unit, _, amount = text.partition(":")
        if not amount:
            return cls(unit)
        return cls("late", int(amount) * (steps_per_epoch if unit == "epoch" else 1))


def masked_start(
    start: Mapping[str, NDArray], masks: Mapping[str, NDArray[np.bool_]]
) -> dict[str, NDArray]:
    """The weights a level begins with: `start` to the bit where a weight survives, else +0.

    Args:
      start: every weight of the model by name, those that are not prunable included.
      masks: by name, for the prunable ones.
    """
    return {
        name: np.where(masks[name], value, np.zeros((), value.dtype)) if name in masks else value
        for name, value in start.items()
    }
