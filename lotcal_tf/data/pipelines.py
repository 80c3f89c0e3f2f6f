"""`tf.data` pipelines as people have them: recognises batches, and explains what cannot be used."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lotcal_tf.errors import UsageError

Blocks = Iterable[tuple[NDArray, NDArray]]

_NEEDED = "(input, label) pairs are needed"
# Columns or keys that usually hold inputs and labels.
INPUT_NAMES = ("image", "img", "pixel_values", "input_ids", "features")
LABEL_NAMES = ("label", "labels")


def unbatched(
    data: "tf.data.Dataset", split: str, classes: int, shape: Sequence[int | None] | None = None
) -> "tf.data.Dataset":
    """Checks what a pipeline gives, and splits batches into examples.

    Args:
      data: `(input, label)` pairs, single or in batches.
      split: name of the split, for messages.
      classes: number of classes.
      shape: shape of one input of the model, None for a dimension of any size; None: unknown. It
        distinguishes a batch of three labels from one one-hot label of three classes.

    Returns:
      A pipeline of single examples: an input of fully known shape, and a label of shape `()`, `(1,)`
      or `(classes,)`.

    Raises:
      UsageError: the pipeline gives something else, never ends, or its shapes do not say whether it is batched.
    """
    _check_structure(data.element_spec, split)
    inputs, labels = (part.shape for part in data.element_spec)
    given = f"the {split} pipeline gives inputs of shape {inputs} and labels of shape {labels}"
    if inputs.rank is None or labels.rank is None:
        raise UsageError(
            f"{given}: known shapes are needed; state them by tf.ensure_shape in a map, or by the "
            "output_signature of a generator"
        )
    if labels.rank and _is_batched(inputs, labels, classes, shape, given):
        data = data.unbatch()
    inputs, labels = (part.shape for part in data.element_spec)
    if labels.rank and labels.as_list() not in ([1], [classes]):
        raise UsageError(
            f"{given}: a label must be one class number 0 … {classes - 1}, or one-hot of shape ({classes},)"
        )
    if not inputs.is_fully_defined():
        raise UsageError(
            f"the {split} pipeline gives inputs of shape {inputs} per example: one fully known shape is needed; "
            "resize, crop or pad inputs of different shapes, or state the shape by tf.ensure_shape in a map (of a "
            "generator: by its output_signature)"
        )
    if data.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise UsageError(
            f"the {split} pipeline never ends: a finite one is needed; leave out its repeat()"
        )
    return data


def _is_batched(
    inputs: "tf.TensorShape",
    labels: "tf.TensorShape",
    classes: int,
    shape: Sequence[int | None] | None,
    given: str,
) -> bool:
    """Whether elements with labels of rank 1 or more are batches.

    Raises:
      UsageError: shapes fit neither batches nor single examples, or both.
    """
    sizes = labels.as_list()
    label = sizes[1:] in ([], [1], [classes]) and inputs.rank > 0
    batch = label and inputs[0] == sizes[0]
    single = len(sizes) == 1 and sizes[0] in (1, classes)
    if shape is not None:
        # The model decides between a batch and a single example.
        batch, single = (
            batch and inputs.rank == len(shape) + 1,
            single and inputs.rank == len(shape),
        )
    elif batch and sizes[0] is None:
        single = False  # The shape of a single example would be known.
    if batch and single:
        raise UsageError(
            f"{given}, which can be a batch of {sizes[0]} or one example with a label of {sizes[0]} values: "
            "batch it without drop_remainder, or map each label to one class number"
        )
    if not (batch or single):
        takes = "" if shape is None else f" and inputs of shape {_text(shape)}, as the model takes"
        raise UsageError(
            f"{given}: {_NEEDED}, single or in batches, with one class number 0 … {classes - 1} per example or one-hot "
            f"labels of {classes} values{takes}"
        )
    return batch


def _text(shape: Sequence[int | None]) -> str:
    sizes = ["any" if size is None else str(size) for size in shape]
    return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"


def _check_structure(spec: Any, split: str) -> None:
    """Raises UsageError if a pipeline does not give pairs of one dense numeric tensor each."""
    if not isinstance(spec, tuple) or len(spec) != 2:
        given, remedy = _not_pairs(spec)
        raise UsageError(f"the {split} pipeline gives {given}: {_NEEDED}; {remedy}")
    for part, name in zip(spec, ("inputs", "labels"), strict=True):
        if not isinstance(part, tf.TensorSpec):
            given, remedy = _not_dense(part)
            raise UsageError(
                f"the {split} pipeline gives {name} as {given}: one dense tensor is needed; {remedy}"
            )
        if part.dtype == tf.string:
            remedy = (
                "decode images, or turn texts into integers by a TextVectorization layer, in a map"
                if name == "inputs"
                else "turn class names into numbers from 0 by keras.layers.StringLookup(num_oov_indices=0, …) in a map"
            )
            raise UsageError(
                f"the {split} pipeline gives {name} as strings: numbers are needed; {remedy}"
            )


def _not_pairs(spec: Any) -> tuple[str, str]:
    """What a pipeline gives in place of pairs, and how to change it."""
    if isinstance(spec, dict):
        names = [[name for name in known if name in spec] for known in (INPUT_NAMES, LABEL_NAMES)]
        x, y = (repr(found[0]) if len(found) == 1 else None for found in names)
        pair = f"e[{x or 'INPUT'}], e[{y or 'LABEL'}]"
        unknown = "" if x and y else " with the names of both"
        remedy = f"dataset.map(lambda e: ({pair})){unknown}"
        return f"dictionaries with the keys {', '.join(map(repr, spec))}", remedy
    if isinstance(spec, tuple) and len(spec) == 3:
        remedy = "sample weights are not supported yet: dataset.map(lambda x, y, weight: (x, y))"
        return "3-tuples", remedy
    if isinstance(spec, tuple) and len(spec) > 1:
        return f"{len(spec)}-tuples", "map each example to its input and its label"
    if isinstance(spec, tf.data.DatasetSpec):
        return "datasets, as window() does", "flat_map them into (input, label) pairs"
    return "inputs without labels", "zip it with the labels: tf.data.Dataset.zip((inputs, labels))"


def _not_dense(part: Any) -> tuple[str, str]:
    """What a pipeline gives in place of a dense tensor, and how to change it."""
    if isinstance(part, tf.RaggedTensorSpec):
        return "a RaggedTensor", "pad it to one shape by x.to_tensor(shape=…) in a map"
    if isinstance(part, tf.SparseTensorSpec):
        return "a SparseTensor", "convert it by tf.sparse.to_dense in a map"
    if isinstance(part, dict):
        keys = ", ".join(map(repr, part))
        return f"a dictionary with the keys {keys}", "select or concatenate tensors in a map"
    if isinstance(part, tuple | list):
        given = f"a {type(part).__name__} of {len(part)}"
        return given, "select or concatenate tensors in a map"
    return f"a {type(part).__name__.removesuffix('Spec')}", "build one tensor in a map"


class Readings:
    """Digests of the first reading of a pipeline, to compare a second one with.

    Each example is digested alone, so that another order is distinguished from other examples.
    """

    def __init__(self) -> None:
        self._digests: list[bytes] = []

    def add(self, inputs: NDArray, labels: NDArray) -> None:
        """Adds a block of the first reading."""
        self._digests += _digests([(inputs, labels)])

    def check(self, again: Blocks, split: str, whole: bool) -> None:
        """Compares a second reading with the first.

        Args:
          again: the blocks of the second reading, not yet read.
          split: name of the split, for the message.
          whole: whether to read all blocks; otherwise only the first is read where it agrees.

        Raises:
          UsageError: the readings differ.
        """
        found: list[bytes] = []
        same = True
        for block in again:
            digests = list(_digests([block]))
            same = same and digests == self._digests[len(found) : len(found) + len(digests)]
            found += digests
            if same and not whole:
                return
        if same and len(found) == len(self._digests):
            return
        how, remedy = _difference(self._digests, found)
        raise UsageError(
            f"the {split} pipeline {how} when it was read again; every reading must give the same examples in the same "
            f"order: {remedy}"
        )


def _difference(first: Sequence[bytes], second: Sequence[bytes]) -> tuple[str, str]:
    """How the second reading of a pipeline differs from the first, and how to change that."""
    if not second:
        return (
            "was empty",
            "give tf.data.Dataset.from_generator a function that makes a new generator in every call",
        )
    if sorted(first) == sorted(second):
        return (
            "came in another order",
            "leave out shuffle, since epochs are shuffled anyway, or use shuffle(…, reshuffle_each_iteration=False) "
            "(of Keras's image_dataset_from_directory and the like: shuffle=False)",
        )
    return (
        "held other examples",
        "leave out random operations; for random changes of images use the field augment or layers of the model",
    )


def _digests(blocks: Blocks) -> Iterator[bytes]:
    for inputs, labels in blocks:
        for example, label in zip(inputs, np.asarray(labels), strict=True):
            digest = hashlib.blake2b(np.ascontiguousarray(example).tobytes(), digest_size=8)
            digest.update(label.tobytes())
            yield digest.digest()
