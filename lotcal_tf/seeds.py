"""Stateless, named seeds: every random draw of a run is a function of (seed, use, indices).

No generator is carried from one draw to the next, so a run that is resumed at any level draws
exactly what an uninterrupted one draws.
"""

import contextlib
import contextvars
import hashlib
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

_STEP_SEED: contextvars.ContextVar["tf.Tensor | None"] = contextvars.ContextVar(
    "step_seed", default=None
)


def named_seed(seed: int, use: str, *indices: int) -> tuple[int, int]:
    """Derives the seed of one use of randomness.

    Args:
      seed: the experiment's seed.
      use: what is drawn, e.g. `"shuffle"`; different names give unrelated draws.
      *indices: where in the run, e.g. level and epoch.

    Returns:
      Two integers in [0, 2**31), the form TensorFlow's stateless functions take.
    """
    text = "/".join([str(seed), use, *map(str, indices)])
    digest = hashlib.sha256(text.encode()).digest()
    high, low = (int.from_bytes(digest[i : i + 4], "little") >> 1 for i in (0, 4))
    return high, low


def generator(seed: int, use: str, *indices: int) -> np.random.Generator:
    """A NumPy generator at the start of the stream that `named_seed` names."""
    return np.random.Generator(np.random.Philox(key=list(named_seed(seed, use, *indices))))


@contextlib.contextmanager
def step_seed(seed: "tf.Tensor") -> Iterator[None]:
    """Makes `seed`, an int32 tensor of shape (2,), the seed of the training step traced inside.

    Layers and strategies that draw within the step ask `draw_seed` for a seed of their own; the
    tensor is found when the step is traced, so it costs no state and nothing at run time.
    """
    token = _STEP_SEED.set(seed)
    try:
        yield
    finally:
        _STEP_SEED.reset(token)


def draw_seed(use: str) -> "tf.Tensor":
    """The seed, an int32 tensor of shape (2,), of one use of randomness within the current step.

    Raises:
      RuntimeError: outside `step_seed`, where a draw could not be repeated.
    """
    seed = _STEP_SEED.get()
    if seed is None:
        raise RuntimeError(
            f"{use!r} draws random numbers only inside a training step: call the model with "
            "training=False, or inside `with lotcal_tf.step_seed(seed):`"
        )
    return seed + np.array([zlib.crc32(use.encode()) & 0x3FFFFFFF, 0], np.int32)


def random_bits(seed: "tf.Tensor", count: "int | tf.Tensor") -> "tf.Tensor":
    """64 random bits each, uint64 `(count,)`, a function of the seed, int32 `(2,)`, alone.

    Philox by name: it gives the same numbers compiled and not. `auto_select` does not, and is far
    slower; draws of 32 bits take several times as long as of 64.
    """
    import tensorflow as tf

    return tf.random.stateless_uniform(
        [count], seed, minval=None, maxval=None, dtype=tf.uint64, alg="philox"
    )
