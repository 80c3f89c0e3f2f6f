"""Fully connected networks such as LeNet-300-100, named by the widths of their hidden layers."""

from collections.abc import Callable, Sequence

from lotcal_tf.compat import keras


def build(
    inputs: "keras.KerasTensor",
    classes: int,
    initializer: Callable[[], "keras.initializers.Initializer"],
    dropout: Callable[[str, "keras.KerasTensor"], "keras.KerasTensor"],
    *,
    widths: Sequence[int],
) -> "keras.KerasTensor":
    """The logits of `lenet_W1_W2_…`: ReLU layers of these widths, then a linear layer.

    Args:
      inputs: `(N, …)`; flattened.
      classes: number of logits.
      initializer: returns a new initializer for each kernel; biases start at 0.
      dropout: called with `block` after each hidden layer and with `head` before the last layer;
        returns its argument, with dropout if the experiment has dropout at this place.
      widths: widths of the hidden layers; (300, 100) for LeNet-300-100 (LeCun et al. 1998).

    Returns:
      `(N, classes)`.
    """
    x = keras.layers.Flatten(name="flatten")(inputs)
    for number, width in enumerate(widths, 1):
        x = keras.layers.Dense(
            width, activation="relu", kernel_initializer=initializer(), name=f"hidden_{number}"
        )(x)
        x = dropout("block", x)
    x = dropout("head", x)
    return keras.layers.Dense(classes, kernel_initializer=initializer(), name="logits")(x)
