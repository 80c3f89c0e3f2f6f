"""One split of a dataset, in memory or streamed, and the cut of a validation split.

Both kinds give blocks of whole batches in a shuffled order for training, and batches in order for
measuring; nothing above needs to know which kind it holds. Several workers walk through the same
order: each takes its rows of every batch.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lotcal_tf.errors import FieldError, LotcalError, UsageError
from lotcal_tf.seeds import generator, named_seed

Block = tuple["tf.Tensor", "tf.Tensor"]

# What a file says that is broken, cut short or gone; what a lost worker says is none of them.
_UNREADABLE = (
    tf.errors.DataLossError,
    tf.errors.InvalidArgumentError,
    tf.errors.NotFoundError,
    tf.errors.PermissionDeniedError,
    tf.errors.UnknownError,
    UnicodeDecodeError,  # A broken record is quoted in TensorFlow's message, which then is no text.
)


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

    def shuffled(
        self, batch_size: int, most: int, seed: tuple[int, int], worker: int = 0, workers: int = 1
    ) -> Iterator[Block]:
        """One epoch in the order that `seed` names, as blocks of whole batches.

        What is over at the epoch's end, less than a batch, is left out.

        Args:
          batch_size: examples of all workers together.
          most: batches a block at most, where the split does not lie in memory.
          seed: names the order; the same at any number of workers.
          worker, workers: of each batch only rows [worker · n / workers, (worker + 1) · n / workers)
            are given, rounded down.
        """

    def in_order(self, batch_size: int) -> Iterator[Block]:
        """Every example once, in batches; the last may be smaller."""

    def relabelled(self, labels: NDArray[np.int32]) -> "Split":
        """The same examples with other labels `(count,)`, in the order of `in_order`."""

    def data(self) -> Any:
        """The examples as a caller gives them: a pair of arrays, or an unbatched pipeline."""


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

    def shuffled(
        self, batch_size: int, most: int, seed: tuple[int, int], worker: int = 0, workers: int = 1
    ) -> Iterator[Block]:
        """The whole epoch, gathered once in a new order: each batch is then one piece of memory."""
        whole = self.count // batch_size * batch_size
        order = _order(self.count, seed)[:whole].reshape(-1, batch_size)
        places = tf.constant(order[:, share(batch_size, worker, workers)].ravel(), tf.int32)
        yield tf.gather(self.inputs, places), tf.gather(self.labels, places)

    def in_order(self, batch_size: int) -> Iterator[Block]:
        """Every example once, in batches; the last may be smaller."""
        for start in range(0, self.count, batch_size):
            yield self.inputs[start : start + batch_size], self.labels[start : start + batch_size]

    def relabelled(self, labels: NDArray[np.int32]) -> "ResidentSplit":
        """The same inputs with other labels."""
        return ResidentSplit(self.inputs, tf.constant(labels, tf.int32))

    def data(self) -> tuple[NDArray, NDArray]:
        """Inputs and labels."""
        return self.inputs.numpy(), self.labels.numpy()


@dataclasses.dataclass(frozen=True)
class StreamedSplit:
    """A split too large for memory: a `tf.data` pipeline that is read anew every epoch.

    Every worker reads all of it, since which rows are its own is known only once they are shuffled;
    it keeps only those. Both ways to read it raise LotcalError where it can be read no more.

    Attributes:
      examples: unbatched `(input, label)` pairs, in the same order at every reading.
      count: how many.
      buffer: examples that one epoch's order is shuffled over; one that holds them all gives the
        order that a `ResidentSplit` gives.
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

    def shuffled(
        self, batch_size: int, most: int, seed: tuple[int, int], worker: int = 0, workers: int = 1
    ) -> Iterator[Block]:
        """One epoch, shuffled over the buffer, a block being prepared while one is trained on."""
        rows = share(batch_size, worker, workers)

        def own(part: "tf.Tensor") -> "tf.Tensor":
            shape = part.shape[1:]
            return tf.reshape(tf.reshape(part, [-1, batch_size, *shape])[:, rows], [-1, *shape])

        whole = self.count // batch_size * batch_size
        blocks = self._in_new_order(seed).take(whole)
        blocks = blocks.batch(self.block_steps(batch_size, most) * batch_size)
        yield from _read(blocks.map(lambda *block: tuple(map(own, block))))

    def _in_new_order(self, seed: tuple[int, int]) -> "tf.data.Dataset":
        """The examples, shuffled. A pipeline of its own an epoch: nothing is left of the last one."""
        if self.buffer >= self.count:
            order = tf.constant(_order(self.count, seed))
            everything = self.examples.batch(self.count)
            return everything.map(lambda *all: tuple(tf.gather(p, order) for p in all)).unbatch()
        # Not `Dataset.shuffle`, which mixes the process's global seed into the one it is given.
        spec = self.examples.element_spec
        order = tf.raw_ops.ShuffleDataset(
            input_dataset=tf.data.experimental.to_variant(self.examples),
            buffer_size=self.buffer,
            seed=seed[0],
            seed2=seed[1],
            reshuffle_each_iteration=False,
            output_types=[part.dtype for part in spec],
            output_shapes=[part.shape for part in spec],
        )
        return tf.data.experimental.from_variant(order, spec)

    def in_order(self, batch_size: int) -> Iterator[Block]:
        """Every example once, in batches; the last may be smaller."""
        yield from _read(self.examples.batch(batch_size))

    def relabelled(self, labels: NDArray[np.int32]) -> "StreamedSplit":
        """The same stream; its examples take their labels by their number."""
        given = tf.data.Dataset.from_tensor_slices(labels)
        examples = tf.data.Dataset.zip((self.examples, given)).map(lambda old, new: (old[0], new))
        return dataclasses.replace(self, examples=examples)

    def data(self) -> "tf.data.Dataset":
        """The pipeline."""
        return self.examples


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
      input_range: the largest value inputs can take; a model divides by it. None: not known, as
        of a user's own data.
      truth: p*(k | x) of each test example, `(N, K)`, for labels drawn as training's are; None where
        it is not known.
      noisy_test_labels: `(N,)`, the test labels with training's noise; None without noise.
      wrong_labels: the share of each split's labels that noise has made wrong, by its name.
    """

    classes: int
    train: Split
    validation: Split
    test: Split | None
    input_range: float | None = 1.0
    truth: NDArray[np.float64] | None = None
    noisy_test_labels: NDArray[np.int32] | None = None
    wrong_labels: Mapping[str, float] = dataclasses.field(default_factory=dict)

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
        return Part(self.classes, splits[name], self.input_range or 1.0)


def _read(blocks: "tf.data.Dataset") -> Iterator[Block]:
    """The blocks of a stream; damage since it was checked is told in a line."""
    try:
        yield from blocks.prefetch(1)
    except _UNREADABLE as error:
        raise LotcalError(
            f"the data was read whole before, and now cannot be: {first_line(error)}; mend its "
            "files, then give the same command again"
        ) from error


def first_line(error: Exception) -> str:
    """What TensorFlow says of an error, without the names of its nodes."""
    message = getattr(error, "message", "") or "the record is broken"
    nodes = (
        r"\{\{.*?\}\}|Error in user-defined function .* with iterator: \S+:|\[Op:.*?\]| name: ?$"
    )
    return re.sub(nodes, "", message.splitlines()[0]).strip()


def _order(count: int, seed: tuple[int, int]) -> NDArray[np.int64]:
    """The order that `seed` names, of all `count` examples."""
    return np.random.Generator(np.random.Philox(key=list(seed))).permutation(count)


def share(batch_size: int, worker: int, workers: int) -> slice:
    """A worker's rows of a batch, see `Split.shuffled`."""
    return slice(worker * batch_size // workers, (worker + 1) * batch_size // workers)


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
