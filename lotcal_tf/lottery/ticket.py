"""A ticket: the sub-network of a level, with everything needed to train it again or to export it."""

import dataclasses
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lotcal_tf.compat import keras
from lotcal_tf.errors import UsageError, first_line
from lotcal_tf.models.keras3 import to_keras3
from lotcal_tf.models.keras_graph import with_free_batch
from lotcal_tf.models.safe_build import no_more_variables_than
from lotcal_tf.models.safe_config import FIX, check_config
from lotcal_tf.models.stateless_dropout import replace_dropout
from lotcal_tf.pruning import masking
from lotcal_tf.pruning.masked import is_depthwise
from lotcal_tf.pruning.rewind import masked_start

Arrays = dict[str, NDArray]
Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Ticket:
    """One finished level.

    Attributes:
      level: the number of the level; level 0 is the start of a run, usually dense.
      architecture: the plain Keras model's configuration, as JSON text.
      masks: booleans by path of the weight, True where a weight is kept.
      rewind: the weights to rewind to, including pruned ones.
      trained: the weights after training; pruned ones are exactly 0.
      record: the row of `metrics.csv`.
      history: the rows of `history.csv`.
      input_range: the largest possible value of inputs; None: unknown.
      source: for a ticket adapted from another run, the columns that name the original.
      predictions: labels `(N,)` and logits `(N, K)` of the validation and test data by the trained
        network, as `val/labels`, `val/logits`, `test/labels`, `test/logits`.
      callbacks: the states of the user's callbacks after the level, see `training.callbacks`.
      class_names: the name of each class; empty if they are unknown.
      directory: where it was read from; None: it was not read.
      custom_objects: classes and functions of the model that are not Keras's, by name; not stored.
    """

    level: int
    architecture: str = dataclasses.field(repr=False)
    masks: dict[str, NDArray[np.bool_]] = dataclasses.field(repr=False)
    rewind: Arrays = dataclasses.field(repr=False)
    trained: Arrays = dataclasses.field(repr=False)
    record: Record = dataclasses.field(repr=False)
    history: Sequence[Record] = dataclasses.field(default=(), repr=False)
    input_range: float | None = None
    source: Record = dataclasses.field(default_factory=dict, repr=False)
    predictions: Arrays = dataclasses.field(default_factory=dict, repr=False)
    callbacks: Sequence[Record] = dataclasses.field(default=(), repr=False)
    class_names: Sequence[str] = ()
    directory: Path | None = dataclasses.field(default=None, compare=False)
    custom_objects: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False)

    @property
    def density(self) -> float:
        """Remaining / prunable weights, of the original network."""
        remaining = sum(int(mask.sum()) for mask in self.masks.values())
        return remaining / sum(mask.size for mask in self.masks.values())

    @property
    def stored_bytes(self) -> int:
        """The size of the network's weights, in bytes."""
        sizes = (sum(x.nbytes for x in found.values()) for found in (self.trained, self.rewind))
        return max(sizes)

    @property
    def digest(self) -> str:
        """SHA-256 of architecture, masks, rewind weights and trained weights; independent of the path."""
        digest = hashlib.sha256(self.architecture.encode())
        for arrays in (self.masks, self.rewind, self.trained):
            for name in sorted(arrays):
                digest.update(name.encode() + arrays[name].tobytes())
        return digest.hexdigest()[:10]

    def model(
        self, custom_objects: Mapping[str, Any] | None = None, *, keras: int = 2
    ) -> "keras.Model":
        """The trained sub-network as a plain Keras model that returns logits.

        Args:
          keras: 2 for tf_keras, 3 for Keras 3.
          custom_objects: custom classes and functions by name, in addition to the ticket's own, unless
            they are registered with `keras.saving.register_keras_serializable`.

        Raises:
          UsageError: the class of a layer is unknown, or a layer has no twin in Keras 3.
        """
        if keras not in (2, 3):
            raise UsageError(f"keras={keras}: choose 2 for tf_keras, or 3 for Keras 3")
        model = self._plain(custom_objects)
        masking.assign(model, masked_start(self.trained, self.masks))
        return to_keras3(model) if keras == 3 else model

    def dense(self, custom_objects: Mapping[str, Any] | None = None) -> "keras.Model":
        """The network without masks, with the weights to rewind to, as a plain Keras model.

        Raises:
          UsageError: see `model`.
        """
        model = self._plain(custom_objects)
        masking.assign(model, self.rewind)
        return model

    def network(self, custom_objects: Mapping[str, Any] | None = None) -> "keras.Model":
        """The wrapped sub-network with masks and the weights to rewind to, ready for training.

        Raises:
          UsageError: see `model`; or tensors do not fit the architecture. All of these are listed.
        """
        plain = self._plain(custom_objects)
        depthwise = any(is_depthwise(path) for path in self.masks)
        with keras.utils.custom_object_scope(self._known(custom_objects)):
            network = wrap_for_training(plain, whole=self._unmasked(plain), depthwise=depthwise)
        problems = masking.mismatches(masking.weight_variables(network), self.rewind)
        masks = masking.mismatches(masking.mask_variables(network), self.masks)
        problems += [f"the mask of {problem}" for problem in masks]
        if problems:
            raise UsageError(f"the ticket's tensors do not fit its model: {'; '.join(problems)}")
        masking.assign(network, masked_start(self.rewind, self.masks))
        masking.assign_masks(network, self.masks)
        return network

    def _plain(self, custom_objects: Mapping[str, Any] | None) -> "keras.Model":
        return from_architecture(self.architecture, self._known(custom_objects), self.stored_bytes)

    def _known(self, custom_objects: Mapping[str, Any] | None) -> dict[str, Any]:
        return {**self.custom_objects, **(custom_objects or {})}

    def _unmasked(self, plain: "keras.Model") -> list[str]:
        """The layers without masks."""
        masked = {name.rpartition("/")[0] for name in self.masks}
        return [path for path, _ in masking.leaf_layers(plain) if path not in masked]


