"""Runs an experiment: from data and initial weights to a run directory with a ticket per level."""

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lotcal_tf.calibration.post_hoc import LEAST_EXAMPLES
from lotcal_tf.calibration.strategy import Strategy
from lotcal_tf.compat import deterministic, keras
from lotcal_tf.config import custom, registry
from lotcal_tf.config.experiment import Experiment, check_together
from lotcal_tf.config.optimizers import is_custom
from lotcal_tf.config.process import tolerant
from lotcal_tf.config.run_directory import default_directory, recorded_threads
from lotcal_tf.data.splits import Dataset
from lotcal_tf.errors import FieldError, UsageError
from lotcal_tf.lottery import health
from lotcal_tf.lottery.progress import ProgressBar, table
from lotcal_tf.lottery.provenance import describe
from lotcal_tf.lottery.round_trip import check_round_trip
from lotcal_tf.lottery.run_tables import selected_level
from lotcal_tf.lottery.search import Observer, Search
from lotcal_tf.lottery.store import RunStore
from lotcal_tf.lottery.task import GivenModelTask, NamedTask, Task, TicketTask
from lotcal_tf.lottery.tensorboard import TensorBoardLog
from lotcal_tf.lottery.ticket import Record, Ticket
from lotcal_tf.lottery.transfer import Transfer
from lotcal_tf.models.checks import check_outputs
from lotcal_tf.pruning.criteria import Criterion
from lotcal_tf.training import threads
from lotcal_tf.training.distributed import cluster, distribution
from lotcal_tf.training.given_optimizer import GivenOptimizer
from lotcal_tf.training.optimizer import optimizer_class


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished pruning run.

    Attributes:
      directory: the run directory.
      records: the rows of its `metrics.csv`.
      found: the number of levels that were finished before this call.
      load: returns the data that it was trained on.
      chief: whether this process writes the run directory; see `--distribute`.
      custom_objects: classes and functions of the model that are not Keras's; its tickets have them.
    """

    directory: Path
    records: list[Record] = dataclasses.field(repr=False)
    found: int
    load: Callable[[], Dataset] = dataclasses.field(repr=False)
    chief: bool = True
    custom_objects: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False)

    @property
    def selected(self) -> Ticket:
        """The ticket of the selected level, by validation data (see `selected_level`)."""
        return self.ticket(selected_level(self.records))

    @property
    def validation(self) -> Any:
        """The validation data, as `export_ticket` takes it: given, or split from the training data.

        A pair `(inputs, labels)` of arrays; a `tf.data` pipeline if the data is streamed.
        """
        return self.load().validation.data()

    def ticket(self, level: int) -> Ticket:
        """The ticket of one level.

        Raises:
          UsageError: the run has no such level.
        """
        if not 0 <= level < len(self.records):
            raise UsageError(f"level={level}: the run has levels 0 … {len(self.records) - 1}")
        ticket = RunStore(self.directory).read(level)
        return dataclasses.replace(ticket, custom_objects=self.custom_objects)

    def table(self) -> str:
        """The levels as a table to print."""
        return table(self.records)


def run_experiment(
    experiment: Experiment,
    task_of: Callable[[Experiment], Task] | None = None,
    *,
    strategy: type | None = None,
    criterion: type | None = None,
    optimizer: GivenOptimizer | None = None,
    callbacks: Sequence["keras.callbacks.Callback"] = (),
    progress: bool = True,
    estimate_time: bool = True,
    takeover: bool = False,
    check: Callable[[Path], None] | None = None,
) -> Run:
    """Runs or continues an experiment. If the run is finished, nothing is trained.

    Args:
      experiment: the experiment; its fields have been checked together.
      task_of: makes the data and the start; None: those that the experiment names.
      strategy, criterion: the classes; None: those that the experiment names.
      optimizer: the optimizer or schedule as objects; None: those that the experiment names.
      callbacks: Keras callbacks; each level is one training run for them.
      progress: whether to show a progress bar, or lines, on standard error.
      estimate_time: whether to predict the time of the run, if progress is shown.
      takeover: whether to take over the directory from a process on another machine. Without it, that
        process must have shown no sign of life for five minutes.
      check: called with the run directory before a level is trained.

    Raises:
      UsageError: data, model and experiment do not fit together, or the directory holds another
        run or is written by another process. Nothing is written.
      DamagedTicket: a file of a finished level is damaged.
      TakenOver: another process has taken over the directory. Finished levels are kept.
      TrainingDiverged: a loss was not finite. Finished levels are kept.
      WorkerLost: a process of a distributed run ended. Finished levels are kept.
      Unhealthy: a level has a problem, and the field `on_unhealthy` is `stop`. The level is stored.
    """
    setup = _set_up(experiment, task_of, strategy, criterion, optimizer)
    experiment, task, content = setup.task.experiment, setup.task, setup.content
    run_id = experiment.run_id(**content)
    workers = cluster.of(experiment.distribute)
    chief = workers is None or workers.is_chief
    store = RunStore(setup.directory, writes=chief)
    store.check(run_id, experiment.identity(**content))
    with contextlib.closing(store):
        if store.directory.is_dir():
            store.lock(takeover)
            store.check(run_id, experiment.identity(**content))
        store.verify()
        found = store.finished()
        health.check(experiment.on_unhealthy, store.records())
        task.check(store.records())
        if store.missing(experiment.levels) or not store.recorded:
            if check is not None:
                check(store.directory)
            notes = threads.resume(experiment.threads, recorded_threads(setup.directory))
            for note in notes if progress and chief else ():
                print(note, file=tolerant(sys.stderr))
            with deterministic():
                devices = distribution.start(experiment.distribute, workers)
                _run(setup, store, devices, callbacks, progress, estimate_time)
        else:
            store.repair()
        return Run(store.directory, store.records(), found, task.load, chief)


def predicted_seconds(experiment: Experiment) -> float | None:
    """Predicts how long `run_experiment` takes for the levels that are not finished. Nothing is written.

    It loads the data and trains for about a second. The prediction contains training, validation, and
    predictions and metrics at the end of each level; it does not contain what happens once in a
    process: imports, loading, compilation.

    Returns:
      Seconds; 0 if the run is finished, None if no estimate is possible, e.g. if a level has only
      one step.

    Raises:
      UsageError: see `run_experiment`.
    """
    setup = _set_up(experiment)
    experiment = setup.task.experiment
    store = RunStore(setup.directory, writes=False)
    store.check(experiment.run_id(**setup.content), experiment.identity(**setup.content))
    if not store.missing(experiment.levels):
        return 0.0
    threads.resume(experiment.threads, recorded_threads(setup.directory))
    with deterministic():
        workers = cluster.of(experiment.distribute)
        devices = distribution.start(experiment.distribute, workers)
        search, _ = _search(setup, store, devices)
        return search.predicted_seconds()


@dataclasses.dataclass(frozen=True)
class _Setup:
    """What a run needs, before its data is loaded.

    Attributes:
      task: makes the data and the start; it has the experiment with all settings.
      strategy, criterion: the classes.
      optimizer: the optimizer or schedule as objects, if they are given.
      content: digests that are part of the identity, see `Experiment.identity`.
    """

    task: Task
    strategy: type[Strategy]
    criterion: type[Criterion]
    optimizer: GivenOptimizer | None
    content: Mapping[str, str]

    @property
    def directory(self) -> Path:
        """The run directory."""
        experiment = self.task.experiment
        return Path(experiment.out or default_directory(experiment.run_id(**self.content)))


def _set_up(
    experiment: Experiment,
    task_of: Callable[[Experiment], Task] | None = None,
    strategy: type | None = None,
    criterion: type | None = None,
    optimizer: GivenOptimizer | None = None,
) -> _Setup:
    """Puts a run together and sets the number of threads; the arguments are those of `run_experiment`."""
    trained_by: type[Strategy] = _method(
        "calib", experiment.calib, strategy, Strategy, "train_step"
    )
    pruned_by: type[Criterion] = _method(
        "criterion", experiment.criterion, criterion, Criterion, "scores"
    )
    experiment = experiment.with_methods(trained_by.Hyperparameters, pruned_by.Hyperparameters)
    experiment = experiment if optimizer is None else optimizer.describe(experiment)
    check_together(experiment, {})  # settings of custom methods are known only now
    if experiment.threads is not None:
        threads.require(experiment.threads)  # before a model is loaded
    cluster.of(experiment.distribute)  # raises before a model is loaded
    if task_of is None:
        in_file = registry.is_model_file(experiment.model)
        task_of = TicketTask if experiment.ticket else GivenModelTask if in_file else NamedTask
    task = task_of(experiment)
    sources = {
        "calib_source": custom.source_digest("calib", trained_by),
        "criterion_source": custom.source_digest("criterion", pruned_by),
        **_optimizer_content(task.experiment, optimizer),
    }
    content = {**task.content, **{name: digest for name, digest in sources.items() if digest}}
    return _Setup(task, trained_by, pruned_by, optimizer, content)


def _search(
    setup: _Setup,
    store: RunStore,
    devices: distribution.Distribution,
    observers: Sequence[Observer] = (),
    callbacks: Sequence["keras.callbacks.Callback"] = (),
    estimate_time: bool = False,
) -> tuple[Search, "keras.Model | Sequence[Ticket]"]:
    """Loads data and start, checks that everything fits together, and returns the search and the start."""
    dataset, start = checked_start(setup.task)
    search = Search(
        _with_recorded_plan(setup.task.experiment, store),
        start,
        dataset,
        setup.strategy,
        setup.criterion,
        store,
        observers,
        devices,
        estimate_time=estimate_time,
        callbacks=callbacks,
        optimizer=setup.optimizer,
    )
    return search, start


def _run(
    setup: _Setup,
    store: RunStore,
    devices: distribution.Distribution,
    callbacks: Sequence["keras.callbacks.Callback"],
    progress: bool,
    estimate_time: bool,
) -> None:
    """Creates the run directory and runs the levels."""
    task, experiment = setup.task, setup.task.experiment
    observers: list[Observer] = []
    if devices.chief:
        observers.append(TensorBoardLog(store.directory, experiment))
        observers += [ProgressBar()] if progress else []
    task.load()  # before the processes of a distributed run are watched
    with devices.watch():
        timed = progress and estimate_time
        search, start = _search(setup, store, devices, observers, callbacks, timed)
        if progress and devices.chief:
            dataset = task.load()
            notes = [*experiment.notes, *task.notes, *dataset.notes]
            if dataset.validation.count < LEAST_EXAMPLES:
                notes.append(
                    f"there are only {dataset.validation.count} validation examples: no temperature is fitted to fewer "
                    f"than {LEAST_EXAMPLES}, and the selected level is partly chance; give a larger validation_size or "
                    "more data"
                )
            for note in (*notes, *store.gaps(experiment.levels), *search.notes):
                print(note, file=tolerant(sys.stderr))
        # The chief writes after all processes have read the same state.
        epochs = search.resumed.state.epochs if search.resumed else 0
        found = [store.finished(), epochs, experiment.levels]
        run_id, identity = experiment.run_id(**setup.content), experiment.identity(**setup.content)
        devices.agree(experiment=run_id, levels=found)
        store.lock()
        store.check(run_id, identity)
        transfer = start.describe() if isinstance(start, Transfer) else None
        store.begin(describe(experiment, setup.content, task.load(), search, transfer))
        search.run()
        # No process ends while others still need it.
        devices.agree(end=experiment.levels)


def checked_start(task: Task) -> tuple[Dataset, "keras.Model | Sequence[Ticket]"]:
    """The data of a task and its start, checked against each other.

    Raises:
      UsageError: the model cannot take the data, or cannot be stored.
    """
    dataset = task.load()
    start = task.start(dataset)
    examples, _ = next(dataset.train.in_order(min(64, dataset.train.count)))
    model = start[0].model() if isinstance(start, Sequence) else start
    check_outputs(model, examples, dataset.classes)
    if isinstance(task, GivenModelTask) and isinstance(start, keras.Model):
        check_round_trip(task.given, start, examples)
    return dataset, start


def _with_recorded_plan(experiment: Experiment, store: RunStore) -> Experiment:
    """The experiment with the plan that the run began with, where it leaves the plan open."""
    if experiment.plan == "auto" and experiment.distribute == "none":
        return dataclasses.replace(experiment, plan=store.realised().get("plan", "auto"))
    return experiment


def _optimizer_content(experiment: Experiment, given: GivenOptimizer | None) -> Mapping[str, str]:
    """What the identity needs beside the fields: configurations and sources of an optimizer's code.

    Raises:
      FieldError: the optimizer that the experiment names cannot be imported.
    """
    if given is not None and given.kind is not None:
        return given.content
    found = dict(given.content) if given is not None else {}
    if is_custom(experiment.optimizer):
        kind = optimizer_class(experiment.optimizer)
        found["optimizer_source"] = custom.source_digest("optimizer", kind)
    return found


def _method(field: str, name: str, given: type | None, base: type, method: str) -> Any:
    """The class of a strategy or criterion: given, built in or custom.

    Args:
      field: `calib` or `criterion`.
      name: its value.
      given: the class, if it is not looked up.
      base: the base class.
      method: the method of `base` that every subclass overrides.

    Raises:
      FieldError: it cannot be imported, is not a subclass of `base`, or does not override `method`.
    """
    row = registry.strategy(name) if field == "calib" else registry.criterion(name)
    found = given or (row.load() if row is not None else custom.load_class(field, name))
    if not (isinstance(found, type) and issubclass(found, base)):
        raise FieldError(field, name, f"must be a subclass of lotcal_tf.{base.__name__}")
    if getattr(found, method) is getattr(base, method):
        raise FieldError(field, name, f"must override {method}, see lotcal_tf.{base.__name__}")
    return found
