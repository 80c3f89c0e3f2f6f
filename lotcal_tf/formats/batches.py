"""Running a model batch by batch, and picking a sample of the examples."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


def spread(count: int, wanted: int) -> NDArray[np.intp]:
    """Indices of at most `wanted` of `count` examples, evenly spaced, as data may be sorted by class."""
    return np.linspace(0, count - 1, min(count, wanted)).astype(np.intp)


def in_batches(
    run: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    inputs: NDArray[np.float32],
    size: int,
    *,
    full: bool = False,
) -> NDArray[np.float32]:
    """The outputs `(N, K)` of a model that is run batch by batch.

    Args:
      run: the model: `(n, …)` → `(n, K)`.
      inputs: `(N, …)`, N >= 1.
      size: of a batch; the last one may be smaller.
      full: whether the model only takes full batches: the last example is then repeated to fill the
        last batch, and the outputs of the repetitions are dropped.
    """
    pieces = []
    for start in range(0, len(inputs), size):
        batch = inputs[start : start + size]
        count = len(batch)
        if full:
            batch = np.concatenate([batch, np.repeat(batch[-1:], size - count, 0)])
        pieces.append(run(batch)[:count])
    return np.concatenate(pieces)
