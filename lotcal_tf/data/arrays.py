"""A dataset from NumPy arrays or `tf.data` pipelines, checked before anything is made of it."""

import hashlib
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lotcal_tf.data.halves import half_members
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
_CHECK = 1000  # examples of a stream that are looked at together


# A broken record is quoted in TensorFlow's message, which then is no text.
_FAILURES = (tf.errors.OpError, UnicodeDecodeError)


class UnreadableExample(UsageError):
    """A pipeline fails.

    Attributes:
      split, example: where; examples count from 0.
    """

    def __init__(self, split: str, example: int, reason: str) -> None:
        """Builds the line that says where and why."""
        super().__init__(f"{split} cannot be read from example {example} on: {reason}")
        self.split, self.example = split, example


def is_pair(data: Any) -> bool:
    """Whether data are two of something, as `(inputs, labels)` are; what these hold is not looked at."""
    return isinstance(data, tuple | list) and len(data) == 2


def check_arrays(
    inputs: Any, labels: Any, *, split: str, classes: int, first: int = 0
) -> tuple[NDArray, NDArray]:
    """Checks one split's arrays.

    Args:
      inputs: `(N, …)` numbers.
      labels: `(N,)` whole numbers in [0, classes); `(N, 1)` is taken as `(N,)`.
      split: its name, for messages.
      classes: how many.
      first: the number of the first example, for messages.

    Returns:
      The inputs as uint8 or float32, the labels as int32.

    Raises:
      UsageError: lengths differ, the split is empty, a value is not finite, a label is no class.
    """
    try:
        inputs, labels = np.asarray(inputs), np.asarray(labels)
    except ValueError as error:
        raise UsageError(f"{split} is no pair of arrays: {error}") from error
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise UsageError(
            f"{split} labels have shape {labels.shape}: one whole number an example is needed "
            "(one-hot labels: labels.argmax(-1))"
        )
    # Before their number is asked for: None or a generator becomes an array that has none.
    if inputs.dtype.kind not in "uif":
        raise UsageError(f"{split} inputs are of type {inputs.dtype}: numbers are needed")
    if len(inputs) != len(labels):
        raise UsageError(
            f"{split} has {len(inputs)} inputs and {len(labels)} labels: they must be as many"
        )
    if not len(labels):
        raise UsageError(f"{split} is empty")
    kind = np.uint8 if inputs.dtype == np.uint8 else np.float32
    with np.errstate(over="ignore"):  # What float32 cannot hold is infinity, and told as such.
        inputs = inputs.astype(kind, copy=False)
    if kind is np.float32 and not np.isfinite(inputs).all():  # Bytes always are.
        bad = first + int(np.argmax(~np.isfinite(inputs).reshape(len(inputs), -1).all(1)))
        raise UsageError(f"{split} inputs hold NaN or infinity, first in example {bad}")
    if labels.dtype.kind not in "buif" or not np.array_equal(labels, np.floor(labels)):
        raise UsageError(f"{split} labels are of type {labels.dtype}: whole numbers are needed")
    if labels.min() < 0 or labels.max() >= classes:
        bad = labels[(labels < 0) | (labels >= classes)][0]
        raise UsageError(f"{split} has a label {bad}: labels must be 0 … {classes - 1}")
    return inputs, labels.astype(np.int32)


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
    """A dataset that stays in memory.

    Args:
      train, test, validation: pairs of inputs and labels, see `check_arrays`. Without validation
        it is cut from train by seed; never from test.
      classes: how many.
      validation_size, seed: see `validation_members`.
      half: `whole`, or the half of train that is kept, see `half_members`.
      input_range: the largest value inputs can take.

    Raises:
      UsageError: the data are not what they should be.
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
) -> Dataset:
    """A dataset from unbatched `tf.data` pipelines of `(input, label)`; read once to check them.

    What fits into `memory_limit_mb` is kept in memory; anything larger streams. A pipeline must
    give the same examples in the same order each time it is read. The rest: see `from_arrays`.

    Raises:
      UnreadableExample: a pipeline fails.
      UsageError: the data are not what they should be.
    """
    given = {"train": train, "validation": validation, "test": test}
    counts: dict[str, int] = {}
    pairs: dict[str, Any] = {}
    room = memory_limit_mb * _MB
    for name, data in given.items():
        pairs[name] = None
        if data is not None:
            counts[name], pairs[name], room = _read(data, name, classes, room)
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

    def streamed(data: "tf.data.Dataset", count: int) -> Split:
        return _streamed(data, count, shuffle_buffer)

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
) -> Part:
    """One split without the others: arrays or a pipeline, checked as above.

    Args:
      test: a pair of inputs and labels, or an unbatched `tf.data` pipeline of such pairs.
      split: its name, for messages.
      classes, memory_limit_mb, shuffle_buffer, input_range: see `from_pipelines`.

    Raises:
      UsageError: the data is invalid.
    """
    if isinstance(test, tf.data.Dataset):
        count, pair, _ = _read(test, split, classes, memory_limit_mb * _MB)
        if pair is None:
            return Part(classes, _streamed(test, count, shuffle_buffer), input_range)
    elif is_pair(test):
        pair = check_arrays(*test, split=split, classes=classes)
    else:
        raise UsageError(f"{split} must be a pair (inputs, labels), or a tf.data pipeline")
    return Part(classes, ResidentSplit.of(*pair), input_range)


def fingerprint(dataset: Dataset) -> str:
    """A digest of every example of a dataset: what identifies data that has no name."""
    digest = hashlib.sha256()
    for name, split in dataset.named_splits().items():
        digest.update(name.encode())
        for inputs, labels in split.in_order(_CHECK):
            digest.update(inputs.numpy().tobytes())
            digest.update(labels.numpy().tobytes())
    return digest.hexdigest()[:10]


def _check_shapes(shapes: dict[str, tuple[int, ...]]) -> None:
    """Raises UsageError where a split's examples have another shape than train's."""
    for split, shape in shapes.items():
        if shape != shapes["train"]:
            raise UsageError(
                f"{split} inputs have shape {shape} an example, train {shapes['train']}"
            )


def _read(
    data: "tf.data.Dataset", split: str, classes: int, room: int
) -> tuple[int, tuple[NDArray, NDArray] | None, int]:
    """Reads a pipeline once, checking every example.

    Args:
      data, split, classes: see `check_arrays`.
      room: bytes that may be kept.

    Returns:
      How many examples there are; the arrays, None where they did not fit; the room left, below 0
      where they did not fit.
    """
    spec = data.element_spec
    tensors = isinstance(spec, tuple) and all(isinstance(part, tf.TensorSpec) for part in spec)
    if not (tensors and len(spec) == 2 and spec[1].shape.rank == 0):
        raise UsageError(
            f"the {split} pipeline gives {spec}: unbatched (input, label) pairs are needed "
            "(dataset.unbatch())"
        )
    if not spec[0].shape.is_fully_defined():
        raise UsageError(
            f"the {split} pipeline's inputs have shape {spec[0].shape}: a full one is needed"
        )
    if data.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise UsageError(f"the {split} pipeline never ends: leave out its repeat()")
    count = 0
    kept: list[tuple[NDArray, NDArray]] = []
    try:
        for inputs, labels in data.batch(_CHECK).prefetch(1):
            block = check_arrays(
                inputs.numpy(), labels.numpy(), split=split, classes=classes, first=count
            )
            count, room = count + len(block[0]), room - block[0].nbytes
            kept = [*kept, block] if room >= 0 else []
    except _FAILURES as error:
        raise UnreadableExample(split, _failing(data, count), first_line(error)) from error
    if not count:
        raise UsageError(f"{split} is empty")
    if room < 0:
        return count, None, room
    arrays = (
        np.concatenate([block[0] for block in kept]),
        np.concatenate([block[1] for block in kept]),
    )
    return count, arrays, room


def _failing(data: "tf.data.Dataset", first: int) -> int:
    """The number of the example a pipeline fails at; `first` where it does not fail again."""
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
    return inputs, tf.cast(label, tf.int32)
