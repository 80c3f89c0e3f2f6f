"""Builds a dataset from NumPy arrays or `tf.data` pipelines, and checks every example of it."""

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lotcal_tf.data.halves import half_members
from lotcal_tf.data.input_arrays import array_of, checked_inputs, kept_tensors
from lotcal_tf.data.labels import class_number, class_numbers
from lotcal_tf.data.pipelines import Readings, unbatched
from lotcal_tf.data.splits import (
    Dataset,
    Decode,
    Part,
    ResidentSplit,
    StreamedSplit,
    at_once,
    check_unsized,
    first_line,
    read_blocks,
    validation_members,
)
from lotcal_tf.data.subsets import check_known, of_classes, of_classes_streamed
from lotcal_tf.data.weights import check_some, checked_weights
from lotcal_tf.errors import UsageError
from lotcal_tf.inputs import Specs, arranged, concatenated, flat, select, shape_of

_MB = 1 << 20
_CHECK = 1000  # Examples of a stream that are checked at once.
# The splits that were read last, by the key of their data: a further run in this process needs them again.
_last_read: dict[str, dict[str, Any]] = {}
_KEPT_MB = 512  # larger data is read again


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


def check_arrays(
    inputs: Any,
    labels: Any,
    *,
    split: str,
    classes: int,
    first: int = 0,
    takes: Specs | None = None,
    ordered: bool = True,
) -> tuple[Any, NDArray]:
    """Checks the arrays of one split.

    Args:
      inputs: `(N, …)` numbers, or a dictionary or tuple of them, see `input_arrays`.
      labels: `(N,)`, `(N, 1)` or one-hot, see `class_numbers`.
      split: name of the split, for messages.
      classes: number of classes.
      first: number of the first example, for messages.
      takes, ordered: what the model takes, see `checked_inputs`.

    Returns:
      The inputs in the types in which data is kept, and the labels `(N,)` as int32.

    Raises:
      UsageError: the arrays differ in length or are empty, an input is not finite, or a label is not
        one of the classes.
    """
    inputs = checked_inputs(inputs, split, takes, first=first, ordered=ordered)
    labels = array_of(labels, f"{split} labels")
    examples = len(flat(inputs)[0][1])
    if examples != len(labels):
        raise UsageError(
            f"{split} has {examples} inputs and {len(labels)} labels: one label per input is needed"
        )
    if not len(labels):
        raise UsageError(f"{split} is empty: at least one example is needed")
    return inputs, class_numbers(labels, split, classes, first)


def from_arrays(
    train: tuple[Any, ...],
    test: tuple[Any, ...] | None,
    validation: tuple[Any, ...] | None = None,
    *,
    classes: int,
    validation_size: int | None,
    seed: int,
    half: str = "whole",
    subset: Sequence[int] = (),
    input_range: float = 1.0,
    takes: Specs | None = None,
    identified: bool = False,
) -> Dataset:
    """Builds a dataset that stays in memory.

    Args:
      train, test, validation: pairs `(inputs, labels)`, see `check_arrays`. Without `validation`,
        validation examples are drawn from `train` by seed, never from `test`. `train` may be a
        triple `(inputs, labels, weights)`: weights in the training loss, see `checked_weights`.
      classes: number of classes.
      validation_size, seed: see `validation_members`.
      half: `whole`, or the half of `train` to keep, see `half_members`.
      subset: the classes to keep, see `of_classes`; empty: all.
      input_range: largest value that inputs can take.
      takes: what the model takes; None: one input, kept as uint8 or float32.
      identified: whether to set the dataset's `digest`.

    Raises:
      UsageError: the data is invalid.
    """
    check_known(subset, classes)

    def checked(given: tuple[Any, ...], split: str) -> tuple[Any, ...]:
        examples = _checked_examples(given, split, classes=classes, takes=takes)
        return of_classes(examples, subset, split)

    whole = checked(train, "train")
    if half != "whole":
        whole = _rows(whole, half_members([whole[:2]], half))
    given = {"validation": validation, "test": test}
    others = {name: checked(pair, name) for name, pair in given.items() if pair is not None}
    if "validation" in others:
        check_unsized("validation_size", validation_size)
        kept, cut = whole, others["validation"]
    else:
        members = validation_members(len(whole[1]), validation_size, seed)
        kept, cut = _rows(whole, ~members), _rows(whole, members)
    _check_trainable(*kept[1:])
    train_split, validation_split = ResidentSplit.of(*kept), ResidentSplit.of(*cut[:2])
    tested = ResidentSplit.of(*others["test"]) if "test" in others else None
    splits = {"train": train_split, "validation": validation_split, "test": tested}
    _check_shapes({name: split.shape for name, split in splits.items() if split is not None})
    digest = ""
    if identified:
        parts = {"train": whole, **others}
        digest = _digest({name: _in_blocks(part) for name, part in parts.items()})
    count = len(subset) or classes
    return Dataset(count, train_split, validation_split, tested, input_range, digest=digest)


