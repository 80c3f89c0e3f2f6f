"""Stateless, named seeds: every random draw of a run is a function of (seed, use, indices).

No generator keeps state between draws, so a run that is resumed at any level draws exactly the same
numbers as an uninterrupted one.
"""

import contextlib
import contextvars
import hashlib
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from lotcal_tf.errors import UsageError, shown

if TYPE_CHECKING:
    import tensorflow as tf

# The seed of the current training step, and how many draws of each name `next_seed` has numbered in it.
_STEP: contextvars.ContextVar["tuple[tf.Tensor, dict[str, int]] | None"] = contextvars.ContextVar(
    "step", default=None
)


def named_seed(seed: int, use: str, *indices: int) -> tuple[int, int]:
    """Derives the seed of one random draw.

    Args:
      seed: the experiment's seed.
      use: name of the draw, e.g. `"shuffle"`; different names give independent draws.
      *indices: position in the run, e.g. level and epoch.

    Returns:
      Two integers in [0, 2**31), as TensorFlow's stateless functions take them.
    """
    text = "/".join([str(seed), use, *map(str, indices)])
    digest = hashlib.sha256(text.encode()).digest()
    high, low = (int.from_bytes(digest[i : i + 4], "little") >> 1 for i in (0, 4))
    return high, low


def generator(seed: int, use: str, *indices: int) -> np.random.Generator:
    """A new NumPy generator (Philox) with the seed of `named_seed`."""
    return np.random.Generator(np.random.Philox(key=list(named_seed(seed, use, *indices))))


@contextlib.contextmanager
def step_seed(seed: "tf.Tensor") -> Iterator[None]:
    """Sets the seed of the training step that is traced or run inside the `with` block.

    Layers and strategies derive the seeds of their draws from it by `draw_seed`. The lookup happens
    while the step is traced, so it needs no state and no time at run time.

    Args:
      seed: int32 `(2,)`.
    """
    found = seed if hasattr(seed, "dtype") else np.asarray(seed)
    integers = str(getattr(found.dtype, "name", found.dtype)).startswith("int")
    if not integers or tuple(found.shape) != (2,):
        raise UsageError(f"seed={shown(seed)}: must be two integers, an int32 tensor of shape (2,)")
    token = _STEP.set((seed, {}))
    try:
        yield
    finally:
        _STEP.reset(token)


def in_step() -> bool:
    """Whether there is a current training step, see `step_seed`."""
    return _STEP.get() is not None


def draw_seed(use: str) -> "tf.Tensor":
    """The seed of one random draw in the current training step, int32 `(2,)`.

    Args:
      use: name of the draw; different names give independent draws.

    Raises:
      RuntimeError: there is no training step, i.e. it is called outside `step_seed`.
    """
    if not isinstance(use, str):
        raise UsageError(f"use={shown(use)}: must be a string, the name of the draw")
    step = _STEP.get()
    if step is None:
        raise RuntimeError(
            f"{use!r} draws random numbers only inside a training step: call the model with "
            "training=False, or inside `with lotcal_tf.step_seed(seed):`"
        )
    return step[0] + np.array([zlib.crc32(use.encode()) & 0x3FFFFFFF, 0], np.int32)


def next_seed(use: str) -> "tf.Tensor":
    """The seed of the next of several random draws of one name in a training step, int32 `(2,)`.

    Draws are numbered in the order in which the step is traced. The first is that of `draw_seed`.

    Args:
      use: name of the draws.

    Raises:
      RuntimeError: see `draw_seed`.
    """
    step = _STEP.get()
    counts = {} if step is None else step[1]
    number = counts.get(use, 0)
    counts[use] = number + 1
    return draw_seed(f"{use}#{number}" if number else use)


def random_bits(seed: "tf.Tensor", count: "int | tf.Tensor") -> "tf.Tensor":
    """Draws random bits, uint64 `(count,)`, as a function of the seed, int32 `(2,)`, only."""
    import tensorflow as tf

    # Philox gives the same numbers with and without compilation; `auto_select` does not, and is far
    # slower. Draws of 32 bits take several times as long as draws of 64.
    return tf.random.stateless_uniform(
        [count], seed, minval=None, maxval=None, dtype=tf.uint64, alg="philox"
    )
