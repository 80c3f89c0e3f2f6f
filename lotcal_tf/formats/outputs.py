"""Outputs of a model: logits, or the probabilities of a softmax."""

import numpy as np
from numpy.typing import NDArray

from lotcal_tf.compat import keras
from lotcal_tf.formats.format import Runner
from lotcal_tf.models.keras_graph import flatten

# Names of the output in every written file.
LOGITS, PROBABILITIES = "logits", "probabilities"

# Rows of a float32 softmax sum to 1 within this; integer outputs add half a step for each class.
SUM_TOLERANCE = 1e-3


def with_softmax(model: "keras.Model") -> "keras.Model":
    """A copy of a model of logits that gives probabilities: a float softmax follows the logits."""
    softmax = keras.layers.Softmax(name=PROBABILITIES)
    flat = flatten(model)
    return keras.Model(flat.inputs, softmax(flat.output), name=model.name)


def without_softmax(model: "keras.Model") -> "keras.Model":
    """The model of logits inside a model made by `with_softmax`; any other model as it is."""
    if not _ends_in_softmax(model):
        return model
    return keras.Model(model.inputs, model.layers[-1].input, name=model.name)


def output_name(model: "keras.Model") -> str:
    """`probabilities` for a model made by `with_softmax`, else `logits`."""
    return PROBABILITIES if _ends_in_softmax(model) else LOGITS


def gives_probabilities(runner: Runner, outputs: NDArray[np.float32]) -> bool:
    """Whether outputs `(N, K)` are probabilities, by the output's name, else by the values.

    Without a known name, values count as probabilities if none is negative and every row sums to 1.
    """
    if runner.output in (LOGITS, PROBABILITIES):
        return runner.output == PROBABILITIES
    tolerance = SUM_TOLERANCE + outputs.shape[1] * runner.step / 2
    sums = outputs.sum(axis=1, dtype=np.float64)
    return bool((outputs >= 0).all() and (np.abs(sums - 1) <= tolerance).all())


def logits_of(probabilities: NDArray[np.float32], step: float) -> NDArray[np.float64]:
    """The logarithms of probabilities, which serve as logits.

    Args:
      probabilities: `(N, K)`.
      step: the resolution of integer outputs, see `Runner.step`; 0 for floats. A probability of 0
        is replaced by half a step, or by the smallest normal float32.
    """
    least = step / 2 if step else float(np.finfo(np.float32).tiny)
    return np.log(np.maximum(np.asarray(probabilities, np.float64), least))


def _ends_in_softmax(model: "keras.Model") -> bool:
    last = model.layers[-1]  # of either Keras
    return type(last).__name__ == "Softmax" and last.name == PROBABILITIES
