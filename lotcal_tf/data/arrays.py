"""Builds a dataset from NumPy arrays or `tf.data` pipelines, and checks every example of it."""

import dataclasses
import functools
import hashlib
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lotcal_tf.data.halves import half_members
from lotcal_tf.data.input_arrays import array_of, checked_inputs, kept_tensors
from lotcal_tf.data.splits import (
    Dataset,
    Part,
    ResidentSplit,
    StreamedSplit,
    first_line,
    validation_members,
)
from lotcal_tf.data.weights import check_some, checked_weights
from lotcal_tf.errors import UsageError
from lotcal_tf.inputs import Specs, arranged, concatenated, flat, select, shape_of

_MB = 1 << 20
_CHECK = 1000  # Examples of a stream that are checked at once.


# TensorFlow quotes a broken record in its message, which then is not valid UTF-8.
_FAILURES = (tf.errors.OpError, UnicodeDecodeError)


class UnreadableExample(UsageError):
    """A pipeline raised an error while it was read.

    Attributes:
      split: name of the split.
      example: number of the first example that cannot be read, from 0.
    """

    def __init__(self, split: str, example: int, reason: str) -> None:
        super().__init__(f"{split} cannot be read from example {example} on: {reason}")
        self.split, self.example = split, example


def is_pair(data: Any) -> bool:
    """Whether data is a tuple or list of two elements, whatever these are."""
    return isinstance(data, tuple | list) and len(data) == 2


def is_examples(data: Any) -> bool:
    """Whether data is `(inputs, labels)` or `(inputs, labels, weights)`, whatever these are."""
    return isinstance(data, tuple | list) and len(data) in (2, 3)


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
      labels: `(N,)` integers in [0, classes); `(N, 1)` is accepted too.
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
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise UsageError(
            f"{split} labels have shape {labels.shape}: shape (N,) with one integer per example is "
            "needed; of one-hot labels take labels.argmax(-1)"
        )
    examples = len(flat(inputs)[0][1])
    if examples != len(labels):
        raise UsageError(
            f"{split} has {examples} inputs and {len(labels)} labels: one label per input is needed"
        )
    if not len(labels):
        raise UsageError(f"{split} is empty: at least one example is needed")
    _check_labels(labels, split, classes)
    return inputs, labels.astype(np.int32)


def _check_labels(labels: NDArray, split: str, classes: int) -> None:
    """Raises UsageError for labels `(N,)` that are not integers in [0, classes)."""
    valid = f"labels must be 0 … {classes - 1}"
    if labels.dtype.kind not in "buif":
        raise UsageError(
            f"{split} labels are of type {labels.dtype}: {valid}; "
            "of class names take np.unique(labels, return_inverse=True)[1]"
        )
    wrong = (labels != np.floor(labels)) | (labels < 0) | (labels >= classes)
    if wrong.any():
        raise UsageError(f"{split} has a label {labels[wrong][0]}: {valid}")


def from_arrays(
    train: tuple[Any, ...],
    test: tuple[Any, ...] | None,
    validation: tuple[Any, ...] | None = None,
    *,
    classes: int,
    validation_size: int | None,
    seed: int,
    half: str = "whole",
    input_range: float = 1.0,
    takes: Specs | None = None,
) -> Dataset:
    """Builds a dataset that stays in memory.

    Args:
      train, test, validation: pairs `(inputs, labels)`, see `check_arrays`. Without `validation`,
        validation examples are drawn from `train` by seed, never from `test`. `train` may be a
        triple `(inputs, labels, weights)`: weights in the training loss, see `checked_weights`.
      classes: number of classes.
      validation_size, seed: see `validation_members`.
      half: `whole`, or the half of `train` to keep, see `half_members`.
      input_range: largest value that inputs can take.
      takes: what the model takes; None: one input, kept as uint8 or float32.

    Raises:
      UsageError: the data is invalid.
    """
    checked = functools.partial(_checked_examples, classes=classes, takes=takes)
    whole = checked(train, "train")
    if half != "whole":
        whole = _rows(whole, half_members([whole[:2]], half))
    if validation is None:
        members = validation_members(len(whole[1]), validation_size, seed)
        kept, cut = _rows(whole, ~members), _rows(whole, members)
    else:
        kept, cut = whole, checked(validation, "validation")
    if kept[2:]:
        check_some(kept[2], "train")
    splits = {
        "train": ResidentSplit.of(*kept),
        "validation": ResidentSplit.of(*cut[:2]),
    }
    tested = None
    if test is not None:
        splits["test"] = tested = ResidentSplit.of(*checked(test, "test"))
    _check_shapes({name: split.shape for name, split in splits.items()})
    return Dataset(classes, splits["train"], splits["validation"], tested, input_range)


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