def _checked_examples(
    given: tuple[Any, ...], split: str, *, classes: int, takes: Specs | None, first: int = 0
) -> tuple[Any, ...]:
    """Checks inputs and labels, and the weights of training data, if there are any.

    Raises:
      UsageError: see `check_arrays` and `checked_weights`; or another split has weights.
    """
    inputs, labels, *weights = given
    if weights and split != "train":
        raise UsageError(
            f"{split} has sample weights: only train takes them, since metrics are not weighted; pass "
            "(inputs, labels)"
        )
    pair = check_arrays(inputs, labels, split=split, classes=classes, first=first, takes=takes)
    return (*pair, *(checked_weights(w, len(pair[1]), split, first) for w in weights))


def _check_trainable(labels: NDArray[np.int32], weights: NDArray | None = None) -> None:
    """Raises UsageError if the training examples have one class only, or no weight above 0."""
    if weights is not None:
        check_some(weights, "train")
    if labels.min() == labels.max():
        raise UsageError(f"train has only the class {labels[0]}: at least 2 classes are needed")


def _rows(examples: tuple[Any, ...], chosen: NDArray[np.bool_] | slice) -> tuple[Any, ...]:
    return tuple(select(part, chosen) for part in examples)


def _in_blocks(examples: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """The examples in blocks, as streams are read."""
    for first in range(0, len(examples[1]), _CHECK):
        yield _rows(examples, slice(first, first + _CHECK))


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
    subset: Sequence[int] = (),
    input_range: float = 1.0,
    takes: Specs | None = None,
    repeats: bool = True,
    key: str | None = None,
    identified: bool = False,
    decode: Decode | None = None,
) -> Dataset:
    """Builds a dataset from `tf.data` pipelines of `(input, label)` pairs, single or in batches.

    `train` may give `(input, label, weight)` triples. Every pipeline is read once to check its examples.
    The dataset stays in memory if all inputs together fit into `memory_limit_mb`, otherwise it streams. A
    pipeline must give the same examples in the same order every time it is read.

    Args:
      train, test, validation: pipelines; without `validation`, it is drawn from `train` by seed.
      memory_limit_mb: in units of 2**20 bytes.
      shuffle_buffer: examples over which a streamed epoch is shuffled.
      classes, validation_size, seed, half, subset, input_range, takes, identified: see `from_arrays`.
      repeats: whether the pipelines are known to give the same at every reading. Otherwise they are
        read twice to compare; of data that fits into memory, the second reading ends after one block.
      decode: makes examples of the elements of the pipelines, see `StreamedSplit`; these are single then.
      key: identifies the data. What was read last stays in memory, and a call with the same key does
        not read it again. None: it does not stay.

    Raises:
      UsageError: the data is invalid, or a pipeline raised an error (UnreadableExample).
    """
    check_known(subset, classes)
    elements = {"train": train, "validation": validation, "test": test}
    given = {
        name: None
        if data is None
        else unbatched(decode(data) if decode else data, name, classes, takes)
        for name, data in elements.items()
    }
    options: dict[str, Any] = {
        "classes": classes,
        "validation_size": validation_size,
        "seed": seed,
        "half": half,
        "subset": subset,
        "input_range": input_range,
        "takes": takes,
        "identified": identified,
    }
    if key in _last_read and _bytes(_last_read[key]) <= memory_limit_mb * _MB:
        return from_arrays(**_last_read[key], **options)
    labels, pairs = _read_all(given, classes, memory_limit_mb * _MB, repeats, takes)
    if pairs is None:
        streams = elements if decode else given
        return _from_streams(streams, labels, shuffle_buffer, decode=decode, **options)
    _last_read.clear()
    if key is not None and _bytes(pairs) <= _KEPT_MB * _MB:
        _last_read[key] = pairs
    return from_arrays(**pairs, **options)


def _read_all(
    given: Mapping[str, Any], classes: int, room: int, repeats: bool, takes: Specs | None
) -> tuple[dict[str, NDArray[np.int32]], dict[str, Any] | None]:
    """Reads and checks all pipelines.

    Returns:
      The labels of each, and their arrays; None if these need more than `room` bytes.
    """
    labels, pairs = dict[str, NDArray[np.int32]](), dict[str, Any]()
    readings = {} if repeats else {n: Readings() for n, data in given.items() if data is not None}
    for name, data in given.items():
        pairs[name] = None
        if data is not None:
            first = readings.get(name)
            labels[name], pairs[name], room = _read(data, name, classes, room, first, takes)
    for name, first in readings.items():
        _check_repeats(given[name], name, first, whole=room < 0)
    _check_shapes({name: _example_shape(given[name], takes) for name in labels})
    return labels, pairs if room >= 0 else None


