"""Keras 3 files: the ticket as a plain Keras 3 model. They are read like those of tf_keras."""

from pathlib import Path

from lotcal_tf.compat import keras
from lotcal_tf.errors import UsageError, first_line
from lotcal_tf.formats.format import NO_MATERIAL, Material
from lotcal_tf.formats.keras import KerasFile
from lotcal_tf.models.keras3 import to_keras3


class Keras3File(KerasFile):
    """A `.keras` file of Keras 3, which cannot load functional models of tf_keras."""

    def write(self, model: "keras.Model", path: Path, material: Material = NO_MATERIAL) -> None:
        """Saves the Keras 3 model with the same layers and weights.

        Raises:
          UsageError: a layer has no twin in Keras 3, or does not give its configuration.
        """
        twin = to_keras3(model)
        try:
            twin.save(path)
        except (NotImplementedError, TypeError, ValueError) as error:
            line = first_line(error)
            raise UsageError(f"the model cannot be saved as a Keras 3 file: {line}") from error
