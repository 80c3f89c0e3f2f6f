"""Random changes of training images, inside the compiled step and before anything else of it.

What is changed how is a function of the step's seed and the example's place in its batch: a run
that is resumed changes alike, and so do several workers that share a batch.
"""

from collections.abc import Callable, Mapping

import tensorflow as tf

from lotcal_tf.seeds import random_bits

# Changes images `(N, H, W, C)`, unscaled, by one draw an image; type and shape stay.
Augmentation = Callable[["tf.Tensor", "tf.Tensor"], "tf.Tensor"]

PADDING = 4


def draw(seed: "tf.Tensor", count: int) -> "tf.Tensor":
    """64 random bits for each example of a batch.

    Args:
      seed: int32 `(2,)`, of the step.
      count: examples of all workers together; a worker's own are its rows of what is drawn.

    Returns:
      int64 `(count,)`.
    """
    return tf.bitcast(random_bits(seed, count), tf.int64)


def crop_flip(images: "tf.Tensor", draws: "tf.Tensor") -> "tf.Tensor":
    """Pads 4 pixels of 0 around, crops the size back at a random place, flips one half of them.

    0 is black in images as they come, before they are scaled. All 9 · 9 places and both directions
    are equally likely (He et al. 2016, section 4.2).

    Args:
      images: `(N, H, W, C)`, of known size.
      draws: int64 `(N,)`, see `draw`.
    """
    places = 2 * PADDING + 1
    height, width, channels = images.shape[1:]
    choices = tf.cast(tf.math.floormod(draws, 2 * places * places), tf.int32)[:, None]
    top, left, flipped = choices // (2 * places), choices // 2 % places, choices % 2 == 1
    across = tf.range(width)
    rows = top + tf.range(height)
    columns = left + tf.where(flipped, across[::-1], across)
    margin = [PADDING, PADDING]
    padded = tf.pad(images, [[0, 0], margin, margin, [0, 0]])
    # One gather of whole pixels: each image as a list of them.
    wide = width + 2 * PADDING
    pixels = tf.reshape(padded, [-1, (height + 2 * PADDING) * wide, channels])
    return tf.gather(pixels, rows[:, :, None] * wide + columns[:, None, :], batch_dims=1)


AUGMENTATIONS: Mapping[str, Augmentation | None] = {"none": None, "crop_flip": crop_flip}