def _from_streams(
    given: Mapping[str, Any],
    labels: Mapping[str, NDArray[np.int32]],
    shuffle_buffer: int,
    *,
    classes: int,
    validation_size: int | None,
    seed: int,
    half: str,
    subset: Sequence[int],
    input_range: float,
    takes: Specs | None,
    identified: bool,
    decode: Decode | None,
) -> Dataset:
    """A dataset of checked pipelines that do not fit into memory; `labels` are those of their examples."""
    splits = {
        name: _streamed(given[name], own, name, subset, shuffle_buffer, takes, decode)
        for name, own in labels.items()
    }
    if half != "whole":
        pairs = (block[:2] for block in _arrays(splits["train"]))
        splits["train"] = splits["train"].chosen(half_members(pairs, half))
    train = splits["train"]
    if "validation" in splits:
        check_unsized("validation_size", validation_size)
        kept, cut = train, splits["validation"]
    else:
        members = validation_members(train.count, validation_size, seed)
        kept, cut = train.chosen(~members), train.chosen(members)
        if cut.weighted:
            cut = dataclasses.replace(cut, elements=cut.data())  # without weights
    _check_trainable(kept.labels, kept.weights())
    tested = splits.get("test")
    digest = _digest({name: _arrays(split) for name, split in splits.items()}) if identified else ""
    return Dataset(len(subset) or classes, kept, cut, tested, input_range, digest=digest)


def _arrays(split: StreamedSplit) -> Iterator[tuple[Any, ...]]:
    """The examples of a stream, with their weights, in blocks of arrays."""
    for block in read_blocks(split.examples.batch(_CHECK)):
        yield tf.nest.map_structure(lambda x: x.numpy(), block)


def _bytes(pairs: Mapping[str, Any]) -> int:
    """The size of the inputs of all splits."""
    return sum(x.nbytes for pair in pairs.values() if pair for _, x in flat(pair[0]))


def part_of_test(
    test: Any,
    *,
    classes: int,
    split: str = "test",
    memory_limit_mb: int = 2048,
    shuffle_buffer: int = 1,
    subset: Sequence[int] = (),
    input_range: float = 1.0,
    takes: Specs | None = None,
    ordered: bool = True,
    repeats: bool = True,
) -> Part:
    """Builds one split without the others, from arrays or a pipeline.

    Args:
      test: a pair `(inputs, labels)`, or a `tf.data` pipeline of such pairs, single or in batches.
      split: name of the split, for messages.
      classes, memory_limit_mb, shuffle_buffer, subset, input_range, repeats: see `from_pipelines`.
      takes, ordered: what the model takes, see `checked_inputs`.

    Raises:
      UsageError: the data is invalid.
    """
    check_known(subset, classes)
    kept = len(subset) or classes
    streamed = isinstance(test, tf.data.Dataset)
    elements = test.element_spec if streamed else test
    if isinstance(elements, tuple | list) and len(elements) == 3:
        remedy = "dataset.map(lambda x, y, weight: (x, y))" if streamed else "pass (inputs, labels)"
        raise UsageError(
            f"{split} has sample weights, which only the train data of find_tickets takes: {remedy}"
        )
    if streamed:
        test = unbatched(test, split, classes, takes, ordered=ordered)
        first = None if repeats else Readings()
        labels, pair, room = _read(test, split, classes, memory_limit_mb * _MB, first, takes)
        if first is not None:
            _check_repeats(test, split, first, whole=room < 0)
        if pair is None:
            stream = _streamed(test, labels, split, subset, shuffle_buffer, takes)
            return Part(kept, stream, input_range)
    else:
        pair = check_arrays(*test, split=split, classes=classes, takes=takes, ordered=ordered)
    return Part(kept, ResidentSplit.of(*of_classes(pair, subset, split)), input_range)


def _digest(parts: Mapping[str, Iterable[tuple[Any, ...]]]) -> str:
    """A digest of all examples in their order, given in blocks of `_CHECK` by the name of their split.

    It identifies data without a name. It does not depend on the seed, since it is taken before
    validation examples are drawn.
    """
    digest = hashlib.sha256()
    for name, blocks in parts.items():
        digest.update(name.encode())
        for inputs, labels, *weights in blocks:
            for key, values in flat(inputs):
                digest.update(key.encode() + values.tobytes())
            digest.update(labels.tobytes())
            for weight in weights:
                digest.update(b"weights" + weight.tobytes())
    return digest.hexdigest()[:10]


