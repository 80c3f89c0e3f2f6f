"""The examples of an export: for comparing the files with the ticket, and for quantisation."""

import dataclasses
from typing import Any

import tensorflow as tf
from numpy.typing import NDArray

from lotcal_tf.data import given as given_data
from lotcal_tf.data.splits import Dataset, Split
from lotcal_tf.formats.format import Material
from lotcal_tf.inputs import Specs, concatenated


@dataclasses.dataclass(frozen=True)
class Examples:
    """The examples of an export.

    Attributes:
      inputs, labels: `(N, …)`, see `lotcal_tf.inputs`, and `(N,)`, on which the files are compared
        with the ticket.
      split: the name of these examples: `test` or `val`.
      material: the data for quantisation.
      data: the name of the data; None if it was passed as objects.
      of_run: whether it is the data of the ticket's run.
      classes: the number of classes of named data.
    """

    inputs: Any
    labels: NDArray
    split: str
    material: Material
    data: str | None = None
    of_run: bool = False
    classes: int | None = None

    @classmethod
    def of(
        cls, dataset: Dataset, seed: int = 0, *, data: str | None = None, of_run: bool = False
    ) -> "Examples":
        """The test split of a dataset, or its validation split if it has no test split.

        Args:
          dataset: its validation and training splits are used for quantisation.
          seed: determines the order of training examples in quantisation-aware fine-tuning.
          data: the name of the dataset.
          of_run: whether the ticket's run was trained on it.
        """
        inputs, labels = _in_memory(dataset.validation)
        material = Material(inputs, labels, dataset.train, seed)
        split = "val" if dataset.test is None else "test"
        if dataset.test is not None:
            inputs, labels = _in_memory(dataset.test)
        return cls(inputs, labels, split, material, data, of_run, dataset.classes)

    @classmethod
    def given(
        cls,
        test: Any,
        validation: Any = None,
        train: Any = None,
        *,
        classes: int,
        takes: Specs | None = None,
        shuffle_buffer: int = 10_000,
    ) -> "Examples":
        """Examples from arrays or pipelines.

        Args:
          test: see `given.dataset`.
          validation: likewise; for the ranges and temperatures of quantised files.
          train: likewise; for quantisation-aware fine-tuning.
          classes: the number of classes of the ticket.
          takes: what the ticket's model takes; None: one input.
          shuffle_buffer: of a training pipeline that does not fit in memory, in examples.

        Raises:
          UsageError: one of them is neither, is empty, or has invalid inputs or labels.
        """

        def split(name: str, data: Any) -> Split:
            part = given_data.part(
                data, split=name, classes=classes, takes=takes, shuffle_buffer=shuffle_buffer
            )
            return part.split

        inputs, labels = _in_memory(split("test", test))
        material = Material(training=None if train is None else split("train", train))
        if validation is not None:
            ranges, known = _in_memory(split("validation", validation))
            material = dataclasses.replace(material, validation=ranges, labels=known)
        return cls(inputs, labels, "test", material)


def _in_memory(split: Split) -> tuple[Any, NDArray]:
    """All inputs and labels of a split."""
    blocks = [tf.nest.map_structure(lambda x: x.numpy(), block) for block in split.in_order(1000)]
    inputs, labels = (concatenated(list(parts)) for parts in zip(*blocks, strict=True))
    return inputs, labels
