"""Builds a dataset from NumPy arrays or `tf.data` pipelines, and checks every example of it."""

import functools
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lotcal_tf.data.halves import half_members
from lotcal_tf.data.labels import class_number, class_numbers
from lotcal_tf.data.pipelines import Readings, unbatched
from lotcal_tf.data.splits import (
    Dataset,
    Part,
    ResidentSplit,
    Split,
    StreamedSplit,
    first_line,
    validation_members,
)
from lotcal_tf.errors import UsageError

_MB = 1 << 20
_CHECK = 1000  # Examples of a stream that are checked at once.


# TensorFlow quotes a broken record in its message, which then is not valid UTF-8.
_FAILURES = (tf.errors.OpError, UnicodeDecodeError)


class UnreadableExample(UsageError):
    """A pipeline raised an error while it was read.

    Attributes:
      split: name of the split.
      example: number of the first example that cannot be read, from 0.
      reason: why it cannot.
    """

    def __init__(self, split: str, example: int, reason: str) -> None:
        super().__init__(f"{split} cannot be read from example {example} on: {reason}")
        self.split, self.example, self.reason = split, example, reason


def is_pair(data: Any) -> bool:
    """Whether data is a tuple or list of two elements, whatever these are."""
    return isinstance(data, tuple | list) and len(data) == 2


def check_arrays(
    inputs: Any, labels: Any, *, split: str, classes: int, first: int = 0
) -> tuple[NDArray, NDArray]:
    """Checks the arrays of one split.

    Args:
      inputs: `(N, …)` numbers.
      labels: `(N,)`, `(N, 1)` or one-hot, see `class_numbers`.
      split: name of the split, for messages.
      classes: number of classes.
      first: number of the first example, for messages.

    Returns:
      The inputs as uint8 (if they are uint8) or float32, and the labels `(N,)` as int32.

    Raises:
      UsageError: the arrays differ in length or are empty, an input is not finite, or a label is not
        one of the classes.
    """
    inputs, labels = _array(inputs, f"{split} inputs"), _array(labels, f"{split} labels")
    if inputs.dtype.kind not in "uif":
        raise UsageError(f"{split} inputs are of type {inputs.dtype}: numbers are needed")
    if len(inputs) != len(labels):
        raise UsageError(
            f"{split} has {len(inputs)} inputs and {len(labels)} labels: one label per input is needed"
        )
    if not len(labels):
        raise UsageError(f"{split} is empty: at least one example is needed")
    kind = np.uint8 if inputs.dtype == np.uint8 else np.float32
    with np.errstate(over="ignore"):  # Values too large for float32 become infinite.
        inputs = inputs.astype(kind, copy=False)
    if kind is np.float32 and not np.isfinite(inputs).all():
        bad = first + int(np.argmax(~np.isfinite(inputs).reshape(len(inputs), -1).all(1)))
        raise UsageError(
            f"{split} inputs hold NaN or infinity, first in example {bad}: finite float32 numbers are "
            "needed"
        )
    return inputs, class_numbers(labels, split, classes, first)


def _array(given: Any, name: str) -> NDArray:
    """An array with an axis of examples."""
    try:
        array = np.asarray(given)
    except ValueError as error:  # Nested lists of unequal lengths.
        raise UsageError(f"{name} do not form an array: {error}") from error
    if not array.ndim:  # NumPy puts generators, None and datasets into an array without axes.
        raise UsageError(
            f"{name} are of type {type(given).__name__}: an array with one entry per example is needed"
        )
    return array


def from_arrays(
    train: tuple[Any, Any],
    test: tuple[Any, Any] | None,
    validation: tuple[Any, Any] | None = None,
    *,
    classes: int,
    validation_size: int | None,
    seed: int,
    half: str = "whole",
    input_range: float = 1.0,
) -> Dataset:
    """Builds a dataset that stays in memory.

    Args:
      train, test, validation: pairs `(inputs, labels)`, see `check_arrays`. Without `validation`,
        validation examples are drawn from `train` by seed, never from `test`.
      classes: number of classes.
      validation_size, seed: see `validation_members`.
      half: `whole`, or the half of `train` to keep, see `half_members`.
      input_range: largest value that inputs can take.

    Raises:
      UsageError: the data is invalid.
    """
    inputs, labels = check_arrays(*train, split="train", classes=classes)
    if half != "whole":
        chosen = half_members([(inputs, labels)], half)
        inputs, labels = inputs[chosen], labels[chosen]
    if validation is None:
        members = validation_members(len(labels), validation_size, seed)
        kept, cut = (inputs[~members], labels[~members]), (inputs[members], labels[members])
    else:
        kept = inputs, labels
        cut = check_arrays(*validation, split="validation", classes=classes)
    tested = check_arrays(*test, split="test", classes=classes) if test is not None else None
    shapes = {"train": kept, "validation": cut, "test": tested}
    _check_shapes({name: pair[0].shape[1:] for name, pair in shapes.items() if pair is not None})
    return Dataset(
        classes,
        ResidentSplit.of(*kept),
        ResidentSplit.of(*cut),
        ResidentSplit.of(*tested) if tested is not None else None,
        input_range,
    )


