"""One split of a dataset, in memory or streamed, and the cut of a validation split.

Both kinds give blocks of whole batches in a shuffled order for training, and batches in order for
measuring; nothing above needs to know which kind it holds.
"""

import dataclasses
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lotcal_tf.errors import FieldError, UsageError
from lotcal_tf.seeds import generator, named_seed

Block = tuple["tf.Tensor", "tf.Tensor"]


class Split(Protocol):
    """Labelled examples.

    Attributes:
      count: how many.
      shape: of one example's inputs.
    """

    @property
    def count(self) -> int:
        """How many examples."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one example's inputs."""

    def block_steps(self, batch_size: int, most: int) -> int:
        """How many batches a block of `shuffled` holds; the last block may hold fewer."""

    def shuffled(self, batch_size: int, most: int, seed: tuple[int, int]) -> Iterator[Block]:
        """One epoch in the order that `seed` names, as blocks of at least one whole batch."""

    def in_order(self, batch_size: int) -> Iterator[Block]:
        """Every example once, in batches; the last may be smaller."""


@dataclasses.dataclass(frozen=True)
class ResidentSplit:
    """A split that lies in the device's memory, in the type it came in (images: one byte a value).

    Attributes:
      inputs: `(N, …)`.
      labels: `(N,)` int32.
    """

    inputs: "tf.Tensor"
    labels: "tf.Tensor"

    @classmethod
    def of(cls, inputs: NDArray, labels: NDArray) -> "ResidentSplit":
        """Puts arrays on the device."""
        return cls(tf.constant(inputs), tf.constant(labels, tf.int32))

    @property
    def count(self) -> int:
        """How many examples."""
        return int(self.inputs.shape[0])

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one example's inputs."""
        return tuple(self.inputs.shape[1:])

    def block_steps(self, batch_size: int, most: int) -> int:
        """All of them: the whole epoch is one block."""
        return self.count // batch_size

    def shuffled(self, batch_size: int, most: int, seed: tuple[int, int]) -> Iterator[Block]:
        """The whole epoch, gathered once in a new order: each batch is then one piece of memory."""
        order = np.random.Generator(np.random.Philox(key=list(seed))).permutation(self.count)
        places = tf.constant(order, tf.int32)
        yield tf.gather(self.inputs, places), tf.gather(self.labels, places)

    def in_order(self, batch_size: int) -> Iterator[Block]:
        """Every example once, in batches; the last may be smaller."""
        for start in range(0, self.count, batch_size):
            yield self.inputs[start : start + batch_size], self.labels[start : start + batch_size]


@dataclasses.dataclass(frozen=True)
class StreamedSplit:
    """A split too large for memory: a `tf.data` pipeline that is read anew every epoch.

    Attributes:
      examples: unbatched `(input, label)` pairs, in the same order at every reading.
      count: how many.
      buffer: examples that one epoch's order is shuffled over.
    """

    examples: "tf.data.Dataset"
    count: int
    buffer: int

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one example's inputs."""
        return tuple(self.examples.element_spec[0].shape)

    def block_steps(self, batch_size: int, most: int) -> int:
        """As many as asked for."""
        return min(most, self.count // batch_size)

    def shuffled(self, batch_size: int, most: int, seed: tuple[int, int]) -> Iterator[Block]:
        """One epoch, shuffled over the buffer, a block being prepared while one is trained on."""
        size = self.block_steps(batch_size, most) * batch_size
        # A pipeline of its own an epoch, seeded by name: nothing is left over from the last one.
        # Not `Dataset.shuffle`, which mixes the process's global seed into the one it is given.
        spec = self.examples.element_spec
        order = tf.raw_ops.ShuffleDataset(
            input_dataset=tf.data.experimental.to_variant(self.examples),
            buffer_size=min(self.buffer, self.count),
            seed=seed[0],
            seed2=seed[1],
            reshuffle_each_iteration=False,
            output_types=[part.dtype for part in spec],
            output_shapes=[part.shape for part in spec],
        )
        shuffled = tf.data.experimental.from_variant(order, spec)
        for inputs, labels in shuffled.batch(size).prefetch(1):
            if inputs.shape[0] >= batch_size:
                yield inputs, labels

    def in_order(self, batch_size: int) -> Iterator[Block]:
        """Every example once, in batches; the last may be smaller."""
        yield from self.examples.batch(batch_size).prefetch(1)


@dataclasses.dataclass(frozen=True)
class Part:
    """One split by itself, with what measuring on it needs.

    Attributes:
      classes: of the task; labels are 0 … classes − 1.
      split: the examples.
      input_range: the largest value inputs can take.
    """

    classes: int
    split: Split
    input_range: float = 1.0


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A classification task.

    Attributes:
      classes: how many; labels are 0 … classes − 1.
      train, validation, test: its splits; test is None where a user has none.
      input_range: the largest value inputs can take; a model divides by it.
    """

    classes: int
    train: Split
    validation: Split
    test: Split | None
    input_range: float = 1.0

    def named_splits(self) -> dict[str, Split]:
        """The splits there are, as `train`, `val`, `test`."""
        splits: dict[str, Split | None]
        splits = {"train": self.train, "val": self.validation, "test": self.test}
        return {name: split for name, split in splits.items() if split is not None}

    def part(self, name: str) -> Part:
        """One split by itself.

        Args:
          name: `train`, `val` or `test`.

        Raises:
          UsageError: there is none of that name.
        """
        splits = self.named_splits()
        if name not in splits:
            raise UsageError(f"the data has no {name} split; it has {', '.join(splits)}")
        return Part(self.classes, splits[name], self.input_range)


def validation_members(count: int, size: int | None, seed: int) -> NDArray[np.bool_]:
    """Which training examples are validation examples, drawn by seed.

    Args:
      count: training examples before the cut.
      size: validation examples; None for a tenth, rounded down, at least one.
      seed: the experiment's.

    Returns:
      `(count,)` boolean with exactly `size` True.

    Raises:
      FieldError: nothing would be left for training.
    """
    size = max(1, count // 10) if size is None else size
    if not 0 < size < count:
        problem = f"the training data has {count} examples, and both parts need some"
        raise FieldError("validation_size", size, problem)
    members = np.zeros(count, bool)
    members[generator(seed, "validation").permutation(count)[:size]] = True
    return members


def shuffle_seed(seed: int, level: int, epoch: int) -> tuple[int, int]:
    """The seed of one epoch's order."""
    return named_seed(seed, "shuffle", level, epoch)
