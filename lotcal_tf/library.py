"""The library: find tickets in a Keras model of one's own, load them, export them."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lotcal_tf import catalog
from lotcal_tf.calibration.strategy import Strategy
from lotcal_tf.compat import keras
from lotcal_tf.data import arrays
from lotcal_tf.data.splits import Dataset, Split
from lotcal_tf.deploy.export import Exported, export
from lotcal_tf.errors import FieldError, UsageError
from lotcal_tf.experiment import FIELDS, Experiment
from lotcal_tf.lottery.board import Board
from lotcal_tf.lottery.provenance import describe
from lotcal_tf.lottery.progress import ProgressBar, table
from lotcal_tf.lottery.search import Search
from lotcal_tf.lottery.store import RunStore, read_ticket
from lotcal_tf.lottery.ticket import Record, Ticket, architecture_of, best_level
from lotcal_tf.models.build import build_model
from lotcal_tf.pruning import masking

_COMMAND_FIELDS = ("dataset", "source", "data_dir", "model", "initializer", "input_mean", "input_std", "ticket")


@dataclasses.dataclass(frozen=True)
class Run:
    """A run directory whose search has ended.

    Attributes:
      directory: where it is.
      records: the rows of its `metrics.csv`.
      dataset: what it was trained on.
    """

    directory: Path
    records: list[Record]
    dataset: Dataset = dataclasses.field(repr=False)

    @property
    def best(self) -> Ticket:
        """The ticket of the best level, chosen by validation data (see `best_level`)."""
        return self.ticket(best_level(self.records))

    def ticket(self, level: int) -> Ticket:
        """The ticket of one level.

        Raises:
          UsageError: the run has no such level.
        """
        if not 0 <= level < len(self.records):
            raise UsageError(f"level {level}: the run has levels 0 … {len(self.records) - 1}")
        return RunStore(self.directory).read(level)

    def table(self) -> str:
        """The levels as a table to print."""
        return table(self.records)


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
            raise FieldError(name, fields[name], "belongs to the commands; here model and data are given themselves")
    classes = _classes(model)
    experiment = Experiment(**fields)
    dataset = _dataset(train, test, validation, experiment, classes)
    digest = hashlib.sha256(architecture_of(model).encode())
    for value in masking.values(model).values():
        digest.update(value.tobytes())
    name = f"{model.name}-{digest.hexdigest()[:10]}"
    experiment = dataclasses.replace(
        experiment, model=name, dataset="own", source=arrays.fingerprint(dataset)
    )
    return _search(experiment, model, dataset, {}, progress)


def load_ticket(directory: str | Path) -> Ticket:
    """Loads and verifies a ticket.

    Args:
      directory: `RUN/tickets/level_NN`.

    Raises:
      UsageError: it is none.
      DamagedTicket: a file does not match its checksum.
    """
    return read_ticket(Path(directory))


def export_ticket(ticket: Ticket, directory: str | Path, inputs: Any) -> Exported:
    """Exports a ticket as SavedModel and TFLite file; see `deploy.export.export`.

    Args:
      ticket: what to export.
      directory: where to.
      inputs: `(N, …)` examples to compare the files with the ticket on, e.g. the test inputs.
    """
    return export(ticket, Path(directory), np.asarray(inputs))


def run_experiment(experiment: Experiment, progress: bool = True) -> Run:
    """Carries out an experiment whose data and model are named, as the `train` command does.

    Raises:
      UsageError: see `find_tickets`.
      TrainingDiverged: likewise.
    """
    start: Ticket | None = None
    content = {}
    if experiment.ticket:
        start = load_ticket(experiment.ticket)
        content["ticket"] = start.digest
        brought = {name: FIELDS[name].default for name in FIELDS if FIELDS[name].metadata["from_ticket"]}
        experiment = dataclasses.replace(experiment, **brought | {"model": _model_name(start)})
    store = _store(experiment, content)
    store.check(experiment.run_id(**content))
    dataset = catalog.source(experiment.source).load()(experiment)
    if start is None:
        model: keras.Model | Ticket = build_model(
            experiment.model,
            dataset.train.shape,
            dataset.classes,
            seed=experiment.seed,
            initializer=experiment.initializer,
            input_range=dataset.input_range,
            input_mean=experiment.input_mean,
            input_std=experiment.input_std,
        )
    else:
        model = start
    return _search(experiment, model, dataset, content, progress)


def test_inputs(dataset: Dataset) -> NDArray[np.float32]:
    """The inputs of the test split, or of validation where there is no test."""
    split: Split = dataset.test or dataset.validation
    blocks = [inputs.numpy() for inputs, _ in split.in_order(1000)]
    return np.concatenate(blocks).astype(np.float32)


def _model_name(ticket: Ticket) -> str:
    return str(json.loads(ticket.architecture)["config"]["name"])


def _store(experiment: Experiment, content: dict[str, str]) -> RunStore:
    """The run directory that is asked for, or that the run id names."""
    return RunStore(Path(experiment.out or Path("runs") / experiment.run_id(**content)))


def _search(
    experiment: Experiment,
    start: "keras.Model | Ticket",
    dataset: Dataset,
    content: dict[str, str],
    progress: bool,
) -> Run:
    """Checks that all fits, then searches; the run directory is first touched when all does."""
    store = _store(experiment, content)
    store.check(experiment.run_id(**content))
    _check_outputs(start.model() if isinstance(start, Ticket) else start, dataset)
    strategy = _strategy(experiment.calib)
    directory = store.directory
    board = Board(directory / "tensorboard", experiment.as_dict(), experiment.ece_bins)
    observers = [board, ProgressBar()] if progress else [board]
    search = Search(experiment, start, dataset, strategy, store, observers)
    store.begin(describe(experiment, content, dataset, search))
    search.run()
    return Run(directory, store.records(), dataset)


def _strategy(name: str) -> type[Strategy]:
    """The strategy class, of the table or the user's own.

    Raises:
      FieldError: a module or class of the user's cannot be imported, or is no strategy.
    """
    try:
        found = catalog.strategy(name).load()
    except (ImportError, AttributeError) as error:
        raise FieldError("calib", name, f"cannot be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Strategy)):
        raise FieldError("calib", name, "is no subclass of lotcal_tf.Strategy")
    return found


def _classes(model: "keras.Model") -> int:
    """How many classes a user's model tells apart.

    Raises:
      UsageError: it is no tf_keras model with one output of logits.
    """
    if not isinstance(model, keras.Model):
        kinds = [kind.__module__ for kind in type(model).__mro__]
        if any(kind == "keras" or kind.startswith("keras.") for kind in kinds):
            raise UsageError(
                "this is a Keras 3 model; pruning works on legacy Keras: build it with "
                "`import tf_keras as keras` instead of `import keras` (or tf.keras)"
            )
        raise UsageError(f"a tf_keras model is needed, this is a {type(model).__name__}")
    if not model.built:
        raise UsageError(f"model {model.name!r} has no weights yet: give it an Input or call build()")
    masking.output_layer(model) if masking.is_nested(model) else masking.wrap(model)
    shape = model.output_shape
    if not isinstance(shape, tuple) or len(shape) != 2 or shape[-1] is None or shape[-1] < 2:
        raise UsageError(f"model {model.name!r} gives {shape}: one output of logits (examples, classes) is needed")
    return int(shape[-1])


def _check_outputs(model: "keras.Model", dataset: Dataset) -> None:
    """Tries the model on some examples.

    Raises:
      UsageError: it cannot take them, gives another number of classes, or gives probabilities.
    """
    inputs, _ = next(dataset.train.in_order(min(64, dataset.train.count)))
    inputs = tf.cast(inputs, tf.float32)
    try:
        outputs = model(inputs, training=False).numpy()
    except (ValueError, tf.errors.InvalidArgumentError) as error:
        line = " ".join(str(error).split())[:200]
        raise UsageError(f"model {model.name!r} cannot take inputs of shape {inputs.shape[1:]}: {line}") from error
    if outputs.shape[-1] != dataset.classes:
        raise UsageError(f"model {model.name!r} gives {outputs.shape[-1]} outputs, the data has {dataset.classes} classes")
    if (outputs >= 0).all() and np.allclose(outputs.sum(-1), 1.0, atol=1e-4):
        raise UsageError(
            f"model {model.name!r} ends in a softmax, logits are needed: leave out the activation of its "
            "last layer (Dense(classes), not Dense(classes, activation='softmax'))"
        )


def _dataset(train: Any, test: Any, validation: Any, experiment: Experiment, classes: int) -> Dataset:
    """The dataset from arrays or pipelines, all of one kind."""
    given = [data for data in (train, test, validation) if data is not None]
    common = {"classes": classes, "validation_size": experiment.validation_size, "seed": experiment.seed}
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
    if any(pipelines) or not all(isinstance(data, tuple | list) and len(data) == 2 for data in given):
        raise UsageError("train, test and validation must all be (inputs, labels) pairs, or all tf.data pipelines")
    return arrays.from_arrays(train, test, validation, **common)
