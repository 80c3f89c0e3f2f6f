"""Running a model over many examples, a batch at a time."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


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