def _rows(examples: tuple[Any, ...], chosen: NDArray[np.bool_]) -> tuple[Any, ...]:
    return tuple(select(part, chosen) for part in examples)


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
    takes: Specs | None = None,
) -> Dataset:
    """Builds a dataset from unbatched `tf.data` pipelines of `(input, label)` pairs.

    `train` may give `(input, label, weight)` triples. Every pipeline is read once to check its
    examples. The dataset stays in memory if all inputs together fit into `memory_limit_mb`,
    otherwise it streams. A pipeline must give the same examples in the same order every time it is
    read.

    Args:
      train, test, validation: pipelines; without `validation`, validation examples are drawn from
        `train` by seed.
      memory_limit_mb: in units of 2**20 bytes.
      shuffle_buffer: examples over which a streamed epoch is shuffled.
      classes, validation_size, seed, half, input_range, takes: see `from_arrays`.

    Raises:
      UsageError: the data is invalid, or a pipeline raised an error (UnreadableExample).
    """
    given = {"train": train, "validation": validation, "test": test}
    counts, pairs, room = dict[str, int](), dict[str, Any](), memory_limit_mb * _MB
    for name, data in given.items():
        pairs[name] = None
        if data is not None:
            counts[name], pairs[name], room = _read(data, name, classes, room, takes)
    _check_shapes({name: _example_shape(given[name], takes) for name in counts})
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
            takes=takes,
        )
    pairs.clear()
    streamed = functools.partial(_streamed, shuffle_buffer=shuffle_buffer, takes=takes)
    count = counts["train"]
    if half != "whole":
        typed = functools.partial(_typed, takes=takes)
        blocks = train.map(typed).batch(_CHECK).as_numpy_iterator()
        train, count = _members(train, half_members((b[:2] for b in blocks), half))
    if validation is None:
        members = validation_members(count, validation_size, seed)
        kept, cut = streamed(*_members(train, ~members)), streamed(*_members(train, members))
        cut = dataclasses.replace(cut, examples=cut.data())  # without weights
    else:
        kept, cut = streamed(train, count), streamed(validation, counts["validation"])
    tested = streamed(test, counts["test"]) if test is not None else None
    weights = kept.weights()
    if weights is not None:
        check_some(weights, "train")
    return Dataset(classes, kept, cut, tested, input_range)


