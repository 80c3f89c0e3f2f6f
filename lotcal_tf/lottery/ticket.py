"""A ticket: one level's sub-network, with all that is needed to train it again or to ship it."""

import dataclasses
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lotcal_tf.compat import keras
from lotcal_tf.errors import UsageError
from lotcal_tf.models.stateless_dropout import replace_dropout
from lotcal_tf.pruning import masking
from lotcal_tf.pruning.rewind import masked_start

Arrays = dict[str, NDArray]
Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Ticket:
    """One finished level.

    Attributes:
      level: its number; 0 is what a run started with.
      architecture: the plain Keras model's configuration, as JSON text.
      masks: boolean, by the path of the weight, True where it survives.
      rewind: the weights that the level's survivors started from, pruned places included.
      trained: the weights that its training ended with; pruned ones are exactly 0.
      record: its row of `metrics.csv`.
      history: its rows of `history.csv`.
      input_range: the largest value its inputs could take; None: not known.
      source: of a ticket prepared for another run: the columns that say where it comes from.
      predictions: labels `(N,)` and logits `(N, K)` of the validation and test data by the trained
        network, as `val/labels`, `val/logits`, `test/labels`, `test/logits`.
    """

    level: int
    architecture: str
    masks: dict[str, NDArray[np.bool_]]
    rewind: Arrays
    trained: Arrays
    record: Record
    history: Sequence[Record] = ()
    input_range: float | None = None
    source: Record = dataclasses.field(default_factory=dict)
    predictions: Arrays = dataclasses.field(default_factory=dict)

    @property
    def density(self) -> float:
        """Remaining / prunable weights, of the original network."""
        remaining = sum(int(mask.sum()) for mask in self.masks.values())
        return remaining / sum(mask.size for mask in self.masks.values())

    @property
    def digest(self) -> str:
        """What identifies the sub-network, its start and its training's outcome, wherever it lies."""
        digest = hashlib.sha256(self.architecture.encode())
        for arrays in (self.masks, self.rewind, self.trained):
            for name in sorted(arrays):
                digest.update(name.encode() + arrays[name].tobytes())
        return digest.hexdigest()[:10]

    def model(self, custom_objects: Mapping[str, Any] | None = None) -> "keras.Model":
        """The trained sub-network as a plain Keras model; it gives logits.

        Args:
          custom_objects: the classes of layers of one's own, by name, unless they are registered
            with `keras.saving.register_keras_serializable`.

        Raises:
          UsageError: the architecture has a layer whose class is not known here.
        """
        model = from_architecture(self.architecture, custom_objects)
        masking.assign(model, masked_start(self.trained, self.masks))
        return model

    def dense(self, custom_objects: Mapping[str, Any] | None = None) -> "keras.Model":
        """The network that the ticket was cut from, plain, with the weights its survivors started from.

        Raises:
          UsageError: see `model`.
        """
        model = from_architecture(self.architecture, custom_objects)
        masking.assign(model, self.rewind)
        return model

    def network(self, custom_objects: Mapping[str, Any] | None = None) -> "keras.Model":
        """The sub-network wrapped, masks set, at its start: ready to be trained again.

        Raises:
          UsageError: see `model`; or tensors do not fit the architecture, all of them listed.
        """
        plain = from_architecture(self.architecture, custom_objects)
        network = wrap_for_training(plain, whole=self._unmasked(plain))
        problems = masking.mismatches(masking.weight_variables(network), self.rewind)
        masks = masking.mismatches(masking.mask_variables(network), self.masks)
        problems += [f"the mask of {problem}" for problem in masks]
        if problems:
            raise UsageError(f"the ticket's tensors do not fit its model: {'; '.join(problems)}")
        masking.assign(network, masked_start(self.rewind, self.masks))
        masking.assign_masks(network, self.masks)
        return network

    def _unmasked(self, plain: "keras.Model") -> list[str]:
        """The layers that the ticket leaves whole."""
        masked = {name.rpartition("/")[0] for name in self.masks}
        return [path for path, _ in masking.leaf_layers(plain) if path not in masked]


def wrap_for_training(
    model: "keras.Model", exclude: Sequence[str] = (), whole: Collection[str] = ()
) -> "keras.Model":
    """A wrapped copy of a plain model, its dropout replaced by the stateless one.

    Args:
      model: plain.
      exclude, whole: see `masking.wrap`.
    """
    stateless = replace_dropout(model)
    masking.assign(stateless, masking.values(model))
    return masking.wrap(stateless, exclude, whole)


def architecture_of(model: "keras.Model") -> str:
    """A plain model's configuration as JSON text.

    Raises:
      UsageError: a layer of one's own does not give its configuration.
    """
    try:
        return json.dumps(json.loads(model.to_json()), sort_keys=True)
    except (NotImplementedError, TypeError, ValueError) as error:
        line = str(error).strip().splitlines()[0]
        raise UsageError(f"the model's configuration cannot be written: {line}") from error


def from_architecture(
    architecture: str, custom_objects: Mapping[str, Any] | None = None
) -> "keras.Model":
    """The plain model of a configuration, with fresh weights; see `Ticket.model`."""
    try:
        return keras.models.model_from_json(architecture, custom_objects=dict(custom_objects or {}))
    except (TypeError, ValueError) as error:
        line = str(error).strip().splitlines()[0]
        raise UsageError(
            f"the ticket's model cannot be built: {line} (a layer of one's own: register it with "
            "keras.saving.register_keras_serializable, or give custom_objects)"
        ) from error


def selected_level(records: Sequence[Record]) -> int:
    """The level of the selected ticket: the sparsest with a validation NLL within one standard error of the lowest.

    Levels from 1 on compete, by validation data alone; a run of level 0 only has that one. The
    standard error is that of the level with the lowest NLL.
    """
    pruned = [record for record in records if record["level"] >= 1]
    if not pruned:
        return 0
    lowest = min(pruned, key=lambda record: record["val_nll"])
    limit = lowest["val_nll"] + lowest["val_nll_se"]
    return max(record["level"] for record in pruned if record["val_nll"] <= limit)
