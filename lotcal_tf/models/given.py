"""A model that the caller passes, of either Keras or in a file, as the package works with it."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lotcal_tf.compat import keras
from lotcal_tf.models.keras3 import check_same_outputs, from_keras3, is_keras3
from lotcal_tf.models.keras_file import read_model
from lotcal_tf.models.logits import as_logits


@dataclasses.dataclass(frozen=True)
class GivenModel:
    """A model of the caller.

    Attributes:
      model: a tf_keras model that gives logits.
      notes: messages for the user: what was changed.
      original: the Keras 3 model that it was made from, and its twin with the same outputs; None: it
        was a tf_keras model.
      name: of the model that was passed.
    """

    model: "keras.Model"
    notes: Sequence[str] = ()
    original: tuple[Any, "keras.Model"] | None = None
    name: str = ""

    @classmethod
    def of(cls, given: Any, custom_objects: Mapping[str, Any] | None = None) -> "GivenModel":
        """A model of tf_keras or Keras 3, or the path of a `.keras` file of either.

        Args:
          given: the model; another object is kept as it is, see `checks.classes_of`.
          custom_objects: classes of custom layers by name, see `keras3.from_keras3` and
            `keras_file.read_model`.

        Raises:
          UsageError: the file cannot be read, or the model cannot be made into one that gives logits.
        """
        if isinstance(given, GivenModel):
            return given
        if isinstance(given, str | Path):
            given = read_model(Path(given), custom_objects)
        original, name = None, getattr(given, "name", "")
        if is_keras3(given):
            twin = from_keras3(given, custom_objects=custom_objects)
            original, given = (given, twin), twin
        if not isinstance(given, keras.Model):
            return cls(given)
        model, notice = as_logits(given)
        notes = (f"model {name!r}: {notice}",) if notice else ()
        return cls(model, notes, original, name)

    def check(self, examples: Any) -> None:
        """Compares the outputs of a Keras 3 model and of its twin on examples.

        Args:
          examples: inputs `(N, …)`; several as a list in the order of `model.inputs`.

        Raises:
          UsageError: they differ.
        """
        if self.original is not None:
            check_same_outputs(*self.original, examples)
