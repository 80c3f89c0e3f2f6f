"""Restricts examples to some of the classes, whose numbers then count from 0 in the order given."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lotcal_tf.errors import FieldError
from lotcal_tf.inputs import select


def check_known(chosen: Sequence[int], classes: int) -> None:
    """Raises FieldError if a chosen class is not one of the data's `classes` classes."""
    unknown = [number for number in chosen if number >= classes]
    if unknown:
        problem = f"{unknown[0]} is not a class of the data: it has the classes 0 … {classes - 1}"
        raise FieldError("classes", tuple(chosen), problem)


def class_names(chosen: Sequence[int], names: Sequence[str]) -> tuple[str, ...]:
    """The names of the chosen classes; empty if the names are unknown."""
    return tuple(names[number] for number in chosen) if names else ()


def of_classes(
    examples: tuple[Any, ...], chosen: Sequence[int], split: str
) -> tuple[Any, NDArray[np.int32], *tuple[Any, ...]]:
    """The examples of the chosen classes, with their new labels.

    Args:
      examples: inputs, labels `(N,)` and possibly weights, as arrays.
      chosen: the classes; empty: all, with their own numbers.
      split: name of the split, for messages.

    Raises:
      FieldError: the split has no example of these classes, or `train` none of one of them.
    """
    inputs, labels, *weights = examples
    if not chosen:
        return inputs, labels, *weights
    numbers = _new_numbers(labels, chosen, split)
    members = numbers >= 0
    return select(inputs, members), numbers[members], *(w[members] for w in weights)


def of_classes_streamed(
    data: "tf.data.Dataset", labels: NDArray[np.int32], chosen: Sequence[int], split: str
) -> tuple["tf.data.Dataset", NDArray[np.int32]]:
    """As `of_classes`, of a pipeline of single examples with these labels.

    Returns:
      The pipeline of the examples of the chosen classes, with scalar labels; and their labels.
    """
    numbers = _new_numbers(labels, chosen, split)
    table = tf.constant(numbers)
    renumbered = data.enumerate().filter(lambda place, _: table[place] >= 0)
    examples = renumbered.map(lambda place, example: (example[0], table[place], *example[2:]))
    return examples, numbers[numbers >= 0]


def _new_numbers(labels: NDArray, chosen: Sequence[int], split: str) -> NDArray[np.int32]:
    """The new number of each label, -1 for those of other classes."""
    numbers = np.full(len(labels), -1, np.int32)
    for number, label in enumerate(chosen):
        numbers[labels == label] = number
    missing = [c for number, c in enumerate(chosen) if not (numbers == number).any()]
    # Other splits may lack a class, as they may without a subset.
    if missing and (split == "train" or len(missing) == len(chosen)):
        raise FieldError("classes", tuple(chosen), f"{split} has no example of class {missing[0]}")
    return numbers
