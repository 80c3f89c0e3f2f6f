"""Examples by the batch: a model run over many, and some picked out of many."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


def spread(count: int, wanted: int) -> NDArray[np.intp]:
    """Places of at most `wanted` of `count` examples, all over them: they may lie class by class."""
    return np.linspace(0, count - 1, min(count, wanted)).astype(np.intp)


def in_batches(
    run: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    inputs: NDArray[np.float32],
    size: int,
    *,
    full: bool = False,
) -> NDArray[np.float32]:
    """What `run` gives `(n, K)` for batches `(n, …)`, as one array `(N, K)`.

    Args:
      run: the model.
      inputs: `(N, …)`, N >= 1.
      size: of a batch; the last one may be smaller.
      full: whether the model takes no smaller one: the last example is then repeated, and what it
        gives for the repeated ones is left out.
    """
    pieces = []
    for start in range(0, len(inputs), size):
        batch = inputs[start : start + size]
        count = len(batch)
        if full:
            batch = np.concatenate([batch, np.repeat(batch[-1:], size - count, 0)])
        pieces.append(run(batch)[:count])
    return np.concatenate(pieces)
