"""Whether a model can be pruned and measured: the mistakes people make, each named with its fix."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from lotcal_tf.compat import keras
from lotcal_tf.errors import FieldError, UsageError
from lotcal_tf.models.keras_graph import check_walkable


def classes_of(model: "keras.Model") -> int:
    """How many classes a model tells apart.

    Raises:
      UsageError: it is no tf_keras model (a Keras 3 one, say) with one output of logits.
    """
    if not isinstance(model, keras.Model):
        kinds = [kind.__module__ for kind in type(model).__mro__]
        if any(kind == "keras" or kind.startswith("keras.") for kind in kinds):
            raise UsageError(
                "this is a Keras 3 model; pruning works on legacy Keras: build it with "
                "`import tf_keras as keras` instead of `import keras` (or tf.keras)"
            )
        raise UsageError(f"a tf_keras model is needed, this is a {type(model).__name__}")
    check_walkable(model)
    shape = model.output_shape
    if not isinstance(shape, tuple) or len(shape) != 2 or shape[-1] is None or shape[-1] < 2:
        raise UsageError(
            f"model {model.name!r} gives {shape}: one output of logits (examples, classes) is needed"
        )
    return int(shape[-1])


def check_images(name: str, shape: Sequence[int], smallest: int = 1) -> None:
    """Whether a convolutional model of the catalog can take examples of a shape.

    Args:
      name: the model's.
      shape: of one example, without the batch.
      smallest: the least height and width it can take.

    Raises:
      FieldError: they are no images `(height, width, channels)`, or too small.
    """
    given = "x".join(map(str, shape))
    if len(shape) != 3:
        problem = (
            f"takes images (height, width, channels); the data's examples are of shape {given}"
        )
        raise FieldError("model", name, f"{problem}: choose a lenet")
    if min(shape[:2]) < smallest:
        problem = f"needs images of {smallest}x{smallest} or more; the data's are {given}"
        raise FieldError("model", name, f"{problem}: choose another model")


def check_outputs(model: "keras.Model", examples: "tf.Tensor", classes: int) -> None:
    """Tries the model on some examples `(N, …)`.

    Raises:
      UsageError: it cannot take them, gives another number of classes, or gives probabilities.
    """
    examples = tf.cast(examples, tf.float32)
    try:
        outputs = model(examples, training=False).numpy()
    except (ValueError, tf.errors.InvalidArgumentError) as error:
        line = " ".join(str(error).split())[:200]
        raise UsageError(
            f"model {model.name!r} cannot take inputs of shape {tuple(examples.shape[1:])}: {line}"
        ) from error
    if outputs.shape[-1] != classes:
        raise UsageError(
            f"model {model.name!r} gives {outputs.shape[-1]} outputs, the data has {classes} classes"
        )
    # Logits that are all positive and add up to 1 for every example happen to nobody.
    if (outputs >= 0).all() and np.allclose(outputs.sum(-1), 1.0, atol=1e-4):
        raise UsageError(
            f"model {model.name!r} ends in a softmax, logits are needed: leave out the activation of "
            "its last layer (Dense(classes), not Dense(classes, activation='softmax'))"
        )