def part_of_test(
    test: Any,
    *,
    classes: int,
    split: str = "test",
    memory_limit_mb: int = 2048,
    shuffle_buffer: int = 1,
    input_range: float = 1.0,
    takes: Specs | None = None,
    ordered: bool = True,
) -> Part:
    """Builds one split without the others, from arrays or a pipeline.

    Args:
      test: a pair `(inputs, labels)`, or an unbatched `tf.data` pipeline of such pairs.
      split: name of the split, for messages.
      classes, memory_limit_mb, shuffle_buffer, input_range: see `from_pipelines`.
      takes, ordered: what the model takes, see `checked_inputs`.

    Raises:
      UsageError: the data is invalid.
    """
    if isinstance(test, tf.data.Dataset):
        spec = test.element_spec
        if isinstance(spec, tuple) and len(spec) == 3:
            raise UsageError(
                f"{split} has sample weights, which only the train data of find_tickets takes: "
                "dataset.map(lambda x, y, weight: (x, y))"
            )
        if isinstance(spec, tuple) and len(spec) == 2:  # Anything else is refused below.
            arranged(spec[0], takes, f"{split} inputs", ordered=ordered)
        count, pair, _ = _read(test, split, classes, memory_limit_mb * _MB, takes)
        if pair is None:
            return Part(classes, _streamed(test, count, shuffle_buffer, takes), input_range)
    elif is_pair(test):
        pair = check_arrays(*test, split=split, classes=classes, takes=takes, ordered=ordered)
    else:
        raise UsageError(
            f"{split} is of type {type(test).__name__}: it must be a pair (inputs, labels), or a tf.data pipeline "
            "(of a generator: tf.data.Dataset.from_generator)"
        )
    return Part(classes, ResidentSplit.of(*pair), input_range)


def fingerprint(dataset: Dataset) -> str:
    """A digest of all examples of a dataset; it identifies data without a name."""
    digest = hashlib.sha256()
    for name, split in dataset.named_splits().items():
        digest.update(name.encode())
        for inputs, labels in split.in_order(_CHECK):
            for key, values in flat(inputs):
                digest.update(key.encode() + values.numpy().tobytes())
            digest.update(labels.numpy().tobytes())
        weights = split.weights()
        if weights is not None:
            digest.update(b"weights" + weights.tobytes())
    return digest.hexdigest()[:10]


def _example_shape(data: "tf.data.Dataset", takes: Specs | None) -> Any:
    return shape_of(arranged(data.element_spec[0], takes, "inputs"))


def _check_shapes(shapes: dict[str, Any]) -> None:
    """Raises UsageError if the inputs of a split differ in shape from those of train."""
    for split, shape in shapes.items():
        if shape != shapes["train"]:
            raise UsageError(
                f"{split} inputs have shape {shape} per example: {shapes['train']} is needed, as in train"
            )


def _read(
    data: "tf.data.Dataset", split: str, classes: int, room: int, takes: Specs | None = None
) -> tuple[int, tuple[Any, ...] | None, int]:
    """Reads a pipeline once and checks every example.

    Args:
      data: the pipeline.
      split, classes, takes: see `check_arrays`.
      room: bytes of inputs that may be kept.

    Returns:
      The number of examples; the arrays, or None if they did not fit; the bytes left, below 0 if
      they did not fit.
    """
    _check_elements(data.element_spec, split, classes, takes)
    if data.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise UsageError(
            f"the {split} pipeline never ends: a finite one is needed; leave out its repeat()"
        )
    count = 0
    kept: list[tuple[Any, ...]] = []
    try:
        for batch in data.batch(_CHECK).prefetch(1):
            given = tf.nest.map_structure(lambda x: x.numpy(), batch)
            block = _checked_examples(given, split, classes=classes, takes=takes, first=count)
            count += len(block[1])
            room -= sum(x.nbytes for _, x in flat(block[0]))
            kept = [*kept, block] if room >= 0 else []
    except _FAILURES as error:
        raise UnreadableExample(split, _failing(data, count), first_line(error)) from error
    if not count:
        raise UsageError(f"{split} is empty: at least one example is needed")
    if room < 0:
        return count, None, room
    return count, tuple(concatenated(list(parts)) for parts in zip(*kept, strict=True)), room