def wrap_for_training(
    model: "keras.Model",
    exclude: Sequence[str] = (),
    whole: Collection[str] = (),
    depthwise: bool = False,
) -> "keras.Model":
    """A wrapped copy of a plain model, with stateless dropout in place of Keras's.

    Args:
      model: a plain model.
      exclude, whole, depthwise: see `masking.wrap`.
    """
    stateless = replace_dropout(model)
    masking.assign(stateless, masking.values(model))
    return masking.wrap(stateless, exclude, whole, depthwise)


def architecture_of(model: "keras.Model") -> str:
    """A plain model's configuration as JSON text.

    Raises:
      UsageError: a custom layer has no `get_config`.
    """
    try:
        return json.dumps(json.loads(model.to_json()), sort_keys=True)
    except (NotImplementedError, TypeError, ValueError) as error:
        line = first_line(error)
        raise UsageError(f"the model's configuration cannot be written: {line}") from error


def from_architecture(
    architecture: str,
    custom_objects: Mapping[str, Any] | None = None,
    stored: int | None = None,
) -> "keras.Model":
    """The plain model of a configuration, with fresh weights; see `Ticket.model`.

    Args:
      architecture: see `Ticket`.
      custom_objects: see `Ticket.model`.
      stored: the size of the weights that are stored with it; a larger model is refused.
    """
    with keras.utils.custom_object_scope(dict(custom_objects or {})):
        config = check_config(json.loads(architecture))
        try:
            with no_more_variables_than(stored, "the ticket"):
                return with_free_batch(keras.models.model_from_json(json.dumps(config)))
        except UsageError:
            raise
        except Exception as error:
            # A changed configuration can raise any exception in Keras.
            line = first_line(error)
            raise UsageError(
                f"the ticket's model cannot be built: {line} (a custom class or function: {FIX})"
            ) from error
