"""SavedModel: writing one with a serving signature, and reading one back to run it."""

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lotcal_tf.compat import keras
from lotcal_tf.errors import UsageError
from lotcal_tf.formats.batches import in_batches
from lotcal_tf.formats.format import NOTHING, Material, output_name

SIGNATURE = "serving_default"


def write(model: "keras.Model", path: Path, material: Material = NOTHING) -> None:
    """Writes a directory whose signature `serving_default` takes `inputs`, gives `logits`.

    After `formats.with_softmax` the output is called `probabilities`.

    Args:
      model: plain; takes a batch of one input.
      path: the directory to make.
      material: not needed.
    """
    output = output_name(model)
    spec = tf.TensorSpec(model.input_shape, tf.float32, "inputs")

    @tf.function(input_signature=[spec])
    def serve(inputs: "tf.Tensor") -> dict[str, "tf.Tensor"]:
        return {output: model(inputs, training=False)}

    module = tf.Module()
    module.variables_of_model = model.variables
    module.serve = serve
    tf.saved_model.save(module, str(path), signatures={SIGNATURE: serve})


def weights(path: Path) -> list[tuple[str, NDArray]]:
    """The weights in a SavedModel of `write`, as `layer/kernel` and value.

    Raises:
      UsageError: it cannot be loaded, or is of another make.
    """
    variables = getattr(_load(path), "variables_of_model", None)
    if variables is None:
        raise UsageError(f"{path} is no SavedModel that an export has written")
    return [(variable.name.partition(":")[0], variable.numpy()) for variable in variables]


def _load(path: Path) -> Any:
    try:
        return tf.saved_model.load(str(path))
    except Exception as error:
        # Whatever the loader meets in a damaged directory.
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(f"{path} is no SavedModel that can be loaded: {line}") from error


class Runner:
    """A SavedModel, run by its signature `serving_default`.

    Args:
      path: its directory.

    Attributes:
      shape: of one example's inputs; None where any length goes.
      classes: K; None where the signature does not say.
      output: what the signature calls the output.
      step: 0; what a TFLite file of whole numbers has.

    Raises:
      UsageError: it cannot be loaded, has no such signature, or takes or gives several tensors.
    """

    step = 0.0

    def __init__(self, path: Path) -> None:
        """See the class."""
        # Kept: a signature does not keep alive the variables it reads.
        self._model = _load(path)
        signatures = getattr(self._model, "signatures", {})
        if SIGNATURE not in signatures:
            found = ", ".join(signatures) or "none"
            raise UsageError(f"{path} has no signature {SIGNATURE}; it has {found}")
        self._serve = signatures[SIGNATURE]
        given = self._serve.structured_input_signature[1]
        found = self._serve.structured_outputs
        if len(given) != 1 or len(found) != 1:
            raise UsageError(
                f"{path} takes {', '.join(sorted(given))} and gives {', '.join(sorted(found))}: one tensor of each "
                "is needed"
            )
        ((self._name, self._input),) = given.items()
        ((self.output, result),) = found.items()
        if not self._input.shape.rank or not result.shape.rank:
            raise UsageError(f"{path} takes or gives tensors of no stated rank")
        self.shape = tuple(self._input.shape.as_list()[1:])
        self.classes = result.shape.as_list()[-1]

    def __call__(self, inputs: NDArray[np.float32], batch_size: int = 1000) -> NDArray[np.float32]:
        """What the signature gives, `(N, K)`, for inputs `(N, …)`, N >= 1."""
        fixed = self._input.shape.as_list()[0]
        return in_batches(self._run, inputs, fixed or batch_size, full=fixed is not None)

    def _run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        given = {self._name: tf.cast(inputs, self._input.dtype)}
        return tf.cast(self._serve(**given)[self.output], tf.float32).numpy()
