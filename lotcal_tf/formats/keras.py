"""Keras files: the ticket as a plain `tf_keras` model."""

from pathlib import Path

from lotcal_tf.compat import keras
from lotcal_tf.errors import UsageError
from lotcal_tf.formats.format import NOTHING, Material


def write(model: "keras.Model", path: Path, material: Material = NOTHING) -> None:
    """Writes a `.keras` file; every zero is a number in it.

    Raises:
      UsageError: a layer does not give its configuration.
    """
    try:
        model.save(path, save_format="keras")
    except (NotImplementedError, TypeError, ValueError) as error:
        line = str(error).strip().splitlines()[0]
        raise UsageError(f"the model cannot be written as a .keras file: {line}") from error


def read(path: Path) -> "keras.Model":
    """The model of a `.keras` file.

    Raises:
      UsageError: it cannot be loaded.
    """
    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:
        # Whatever the loader meets in a damaged file.
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(f"{path} is no Keras file that can be loaded: {line}") from error
