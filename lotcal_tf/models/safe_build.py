"""Builds a model from a configuration that was checked, without more memory than its weights take."""

import contextlib
import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from lotcal_tf.errors import UsageError

# Variables that are not weights, e.g. the seeds of dropout layers.
_OTHERS = 1 << 20


@contextlib.contextmanager
def no_more_variables_than(stored: int | None, subject: str) -> Iterator[None]:
    """Refuses to create variables that are larger in total than the stored weights of a model.

    A configuration of a few bytes can describe a layer of many gigabytes.

    Args:
      stored: the size of the stored weights in bytes; None: any size.
      subject: what is read, for the message.

    Raises:
      UsageError: the variables would be larger. They are not created.
    """
    total = 0

    def create(next_creator: Callable[..., Any], **kwargs: Any) -> Any:
        nonlocal total
        shape = _shape(kwargs)
        dtype = tf.as_dtype(kwargs.get("dtype") or tf.float32)
        total += 0 if shape is None else math.prod(shape) * max(dtype.size, 1)
        if stored is not None and total > stored + _OTHERS:
            raise UsageError(
                f"{subject} describes a model with more weights than are stored with it ({stored:,} bytes)"
            )
        return next_creator(**kwargs)

    with tf.variable_creator_scope(create):
        yield


def _shape(kwargs: dict[str, Any]) -> list[int] | None:
    """The shape of a variable before it is created; None: it is unknown."""
    shape, value = kwargs.get("shape"), kwargs.get("initial_value")
    if shape is None and inspect.isfunction(value):
        # Keras 3 gives the shape only to the initializer.
        shape = getattr(inspect.getclosurevars(value).nonlocals.get("self"), "shape", None)
    known = tf.TensorShape(shape)
    return known.as_list() if known.is_fully_defined() else None
