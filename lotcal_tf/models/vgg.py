"""VGG-16 and VGG-19 for small images (Simonyan & Zisserman 2015), with BatchNorm and one linear layer."""

from collections.abc import Callable

from lotcal_tf.compat import keras
from lotcal_tf.models.norm import batch_norm

# Of each stage the channels, as a multiple of the first stage's, and the number of convolutions by depth.
MULTIPLES = (1, 2, 4, 8, 8)
CONVOLUTIONS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def build(
    inputs: "keras.KerasTensor",
    classes: int,
    initializer: Callable[[], "keras.initializers.Initializer"],
    dropout: Callable[[str, "keras.KerasTensor"], "keras.KerasTensor"],
    *,
    depth: int,
    width: int | None = None,
) -> "keras.KerasTensor":
    """The logits of `vggDEPTH` or `vggDEPTH_WIDTH`: 3x3 convolutions, then a linear layer.

    As in the lottery ticket papers, there are no hidden fully connected layers, and global average
    pooling replaces the last max-pooling.

    Args:
      inputs: images `(N, height, width, channels)` of at least 16x16 pixels, since four max-pools
        halve them.
      classes: number of logits.
      initializer: returns a new initializer for each kernel; the last layer's bias starts at 0.
      dropout: called with `block` after each stage and with `head` before the last layer; returns its
        argument, with dropout if the experiment has dropout at this place.
      depth: 16 or 19, of which 13 or 16 are convolutions.
      width: channels of the first stage, 64 by default; the other stages have 2, 4, 8 and 8 times as
        many.

    Returns:
      `(N, classes)`.
    """
    first = width or 64
    x = inputs
    stages = zip(CONVOLUTIONS[depth], MULTIPLES, strict=True)
    for stage, (convolutions, multiple) in enumerate(stages, 1):
        for number in range(1, convolutions + 1):
            # BatchNorm, which follows, has a bias.
            x = keras.layers.Conv2D(
                first * multiple,
                3,
                padding="same",
                use_bias=False,
                kernel_initializer=initializer(),
                name=f"stage_{stage}_conv_{number}",
            )(x)
            x = batch_norm(x, f"stage_{stage}_norm_{number}")
            x = keras.layers.ReLU(name=f"stage_{stage}_relu_{number}")(x)
        pool = keras.layers.MaxPooling2D if stage < 5 else keras.layers.GlobalAveragePooling2D
        x = dropout("block", pool(name=f"stage_{stage}_pool")(x))
    x = dropout("head", x)
    return keras.layers.Dense(classes, kernel_initializer=initializer(), name="logits")(x)
