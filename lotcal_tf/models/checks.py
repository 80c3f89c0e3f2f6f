"""Checks whether a model can be pruned and evaluated; each error names the fix."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from lotcal_tf.compat import keras
from lotcal_tf.errors import FieldError, UsageError, shown
from lotcal_tf.inputs import Specs, cast, example_shape, flat, specs_of
from lotcal_tf.models.keras_graph import check_walkable


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


def _check_names(specs: Specs) -> None:
    """Raises UsageError if an exported file cannot call one of several inputs by its name."""
    for name in specs if len(specs) > 1 else ():
        # TensorFlow replaces other characters in the names of a signature's inputs.
        if not (name[0].isalpha() and name.replace("_", "").isalnum()):
            raise UsageError(
                f"input {shown(name)!r} of the model: exported files name their inputs, by letters, digits and _ only, "
                f"beginning with a letter: rename it, e.g. keras.Input(…, name={_valid(name)!r})"
            )


def _valid(name: str) -> str:
    found = "".join(sign if sign.isalnum() else "_" for sign in name)
    return found if found[0].isalpha() else f"input_{found}"


def check_outputs(model: "keras.Model", examples: Any, classes: int) -> None:
    """Runs a model on some examples and checks its outputs.

    Args:
      model: a plain model.
      examples: `(N, …)`, or a dictionary or tuple of such tensors, see `lotcal_tf.inputs`.
      classes: the number of classes of the data.

    Raises:
      UsageError: the model cannot take the examples, has another number of outputs than there are
        classes, or gives probabilities; or one of several inputs has a name that no file can have.
    """
    specs, count = specs_of(model), flat(examples)[0][1].shape[0]
    _check_names(specs)
    shape = example_shape(examples)
    try:
        outputs = model(cast(examples, specs), training=False)
        outputs = tf.cast(outputs, tf.float32).numpy()
    except (ValueError, tf.errors.InvalidArgumentError) as error:
        line = " ".join(str(error).split())[:200]
        raise UsageError(
            f"model {model.name!r} cannot take inputs of shape {shape}: {line}"
        ) from error
    if len(outputs) != count:
        raise UsageError(
            f"model {model.name!r} gives {len(outputs)} outputs for {count} examples: an operation in it needs a "
            "fixed batch size; let it take batches of any size (-1 or None in place of the size)"
        )
    if outputs.shape[-1] != classes:
        raise UsageError(
            f"model {model.name!r} gives {outputs.shape[-1]} outputs, and the data has {classes} classes: give its "
            f"last layer {classes} units"
        )
    if not np.isfinite(outputs).all():
        broken = [w.name for w in model.weights if not np.isfinite(w.numpy()).all()]
        what = (
            f"its weight {broken[0]} is not"
            if broken
            else "its outputs for the first examples are not"
        )
        raise UsageError(
            f"model {model.name!r} cannot be trained: {what} finite; pass other weights or inputs"
        )
    # Logits are hardly ever all positive with sum 1 for every example.
    if (outputs >= 0).all() and np.allclose(outputs.sum(-1), 1.0, atol=1e-4):
        raise UsageError(
            f"model {model.name!r} gives probabilities, logits are needed: leave out the softmax at its end "
            "(Dense(classes), not Dense(classes, activation='softmax'))"
        )
