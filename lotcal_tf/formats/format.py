"""What the writers of files have in common: the data they may take, and a softmax at the end.

A writer is called as `write(model, path, material=…)`. The model is plain and gives logits, or
probabilities where `with_softmax` has put a softmax behind them; in every file the output goes by
the name of what it gives. An encoder makes of such a file's content one without its zeros, as
`encode(model, content)`. The catalog's `FORMATS` names writers and encoders.
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from lotcal_tf.compat import keras
from lotcal_tf.data.splits import Split
from lotcal_tf.errors import UsageError
from lotcal_tf.models.keras_graph import flatten

# Names of outputs, which say themselves what they are.
LOGITS, PROBABILITIES = "logits", "probabilities"


@dataclasses.dataclass(frozen=True)
class Material:
    """What writing a file may take besides the model.

    Attributes:
      validation: `(N, …)` float32 inputs that quantisation finds its ranges by.
      labels: `(N,)` their classes, by which a temperature is fitted.
      training: what quantisation-aware fine-tuning runs over.
      seed: of its order.
    """

    validation: NDArray[np.float32] | None = None
    labels: NDArray[np.integer] | None = None
    training: Split | None = None
    seed: int = 0

    def of_validation(self, use: str) -> tuple[NDArray[np.float32], NDArray[np.integer]]:
        """Inputs and labels of the validation data.

        Args:
          use: what needs them, for the message.

        Raises:
          UsageError: there are none.
        """
        if self.validation is None or self.labels is None or not len(self.validation):
            raise UsageError(f"{use} needs validation data: give some, or choose another format")
        return np.asarray(self.validation, np.float32), self.labels


# For writers that need none.
NOTHING = Material()


def with_softmax(model: "keras.Model") -> "keras.Model":
    """A copy that gives probabilities: a model of logits with a float softmax behind it."""
    softmax = keras.layers.Softmax(name=PROBABILITIES)
    flat = flatten(model)
    return keras.Model(flat.inputs, softmax(flat.output), name=model.name)


def output_name(model: "keras.Model") -> str:
    """What a model gives: `probabilities` after `with_softmax`, else `logits`."""
    return PROBABILITIES if _ends_in_softmax(model) else LOGITS


def without_softmax(model: "keras.Model") -> "keras.Model":
    """The model of the logits that `with_softmax` was given, or the model itself."""
    if not _ends_in_softmax(model):
        return model
    return keras.Model(model.inputs, model.layers[-1].input, name=model.name)


def _ends_in_softmax(model: "keras.Model") -> bool:
    last = model.layers[-1]
    return isinstance(last, keras.layers.Softmax) and last.name == PROBABILITIES
