"""Random augmentation of training images, at the start of the compiled training step.

The change of an image is a function of the step's seed and of the image's index in the batch. So a
resumed run repeats it, and several workers that share a batch agree on it.
"""

from collections.abc import Callable, Mapping

import tensorflow as tf

from lotcal_tf.seeds import random_bits

# Takes unscaled images `(N, H, W, C)` and one draw per image; keeps type and shape.
Augmentation = Callable[["tf.Tensor", "tf.Tensor"], "tf.Tensor"]

PADDING = 4


def draw(seed: "tf.Tensor", count: int) -> "tf.Tensor":
    """Draws 64 random bits for each example of a batch.

    Args:
      seed: int32 `(2,)`, the seed of the step.
      count: examples of all workers together. Each worker uses the draws of its own rows.

    Returns:
      int64 `(count,)`.
    """
    return tf.bitcast(random_bits(seed, count), tf.int64)


def crop_flip(images: "tf.Tensor", draws: "tf.Tensor") -> "tf.Tensor":
    """Pads by 4 pixels, crops to the original size at a random place, and flips half of the images.

    Padding is 0, i.e. black, since images are not scaled yet. All 9 · 9 places and both directions
    are equally likely (He et al. 2016, section 4.2).

    Args:
      images: `(N, H, W, C)`; H, W and C must be static.
      draws: int64 `(N,)`, see `draw`.

    Returns:
      Images of the same shape and type.
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
    # A single gather of whole pixels, from each image as a list of pixels.
    wide = width + 2 * PADDING
    pixels = tf.reshape(padded, [-1, (height + 2 * PADDING) * wide, channels])
    return tf.gather(pixels, rows[:, :, None] * wide + columns[:, None, :], batch_dims=1)


AUGMENTATIONS: Mapping[str, Augmentation | None] = {"none": None, "crop_flip": crop_flip}
