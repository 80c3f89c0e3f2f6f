"""Splits of a data set, in memory or streamed, and the choice of validation examples.

Inputs are one tensor, or a dictionary or tuple of tensors, see `lotcal_tf.inputs`.

Both kinds of split give blocks of whole batches in a shuffled order for training, and batches in
order for evaluation, so that callers need not distinguish them. Several workers follow the same
order; each takes its rows of every batch.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lotcal_tf import inputs as structures
from lotcal_tf.errors import FieldError, LotcalError, UsageError, shown
from lotcal_tf.seeds import generator, named_seed

# The splits of data that comes in several, and the names they may have.
SPLIT_NAMES = {
    "train": ("train",),
    "validation": ("val", "valid", "validation"),
    "test": ("test",),
}

# Inputs and labels; of `shuffled` also weights, if the split has them.
Block = tuple[Any, ...]

# Makes examples of the elements of a pipeline.
Decode = Callable[["tf.data.Dataset"], "tf.data.Dataset"]

# How many training examples a level is measured on, at most. All of MNIST's would take a twentieth of
# the time of a level of 5 epochs; accuracies are known to half a point with these.
TRAIN_SAMPLE = 10_000

# The total variation between the classes of the first examples and of all, beyond chance, from which data counts as
# sorted. If a buffer holds one of two equal classes, it is 0.5.
_SORTED = 0.3

# Bytes of a block of a stream.
_AT_ONCE = 1 << 27

# Errors of damaged, truncated or missing files. Errors of a lost worker are others.
_UNREADABLE = (
    tf.errors.DataLossError,
    tf.errors.InvalidArgumentError,
    tf.errors.NotFoundError,
    tf.errors.PermissionDeniedError,
    tf.errors.UnknownError,
    UnicodeDecodeError,  # TensorFlow quotes a broken record, which need not be valid UTF-8.
)


class Split(Protocol):
    """Labelled examples."""

    @property
    def labels(self) -> Any:
        """The labels `(count,)`, int32, in the order of `in_order`."""

    @property
    def count(self) -> int:
        """The number of examples."""

    @property
    def shape(self) -> Any:
        """The shape of the inputs of one example; of several inputs a dictionary of shapes."""

    def at_once(self, most: int) -> int:
        """How many examples a caller may ask `in_order` for at once: `most`, or fewer if they are large."""

    @property
    def weighted(self) -> bool:
        """Whether the examples have weights in the training loss."""

    def block_steps(self, batch_size: int, most: int) -> int:
        """The number of batches per block of `shuffled`; the last block may have fewer."""

    def shuffled(
        self,
        batch_size: int,
        most: int,
        seed: tuple[int, int],
        worker: int = 0,
        workers: int = 1,
        drop_remainder: bool = True,
    ) -> Iterator[Block]:
        """Gives one epoch in a shuffled order, as blocks of whole batches.

        Blocks are `(inputs, labels)`, or `(inputs, labels, weights)` if the split is weighted.

        An incomplete batch at the end of the epoch is dropped, or it is the last block.

        Args:
          batch_size: examples per batch of all workers together.
          most: maximal number of batches per block, for splits that are not in memory.
          seed: determines the order, which does not depend on the number of workers.
          worker, workers: of each batch of n examples, only the rows from worker · n / workers to
            (worker + 1) · n / workers are given, both rounded down.
          drop_remainder: whether an incomplete batch is dropped. One worker alone can keep it.
        """

    def in_order(self, batch_size: int) -> Iterator[Block]:
        """Gives inputs and labels of every example once, in batches; the last may be smaller."""

    def weights(self) -> NDArray[np.float32] | None:
        """The weights `(count,)` of the examples in the order of `in_order`; None without them."""

    def relabelled(self, labels: NDArray[np.int32]) -> "Split":
        """Returns the same examples with other labels `(count,)`, in the order of `in_order`."""

    def chosen(self, members: NDArray[np.bool_]) -> "Split":
        """Returns the examples of which `members` `(count,)` is true, in the order of `in_order`."""

    def data(self) -> Any:
        """Returns the examples as a pair of arrays, or as an unbatched pipeline."""


@dataclasses.dataclass(frozen=True)
class ResidentSplit:
    """A split in the memory of the device; images stay uint8.

    Attributes:
      inputs: `(N, …)`, or a dictionary or tuple of such tensors.
      labels: `(N,)` int32.
      example_weights: `(N,)` float32, the weights in the training loss; None: all 1.
    """

    inputs: Any
    labels: "tf.Tensor"
    example_weights: "tf.Tensor | None" = None

    @classmethod
    def of(
        cls, inputs: Any, labels: NDArray, weights: NDArray[np.float32] | None = None
    ) -> "ResidentSplit":
        """Copies arrays to the device."""
        kept = None if weights is None else tf.constant(weights, tf.float32)
        return cls(tf.nest.map_structure(tf.constant, inputs), tf.constant(labels, tf.int32), kept)

    @property
    def count(self) -> int:
        """The number of examples."""
        return int(self.labels.shape[0])

    @property
    def shape(self) -> Any:
        """The shape of the inputs of one example; of several inputs a dictionary of shapes."""
        return structures.example_shape(self.inputs)

    @property
    def weighted(self) -> bool:
        """Whether the examples have weights."""
        return self.example_weights is not None

    def at_once(self, most: int) -> int:
        """All that are asked for: they are in memory."""
        return most

    def block_steps(self, batch_size: int, most: int) -> int:
        """All whole batches of an epoch, which are one block."""
        return self.count // batch_size

    def shuffled(
        self,
        batch_size: int,
        most: int,
        seed: tuple[int, int],
        worker: int = 0,
        workers: int = 1,
        drop_remainder: bool = True,
    ) -> Iterator[Block]:
        """Gives all whole batches as one block, gathered so that each batch is contiguous in memory."""
        whole = self.count // batch_size * batch_size
        order = _order(self.count, seed)
        batches = order[:whole].reshape(-1, batch_size)
        yield self._gathered(batches[:, share(batch_size, worker, workers)].ravel())
        if whole < self.count and not drop_remainder:
            yield self._gathered(order[whole:])

    def _gathered(self, order: NDArray[np.int64]) -> Block:
        places = tf.constant(order, tf.int32)
        parts = (self.inputs, self.labels, *([self.example_weights] if self.weighted else []))
        block: Block = tf.nest.map_structure(lambda part: tf.gather(part, places), parts)
        return block

    def in_order(self, batch_size: int) -> Iterator[Block]:
        """Gives every example once, in batches; the last batch may be smaller."""
        if self.count <= batch_size:  # nothing to copy
            yield self.inputs, self.labels
            return
        for start in range(0, self.count, batch_size):
            rows = slice(start, start + batch_size)
            yield structures.select(self.inputs, rows), self.labels[rows]

    def weights(self) -> NDArray[np.float32] | None:
        """The weights `(count,)` of the examples; None without them."""
        return None if self.example_weights is None else self.example_weights.numpy()

    def relabelled(self, labels: NDArray[np.int32]) -> "ResidentSplit":
        """Returns the same examples with other labels."""
        return dataclasses.replace(self, labels=tf.constant(labels, tf.int32))

    def chosen(self, members: NDArray[np.bool_]) -> "ResidentSplit":
        """Returns the examples of which `members` is true."""
        return ResidentSplit(*self._gathered(np.flatnonzero(members)))

    def data(self) -> tuple[Any, NDArray]:
        """Returns inputs and labels as arrays."""
        return tf.nest.map_structure(lambda x: x.numpy(), self.inputs), self.labels.numpy()


@dataclasses.dataclass(frozen=True)
class StreamedSplit:
    """A split too large for memory: a `tf.data` pipeline that is read again in every epoch.

    Every worker reads the whole pipeline, since its rows are known only after shuffling. `shuffled`
    and `in_order` raise LotcalError if the pipeline cannot be read any more, or gives another number
    of examples than before.

    Attributes:
      elements: unbatched `(input, label)` pairs or `(input, label, weight)` triples, in the same
        order at every reading.
      labels: `(N,)` int32, those of the examples.
      buffer: examples over which an epoch is shuffled. If it holds all examples, the order is that
        of a `ResidentSplit`.
      decode: makes examples of elements that are small, such as the names of files; None: they are
        examples. All elements are then shuffled, and only those of a part are decoded.
    """

    elements: "tf.data.Dataset"
    labels: NDArray[np.int32]
    buffer: int
    decode: Decode | None = None

    @functools.cached_property
    def examples(self) -> "tf.data.Dataset":
        """The decoded examples."""
        return self.elements if self.decode is None else self.decode(self.elements)

    @property
    def count(self) -> int:
        """The number of examples."""
        return len(self.labels)

    @property
    def shape(self) -> Any:
        """The shape of the inputs of one example; of several inputs a dictionary of shapes."""
        return structures.shape_of(self.examples.element_spec[0])

    @property
    def weighted(self) -> bool:
        """Whether the examples have weights."""
        return len(self.examples.element_spec) > 2

    @property
    def is_sorted(self) -> bool:
        """Whether an epoch stays sorted by class, since the classes of the first buffer are not those of all."""
        if self.decode is not None:
            return False
        first, classes = self.labels[: self.buffer], int(self.labels.max()) + 1
        shares, whole = (np.bincount(x, minlength=classes) / len(x) for x in (first, self.labels))
        # Total variation, beyond what it is for a random buffer: mean absolute deviations of a normal distribution.
        by_chance = np.sqrt(2 / np.pi * whole * (1 - whole) / len(first))
        return bool((np.abs(shares - whole) - by_chance).sum() / 2 > _SORTED)

    def at_once(self, most: int) -> int:
        """As many examples as have 128 MB, but `most` at most."""
        return at_once(self.examples, most)

    def block_steps(self, batch_size: int, most: int) -> int:
        """The number of batches per block: `most`, or fewer if an epoch has fewer or examples are large."""
        steps = min(most, self.count // batch_size)
        return max(1, self.at_once(steps * batch_size) // batch_size)

    def shuffled(
        self,
        batch_size: int,
        most: int,
        seed: tuple[int, int],
        worker: int = 0,
        workers: int = 1,
        drop_remainder: bool = True,
    ) -> Iterator[Block]:
        """Gives one epoch, shuffled over the buffer."""
        rows = share(batch_size, worker, workers)

        def own(part: "tf.Tensor") -> "tf.Tensor":
            shape = part.shape[1:]
            return tf.reshape(tf.reshape(part, [-1, batch_size, *shape])[:, rows], [-1, *shape])

        rest = self.count % batch_size
        left, rest = (self.count - rest, 0) if drop_remainder else (self.count, rest)
        size = self.block_steps(batch_size, most) * batch_size
        for block in self._in_new_order(seed, left, size):
            left -= block[1].shape[0]
            if workers > 1:
                block = tf.nest.map_structure(own, block)
            if left or not rest:
                yield block
                continue
            # The last block holds the incomplete batch, behind whole ones or alone.
            if block[1].shape[0] > rest:
                yield structures.select(block, slice(None, -rest))
            yield structures.select(block, slice(-rest, None))

    def _in_new_order(self, seed: tuple[int, int], count: int, size: int) -> Iterator[Block]:
        """Gives the first `count` examples of a shuffled order, in blocks of `size`."""
        if self.decode is None and self.buffer < self.count:
            examples = self._shuffled_over_buffer(seed).take(count)
            yield from _counted(examples.batch(size), count)
            return
        order, whole = _order(self.count, seed)[:count], self._read()
        if self.decode is not None:
            elements = tf.nest.map_structure(lambda part: part[order], whole)
            examples = self.decode(tf.data.Dataset.from_tensor_slices(elements))
            yield from _counted(examples.batch(size), count)
            return
        for start in range(0, count, size):
            places = order[start : start + size]
            yield tf.nest.map_structure(lambda part, at=places: tf.constant(part[at]), whole)

    def _shuffled_over_buffer(self, seed: tuple[int, int]) -> "tf.data.Dataset":
        """Returns a new pipeline that gives the elements in the order of a shuffle buffer."""
        # `Dataset.shuffle` would mix the global seed of the process into the given seed.
        spec = self.elements.element_spec
        shuffled = tf.raw_ops.ShuffleDataset(
            input_dataset=tf.data.experimental.to_variant(self.elements),
            buffer_size=self.buffer,
            seed=seed[0],
            seed2=seed[1],
            reshuffle_each_iteration=False,
            output_types=[part.dtype for part in tf.nest.flatten(spec)],
            output_shapes=[part.shape for part in tf.nest.flatten(spec)],
        )
        return tf.data.experimental.from_variant(shuffled, spec)

    def _read(self) -> Block:
        """All elements as arrays, of which no second copy is made."""
        whole = tf.nest.map_structure(
            lambda part: np.empty((self.count, *part.shape), part.dtype.as_numpy_dtype),
            self.elements.element_spec,
        )
        start = 0
        for block in _counted(self.elements.batch(at_once(self.elements, 1000)), self.count):
            stop = start + block[1].shape[0]
            for array, part in zip(*map(tf.nest.flatten, (whole, block)), strict=True):
                array[start:stop] = part.numpy()
            start = stop
        return tuple(whole)

    def in_order(self, batch_size: int) -> Iterator[Block]:
        """Gives every example once, in batches; the last batch may be smaller."""
        yield from (block[:2] for block in _counted(self.examples.batch(batch_size), self.count))

    def weights(self) -> NDArray[np.float32] | None:
        """The weights `(count,)` of the examples; None without them."""
        if not self.weighted:
            return None
        weights = self.examples.map(lambda *example: (example[2],)).batch(1000)
        return np.concatenate([block[0].numpy() for block in read_blocks(weights)])

    def relabelled(self, labels: NDArray[np.int32]) -> "StreamedSplit":
        """Returns the same stream with other labels, in the order of the examples."""
        given = tf.data.Dataset.from_tensor_slices(labels)
        elements = tf.data.Dataset.zip((self.elements, given))
        elements = elements.map(lambda old, new: (old[0], new, *old[2:]))
        return dataclasses.replace(self, elements=elements, labels=labels)

    def chosen(self, members: NDArray[np.bool_]) -> "StreamedSplit":
        """Returns the part of the stream of which `members` is true."""
        table = tf.constant(members)
        chosen = self.elements.enumerate().filter(lambda place, _: table[place])
        elements = chosen.map(lambda _, element: element)
        return dataclasses.replace(self, elements=elements, labels=self.labels[members])

    def data(self) -> "tf.data.Dataset":
        """Returns the unbatched pipeline of `(input, label)` pairs."""
        return self.examples.map(lambda *example: example[:2]) if self.weighted else self.examples


@dataclasses.dataclass(frozen=True)
class Part:
    """One split of a data set, for evaluation.

    Attributes:
      classes: number of classes; labels are 0 … classes − 1.
      split: the examples.
      input_range: largest value that inputs can take.
      class_names: the name of each class; empty if they are unknown.
    """

    classes: int
    split: Split
    input_range: float = 1.0
    class_names: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Dataset:
    """The data of a classification task.

    Attributes:
      classes: number of classes; labels are 0 … classes − 1.
      train, validation, test: the splits; test may be None.
      input_range: largest value that inputs can take, by which built-in models divide; None if it is
        unknown.
      truth: true conditionals p*(k | x) of the test examples, `(N, K)`, for labels with the noise of
        the training labels; None if they are unknown.
      noisy_test_labels: `(N,)` test labels with the noise of the training labels; None without noise.
      wrong_labels: share of labels that the noise made wrong, by the name of the split.
      class_names: the name of each class; empty if they are unknown.
      standardised: whether built-in networks shall standardise the features by `statistics`.
      digest: of all examples, for data passed as objects; it does not depend on the seed. Empty: not known.
    """

    classes: int
    train: Split
    validation: Split
    test: Split | None
    input_range: float | None = 1.0
    truth: NDArray[np.float64] | None = None
    noisy_test_labels: NDArray[np.int32] | None = None
    wrong_labels: Mapping[str, float] = dataclasses.field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    standardised: bool = False
    digest: str = ""

    def __post_init__(self) -> None:
        """Checks the names, which exported files hold one per line.

        Raises:
          UsageError: a name is empty or has several lines.
        """
        for name in self.class_names:
            if not is_class_name(name):
                raise UsageError(
                    f"the class name {shown(name)} must be one line of text: change it in the data"
                )

    def named_splits(self) -> dict[str, Split]:
        """The splits by their names `train`, `val` and `test`; a missing test split is left out."""
        splits: dict[str, Split | None]
        splits = {"train": self.train, "val": self.validation, "test": self.test}
        return {name: split for name, split in splits.items() if split is not None}

    @property
    def notes(self) -> list[str]:
        """Messages for the user: classes without training examples, and streams that are sorted by class."""
        found = {name: set(np.unique(s.labels)) for name, s in self.named_splits().items()}
        unknown = sorted(set().union(*found.values()) - found["train"])
        names = ", ".join(self.class_names[k] if self.class_names else str(k) for k in unknown[:5])
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        where = "val or test" if "test" in found else "val"
        problem = f"train has no example of these classes, which {where} has: {names}{more}; no network can learn them"
        notes = [problem] if unknown else []
        if isinstance(self.train, StreamedSplit) and self.train.is_sorted:
            notes.append(
                f"the first {self.train.buffer:,} examples of train have other classes than the rest, so that batches "
                "differ in their classes: shuffle its files or records once, or choose a larger shuffle_buffer"
            )
        return notes

    @property
    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each feature of the training examples, which must be in memory.

        The deviation of a constant is given as 1.
        """
        values = self.train.data()[0].astype(np.float64)
        deviation = values.std(0)
        deviation[deviation == 0] = 1.0
        return tuple(values.mean(0).tolist()), tuple(deviation.tolist())

    @functools.cached_property
    def measured_splits(self) -> dict[str, Split]:
        """The splits that a level is measured on: of more than `TRAIN_SAMPLE` training examples a random sample."""
        splits, count = self.named_splits(), self.train.count
        if count > TRAIN_SAMPLE:
            splits["train"] = self.train.chosen(_drawn(count, TRAIN_SAMPLE, 0, "train_sample"))
        return splits

    def part(self, name: str) -> Part:
        """One split of the data set.

        Args:
          name: `train`, `val` or `test`.

        Raises:
          UsageError: the data set has no such split.
        """
        splits = self.named_splits()
        if name not in splits:
            raise UsageError(f"the data has no {name} split; it has {', '.join(splits)}")
        return Part(self.classes, splits[name], self.input_range or 1.0, self.class_names)


