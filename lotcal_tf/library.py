"""The library: find tickets in a Keras model of one's own, load them, export them."""

import dataclasses
import functools
import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from lotcal_tf import catalog, cluster
from lotcal_tf.calibration.strategy import Strategy
from lotcal_tf.compat import keras
from lotcal_tf.data import arrays, named
from lotcal_tf.data.noise import with_label_noise
from lotcal_tf.data.splits import Dataset
from lotcal_tf.deploy.export import Examples, Exported, export, exported
from lotcal_tf.deploy.parity import DEFAULT_TOLERANCE, Tolerance
from lotcal_tf.errors import FieldError, UsageError
from lotcal_tf.evaluation.metrics import DEFAULT_BINS
from lotcal_tf.experiment import FIELDS, Experiment, check_applies
from lotcal_tf.lottery.board import Board
from lotcal_tf.lottery.progress import ProgressBar, table
from lotcal_tf.lottery.provenance import describe
from lotcal_tf.lottery.search import Observer, Search
from lotcal_tf.lottery.store import OnlookerStore, RunStore, read_ticket
from lotcal_tf.lottery.ticket import Record, Ticket, architecture_of, best_level
from lotcal_tf.lottery.transfer import Sources, Transfer, with_dropout
from lotcal_tf.models.build import build_model
from lotcal_tf.models.checks import check_outputs, classes_of
from lotcal_tf.models.mc_dropout import Passes
from lotcal_tf.pruning import masking
from lotcal_tf.training import distribution

# What a run's best ticket is exported to by itself; the `export` command has more.
_RUN_FORMATS = ("saved_model", "float32")

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


@dataclasses.dataclass(frozen=True)
class Run:
    """A run directory whose search has ended.

    Attributes:
      directory: where it is.
      records: the rows of its `metrics.csv`.
      found: how many of its levels were finished before.
      load: gives the dataset it was trained on.
      chief: whether this process is the one of its run that writes.
    """

    directory: Path
    records: list[Record]
    found: int
    load: Callable[[], Dataset] = dataclasses.field(repr=False)
    chief: bool = True

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
    return _search(experiment, model, dataset, {}, progress, devices)


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
    test: tuple[Any, Any],
    validation: tuple[Any, Any] | None = None,
    train: tuple[Any, Any] | None = None,
    *,
    formats: Sequence[str] = catalog.DEFAULT_FORMATS,
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
      test: `(inputs, labels)` to compare the files with the ticket on.
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
    examples = Examples.given(test, validation, train)
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


def run_experiment(experiment: Experiment, progress: bool = True) -> Run:
    """Carries out an experiment whose data and model are named, as the `train` command does.

    Raises:
      UsageError: see `find_tickets`.
      TrainingDiverged: likewise.
      WorkerLost: a process of a distributed run is missing; finished levels are kept.
    """
    workers = cluster.of(experiment.distribute)
    chief = workers is None or workers.is_chief
    sources = Sources(experiment.ticket) if experiment.ticket else None
    content = sources.content if sources else {}
    if sources:
        sources.check_levels(experiment.levels)
        brought: dict[str, Any] = {
            n: f.default
            for n, f in FIELDS.items()
            if f.metadata["from_ticket"] or (sources.every_level and f.metadata["of_pruning"])
        }
        brought["model"] = _model_name(sources.first)
        experiment = dataclasses.replace(experiment, **brought)
    load = functools.partial(named.load, experiment)
    store = _store(experiment, content)
    store.check(experiment.run_id(**content))
    if sources:
        sources.check_same(store.records())
    if store.finished() > experiment.levels:
        return Run(store.directory, store.records(), store.finished(), load, chief)
    # A wrong name, or a ticket without the dropout that is asked for, is told before data is loaded.
    _strategy(experiment.calib)
    devices = distribution.start(experiment.distribute, workers)
    if sources:
        _check_dropout(experiment, sources.first)
    dataset = load()
    if sources:
        start: keras.Model | Transfer = Transfer(sources, experiment, dataset)
        for note in sources.notes if progress else ():
            print(note, file=sys.stderr)
    else:
        start = build_model(
            experiment.model,
            dataset.train.shape,
            dataset.classes,
            seed=experiment.seed,
            initializer=experiment.initializer,
            input_range=dataset.input_range or 1.0,
            input_mean=experiment.input_mean,
            input_std=experiment.input_std,
            dropout_rate=experiment.hyperparameters.get("dropout_rate", 0.0),
            dropout_at=experiment.hyperparameters.get("dropout_at", "blocks"),
        )
    return _search(experiment, start, dataset, content, progress, devices)


