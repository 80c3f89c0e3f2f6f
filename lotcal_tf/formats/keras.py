"""Keras files: the ticket as a plain `tf_keras` model."""

from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lotcal_tf.compat import keras
from lotcal_tf.errors import UsageError
from lotcal_tf.formats.batches import in_batches
from lotcal_tf.formats.format import NO_MATERIAL, Format, Material, StoredTensor
from lotcal_tf.formats.outputs import output_name
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
            line = str(error).strip().splitlines()[0]
            raise UsageError(f"the model cannot be saved as a .keras file: {line}") from error

    def runner(self, path: Path) -> "KerasRunner":
        """Loads the model."""
        return KerasRunner(read(path))

    def stored_tensors(self, path: Path) -> list[StoredTensor]:
        """The kernels of the loaded model."""
        values = masking.values(read(path))
        return [StoredTensor.of(name, value) for name, value in values.items() if value.ndim >= 2]


def read(path: Path) -> "keras.Model":
    """The model in a `.keras` file.

    Raises:
      UsageError: it cannot be loaded.
    """
    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:
        # A damaged file can raise any exception in the loader.
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(f"{path} cannot be loaded as a Keras file: {line}") from error


class KerasRunner:
    """Runs a plain Keras model in inference mode; see `format.Runner`.

    Args:
      model: the model.
    """

    step = 0.0

    def __init__(self, model: "keras.Model") -> None:
        spec = tf.TensorSpec(model.input_shape, tf.float32)
        # Under mixed precision the outputs have 16 bits.
        self._run = tf.function(
            lambda batch: tf.cast(model(batch, training=False), tf.float32), input_signature=[spec]
        )
        self.output = output_name(model)
        self.shape = tuple(model.input_shape[1:])
        self.classes = model.output_shape[-1]

    def __call__(self, inputs: NDArray[np.float32], batch_size: int = 1000) -> NDArray[np.float32]:
        """The outputs `(N, K)` for inputs `(N, …)`."""
        # Not `predict`, which makes TensorFlow log an error to standard error.
        return in_batches(lambda batch: self._run(batch).numpy(), inputs, batch_size)
