"""Carrying out an experiment: a run from its data and model to its tickets and the best one's files."""

import dataclasses
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lotcal_tf.calibration.strategy import Strategy
from lotcal_tf.compat import keras
from lotcal_tf.config import registry
from lotcal_tf.config.experiment import FIELDS, Experiment
from lotcal_tf.data.sources import load as load_data
from lotcal_tf.data.splits import Dataset
from lotcal_tf.deploy.examples import Examples
from lotcal_tf.deploy.export import Exported, export, exported
from lotcal_tf.errors import FieldError, UsageError
from lotcal_tf.lottery.progress import ProgressBar, table
from lotcal_tf.lottery.provenance import describe
from lotcal_tf.lottery.search import Observer, Search
from lotcal_tf.lottery.store import OnlookerStore, RunStore
from lotcal_tf.lottery.tensorboard import TensorBoardLog
from lotcal_tf.lottery.ticket import Record, Ticket, best_level
from lotcal_tf.lottery.transfer import Sources, Transfer, with_dropout
from lotcal_tf.models.build import build_model
from lotcal_tf.models.checks import check_outputs
from lotcal_tf.models.stateless_dropout import Passes
from lotcal_tf.training.distributed import cluster, distribution

# What a run's best ticket is exported to by itself; the `export` command has more.
_RUN_FORMATS = ("saved_model", "float32")


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


def run_experiment(experiment: Experiment, progress: bool = True) -> Run:
    """Carries out an experiment whose data and model are named, as the `train` command does.

    Raises:
      UsageError, TrainingDiverged, WorkerLost: see `search_tickets`.
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
    load = functools.partial(load_data, experiment)
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
    return search_tickets(experiment, start, dataset, content, progress, devices)


def export_best(run: Run, *, scaled: bool = True) -> Exported:
    """Exports a run's best ticket to its `export/`, compared on the whole test split.

    Args:
      run: the run.
      scaled: divide the logits by the ticket's temperature, so that their softmax is calibrated.

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


def search_tickets(
    experiment: Experiment,
    start: "keras.Model | Transfer",
    dataset: Dataset,
    content: dict[str, str],
    progress: bool,
    devices: distribution.Distribution,
) -> Run:
    """Checks that all fits, then searches; the run directory is first touched when all does.

    Args:
      experiment: what is searched for.
      start: a model with its first weights, or the tickets to start from.
      dataset: what it is trained and measured on.
      content: digests of what the experiment's fields only point to, see `Experiment.identity`.
      progress: whether to show a bar or lines on standard error.
      devices: what it is trained on.

    Raises:
      UsageError: model, data and experiment do not fit, or the directory holds another run.
      TrainingDiverged: a loss was not finite; finished levels are kept.
      WorkerLost: a process of a distributed run is missing; likewise.
    """
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
            TensorBoardLog(directory / "tensorboard", experiment.as_dict(), experiment.ece_bins)
        )
        observers += [ProgressBar(levels=experiment.levels + 1)] if progress else []
    with devices.watch():
        search = Search(
            experiment, start, dataset, strategy, store, observers, devices, estimate_time=progress
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
        found = registry.strategy(name).load()
    except (ImportError, AttributeError) as error:
        raise FieldError("calib", name, f"cannot be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Strategy)):
        raise FieldError("calib", name, "is no subclass of lotcal_tf.Strategy")
    return found