def is_class_name(name: Any) -> bool:
    """Whether a name is one line of text."""
    return isinstance(name, str) and bool(name.strip()) and len(name.splitlines()) == 1


def read_blocks(blocks: "tf.data.Dataset") -> Iterator[Block]:
    """Gives the blocks of a stream.

    Raises:
      LotcalError: files have been damaged since they were checked.
    """
    try:
        yield from blocks.prefetch(1)
    except _UNREADABLE as error:
        raise LotcalError(
            "the data cannot be read any more, although it could be read at the start: "
            f"{first_line(error)}; repair its files, then run the same command again"
        ) from error


def at_once(examples: "tf.data.Dataset", most: int) -> int:
    """How many examples of an unbatched pipeline have `_AT_ONCE` bytes; one at least, and `most` at most."""
    parts = tf.nest.flatten(examples.element_spec[0])
    size = sum(part.shape.num_elements() * part.dtype.size for part in parts)
    return max(1, min(most, _AT_ONCE // max(1, size)))


def _counted(blocks: "tf.data.Dataset", count: int) -> Iterator[Block]:
    """Gives the blocks of a stream of `count` examples.

    Raises:
      LotcalError: it has more or fewer, or see `read_blocks`.
    """
    found = 0
    for block in read_blocks(blocks):
        found += block[1].shape[0]
        if found > count:
            break
        yield block
    if found != count:
        how = "more" if found > count else "fewer"
        raise LotcalError(
            f"the data gave {how} examples when it was read again than the {count:,} that it had at the start: every "
            "reading must give the same ones; repair it, then run the same command again"
        )


def first_line(error: Exception) -> str:
    """The first line of a TensorFlow error, without the names of graph nodes."""
    message = getattr(error, "message", "") or "the record is broken"
    nodes = (
        r"\{\{.*?\}\}|Error in user-defined function .* with iterator: \S+:|\[Op:.*?\]| name: ?$"
    )
    return re.sub(nodes, "", message.splitlines()[0]).strip()


def _order(count: int, seed: tuple[int, int]) -> NDArray[np.int64]:
    """The shuffled order of `count` examples, a function of the seed."""
    return np.random.Generator(np.random.Philox(key=list(seed))).permutation(count)


def share(batch_size: int, worker: int, workers: int) -> slice:
    """The rows of a batch that belong to a worker, see `Split.shuffled`."""
    return slice(worker * batch_size // workers, (worker + 1) * batch_size // workers)


def validation_members(count: int, size: int | None, seed: int) -> NDArray[np.bool_]:
    """Chooses by seed which training examples become validation examples.

    Args:
      count: number of training examples before the split.
      size: number of validation examples; None for a tenth, rounded down, but at least one.
      seed: the experiment's seed.

    Returns:
      `(count,)` boolean, True for `size` validation examples.

    Raises:
      FieldError: `size` leaves no training or no validation example.
    """
    size = max(1, count // 10) if size is None else size
    if not 0 < size < count:
        valid = f"it must be 1 … {count - 1}" if count > 1 else "at least 2 are needed"
        raise FieldError("validation_size", size, f"there are {count} training examples: {valid}")
    return _drawn(count, size, seed, "validation")


def with_train_size(dataset: Dataset, size: int | None, seed: int) -> Dataset:
    """A data set with fewer training examples, drawn by seed. Its other splits stay the same.

    Args:
      dataset: the data set, after the validation split.
      size: number of training examples; None for all.
      seed: the experiment's seed.

    Raises:
      FieldError: there are fewer than `size`, or those drawn have one class only or no weight above 0.
    """
    if size is None:
        return dataset
    count = dataset.train.count
    if size > count:
        problem = f"there are {count} training examples beside the validation examples: it must be 2 … {count}"
        raise FieldError("train_size", size, problem)
    train = dataset.train.chosen(_drawn(count, size, seed, "train"))
    labels, weights = np.asarray(train.labels), train.weights()
    if labels.min() == labels.max() or (weights is not None and not weights.any()):
        problem = "the examples drawn have only one class, or no weight above 0: choose more"
        raise FieldError("train_size", size, problem)
    return dataclasses.replace(dataset, train=train)


def test_members(count: int, size: int | None) -> NDArray[np.bool_]:
    """Chooses test examples from data without a test split: the same for every seed.

    So runs of different seeds are measured on the same examples, and a ticket never meets its test
    examples in training.

    Args:
      count: number of examples.
      size: number of test examples; None for a fifth, rounded down, but at least one.

    Returns:
      `(count,)` boolean, True for `size` test examples.

    Raises:
      FieldError: `size` leaves fewer than two examples for training and validation.
    """
    given, size = size, max(1, count // 5) if size is None else size
    if not 0 < size < count - 1:
        valid = f"it must be 1 … {count - 2}" if count > 2 else "at least 3 are needed"
        raise FieldError("test_size", given or size, f"there are {count} examples: {valid}")
    return _drawn(count, size, 0, "test")


def check_unsized(field: str, size: int | None) -> None:
    """Checks that no size is set for a split that the data brings itself.

    Args:
      field: `validation_size` or `test_size`.
      size: its value.

    Raises:
      FieldError: it is set.
    """
    if size is not None:
        split = field.removesuffix("_size")
        raise FieldError(field, size, f"the data has its own {split} split: leave this out")


def _drawn(count: int, size: int, seed: int, purpose: str) -> NDArray[np.bool_]:
    """`(count,)` boolean, True for `size` random places."""
    members = np.zeros(count, bool)
    members[generator(seed, purpose).permutation(count)[:size]] = True
    return members


def shuffle_seed(seed: int, level: int, epoch: int) -> tuple[int, int]:
    """The seed of the order of one epoch."""
    return named_seed(seed, "shuffle", level, epoch)