def _example_shape(data: "tf.data.Dataset", takes: Specs | None) -> Any:
    return shape_of(arranged(data.element_spec[0], takes, "inputs"))


def _check_shapes(shapes: dict[str, Any]) -> None:
    """Raises UsageError if the inputs of a split differ in form or shape from those of train."""
    for split, shape in shapes.items():
        form, needed = _form(shape), _form(shapes["train"])
        if form != needed:
            raise UsageError(
                f"{split} inputs are {form}, and train inputs {needed}: pass both in the same form"
            )
        if shape != shapes["train"]:
            raise UsageError(
                f"{split} inputs have shape {shape} per example: {shapes['train']} is needed, as in train"
            )


def _form(shape: Any) -> str:
    """Whether inputs were given by name or in order, from their `shape_of`."""
    if not isinstance(shape, dict):
        return "an array"
    names = ", ".join(map(repr, shape))
    in_order = list(shape) == list(map(str, range(len(shape))))
    return f"a tuple of {len(shape)}" if in_order else f"a dictionary with the names {names}"


def _read(
    data: "tf.data.Dataset",
    split: str,
    classes: int,
    room: int,
    readings: Readings | None,
    takes: Specs | None = None,
) -> tuple[NDArray[np.int32], tuple[Any, ...] | None, int]:
    """Reads a pipeline and checks every example.

    Args:
      data: the pipeline, see `unbatched`.
      split, classes, takes: see `check_arrays`.
      room: bytes of inputs that may be kept.
      readings: gets the digests of the examples; None: they are not needed.

    Returns:
      The labels; the arrays, or None if they did not fit; the bytes left, below 0 if they did not fit.
    """
    count, labels = 0, list[NDArray[np.int32]]()
    kept: list[tuple[Any, ...]] = []
    try:
        for given in _blocks(data):
            block = _checked_examples(given, split, classes=classes, takes=takes, first=count)
            count += len(block[1])
            labels.append(block[1])
            room -= sum(x.nbytes for _, x in flat(block[0]))
            kept = [*kept, block] if room >= 0 else []
            if readings is not None:
                readings.add(given)
    except _FAILURES as error:
        raise UnreadableExample(split, _failing(data, count), first_line(error)) from error
    if not count:
        raise UsageError(f"{split} is empty: at least one example is needed")
    found = np.concatenate(labels)
    if room < 0:
        return found, None, room
    return found, tuple(concatenated(list(parts)) for parts in zip(*kept, strict=True)), room


def _check_repeats(data: "tf.data.Dataset", split: str, readings: Readings, *, whole: bool) -> None:
    """Reads a pipeline again and compares, see `Readings.check`."""
    try:
        readings.check(_blocks(data), split, whole)
    except _FAILURES as error:
        raise UnreadableExample(split, _failing(data, 0), first_line(error)) from error


def _blocks(data: "tf.data.Dataset") -> Iterator[tuple[Any, ...]]:
    """The examples of a pipeline in order, as arrays."""
    for batch in data.batch(at_once(data, _CHECK)).prefetch(1):
        yield tf.nest.map_structure(lambda x: x.numpy(), batch)


def _failing(data: "tf.data.Dataset", first: int) -> int:
    """The number of the example at which a pipeline fails; `first` if it does not fail again."""
    count = 0
    try:
        for _ in data:
            count += 1
    except _FAILURES:
        return count
    return first


def _streamed(
    data: "tf.data.Dataset",
    labels: NDArray[np.int32],
    split: str,
    subset: Sequence[int],
    shuffle_buffer: int,
    takes: Specs | None,
    decode: Decode | None = None,
) -> StreamedSplit:
    """The split of a checked pipeline with these labels; of some classes only if `subset` names them."""
    if subset:
        data, labels = of_classes_streamed(data, labels, subset, split)

    def typed(examples: "tf.data.Dataset") -> "tf.data.Dataset":
        return examples.map(functools.partial(_typed, takes=takes), num_parallel_calls=2)

    if decode is None:
        return StreamedSplit(typed(data), labels, shuffle_buffer)
    return StreamedSplit(data, labels, shuffle_buffer, lambda elements: typed(decode(elements)))


def _typed(
    inputs: Any, label: "tf.Tensor", *weights: "tf.Tensor", takes: Specs | None = None
) -> tuple[Any, ...]:
    """An example in the types in which data is kept."""
    weight = (tf.reshape(tf.cast(w, tf.float32), []) for w in weights)
    return kept_tensors(inputs, takes), class_number(label), *weight
