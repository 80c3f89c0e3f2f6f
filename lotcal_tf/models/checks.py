"""Checks whether a model can be pruned and evaluated; each error names the fix."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from lotcal_tf.compat import keras
from lotcal_tf.errors import FieldError, UsageError
from lotcal_tf.models.keras_graph import check_walkable


def fits(taken: Sequence[int | None], shape: Sequence[int]) -> bool:
    """Whether an example of a shape can be an input of shape `taken`, where None is any size."""
    return len(taken) == len(shape) and all(
        size in (None, given) for size, given in zip(taken, shape, strict=True)
    )


def classes_of(model: "keras.Model") -> int:
    """The number of classes of a model, from its output shape.

    Raises:
      UsageError: it is not a tf_keras model (but e.g. a Keras 3 model), or it does not have one output
        of shape (examples, classes) with at least two classes.
    """
    if not isinstance(model, keras.Model):
        kinds = [kind.__module__ for kind in type(model).__mro__]
        if any(kind == "keras" or kind.startswith("keras.") for kind in kinds):
            raise UsageError(
                "the model is a Keras 3 model; a tf_keras model is needed: build it with "
                "`import tf_keras as keras` instead of `import keras` or `tf.keras`"
            )
        raise UsageError(f"the model is of type {type(model).__name__}: a tf_keras model is needed")
    check_walkable(model)
    shape = model.output_shape
    if not isinstance(shape, tuple) or len(shape) != 2 or shape[-1] is None or shape[-1] < 2:
        raise UsageError(
            f"model {model.name!r} has output shape {shape}: one output of logits (examples, classes) with at "
            "least 2 classes is needed"
        )
    return int(shape[-1])


def example_shape(model: "keras.Model") -> tuple[int | None, ...] | None:
    """The shape of one input of a model, None for a dimension of any size; None for several inputs."""
    shape = model.input_shape
    return shape[1:] if isinstance(shape, tuple) and None in shape[:1] else None


def check_images(name: str, shape: Sequence[int], smallest: int = 1) -> None:
    """Checks that a built-in convolutional model can take examples of a shape.

    Args:
      name: name of the model.
      shape: shape of one example, without the batch axis.
      smallest: smallest height and width that the model can take, in pixels.

    Raises:
      FieldError: the examples are not images `(height, width, channels)`, or they are too small.
    """
    given = "x".join(map(str, shape))
    if len(shape) != 3:
        problem = (
            f"takes images (height, width, channels), and the data has examples of shape {given}"
        )
        raise FieldError("model", name, f"{problem}: choose a lenet")
    if min(shape[:2]) < smallest:
        problem = f"needs images of {smallest}x{smallest} or more, and the data has {given}"
        raise FieldError("model", name, f"{problem}: choose another model")


def check_outputs(model: "keras.Model", examples: "tf.Tensor", classes: int) -> None:
    """Runs a model on some examples `(N, …)` and checks its outputs.

    Raises:
      UsageError: the model cannot take the examples, has another number of outputs than there are
        classes, or gives probabilities.
    """
    examples = tf.cast(examples, tf.float32)
    try:
        outputs = tf.cast(model(examples, training=False), tf.float32).numpy()
    except (ValueError, tf.errors.InvalidArgumentError) as error:
        line = " ".join(str(error).split())[:200]
        raise UsageError(
            f"model {model.name!r} cannot take inputs of shape {tuple(examples.shape[1:])}: {line}"
        ) from error
    if outputs.shape[-1] != classes:
        raise UsageError(
            f"model {model.name!r} gives {outputs.shape[-1]} outputs, and the data has {classes} classes: give its "
            f"last layer {classes} units"
        )
    # Logits are hardly ever all positive with sum 1 for every example.
    if (outputs >= 0).all() and np.allclose(outputs.sum(-1), 1.0, atol=1e-4):
        raise UsageError(
            f"model {model.name!r} gives probabilities, logits are needed: leave out the softmax at its end "
            "(Dense(classes), not Dense(classes, activation='softmax'))"
        )
