"""Residual networks of basic blocks for small images (He et al. 2016), named by depth and width."""

from collections.abc import Callable

from lotcal_tf.compat import keras
from lotcal_tf.models.norm import batch_norm

Initializer = Callable[[], "keras.initializers.Initializer"]


def build(
    inputs: "keras.KerasTensor",
    classes: int,
    initializer: Initializer,
    dropout: Callable[[str, "keras.KerasTensor"], "keras.KerasTensor"],
    *,
    depth: int,
    width: int | None = None,
) -> "keras.KerasTensor":
    """The logits of `resnetDEPTH` or `resnetDEPTH_WIDTH`.

    Shortcuts that change the shape are 1x1 convolutions with BatchNorm. Their names end in
    `_shortcut`, so that recipes can exclude them from pruning.

    Args:
      inputs: images `(N, height, width, channels)`.
      classes: number of logits.
      initializer: returns a new initializer for each kernel; the last layer's bias starts at 0.
      dropout: called with `block` after each stage and with `head` before the last layer; returns its
        argument, with dropout if the experiment has dropout at this place.
      depth: 18: four stages of two blocks, the first with 64 channels, and a 3x3 stem instead of the
        one for ImageNet. 20, 32, 44, … (6n + 2): three stages of n blocks, the first with 16 channels.
        Each stage has twice the channels of the previous one, at half its resolution.
      width: channels of the first stage; None for the default.

    Returns:
      `(N, classes)`.
    """
    stages, blocks, first = (4, 2, 64) if depth == 18 else (3, (depth - 2) // 6, 16)
    first = width or first
    x = _convolution(inputs, first, initializer, name="stem")
    x = keras.layers.ReLU(name="stem_relu")(batch_norm(x, "stem_norm"))
    for stage in range(1, stages + 1):
        for block in range(1, blocks + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            channels = first * 2 ** (stage - 1)
            x = _block(x, channels, stride, initializer, f"stage_{stage}_block_{block}")
        x = dropout("block", x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    x = dropout("head", x)
    return keras.layers.Dense(classes, kernel_initializer=initializer(), name="logits")(x)


def _block(
    x: "keras.KerasTensor", channels: int, stride: int, initializer: Initializer, name: str
) -> "keras.KerasTensor":
    """A basic block: two 3x3 convolutions and a shortcut around them."""
    y = _convolution(x, channels, initializer, stride=stride, name=f"{name}_conv_1")
    y = keras.layers.ReLU(name=f"{name}_relu_1")(batch_norm(y, f"{name}_norm_1"))
    y = _convolution(y, channels, initializer, name=f"{name}_conv_2")
    y = batch_norm(y, f"{name}_norm_2")
    if stride > 1:
        x = _convolution(x, channels, initializer, 1, stride, f"{name}_shortcut")
        x = batch_norm(x, f"{name}_shortcut_norm")
    return keras.layers.ReLU(name=f"{name}_relu_2")(keras.layers.Add(name=f"{name}_add")([x, y]))


def _convolution(
    x: "keras.KerasTensor",
    channels: int,
    initializer: Initializer,
    size: int = 3,
    stride: int = 1,
    name: str = "",
) -> "keras.KerasTensor":
    """A convolution without bias, aligned with a shortcut of the same stride."""
    padding = "same"
    if stride > 1:
        # Keras's `same` pads a strided convolution at the far side only, which shifts it by a pixel
        # against the shortcut. The papers' code (PyTorch) pads both sides.
        padding = "valid"
        if size > 1:
            x = keras.layers.ZeroPadding2D(size // 2, name=f"{name}_padding")(x)
    return keras.layers.Conv2D(
        channels,
        size,
        stride,
        padding,
        use_bias=False,
        kernel_initializer=initializer(),
        name=name,
    )(x)
