"""Checks inputs, and converts them to the types in which data is kept.

Bytes stay uint8. Inputs for which the model declares integers or booleans get the declared type. All
others become float32.
"""

from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lotcal_tf.errors import UsageError
from lotcal_tf.inputs import Specs, arranged, flat, mapped, matched


def checked_inputs(
    given: Any, split: str, takes: Specs | None = None, *, first: int = 0, ordered: bool = True
) -> Any:
    """Checks the inputs of one split.

    Args:
      given: `(N, …)` numbers; several inputs as a dictionary, or as a tuple or list.
      split: name of the split, for messages.
      takes: what the model takes; None: unknown, then one array of any shape is needed.
      first: number of the first example, for messages.
      ordered: see `inputs.arranged`.

    Returns:
      NumPy arrays of the types in which data is kept, arranged as by `inputs.arranged`.

    Raises:
      UsageError: the inputs are not those of the model, not numbers, not finite, differ in length, or
        an input of integers holds other values.
    """
    inputs = arranged(given, takes, f"{split} inputs", ordered=ordered)
    if takes is None or len(takes) == 1:
        spec = None if takes is None else next(iter(takes.values()))
        return _checked(inputs, spec, f"{split} inputs", first)
    specs = matched(inputs, takes)
    found: Any = {
        key: _checked(x, spec, f"{split} input {key!r}", first)
        for (key, x), (_, spec) in zip(flat(inputs), flat(specs), strict=True)
    }
    sizes = {key: len(x) for key, x in found.items()}
    if len(set(sizes.values())) > 1:
        counts = ", ".join(f"{key}: {size}" for key, size in sizes.items())
        raise UsageError(f"{split} inputs differ in their number of examples: {counts}")
    if isinstance(inputs, dict):
        return {key: found[key] for key in inputs}
    return tuple(found.values())


def _checked(given: Any, spec: "tf.TensorSpec | None", name: str, first: int) -> NDArray:
    """One input; `spec` is what the model declares."""
    array = array_of(given, name)
    declared = None if spec is None or spec.dtype.is_floating else spec.dtype
    if array.dtype.kind not in ("buif" if declared == tf.bool else "uif"):
        raise UsageError(f"{name} are of type {array.dtype}: numbers are needed")
    if declared is not None:
        return _checked_integers(array, declared, name, first)
    kind = np.uint8 if array.dtype == np.uint8 else np.float32
    with np.errstate(over="ignore"):  # Values too large for float32 become infinite.
        array = array.astype(kind, copy=False)
    if kind is np.float32 and not np.isfinite(array).all():
        raise UsageError(
            f"{name} hold NaN or infinity, first in example {_first(~np.isfinite(array), first)}: "
            "finite float32 numbers are needed"
        )
    return array


def _checked_integers(array: NDArray, dtype: "tf.DType", name: str, first: int) -> NDArray:
    """Values for which the model declares an integer type or booleans."""
    low, high = (0, 1) if dtype == tf.bool else (dtype.min, dtype.max)
    whole = array if array.dtype.kind in "bui" else np.floor(array)
    wrong = ~((array == whole) & (array >= low) & (array <= high))
    if wrong.any():
        raise UsageError(
            f"{name} hold {array[wrong][0]}, first in example {_first(wrong, first)}: the model declares "
            f"{dtype.name}, so integers from {low} to {high} are needed"
        )
    return array if array.dtype == np.uint8 else array.astype(dtype.as_numpy_dtype, copy=False)


def _first(wrong: NDArray[np.bool_], first: int) -> int:
    """The number of the first example with a wrong value."""
    return first + int(np.argmax(wrong.reshape(len(wrong), -1).any(1)))


def array_of(given: Any, name: str) -> NDArray:
    """Converts to an array with an axis of examples.

    Raises:
      UsageError: it is something else, e.g. a generator or rows of unequal lengths.
    """
    try:
        array = np.asarray(given)
    except ValueError as error:  # Nested lists of unequal lengths.
        raise UsageError(
            f"{name} do not form an array, all examples must have one shape: {error}"
        ) from error
    if not array.ndim:  # NumPy puts generators, None and datasets into an array without axes.
        raise UsageError(
            f"{name} are of type {type(given).__name__}: an array with one entry per example is needed"
        )
    return array


def kept_tensors(inputs: Any, takes: Specs | None = None) -> Any:
    """Checked inputs of a pipeline, as tensors of the types in which data is kept."""
    return mapped(_kept, arranged(inputs, takes, "inputs"), takes)


def _kept(x: "tf.Tensor", spec: "tf.TensorSpec | None") -> "tf.Tensor":
    if x.dtype == tf.uint8:
        return x
    return tf.cast(x, tf.float32 if spec is None or spec.dtype.is_floating else spec.dtype)
