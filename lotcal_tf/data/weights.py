"""Weights of examples in the training loss."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lotcal_tf.data.input_arrays import array_of
from lotcal_tf.errors import UsageError


def checked_weights(given: Any, count: int, split: str, first: int = 0) -> NDArray[np.float32]:
    """Checks sample weights.

    Args:
      given: `(N,)` numbers, finite and 0 or more; `(N, 1)` is accepted too.
      count: N.
      split: name of the split, for messages.
      first: number of the first example, for messages.

    Returns:
      `(N,)` float32.

    Raises:
      UsageError: the weights have another shape or type, or one is negative or not finite.
    """
    name = f"{split} sample weights"
    weights = array_of(given, name)
    if weights.ndim == 2 and weights.shape[1] == 1:
        weights = weights[:, 0]
    if weights.dtype.kind not in "buif":
        raise UsageError(f"{name} are of type {weights.dtype}: numbers are needed")
    if weights.shape != (count,):
        raise UsageError(
            f"{name} have shape {weights.shape}: one weight per example is needed, ({count},)"
        )
    with np.errstate(over="ignore"):  # Values too large for float32 become infinite.
        weights = weights.astype(np.float32)
    wrong = ~(np.isfinite(weights) & (weights >= 0))
    if wrong.any():
        place = int(np.argmax(wrong))
        raise UsageError(
            f"{name}: example {first + place} has the weight {weights[place]}; finite weights, 0 or more, are needed"
        )
    return weights


def check_some(weights: NDArray[np.float32], split: str) -> None:
    """Raises UsageError if all weights of a split are 0, so that nothing would be learned."""
    if not weights.any():
        raise UsageError(f"{split} sample weights are all 0: at least one must be above 0")
