"""Running a model batch by batch, and picking a sample of the examples."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lotcal_tf.inputs import count, select


def spread(count: int, wanted: int) -> NDArray[np.intp]:
    """Indices of at most `wanted` of `count` examples, evenly spaced, as data may be sorted by class."""
    return np.linspace(0, count - 1, min(count, wanted)).astype(np.intp)


def in_batches(
    run: Callable[[Any], NDArray[np.float32]],
    inputs: Any,
    size: int,
    *,
    full: bool = False,
) -> NDArray[np.float32]:
    """The outputs `(N, K)` of a model that is run batch by batch.

    Args:
      run: the model: `(n, …)` → `(n, K)`.
      inputs: `(N, …)`, N >= 1, see `lotcal_tf.inputs`.
      size: of a batch; the last one may be smaller.
      full: whether the model only takes full batches: the last example is then repeated to fill the
        last batch, and the outputs of the repetitions are dropped.
    """
    pieces = []
    total = count(inputs)
    for start in range(0, total, size):
        batch, rows = select(inputs, slice(start, start + size)), min(size, total - start)
        pieces.append(run(filled(batch, size) if full else batch)[:rows])
    return np.concatenate(pieces)


def filled(batch: Any, size: int) -> Any:
    """A batch of `size` examples: the last one is repeated."""
    return tf.nest.map_structure(
        lambda x: np.concatenate([x, np.repeat(x[-1:], size - len(x), 0)]), batch
    )
