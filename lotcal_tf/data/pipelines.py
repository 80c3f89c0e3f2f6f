"""`tf.data` pipelines as people have them: recognises batches, and explains what cannot be used."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from lotcal_tf.errors import UsageError
from lotcal_tf.inputs import Specs, arranged, examples_bytes

# Inputs and labels, and weights where the pipeline gives them.
Blocks = Iterable[tuple[Any, ...]]
Shape = Sequence[int | None]

_NEEDED = "(input, label) pairs are needed"
# Columns or keys that usually hold inputs and labels.
INPUT_NAMES = ("image", "img", "pixel_values", "input_ids", "features")
LABEL_NAMES = ("label", "labels")


def unbatched(
    data: "tf.data.Dataset",
    split: str,
    classes: int,
    takes: Specs | None = None,
    *,
    ordered: bool = True,
) -> "tf.data.Dataset":
    """Checks what a pipeline gives, and splits batches into examples.

    Args:
      data: `(input, label)` pairs, single or in batches; of `train` also `(input, label, weight)`.
      split: name of the split, for messages.
      classes: number of classes.
      takes: what the model takes, None: one input of unknown shape. It distinguishes a batch of three
        labels from one one-hot label of three classes.
      ordered: see `inputs.arranged`.

    Returns:
      A pipeline of single examples: inputs of fully known shape, a label of shape `()`, `(1,)` or
      `(classes,)`, and possibly a weight.

    Raises:
      UsageError: the pipeline gives something else, never ends, or its shapes do not say whether it is batched.
    """
    parts, labels, *weights = _checked_structure(data.element_spec, split, takes, ordered)
    shape = parts[0] if len(parts) == 1 else f"({', '.join(map(str, parts))})"
    given = f"the {split} pipeline gives inputs of shape {shape} and labels of shape {labels}"
    if any(part.rank is None for part in (*parts, labels, *weights)):
        raise UsageError(
            f"{given}: known shapes are needed; state them by tf.ensure_shape in a map, or by the "
            "output_signature of a generator"
        )
    taken = None if takes is None else [tuple(spec.shape[1:]) for spec in takes.values()]
    if labels.rank and _is_batched(parts, labels, classes, taken, given):
        if not all(weight.rank and weight[:1].is_compatible_with(labels[:1]) for weight in weights):
            raise UsageError(
                f"{given}, and sample weights of shape {weights[0]}: one weight per example is needed"
            )
        data = data.unbatch()
        parts, labels, *_ = _checked_structure(data.element_spec, split, takes, ordered)
    if labels.rank and labels.as_list() not in ([1], [classes]):
        raise UsageError(
            f"{given}: a label must be one class number 0 … {classes - 1}, or one-hot of shape ({classes},)"
        )
    unknown = next((part for part in parts if not part.is_fully_defined()), None)
    if unknown is not None:
        raise UsageError(
            f"the {split} pipeline gives inputs of shape {unknown} per example: one fully known shape is needed; "
            "resize, crop or pad inputs of different shapes, or state the shape by tf.ensure_shape in a map (of a "
            "generator: by its output_signature)"
        )
    if data.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise UsageError(
            f"the {split} pipeline never ends: a finite one is needed; leave out its repeat()"
        )
    return data


def _is_batched(
    inputs: Sequence["tf.TensorShape"],
    labels: "tf.TensorShape",
    classes: int,
    taken: Sequence[Shape] | None,
    given: str,
) -> bool:
    """Whether elements with labels of rank 1 or more are batches.

    Raises:
      UsageError: shapes fit neither batches nor single examples, or both.
    """
    sizes = labels.as_list()
    label = sizes[1:] in ([], [1], [classes])
    batch = label and all(part.rank > 0 and part[0] == sizes[0] for part in inputs)
    single = len(sizes) == 1 and sizes[0] in (1, classes)
    if taken is not None:
        # The model decides between a batch and a single example.
        ranks = [len(shape) for shape in taken]
        batch = batch and [part.rank for part in inputs] == [rank + 1 for rank in ranks]
        single = single and [part.rank for part in inputs] == ranks
    elif batch and sizes[0] is None:
        single = False  # The shape of a single example would be known.
    if batch and single:
        raise UsageError(
            f"{given}, which can be a batch of {sizes[0]} or one example with a label of {sizes[0]} values: "
            "batch it without drop_remainder, or map each label to one class number"
        )
    if not (batch or single):
        takes = "" if taken is None else f" and inputs of shape {_text(taken)}, as the model takes"
        raise UsageError(
            f"{given}: {_NEEDED}, single or in batches, with one class number 0 … {classes - 1} per example or one-hot "
            f"labels of {classes} values{takes}"
        )
    return batch


def _text(taken: Sequence[Shape]) -> str:
    shapes = []
    for shape in taken:
        sizes = ["any" if size is None else str(size) for size in shape]
        shapes.append(f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})")
    return ", ".join(shapes)


def _checked_structure(spec: Any, split: str, takes: Specs | None, ordered: bool) -> list[Any]:
    """The shapes of the elements of a pipeline: a list of those of inputs, of labels, and of weights.

    Raises:
      UsageError: the pipeline does not give the inputs of the model and labels, each a dense numeric
        tensor; or weights outside of `train`.
    """
    if isinstance(spec, tuple) and len(spec) == 3 and split != "train":
        raise UsageError(
            f"the {split} pipeline gives 3-tuples, and only train takes sample weights, since metrics are not "
            "weighted: dataset.map(lambda x, y, weight: (x, y))"
        )
    if not isinstance(spec, tuple) or len(spec) not in (2, 3):
        given, remedy = _not_pairs(spec)
        raise UsageError(f"the {split} pipeline gives {given}: {_NEEDED}; {remedy}")
    inputs, *others = spec
    several = takes is not None and len(takes) > 1
    inputs = arranged(inputs, takes, f"{split} inputs", ordered=ordered)
    parts = inputs.values() if isinstance(inputs, dict) else inputs
    parts = list(parts) if several else [inputs]
    for part, name in zip(
        [*parts, *others], ["inputs"] * len(parts) + ["labels", "sample weights"], strict=False
    ):
        _check_dense(part, name, split)
    return [[part.shape for part in parts], *(other.shape for other in others)]


def _check_dense(part: Any, name: str, split: str) -> None:
    """Raises UsageError if a part of a pipeline's elements is not a dense numeric tensor."""
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

    def add(self, block: tuple[Any, ...]) -> None:
        """Adds a block of the first reading."""
        self._digests += _digests([block])

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
    for inputs, *others in blocks:
        for example, *rest in zip(examples_bytes(inputs), *others, strict=True):
            digest = hashlib.blake2b(example, digest_size=8)
            for value in rest:
                digest.update(value.tobytes())
            yield digest.digest()
