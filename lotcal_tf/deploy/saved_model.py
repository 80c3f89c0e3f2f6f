"""SavedModel: writing one with a serving signature, and reading one back to run it."""

from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lotcal_tf.compat import keras

SIGNATURE = "serving_default"


def write(model: "keras.Model", path: Path) -> None:
    """Writes a directory whose signature `serving_default` takes `inputs`, gives `logits`.

    Args:
      model: plain; takes a batch of one input, gives logits.
      path: the directory to make.
    """
    spec = tf.TensorSpec(model.input_shape, tf.float32, "inputs")

    @tf.function(input_signature=[spec])
    def serve(inputs: "tf.Tensor") -> dict[str, "tf.Tensor"]:
        return {"logits": model(inputs, training=False)}

    module = tf.Module()
    module.variables_of_model = model.variables
    module.serve = serve
    tf.saved_model.save(module, str(path), signatures={SIGNATURE: serve})


def logits(path: Path, inputs: NDArray[np.float32], batch_size: int = 1000) -> NDArray[np.float32]:
    """Logits `(N, K)` of a written SavedModel for inputs `(N, …)`."""
    loaded = tf.saved_model.load(str(path))
    serve = loaded.signatures[SIGNATURE]
    batches = [inputs[i : i + batch_size] for i in range(0, len(inputs), batch_size)]
    return np.concatenate([serve(inputs=tf.constant(batch))["logits"].numpy() for batch in batches])
