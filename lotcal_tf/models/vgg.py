"""VGG-19 for small images (Simonyan & Zisserman 2015), with BatchNorm and one linear layer."""

from collections.abc import Callable

from lotcal_tf.compat import keras
from lotcal_tf.models.norm import batch_norm

# Convolutions a stage, and its channels in multiples of the first stage's.
STAGES = ((2, 1), (2, 2), (4, 4), (4, 8), (4, 8))


def build(
    inputs: "keras.KerasTensor",
    classes: int,
    initializer: Callable[[], "keras.initializers.Initializer"],
    dropout: Callable[[str, "keras.KerasTensor"], "keras.KerasTensor"],
    *,
    width: int | None = None,
) -> "keras.KerasTensor":
    """The logits of `vgg19`, or of `vgg19_WIDTH`: sixteen 3x3 convolutions, then a linear layer.

    The hidden fully connected layers are left out, and a global average pool stands in place of
    the last max-pool, as the lottery ticket papers have it.

    Args:
      inputs: a batch of images `(N, height, width, channels)`, at least 16x16: four max-pools
        halve them.
      classes: the number of logits.
      initializer: makes what draws a kernel, one each; the last layer's bias starts at 0.
      dropout: called with `block` after each stage and with `head` before the last layer; puts
        dropout there where it is asked for.
      width: the first stage's channels, by default 64; the others have 2, 4, 8 and 8 times as many.
    """
    first = width or 64
    x = inputs
    for stage, (convolutions, multiple) in enumerate(STAGES, 1):
        for number in range(1, convolutions + 1):
            # No bias: BatchNorm's own follows.
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