def export_best(run: Run, *, scaled: bool = True) -> Exported:
    """Exports a run's best ticket to its `export/`, compared on the whole test split.

    Args:
      run: the run.
      scaled: see `export_ticket`.

    What was exported before from the same ticket is left as it is.
    """
    best, directory = run.best, run.directory / "export"
    there = exported(best, directory, formats=_RUN_FORMATS, scaled=scaled)
    if there is not None:
        return there
    store = RunStore(run.directory)
    return export(
        best,
        directory,
        Examples.of(run.load()),
        formats=_RUN_FORMATS,
        scaled=scaled,
        bins=run.records[0]["ece_bins"],
        dense=store.read(0).model(),
        origin=store.experiment(),
        seconds=0,
    )


def _check_dropout(experiment: Experiment, ticket: Ticket) -> None:
    """Refuses stochastic passes of a ticket whose model has no dropout.

    Raises:
      FieldError: it has none; the line says what to do.
    """
    stochastic = "passes" in experiment.hyperparameters
    if not (stochastic or experiment.mc_eval):
        return
    rate = experiment.hyperparameters.get("dropout_rate", 0.0)
    network = with_dropout(ticket, rate).network()
    try:
        Passes(network, 2)
    except UsageError as error:
        name = "calib" if stochastic else "mc_eval"
        problem = (
            "needs dropout, and the ticket's network would have none: take a strategy that is not stochastic "
            "and leave mc_eval 0, or a ticket that was found with a stochastic strategy"
        )
        raise FieldError(name, getattr(experiment, name), problem) from error


def _model_name(ticket: Ticket) -> str:
    return str(json.loads(ticket.architecture)["config"]["name"])


def _store(experiment: Experiment, content: dict[str, str], writes: bool = True) -> RunStore:
    """The run directory that is asked for, or that the run id names."""
    directory = Path(experiment.out or Path("runs") / experiment.run_id(**content))
    return RunStore(directory) if writes else OnlookerStore(directory)


def _search(
    experiment: Experiment,
    start: "keras.Model | Transfer",
    dataset: Dataset,
    content: dict[str, str],
    progress: bool,
    devices: distribution.Distribution,
) -> Run:
    """Checks that all fits, then searches; the run directory is first touched when all does."""
    store = _store(experiment, content, devices.chief)
    run_id = experiment.run_id(**content)
    store.check(run_id)
    if store.finished() > experiment.levels:
        return Run(
            store.directory, store.records(), store.finished(), lambda: dataset, devices.chief
        )
    examples, _ = next(dataset.train.in_order(min(64, dataset.train.count)))
    model = start[0].model() if isinstance(start, Transfer) else start
    check_outputs(model, examples, dataset.classes)
    prior = experiment.hyperparameters.get("prior")
    if prior and len(prior) != dataset.classes:
        problem = f"the data has {dataset.classes} classes: give so many shares"
        raise FieldError("prior", prior, problem)
    strategy = _strategy(experiment.calib)
    directory, found = store.directory, store.finished()
    transfer = start.describe() if isinstance(start, Transfer) else None
    observers: list[Observer] = []
    if devices.chief:
        observers.append(
            Board(directory / "tensorboard", experiment.as_dict(), experiment.ece_bins)
        )
        observers += [ProgressBar(levels=experiment.levels + 1)] if progress else []
    with devices.watch():
        search = Search(
            experiment, start, dataset, strategy, store, observers, devices, forecast=progress
        )
        # Nobody writes before all have read the same.
        devices.agree(experiment=run_id, levels=[found, experiment.levels])
        store.begin(describe(experiment, content, dataset, search, transfer))
        search.run()
        # Nobody leaves while another still needs it.
        devices.agree(end=experiment.levels)
    return Run(directory, store.records(), found, lambda: dataset, devices.chief)


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
    if any(pipelines) or not all(
        isinstance(data, tuple | list) and len(data) == 2 for data in given
    ):
        raise UsageError(
            "train, test and validation must all be (inputs, labels) pairs, or all tf.data pipelines"
        )
    return arrays.from_arrays(train, test, validation, **common)