def from_pipelines(
    train: "tf.data.Dataset",
    test: "tf.data.Dataset | None",
    validation: "tf.data.Dataset | None" = None,
    *,
    classes: int,
    validation_size: int | None,
    seed: int,
    memory_limit_mb: int,
    shuffle_buffer: int,
    half: str = "whole",
    input_range: float = 1.0,
    shape: Sequence[int | None] | None = None,
    repeats: bool = True,
) -> Dataset:
    """Builds a dataset from `tf.data` pipelines of `(input, label)` pairs, single or in batches.

    Every pipeline is read once to check its examples. The dataset stays in memory if all inputs
    together fit into `memory_limit_mb`, otherwise it streams. A pipeline must give the same examples
    in the same order every time it is read.

    Args:
      train, test, validation: pipelines; without `validation`, validation examples are drawn from
        `train` by seed.
      memory_limit_mb: in units of 2**20 bytes.
      shuffle_buffer: examples over which a streamed epoch is shuffled.
      classes, validation_size, seed, half, input_range: see `from_arrays`.
      shape: the shape of one input of the model, see `unbatched`; None: unknown.
      repeats: whether the pipelines are known to give the same at every reading. Otherwise they are
        read twice to compare; of data that fits into memory, the second reading ends after one block.

    Raises:
      UsageError: the data is invalid, or a pipeline raised an error (UnreadableExample).
    """
    train, validation, test = (
        None if data is None else unbatched(data, name, classes, shape)
        for name, data in (("train", train), ("validation", validation), ("test", test))
    )
    given = {"train": train, "validation": validation, "test": test}
    counts, pairs, room = dict[str, int](), dict[str, Any](), memory_limit_mb * _MB
    readings = {} if repeats else {n: Readings() for n, data in given.items() if data is not None}
    for name, data in given.items():
        pairs[name] = None
        if data is not None:
            counts[name], pairs[name], room = _read(data, name, classes, room, readings.get(name))
    for name, first in readings.items():
        _check_repeats(given[name], name, first, whole=room < 0)
    _check_shapes({name: tuple(given[name].element_spec[0].shape) for name in counts})
    if room >= 0:
        return from_arrays(
            pairs["train"],
            pairs["test"],
            pairs["validation"],
            classes=classes,
            validation_size=validation_size,
            seed=seed,
            half=half,
            input_range=input_range,
        )
    pairs.clear()
    streamed = functools.partial(_streamed, shuffle_buffer=shuffle_buffer)
    count = counts["train"]
    if half != "whole":
        blocks = train.map(_typed).batch(_CHECK).as_numpy_iterator()
        train, count = _members(train, half_members(blocks, half))
    if validation is None:
        members = validation_members(count, validation_size, seed)
        kept, cut = streamed(*_members(train, ~members)), streamed(*_members(train, members))
    else:
        kept, cut = streamed(train, count), streamed(validation, counts["validation"])
    tested = streamed(test, counts["test"]) if test is not None else None
    return Dataset(classes, kept, cut, tested, input_range)


