"""Two halves of a training set, fixed for ever: each class in two, by what its examples are.

The examples of a class are ranked by the SHA-256 of their values as they are read: an image's
pixels, decoded. The lower half is `a`, the rest `b`. The order of files, the version of a library
and the seed have no part in it. Other pixels, as of images stored anew with loss, are other examples.
"""

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Blocks = Iterable[tuple[NDArray, NDArray]]


def half_members(examples: Blocks, half: str) -> NDArray[np.bool_]:
    """Which examples of a training set belong to one of its halves.

    Args:
      examples: all of them, in pieces of inputs `(N, …)`, uint8 or float32, and labels `(N,)`.
      half: `a` or `b`. Of a class of odd size `a` has the one more.

    Returns:
      Boolean, in the order of the examples.
    """
    keys = [
        (int(label), hashlib.sha256(example.tobytes()).digest())
        for inputs, labels in examples
        for example, label in zip(inputs, labels, strict=True)
    ]
    ranked = sorted(range(len(keys)), key=keys.__getitem__)
    classes = np.array([keys[place][0] for place in ranked])
    lower = np.zeros(len(keys), bool)
    for places in np.split(np.array(ranked, int), np.flatnonzero(np.diff(classes)) + 1):
        lower[places[: (len(places) + 1) // 2]] = True
    return lower if half == "a" else ~lower
