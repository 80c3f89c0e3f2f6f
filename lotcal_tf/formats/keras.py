"""Keras files: the ticket as a plain `tf_keras` model; files of Keras 3 are read too."""

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lotcal_tf.compat import keras
from lotcal_tf.errors import UsageError, first_line
from lotcal_tf.formats.batches import in_batches
from lotcal_tf.formats.format import NO_MATERIAL, Format, Material, StoredTensor
from lotcal_tf.formats.outputs import PROBABILITIES, output_name
from lotcal_tf.inputs import Specs, by_name, fixed_batch, packed, select, single_or_list, specs_of
from lotcal_tf.models.given import GivenModel
from lotcal_tf.models.keras3 import as_array, from_keras3, is_keras3
from lotcal_tf.models.keras_file import read_model
from lotcal_tf.pruning import masking


class KerasFile(Format):
    """A `.keras` file."""

    def write(self, model: "keras.Model", path: Path, material: Material = NO_MATERIAL) -> None:
        """Saves the model.

        Raises:
          UsageError: a layer does not give its configuration.
        """
        try:
            model.save(path, save_format="keras")
        except (NotImplementedError, TypeError, ValueError) as error:
            line = first_line(error)
            raise UsageError(f"the model cannot be saved as a .keras file: {line}") from error

    def runner(self, path: Path, trusted: bool = True) -> "KerasRunner":
        """Loads the model; in the Keras that wrote the file, unless it has to be made to give logits."""
        model = read_model(path)
        shape = getattr(model, "output_shape", None)
        if not isinstance(shape, tuple) or len(shape) != 2:
            raise UsageError(
                f"{path} has output shape {shape}: one output (examples, classes) is needed"
            )
        if output_name(model) == PROBABILITIES:
            return KerasRunner(model)
        given = GivenModel.of(model)
        return KerasRunner(given.model, given) if given.notes else KerasRunner(model)

    def stored_tensors(self, path: Path) -> list[StoredTensor]:
        """The kernels of the loaded model."""
        return [StoredTensor.of(*kernel) for kernel in masking.kernels(read(path)).items()]


def read(path: Path) -> "keras.Model":
    """The model in a `.keras` file; that of a Keras 3 model is its tf_keras twin.

    Raises:
      UsageError: it cannot be loaded, or has custom objects that are not registered.
    """
    model = read_model(path)
    return from_keras3(model) if is_keras3(model) else model


class KerasRunner:
    """Runs a plain Keras model in inference mode; see `format.Runner`.

    Args:
      model: the model, of tf_keras or Keras 3.
      given: what `model` was made from; its outputs are compared on the first inputs.

    Attributes:
      notes: messages for the user: how the model differs from the given one.
    """

    step = 0.0
    ordered = True

    def __init__(self, model: "keras.Model", given: GivenModel | None = None) -> None:
        self.notes = given.notes if given is not None else ()
        self._given = given
        self.inputs: Specs = specs_of(model)
        self._batch = fixed_batch(self.inputs)
        if is_keras3(model):
            self._run = lambda *parts: as_array(model(packed(model, parts), training=False))
        else:
            # Under mixed precision the outputs have 16 bits.
            run = tf.function(
                lambda *parts: tf.cast(model(single_or_list(parts), training=False), tf.float32),
                input_signature=list(self.inputs.values()),
            )
            self._run = lambda *parts: run(*parts).numpy()
        self.output = output_name(model)
        self.classes = model.output_shape[-1]

    def __call__(self, inputs: Any, batch_size: int = 1000) -> NDArray[np.float32]:
        """The outputs `(N, K)` for inputs `(N, …)`."""
        if self._given is not None:
            examples = by_name(select(inputs, slice(8)), self.inputs)
            self._given.check(list(examples.values()))
            self._given = None
        # Not `predict`, which makes TensorFlow log an error to standard error.
        return in_batches(
            lambda batch: self._run(*batch.values()),
            by_name(inputs, self.inputs),
            self._batch or batch_size,
            full=self._batch is not None,
        )
