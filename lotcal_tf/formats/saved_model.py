"""SavedModel: a directory with the signature `serving_default`, which servers look for."""

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lotcal_tf.compat import keras
from lotcal_tf.errors import UsageError, first_line
from lotcal_tf.formats.batches import in_batches
from lotcal_tf.formats.format import NO_MATERIAL, Format, Material, StoredTensor
from lotcal_tf.formats.outputs import output_name
from lotcal_tf.inputs import Specs, by_name, fixed_batch, single_or_list, specs_of
from lotcal_tf.pruning.masked import is_kernel

SIGNATURE = "serving_default"


class SavedModel(Format):
    """A SavedModel directory, which can be run without this package."""

    def write(self, model: "keras.Model", path: Path, material: Material = NO_MATERIAL) -> None:
        """Saves the model with a signature that gives `logits` or `probabilities`.

        It takes `inputs`; of a model with several inputs, these by their names.

        Raises:
          UsageError: TensorFlow cannot save a layer.
        """
        output, specs = output_name(model), specs_of(model)
        if len(specs) == 1:
            ((_, spec),) = specs.items()
            specs = {"inputs": tf.TensorSpec(spec.shape, spec.dtype, "inputs")}

        @tf.function
        def serve(**inputs: "tf.Tensor") -> dict[str, "tf.Tensor"]:
            parts = [inputs[name] for name in specs]
            return {output: model(single_or_list(parts), training=False)}

        module = tf.Module()
        module.variables_of_model = model.variables
        module.serve = serve
        try:
            signature = serve.get_concrete_function(**specs)
            tf.saved_model.save(module, str(path), signatures={SIGNATURE: signature})
        except (AssertionError, NotImplementedError, TypeError, ValueError) as error:
            line = first_line(error)
            raise UsageError(f"the model cannot be saved as a SavedModel: {line}") from error

    def runner(self, path: Path, trusted: bool = True) -> "SavedModelRunner":
        """Loads the signature.

        Raises:
          UsageError: the directory is not trusted: it is a program, which can read and write files.
        """
        if not trusted:
            raise UsageError(
                f"{path} is a SavedModel, a program that can do anything: if you trust who made it, give "
                "--trust_saved_model (library: trust_saved_model=True); one that you exported on this "
                "machine needs no flag while it lies unchanged in its export directory"
            )
        return SavedModelRunner(path)

    def stored_tensors(self, path: Path) -> list[StoredTensor]:
        """The kernels among the saved variables.

        Raises:
          UsageError: it cannot be loaded, or was not written by `write`.
        """
        variables = getattr(_load(path), "variables_of_model", None)
        if variables is None:
            raise UsageError(f"{path} is not a SavedModel written by export: export it again")
        values = [(variable.name.partition(":")[0], variable.numpy()) for variable in variables]
        return [StoredTensor.of(name, value) for name, value in values if is_kernel(name, value)]


def _load(path: Path) -> Any:
    try:
        return tf.saved_model.load(str(path))
    except Exception as error:
        # A damaged directory can raise any exception in the loader.
        line = first_line(error)
        raise UsageError(f"{path} cannot be loaded as a SavedModel: {line}") from error


class SavedModelRunner:
    """Runs the signature `serving_default` of a SavedModel; see `format.Runner`.

    Args:
      path: its directory; a SavedModel from another program works too.

    Raises:
      UsageError: it cannot be loaded, has no such signature, or several outputs.
    """

    step = 0.0
    ordered = False

    def __init__(self, path: Path) -> None:
        # Kept, as a signature does not keep its variables alive.
        self._model = _load(path)
        signatures = getattr(self._model, "signatures", {})
        if SIGNATURE not in signatures:
            found = ", ".join(signatures) or "none"
            raise UsageError(f"{path} has no signature {SIGNATURE}, only: {found}")
        self._serve = signatures[SIGNATURE]
        inputs = self._serve.structured_input_signature[1]
        outputs = self._serve.structured_outputs
        if not inputs or len(outputs) != 1:
            raise UsageError(
                f"{path} has the inputs {', '.join(sorted(inputs))} and the outputs "
                f"{', '.join(sorted(outputs))}: inputs and one output are needed"
            )
        ((self.output, result),) = outputs.items()
        if not all(spec.shape.rank for spec in (*inputs.values(), result)):
            raise UsageError(f"{path} has an input or output of unknown rank: save it with shapes")
        self.inputs: Specs = inputs
        self.classes = result.shape.as_list()[-1]

    def __call__(self, inputs: Any, batch_size: int = 1000) -> NDArray[np.float32]:
        """The outputs `(N, K)` for inputs `(N, …)`."""
        fixed, named = fixed_batch(self.inputs), by_name(inputs, self.inputs)
        return in_batches(self._run, named, fixed or batch_size, full=fixed is not None)

    def _run(self, inputs: dict[str, NDArray]) -> NDArray[np.float32]:
        arguments = {name: tf.constant(values) for name, values in inputs.items()}
        return tf.cast(self._serve(**arguments)[self.output], tf.float32).numpy()
