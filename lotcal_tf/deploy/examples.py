"""The examples that an export's files are made with and held against their ticket on."""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lotcal_tf.data.arrays import is_pair
from lotcal_tf.data.splits import Dataset, ResidentSplit, Split
from lotcal_tf.errors import UsageError
from lotcal_tf.formats.format import Material


@dataclasses.dataclass(frozen=True)
class Examples:
    """What files are measured on and made with.

    Attributes:
      inputs, labels: `(N, …)` and `(N,)`, what files are compared on.
      split: what these are: `test`, or `val`.
      material: what quantising draws on.
    """

    inputs: NDArray[np.float32]
    labels: NDArray
    split: str
    material: Material

    @classmethod
    def of(cls, dataset: Dataset, seed: int = 0) -> "Examples":
        """A dataset's test split, without one its validation split; and what quantising draws on."""
        ranges, known = _whole(dataset.validation)
        material = Material(ranges, known, dataset.train, seed)
        if dataset.test is None:
            return cls(ranges, known, "val", material)
        return cls(*_whole(dataset.test), "test", material)

    @classmethod
    def given(
        cls,
        test: tuple[Any, Any],
        validation: tuple[Any, Any] | None = None,
        train: tuple[Any, Any] | None = None,
    ) -> "Examples":
        """Of `(inputs, labels)` arrays."""
        inputs, labels = _pair("test", test)
        ranges, known = _pair("validation", validation) if validation is not None else (None, None)
        training = ResidentSplit.of(*_pair("train", train)) if train is not None else None
        material = Material(ranges, known, training)
        return cls(inputs, labels, "test", material)


def _pair(name: str, data: Any) -> tuple[NDArray[np.float32], NDArray]:
    """Inputs as float32, and labels; raises UsageError where they are no such pair."""
    if not (is_pair(data) and len(data[0]) == len(data[1])):
        raise UsageError(f"{name} must be a pair (inputs, labels) of one length")
    return np.asarray(data[0], np.float32), np.asarray(data[1])


def _whole(split: Split) -> tuple[NDArray[np.float32], NDArray]:
    """All inputs and labels of a split."""
    inputs, labels = zip(*((x.numpy(), y.numpy()) for x, y in split.in_order(1000)), strict=True)
    return np.concatenate(inputs).astype(np.float32), np.concatenate(labels)
