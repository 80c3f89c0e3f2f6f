"""The library: find tickets in a Keras model of one's own, load them, export them."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from lotcal_tf.compat import keras
from lotcal_tf.config import registry
from lotcal_tf.config.experiment import FIELDS, Experiment, check_applies
from lotcal_tf.data import arrays
from lotcal_tf.data.noise import with_label_noise
from lotcal_tf.data.splits import Dataset
from lotcal_tf.deploy.examples import Examples
from lotcal_tf.deploy.export import Exported, export
from lotcal_tf.deploy.parity import DEFAULT_TOLERANCE, Tolerance
from lotcal_tf.errors import FieldError, UsageError
from lotcal_tf.lottery.run import Run, search_tickets
from lotcal_tf.lottery.store import read_ticket
from lotcal_tf.lottery.ticket import Ticket, architecture_of
from lotcal_tf.metrics import DEFAULT_BINS
from lotcal_tf.models.checks import classes_of
from lotcal_tf.pruning import masking
from lotcal_tf.training.distributed import distribution

_COMMAND_FIELDS = (
    "dataset",
    "source",
    "data_dir",
    "model",
    "initializer",
    "input_mean",
    "input_std",
    "dropout_rate",
    "dropout_at",
    "ticket",
    "control",
)


def find_tickets(
    model: "keras.Model",
    train: Any,
    test: Any = None,
    validation: Any = None,
    *,
    progress: bool = True,
    **fields: Any,
) -> Run:
    """Finds lottery tickets in a Keras model of one's own.

    Args:
      model: a tf_keras model, functional or sequential, nested too, that gives logits. Its weights
        are the initialisation; it is not changed.
      train: `(inputs, labels)` arrays, or an unbatched `tf.data` pipeline of such pairs.
      test: likewise; measured on, never chosen by. None: the tables show validation figures.
      validation: likewise; None: cut from train by seed (field `validation_size`).
      progress: whether to show a bar or lines on standard error.
      **fields: of `Experiment`: epochs, levels, prune_rate, calib, out, …; calling again with the
        same ones continues an interrupted run.

    Returns:
      The run, with its tickets.

    Raises:
      UsageError: data, model or a field is not what it must be; nothing was written.
      TrainingDiverged: a loss was not finite; finished levels are kept.
    """
    for name in fields:
        if name not in FIELDS:
            raise UsageError(f"{name}: no such field; there are {', '.join(FIELDS)}")
        if name in _COMMAND_FIELDS:
            raise FieldError(
                name,
                fields[name],
                "belongs to the commands; here model and data are given themselves",
            )
    classes = classes_of(model)
    paths = {name: str(value) for name, value in fields.items() if isinstance(value, Path)}
    experiment = Experiment(**(fields | paths))
    check_applies(experiment, fields)
    if experiment.distribute == "multi_worker":
        problem = "belongs to the train command: workers must meet before TensorFlow is first used"
        raise FieldError("distribute", experiment.distribute, problem)
    dataset = _dataset(train, test, validation, experiment, classes)
    # What range the values of one's own arrays could take, nobody said.
    dataset = dataclasses.replace(dataset, input_range=None)
    digest = hashlib.sha256(architecture_of(model).encode())
    for value in masking.values(model).values():
        digest.update(value.tobytes())
    name = f"{model.name}-{digest.hexdigest()[:10]}"
    experiment = dataclasses.replace(
        experiment, model=name, dataset="own", source=arrays.fingerprint(dataset)
    )
    dataset = with_label_noise(dataset, experiment)
    devices = distribution.start(experiment.distribute)
    return search_tickets(experiment, model, dataset, {}, progress, devices)


def load_ticket(directory: str | Path) -> Ticket:
    """Loads and verifies a ticket.

    Args:
      directory: `RUN/tickets/level_NN`.

    Raises:
      UsageError: it is none.
      DamagedTicket: a file does not match its checksum.
    """
    return read_ticket(Path(directory))


def export_ticket(
    ticket: Ticket,
    directory: str | Path,
    test: Any,
    validation: Any = None,
    train: Any = None,
    *,
    formats: Sequence[str] = registry.DEFAULT_FORMATS,
    encoding: str | None = None,
    output: str = "logits",
    scaled: bool = True,
    tolerance: Tolerance = DEFAULT_TOLERANCE,
    bins: int = DEFAULT_BINS,
    seconds: float = 0.5,
) -> Exported:
    """Exports a ticket as files, each held against it; see `deploy.export.export`.

    Args:
      ticket: what to export.
      directory: where to; replaced if it holds an earlier export.
      test: `(inputs, labels)` arrays, or an unbatched `tf.data` pipeline of such pairs, on which the
        files are compared with the ticket.
      validation: likewise; what quantising finds its ranges and temperature by. None: formats of
        whole numbers are refused.
      train: likewise; what quantisation-aware training runs over.
      formats: names of `catalog.FORMATS`.
      encoding: dense, sparse, compact or compact_sparse for all files; None: of each the smallest.
      output: `logits` or `probabilities`, what files give.
      scaled: divide the logits by the ticket's temperature, so that their softmax is calibrated.
      tolerance: how far a file may be from its ticket.
      bins: of the ECE.
      seconds: how long each file's latency is measured; 0: not at all.

    Raises:
      UsageError: something does not fit; nothing was written.
      ExportMismatch: a file is farther from its ticket than the tolerance; nothing is left.
    """
    examples = Examples.given(test, validation, train, classes=classes_of(ticket.dense()))
    return export(
        ticket,
        Path(directory),
        examples,
        formats=formats,
        encoding=encoding,
        output=output,
        scaled=scaled,
        tolerance=tolerance,
        bins=bins,
        seconds=seconds,
    )


def _dataset(
    train: Any, test: Any, validation: Any, experiment: Experiment, classes: int
) -> Dataset:
    """The dataset from arrays or pipelines, all of one kind."""
    given = [data for data in (train, test, validation) if data is not None]
    common: dict[str, Any] = {
        "classes": classes,
        "validation_size": experiment.validation_size,
        "seed": experiment.seed,
        "half": experiment.half,
    }
    pipelines = [isinstance(data, tf.data.Dataset) for data in given]
    if all(pipelines):
        return arrays.from_pipelines(
            train,
            test,
            validation,
            memory_limit_mb=experiment.memory_limit_mb,
            shuffle_buffer=experiment.shuffle_buffer,
            **common,
        )
    if any(pipelines) or not all(map(arrays.is_pair, given)):
        raise UsageError(
            "train, test and validation must all be (inputs, labels) pairs, or all tf.data pipelines"
        )
    return arrays.from_arrays(train, test, validation, **common)