def part_of_test(
    test: Any,
    *,
    classes: int,
    split: str = "test",
    memory_limit_mb: int = 2048,
    shuffle_buffer: int = 1,
    input_range: float = 1.0,
    shape: Sequence[int | None] | None = None,
    repeats: bool = True,
) -> Part:
    """Builds one split without the others, from arrays or a pipeline.

    Args:
      test: a pair `(inputs, labels)`, or a `tf.data` pipeline of such pairs, single or in batches.
      split: name of the split, for messages.
      classes, memory_limit_mb, shuffle_buffer, input_range, shape, repeats: see `from_pipelines`.

    Raises:
      UsageError: the data is invalid.
    """
    if isinstance(test, tf.data.Dataset):
        test = unbatched(test, split, classes, shape)
        first = None if repeats else Readings()
        count, pair, room = _read(test, split, classes, memory_limit_mb * _MB, first)
        if first is not None:
            _check_repeats(test, split, first, whole=room < 0)
        if pair is None:
            return Part(classes, _streamed(test, count, shuffle_buffer), input_range)
    else:
        pair = check_arrays(*test, split=split, classes=classes)
    return Part(classes, ResidentSplit.of(*pair), input_range)


def fingerprint(dataset: Dataset) -> str:
    """A digest of all examples of a dataset; it identifies data without a name."""
    digest = hashlib.sha256()
    for name, split in dataset.named_splits().items():
        digest.update(name.encode())
        for inputs, labels in split.in_order(_CHECK):
            digest.update(inputs.numpy().tobytes())
            digest.update(labels.numpy().tobytes())
    return digest.hexdigest()[:10]


def _check_shapes(shapes: dict[str, tuple[int, ...]]) -> None:
    """Raises UsageError if the inputs of a split differ in shape from those of train."""
    for split, shape in shapes.items():
        if shape != shapes["train"]:
            raise UsageError(
                f"{split} inputs have shape {shape} per example: {shapes['train']} is needed, as in train"
            )


def _read(
    data: "tf.data.Dataset", split: str, classes: int, room: int, readings: Readings | None
) -> tuple[int, tuple[NDArray, NDArray] | None, int]:
    """Reads a pipeline and checks every example.

    Args:
      data: the pipeline, see `unbatched`.
      split, classes: see `check_arrays`.
      room: bytes of inputs that may be kept.
      readings: gets the digests of the examples; None: they are not needed.

    Returns:
      The number of examples; the arrays, or None if they did not fit; the bytes left, below 0 if
      they did not fit.
    """
    count = 0
    kept: list[tuple[NDArray, NDArray]] = []
    try:
        for inputs, labels in _blocks(data):
            block = check_arrays(inputs, labels, split=split, classes=classes, first=count)
            count, room = count + len(block[0]), room - block[0].nbytes
            kept = [*kept, block] if room >= 0 else []
            if readings is not None:
                readings.add(inputs, labels)
    except _FAILURES as error:
        raise UnreadableExample(split, _failing(data, count), first_line(error)) from error
    if not count:
        raise UsageError(f"{split} is empty: at least one example is needed")
    if room < 0:
        return count, None, room
    arrays = (
        np.concatenate([block[0] for block in kept]),
        np.concatenate([block[1] for block in kept]),
    )
    return count, arrays, room


def _check_repeats(data: "tf.data.Dataset", split: str, readings: Readings, *, whole: bool) -> None:
    """Reads a pipeline again and compares, see `Readings.check`."""
    try:
        readings.check(_blocks(data), split, whole)
    except _FAILURES as error:
        raise UnreadableExample(split, _failing(data, 0), first_line(error)) from error


def _blocks(data: "tf.data.Dataset") -> Iterator[tuple[NDArray, NDArray]]:
    """The examples of a pipeline in order, as arrays."""
    for inputs, labels in data.batch(_CHECK).prefetch(1):
        yield inputs.numpy(), labels.numpy()


def _failing(data: "tf.data.Dataset", first: int) -> int:
    """The number of the example at which a pipeline fails; `first` if it does not fail again."""
    count = 0
    try:
        for _ in data:
            count += 1
    except _FAILURES:
        return count
    return first


def _members(data: "tf.data.Dataset", members: NDArray[np.bool_]) -> tuple["tf.data.Dataset", int]:
    table = tf.constant(members)
    chosen = data.enumerate().filter(lambda place, _: table[place]).map(lambda _, example: example)
    return chosen, int(members.sum())


def _streamed(data: "tf.data.Dataset", count: int, shuffle_buffer: int) -> Split:
    return StreamedSplit(data.map(_typed, num_parallel_calls=2), count, shuffle_buffer)


def _typed(inputs: "tf.Tensor", label: "tf.Tensor") -> tuple["tf.Tensor", "tf.Tensor"]:
    inputs = inputs if inputs.dtype == tf.uint8 else tf.cast(inputs, tf.float32)
    return inputs, class_number(label)
