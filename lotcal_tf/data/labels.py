"""Labels as people have them: `(N,)`, `(N, 1)` or one-hot; each becomes one class number."""

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lotcal_tf.errors import UsageError


def class_numbers(labels: NDArray, split: str, classes: int, first: int = 0) -> NDArray[np.int32]:
    """Checks labels and converts them to class numbers.

    Args:
      labels: `(N,)` or `(N, 1)` integers in [0, classes), also as floats, or booleans for two classes;
        or one-hot `(N, classes)` with exactly one 1 per row.
      split: name of the split, for messages.
      classes: number of classes.
      first: number of the first example, for messages.

    Returns:
      `(N,)` int32.

    Raises:
      UsageError: the labels have another shape or type, or one of them is not a class.
    """
    valid = f"labels must be 0 … {classes - 1}"
    _check_kind(labels, split, classes, valid)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2 and labels.shape[1] == classes:
        return _of_one_hot(labels, split, first)
    if labels.ndim != 1:
        raise UsageError(
            f"{split} labels have shape {labels.shape}: (N,) or (N, 1) with one class number per example, or "
            f"one-hot (N, {classes}) is needed; {valid}"
        )
    wrong = (labels != np.floor(labels)) | (labels < 0) | (labels >= classes)
    if wrong.any():
        from_one = labels.min() >= 1 and labels.max() == classes
        remedy = "; if they count from 1, subtract 1" if from_one else ""
        raise UsageError(f"{split} has a label {labels[wrong][0]}: {valid}{remedy}")
    return labels.astype(np.int32)


def _check_kind(labels: NDArray, split: str, classes: int, valid: str) -> None:
    """Raises UsageError for labels that are not numbers, or booleans for other than two classes."""
    kind = labels.dtype.kind
    if kind in "OUST" and labels.size and all(isinstance(v, str | bytes) for v in labels.flat):
        raise UsageError(
            f"{split} labels are strings, of type {labels.dtype}: {valid}; of class names take "
            "np.unique(labels, return_inverse=True)[1]"
        )
    if kind not in "buif":
        raise UsageError(f"{split} labels are of type {labels.dtype}: {valid}, as numbers")
    if kind == "b" and classes != 2 and (labels.ndim == 1 or labels.shape[1] == 1):
        raise UsageError(
            f"{split} labels are booleans, which name 2 classes, and there are {classes}: {valid}"
        )


def _of_one_hot(labels: NDArray, split: str, first: int) -> NDArray[np.int32]:
    """The classes of one-hot labels `(N, K)`."""
    right = ((labels == 0) | (labels == 1)).all(1) & ((labels == 1).sum(1) == 1)
    if not right.all():
        row = int(np.argmin(right))
        raise UsageError(
            f"{split} has a label that is not one-hot, {_shortened(labels[row])} in example {first + row}: each label "
            "must hold exactly one 1 and otherwise 0, or be a class number"
        )
    return labels.argmax(1).astype(np.int32)


def _shortened(row: NDArray) -> str:
    values = [f"{float(value):g}" for value in row[:6]]
    return f"[{', '.join(values)}{', …' if len(row) > 6 else ''}]"


def class_number(label: "tf.Tensor") -> "tf.Tensor":
    """The class number of one checked label, of shape `()`, `(1,)` or `(K,)`, as an int32 scalar."""
    if label.shape.rank and label.shape[0] != 1:
        return tf.argmax(tf.cast(label, tf.int32), output_type=tf.int32)
    return tf.cast(tf.reshape(label, []), tf.int32)