def _check_elements(spec: Any, split: str, classes: int, takes: Specs | None = None) -> None:
    """Raises UsageError if a pipeline does not give `(input, label)` pairs of single examples.

    A third element, the weight, is checked with its values.
    """
    needed = "unbatched (input, label) pairs are needed"
    if not isinstance(spec, tuple) or len(spec) not in (2, 3):
        given, remedy = _not_pairs(spec)
        raise UsageError(f"the {split} pipeline gives {given}: {needed}; {remedy}")
    given = arranged(spec[0], takes, f"{split} inputs")
    several = takes is not None and len(takes) > 1
    parts = [part for _, part in flat(given)] if several else [given]
    names = ["inputs"] * len(parts) + ["labels", "weights"]
    for part, name in zip([*parts, *spec[1:]], names, strict=False):
        if not isinstance(part, tf.TensorSpec):
            raise UsageError(
                f"the {split} pipeline gives {name} as {_structure(part)}: one dense tensor is needed; select or "
                "build it with dataset.map"
            )
    inputs, labels = parts[0].shape, spec[1].shape
    if labels.rank != 0:
        given = f"inputs of shape {inputs} and labels of shape {labels}"
        remedies = _label_remedies(inputs, labels, classes)
        raise UsageError(f"the {split} pipeline gives {given}: {needed}; {remedies}")
    inputs = next((x.shape for x in parts if not x.shape.is_fully_defined()), None)
    if inputs is not None:
        raise UsageError(
            f"the {split} pipeline gives inputs of shape {inputs}: one fully known shape is needed; resize, crop "
            "or pad inputs of different shapes, or state the shape by tf.ensure_shape in a map (of a generator: "
            "by its output_signature)"
        )


def _not_pairs(spec: Any) -> tuple[str, str]:
    """What a pipeline gives in place of pairs, and how to change it."""
    if isinstance(spec, dict):
        remedy = "dataset.map(lambda e: (e[INPUT], e[LABEL])) with the names of both"
        return f"dictionaries with the keys {', '.join(map(repr, spec))}", remedy
    if isinstance(spec, tuple):
        return f"{len(spec)}-tuples", "map each example to its input and its label"
    return "inputs without labels", "zip it with the labels: tf.data.Dataset.zip((inputs, labels))"


def _structure(part: Any) -> str:
    if isinstance(part, dict):
        return f"a dictionary with the keys {', '.join(map(repr, part))}"
    if isinstance(part, tuple | list):
        return f"a {type(part).__name__} of {len(part)}"
    return f"a {type(part).__name__.removesuffix('Spec')}"


def _label_remedies(inputs: "tf.TensorShape", labels: "tf.TensorShape", classes: int) -> str:
    """How to turn labels into scalars: all remedies that their shape allows."""
    if labels.rank is None:
        return (
            "state the label's shape by tf.ensure_shape(label, []) in a map (of a generator: by its "
            "output_signature)"
        )
    size = labels[0]
    batched = inputs.rank is None or bool(inputs.rank and inputs[0] == size)
    found = ["it is batched: call dataset.unbatch()"] if batched else []
    if labels.rank == 1 and size == 1:
        found.append("a label has an axis of size 1: dataset.map(lambda x, y: (x, tf.squeeze(y)))")
    elif labels.rank == 1 and size == classes:
        found.append("labels are one-hot: dataset.map(lambda x, y: (x, tf.argmax(y)))")
    if not found:
        return f"map each label to one integer in 0 … {classes - 1}"
    # Shapes alone cannot distinguish, say, three examples from one label over three classes.
    return found[0] if len(found) == 1 else "; or ".join(f"if {remedy}" for remedy in found)


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


def _streamed(
    data: "tf.data.Dataset", count: int, shuffle_buffer: int, takes: Specs | None = None
) -> StreamedSplit:
    typed = functools.partial(_typed, takes=takes)
    return StreamedSplit(data.map(typed, num_parallel_calls=2), count, shuffle_buffer)


def _typed(
    inputs: Any, label: "tf.Tensor", *weights: "tf.Tensor", takes: Specs | None = None
) -> tuple[Any, ...]:
    """An example in the types in which data is kept."""
    weight = (tf.reshape(tf.cast(w, tf.float32), []) for w in weights)
    return kept_tensors(inputs, takes), tf.cast(label, tf.int32), *weight
