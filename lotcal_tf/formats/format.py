"""The interface of a file format: writing a network to a file, running the file, reading its kernels.

A new format is one module with a subclass of `Format`, and one row in `config.registry.FORMATS`.
"""

import abc
import dataclasses
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lotcal_tf.compat import keras
from lotcal_tf.data.splits import Split
from lotcal_tf.errors import UsageError
from lotcal_tf.inputs import Specs


@dataclasses.dataclass(frozen=True)
class Material:
    """The data that a format may use for writing.

    Attributes:
      validation: inputs `(N, …)`, see `lotcal_tf.inputs`, from which quantisation takes the ranges of
        activations.
      labels: `(N,)` their classes, on which a temperature is fitted.
      training: the examples of quantisation-aware fine-tuning.
      seed: determines the order of the training examples.
      examples: inputs on which encodings are verified; None: there are none.
    """

    validation: Any = None
    labels: NDArray[np.integer] | None = None
    training: Split | None = None
    seed: int = 0
    examples: Any = None

    def require(self, needs: tuple[str, ...], use: str) -> None:
        """Checks that data is present.

        Args:
          needs: of `validation` and `training`.
          use: what the data is needed for; the message begins with it.

        Raises:
          UsageError: data is missing.
        """
        for name in needs:
            if getattr(self, name) is None:
                raise UsageError(f"{use} needs {name} data: pass it, or choose another format")

    def of_validation(self, use: str) -> tuple[Any, NDArray[np.integer]]:
        """Inputs and labels of the validation data; see `require`.

        Raises:
          UsageError: there is no validation data.
        """
        self.require(("validation",), use)
        assert self.validation is not None and self.labels is not None
        return self.validation, self.labels


# For formats that need no data.
NO_MATERIAL = Material()


class Runner(Protocol):
    """Runs a model, from a file or in memory.

    Attributes:
      inputs: the inputs by name, with a batch axis; None for a dimension of any size.
      ordered: whether the order of several inputs is known, so that they can be given as a tuple.
      classes: K, the number of classes; None if unknown.
      output: the name of the output, e.g. `logits`; empty if it has none.
      step: the resolution of integer outputs, in units of the output; 0 for floats.
    """

    inputs: Specs
    ordered: bool
    classes: int | None
    output: str
    step: float

    def __call__(self, inputs: Any, batch_size: int = 1000) -> NDArray[np.float32]:
        """The outputs `(N, K)` for inputs `(N, …)`, N >= 1, see `lotcal_tf.inputs`.

        Inputs are cast to the types that the model takes.
        """


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """A kernel as it is stored in a file.

    Attributes:
      name: its name in the file.
      layer: the layer it belongs to, or a part of that layer (`attention/query`), if its name shows
        that; else empty.
      shape: of the dense kernel; TFLite puts the output channels first.
      zeros: the number of values that are 0; of a quantised kernel, that equal the zero point.
      size: the number of values.
      sparse: whether zeros are left out.
      nonzero: boolean, where it is not 0; output channels last, as in Keras.
    """

    name: str
    layer: str
    shape: tuple[int, ...]
    zeros: int
    size: int
    sparse: bool
    nonzero: NDArray[np.bool_] = dataclasses.field(repr=False, compare=False)

    @classmethod
    def of(cls, name: str, value: NDArray) -> "StoredTensor":
        """A dense kernel whose name is `layer/kernel`."""
        return cls(
            name=name,
            layer=name.rpartition("/")[0],
            shape=value.shape,
            zeros=int((value == 0).sum()),
            size=value.size,
            sparse=False,
            nonzero=value != 0,
        )


class Format(abc.ABC):
    """A file format; subclasses take no arguments."""

    @abc.abstractmethod
    def write(self, model: "keras.Model", path: Path, material: Material = NO_MATERIAL) -> None:
        """Writes a network with all its zeros stored as values.

        Args:
          model: a plain Keras model that gives logits, or probabilities if it was made by
            `outputs.with_softmax`. The file's output is called `outputs.output_name(model)`.
          path: the file or directory to create.
          material: data, of which the row's `needs` is present.

        Raises:
          UsageError: the format cannot hold this network, or data is missing.
        """

    @abc.abstractmethod
    def runner(self, path: Path, trusted: bool = True) -> Runner:
        """Opens a file for inference.

        Args:
          path: the file.
          trusted: whether this package wrote the file, or the user trusts who did. A format whose
            files can hold code refuses others, or runs them where they do no harm.

        Raises:
          UsageError: the file cannot be read, or has more than one input or output.
        """

    @abc.abstractmethod
    def stored_tensors(self, path: Path) -> list[StoredTensor]:
        """The kernels in a file: its weights of two or more dimensions.

        Raises:
          UsageError: the file cannot be read.
        """

    def encode(self, model: "keras.Model", dense: bytes, material: Material = NO_MATERIAL) -> bytes:
        """A written file's content in sparse encoding, i.e. without its zeros.

        Implemented by formats whose registry row has `sparse=True`.

        Args:
          model: the network in the file.
          dense: the content of the file that `write` made of it.
          material: its `examples` verify the encoding.
        """
        raise NotImplementedError(f"{type(self).__name__} has no sparse encoding")

    def encode_blocks(self, sparse: bytes) -> bytes | None:
        """A sparse file's content with sparse kernels only where the runtime runs them faster.

        Implemented by formats whose registry row has `blocks=True`.

        Args:
          sparse: the content that `encode` gave.

        Returns:
          None if there is no such kernel.
        """
        return None

    def divide_logits(self, path: Path, temperature: float) -> bytes | None:
        """The content of a file whose logits are those of `path` divided by a temperature.

        Quantised formats implement it, so that a temperature can be fitted to the quantised network.
        None: the format cannot; its files keep the ticket's temperature.
        """
        return None

    def logit_step(self, path: Path) -> float:
        """The resolution of a file's logits before any softmax; 0 for floats."""
        return 0.0
