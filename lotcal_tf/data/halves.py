"""Splits a training set into two fixed halves with equal classes, by the content of its examples.

The examples of each class are sorted by the SHA-256 of their values, e.g. the decoded pixels of an
image. The lower half is `a`, the rest `b`. So the halves do not depend on file order, library
versions or the seed. They do depend on the pixels, which lossy compression changes.
"""

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lotcal_tf.inputs import examples_bytes

Blocks = Iterable[tuple[Any, NDArray]]


def half_members(examples: Blocks, half: str) -> NDArray[np.bool_]:
    """Finds the examples of one half of a training set.

    Args:
      examples: all examples, in blocks of inputs `(N, …)`, as they are kept in memory, and
        labels `(N,)`.
      half: `a` or `b`. If a class has an odd number of examples, `a` has one more.

    Returns:
      Boolean `(count,)`, True for members, in the order of the examples.
    """
    keys = [
        (int(label), hashlib.sha256(example).digest())
        for inputs, labels in examples
        for example, label in zip(examples_bytes(inputs), labels, strict=True)
    ]
    ranked = sorted(range(len(keys)), key=keys.__getitem__)
    classes = np.array([keys[place][0] for place in ranked])
    lower = np.zeros(len(keys), bool)
    for places in np.split(np.array(ranked, int), np.flatnonzero(np.diff(classes)) + 1):
        lower[places[: (len(places) + 1) // 2]] = True
    return lower if half == "a" else ~lower
