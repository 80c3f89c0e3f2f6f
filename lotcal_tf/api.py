"""The library: finds tickets in a Keras model, and loads, exports and measures them.

The commands call the same functions.
"""

import dataclasses
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

from lotcal_tf.compat import keras
from lotcal_tf.config import arguments, custom, registry
from lotcal_tf.config.arguments import ExportArguments
from lotcal_tf.config.experiment import (
    FIELDS,
    Experiment,
    check_together,
    recorded,
    setting_fields,
)
from lotcal_tf.config.export_record import EXPORT
from lotcal_tf.config.fields import checked, data_name
from lotcal_tf.config.recipes import check_own_choice, resolve
from lotcal_tf.config.run_data import (
    DATA_FIELDS,
    PLACE_FIELDS,
    check_model,
    data_experiment,
    has_stored,
    is_of_run,
    recorded_content,
    recorded_fields,
    unseen_experiment,
)
from lotcal_tf.config.run_directory import is_run, is_ticket, level_name, level_path
from lotcal_tf.data import given as given_data
from lotcal_tf.data import sources
from lotcal_tf.data.splits import Part
from lotcal_tf.deploy.examples import Examples
from lotcal_tf.deploy.export import Exported, export, exported
from lotcal_tf.deploy.parity import DEFAULT_TOLERANCE, Tolerance
from lotcal_tf.errors import FieldError, LotcalError, UsageError
from lotcal_tf.evaluation.measure import Measurement, measure_opened, measure_stored
from lotcal_tf.evaluation.open_model import Opened, open_given, open_model, ticket_at
from lotcal_tf.formats.format import Material
from lotcal_tf.inputs import arranged, flat, specs_of
from lotcal_tf.lottery.conditions import Condition, add_conditions, ticket_digest, unmeasured
from lotcal_tf.lottery.run import Run, run_experiment
from lotcal_tf.lottery.run_tables import selected_level
from lotcal_tf.lottery.store import RunStore, read_ticket
from lotcal_tf.lottery.task import GivenModelTask, GivenTask, Task
from lotcal_tf.lottery.ticket import Ticket
from lotcal_tf.lottery.ticket_files import refusing_damaged
from lotcal_tf.metrics import DEFAULT_BINS
from lotcal_tf.models.checks import classes_of
from lotcal_tf.models.given import GivenModel
from lotcal_tf.sweeps.grid import Grid, read_grid, sweep_values
from lotcal_tf.sweeps.jobs import jobs_of
from lotcal_tf.sweeps.objects import GivenObjects
from lotcal_tf.sweeps.runner import SweepRun, run_jobs
from lotcal_tf.training.given_optimizer import GivenOptimizer, take_objects

SELECTED = "selected"

F = TypeVar("F", bound=Callable[..., Any])


def _in_custom_object_scope(function: F) -> F:
    """Makes custom objects known to Keras during a call: its `custom_objects`, and those of a run or ticket.

    Raises:
      UsageError: `custom_objects` is not a dictionary by name.
    """

    @functools.wraps(function)
    def within(*args: Any, **kwargs: Any) -> Any:
        given = arguments.custom_objects_of(kwargs.get("custom_objects"))
        known: dict[str, Any] = {}
        for value in (*args, *kwargs.values()):
            known |= value.custom_objects if isinstance(value, Run | Ticket) else {}
        with keras.utils.custom_object_scope({**known, **given}):
            return function(*args, **kwargs)

    return cast(F, within)


@_in_custom_object_scope
def find_tickets(
    model: "keras.Model | str | Path | None" = None,
    train: Any = None,
    test: Any = None,
    validation: Any = None,
    *,
    config: str | Path | None = None,
    callbacks: Sequence["keras.callbacks.Callback"] = (),
    custom_objects: Mapping[str, Any] | None = None,
    progress: bool = True,
    takeover: bool = False,
    **fields: Any,
) -> Run:
    """Finds lottery tickets in a Keras model or a built-in network. The same call continues a run.

    Args:
      model: a classifier of tf_keras or Keras 3, functional or sequential, nested models allowed; or
        the path of a `.keras` file of either. Its weights are the initial weights; it is not changed.
        A softmax or sigmoid at its end is removed, with a notice; a single logit becomes two.
        On named data: also the name of a built-in network, or None for that of the recipe.
      train, test, validation: `(inputs, labels)` arrays or pandas objects, Hugging Face data sets, or
        `tf.data` pipelines, see docs/data.md; `train` may be `(inputs, labels, weights)`. Test data is
        never used for selection; without it, tables show validation metrics. validation=None: split
        from train (field `validation_size`). None of the three: the data that fields name.
      config: a recipe file, for named data only; as `--config` of the command.
      callbacks: Keras callbacks; each level is one training run for them. Those that work per batch
        are refused. They are not part of the identity. One that stops or changes the training needs
        `state_dict()` and `load_state_dict(state)` to continue a run; its state is stored with each level.
      custom_objects: custom classes and functions of the model by name, unless they are registered
        with `keras.saving.register_keras_serializable`. They are not part of the identity.
      progress: whether to show a bar or lines on standard error.
      takeover: whether to take over from a dead process on another machine before five minutes are over.
      **fields: fields of `Experiment` (epochs, levels, prune_rate, calib, dataset, out, …) and
        hyperparameters of the strategy and the criterion. `calib` and `criterion` may be classes,
        `optimizer` a Keras optimizer and `lr` a Keras schedule, whose steps count from the beginning
        of a level (copies are trained), and `class_weight` a dictionary {class: weight}.

    Raises:
      UsageError: data, model or a field is not valid, or another process writes the run directory.
        Nothing is written.
      TrainingDiverged: a loss was not finite. Finished levels are kept.
      DamagedTicket: a file of a finished level is damaged.
      Unhealthy: a level has a problem, and `on_unhealthy` is `stop`. The level is stored.
      TakenOver: another process has taken over the run directory. Finished levels are kept.
    """
    checked(arguments.FindArguments, {"progress": progress, "takeover": takeover})
    values, methods, optimizer = _objects(fields)
    data = {"train": train, "test": test, "validation": validation}
    experiment, task_of = _task(model, data, values, _text(config), custom_objects)
    check_own_choice(experiment, values)
    _refuse_workers(experiment)
    run = run_experiment(
        experiment,
        task_of,
        strategy=methods.get("calib"),
        criterion=methods.get("criterion"),
        optimizer=optimizer,
        callbacks=callbacks,
        progress=progress,
        takeover=takeover,
    )
    return dataclasses.replace(run, custom_objects=dict(custom_objects or {}))


def _objects(
    fields: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, type], GivenOptimizer | None]:
    """Fields as an experiment takes them, and the objects among them: classes by field, the optimizer.

    Raises:
      FieldError: an object cannot be used.
    """
    values, optimizer = take_objects(_texts(fields))
    if isinstance(values.get("class_weight"), Mapping):
        values["class_weight"] = _by_class(values["class_weight"])
    methods = {n: values[n] for n in ("calib", "criterion") if isinstance(values.get(n), type)}
    return values | {n: custom.name_of(found) for n, found in methods.items()}, methods, optimizer


def _task(
    model: Any,
    data: Mapping[str, Any],
    values: Mapping[str, Any],
    config: str | None,
    custom_objects: Mapping[str, Any] | None,
) -> tuple[Experiment, Callable[[Experiment], Task] | None]:
    """The experiment, and what makes its task from model and data; None: the experiment names both.

    Raises:
      UsageError: model, data and fields do not fit together, or the model is not a classifier.
    """
    named = all(part is None for part in data.values())
    model = str(model) if isinstance(model, Path) else model
    if named and (model is None or isinstance(model, str)):
        return resolve({**values, **({} if model is None else {"model": model})}, config), None
    if model is None:
        raise UsageError("model is missing: pass a Keras model beside the data")
    if isinstance(model, str) and not registry.is_model_file(model):
        raise FieldError("model", model, "beside data, pass a Keras model or a .keras file")
    if named and config is None and not values.keys() & {"dataset", "source", "ticket"}:
        problem = "pass train=(inputs, labels), or name data by dataset=… or config=…"
        raise UsageError(f"train is missing: a model needs data; {problem}")
    if not named and (data["train"] is None or config is not None):
        raise UsageError("data needs train=(inputs, labels), and takes no config beside it")
    own = GivenModel.of(model, custom_objects)
    classes_of(own.model)
    if named:
        experiment = resolve({**values, "model": own.name}, config, own_model=True)
        return experiment, functools.partial(GivenModelTask, model=own)
    return _experiment(values), functools.partial(GivenTask, model=own, **data)


def _refuse_workers(experiment: Experiment) -> None:
    if experiment.distribute == "multi_worker":
        problem = "is for the train command: workers must meet before TensorFlow is first used"
        raise FieldError("distribute", experiment.distribute, problem)


def _by_class(weights: Mapping[Any, Any]) -> tuple[Any, ...]:
    """Keras's dictionary of class weights as the tuple that the field takes.

    Raises:
      FieldError: its keys are not the numbers of all classes.
    """
    if set(weights) != set(range(len(weights))):
        problem = "its keys must be the class numbers 0, 1, …, each once"
        raise FieldError("class_weight", dict(weights), problem)
    return tuple(weights[place] for place in range(len(weights)))


def _experiment(values: Mapping[str, Any]) -> Experiment:
    """The experiment for a model and data that are passed as objects.

    Raises:
      FieldError: a field is not valid, or describes named data or a built-in network.
    """
    for name, value in values.items():
        field = FIELDS.get(name) or setting_fields().get(name)
        if field is not None and field.metadata["named_only"]:
            problem = "describes named data or a built-in network; here both are passed as objects"
            raise FieldError(name, value, problem)
    experiment = Experiment.of(**values)
    check_together(experiment, values)
    return experiment


@_in_custom_object_scope
def run_sweep(
    model: "Callable[[], keras.Model] | str | Path | None" = None,
    train: Any = None,
    test: Any = None,
    validation: Any = None,
    *,
    out: str | Path,
    axes: Mapping[str, Sequence[Any]] | None = None,
    grid: str | Path | None = None,
    config: str | Path | None = None,
    workers: int | None = None,
    ray: str | None = None,
    gpus: float = 0.0,
    custom_objects: Mapping[str, Any] | None = None,
    progress: bool = True,
    **fields: Any,
) -> list[SweepRun]:
    """Runs a sweep: one pruning run for each combination of the values of some fields.

    Finished runs are skipped, others resumed. A run that fails does not stop the others.

    Args:
      model: a function without arguments that returns a new Keras model; workers call it for every run,
        after `keras.utils.set_random_seed(seed)`. Or the path of a `.keras` file. On named data: also
        the name of a built-in network, or None for that of the recipe.
      train, test, validation: arrays as for `find_tickets`, or functions without arguments that return
        what `find_tickets` takes. None of the three: the data that fields name.
      out: the directory of the sweep; each run has its own in it.
      axes: the values of the fields that vary, e.g. `{"calib": ["none", "vwcc"], "seed": range(5)}`.
      grid: a grid file, as `--grid` of the command; `axes` and `fields` override it.
      workers: how many runs go on at the same time; None: one per CPU, or one if there is a GPU.
      ray: `auto` or the address of a Ray cluster that runs them instead of this machine.
      gpus: GPUs of each run on Ray, also fractions, e.g. 0.25.
      config, custom_objects, progress: see `find_tickets`.
      **fields: fields of all runs, as for `find_tickets`. `calib` and `criterion` may be classes of a
        module, also in `axes`.

    Returns:
      How each run ended, in the order of the combinations.

    Raises:
      UsageError: a run of the sweep cannot run; nothing is trained.
    """
    asked = {"workers": workers, "ray": ray, "gpus": gpus, "progress": progress}
    options = checked(arguments.SweepArguments, asked)
    place = arguments.directory_of("out", out)
    described = Grid() if grid is None else read_grid(arguments.path_of("grid", grid))
    described = described.with_values(*sweep_values(fields, {} if axes is None else axes))
    given = {"train": train, "test": test, "validation": validation}
    objects = GivenObjects.of(model, given, custom_objects, config)
    if objects is None:
        named = {} if model is None else {"model": str(model)}
        jobs = jobs_of(described.with_values(named, {}), place, _text(config))
    else:
        own = functools.partial(_own_experiment, objects=objects, config=_text(config))
        jobs = jobs_of(described, place, experiment_of=own, content=objects.content())
        if not all(job.can_be_skipped for job in jobs):
            objects.check(jobs[0].experiment)  # before workers start
    known = None if objects is None else objects.custom_objects
    return run_jobs(jobs, place, options, task_of=objects, custom_objects=known)


def _own_experiment(
    given: Mapping[str, Any], objects: GivenObjects, config: str | None
) -> Experiment:
    """The experiment of a run on a model, and perhaps data, that are passed as objects."""
    if objects.data:
        return _experiment(given)
    return resolve({**given, "model": "own"}, config, own_model=True)


def load_ticket(directory: str | Path, custom_objects: Mapping[str, Any] | None = None) -> Ticket:
    """Loads and verifies a ticket.

    Args:
      directory: `RUN/tickets/level_NN`.
      custom_objects: custom classes and functions of the model, by name, unless they are registered with
        `keras.saving.register_keras_serializable`.

    Raises:
      UsageError: it is not a ticket.
      DamagedTicket: a file does not match its checksum.
    """
    known = arguments.custom_objects_of(custom_objects)
    ticket = read_ticket(arguments.path_of("directory", directory))
    return dataclasses.replace(ticket, custom_objects=known)


@_in_custom_object_scope
def export_ticket(
    ticket: Ticket | Run | str | Path,
    directory: str | Path | None = None,
    test: Any = None,
    validation: Any = None,
    train: Any = None,
    *,
    level: int | str = SELECTED,
    formats: Sequence[str] = registry.DEFAULT_FORMATS,
    encoding: str | None = None,
    prefer: str = registry.SPEED,
    output: str = "logits",
    scaled: bool | None = None,
    tolerance: Tolerance = DEFAULT_TOLERANCE,
    class_names: Sequence[str] | None = None,
    license: str | None = None,
    seconds: float = 0.5,
    reuse: bool = False,
    custom_objects: Mapping[str, Any] | None = None,
    progress: Callable[[str], None] = lambda line: None,
    config: str | Path | None = None,
    **fields: Any,
) -> Exported:
    """Exports a ticket as files, and verifies each of them against the ticket.

    Args:
      ticket: a ticket or its directory; or a run or its directory, whose level `level` is exported.
      directory: for the files; None: `export/` in the run, or `export_level_NN/` for a numbered level
        or a ticket of a run.
      test, validation, train: as for `find_tickets`. Files are compared with the ticket on test. int8
        formats take value ranges and temperature from validation (see `Run.validation`), int8_qat
        trains on train. test=None, for a run on named data: that data.
      level: the number of a level of the run, or `selected`.
      scaled: whether to divide logits by the temperature; None: as the run's `export_logits`.
      reuse: whether to return an earlier export that has these formats, was made with the same
        encoding, prefer, output and scaled, and measured on the run's own data, if that is used now.
      formats: names in `registry.FORMATS`.
      encoding: a name in `registry.ENCODINGS` for all files; None: selected by `prefer`.
      prefer: `speed`: without dead units, and sparse only where LiteRT has a faster sparse kernel;
        `size`: the smallest of each file. The other one is measured, too.
      output: what files give: `logits` or `probabilities`.
      license: of the files, for the model card, e.g. `apache-2.0`.
      seconds: how long to measure the latency of each file at each number of threads; 0: not at all.
      tolerance: how much a file may differ from the ticket, a `Tolerance`.
      class_names: the name of each class, for `labels.txt` and the model card; None: those of the
        ticket, if any.
      progress: called with a line for each step.
      custom_objects: see `find_tickets`.
      config, **fields: other data or fields than those recorded in the run.

    Raises:
      UsageError: the directory holds something else, or ticket, data and formats do not fit.
      ExportMismatch: a file differs from the ticket by more than the tolerance, or a zero of the
        ticket is not zero in the file; the directory is then unchanged.
    """
    options = arguments.for_export(
        {"formats": formats, "encoding": encoding, "prefer": prefer, "output": output,
         "scaled": scaled, "license": license, "seconds": seconds, "reuse": reuse},
        tolerance, progress,
    )  # fmt: skip
    values = _data_fields(fields, config, "export_logits", named=test is None)
    for name, data in {"validation": validation, "train": train}.items():
        if test is None and data is not None:
            raise FieldError(name, type(data).__name__, "needs test beside it: pass test, too")
    request = _ExportRequest.of(ticket, level, directory)
    options = request.settled(options, values)
    of_run = test is None and request.has_data(values, config)
    if options.reuse and of_run and (found := request.earlier(options)) is not None:
        return found

    def read() -> Examples:
        if test is None:
            return request.named_examples(ticket, _text(config), values, progress)
        return request.given_examples(options.formats, test, validation, train)

    return request.export(options, read, values, tolerance, class_names, progress)


@_in_custom_object_scope
def measure_model(
    model: "Run | keras.Model | str | Path",
    test: Any = None,
    *,
    split: str = "test",
    scaled: bool = False,
    shifts: Sequence[str] = (),
    severities: Sequence[int] = registry.SEVERITIES,
    unseen: Sequence[str] | Mapping[str, Any] = (),
    input_range: float | None = None,
    custom_objects: Mapping[str, Any] | None = None,
    trust_saved_model: bool = False,
    progress: bool = True,
    config: str | Path | None = None,
    **fields: Any,
) -> Measurement:
    """Measures a ticket, an exported file or a model in memory.

    Args:
      model: a file, a SavedModel directory, `RUN/tickets/level_NN`, a run (its selected ticket), or a
        classifier of tf_keras or Keras 3 in memory, for which `test` is needed.
      test: data as for `find_tickets`. None: the data of the model's run, or of `fields` or `config`.
        On the data of its run, a ticket is measured by its stored predictions.
      split: for named data, `test`, or `val`: the validation split of the run with its label noise.
      scaled: whether to divide the logits of a ticket by its temperature.
      shifts, severities: corruptions of images (gaussian_noise, blur, contrast), each at 1 … 5.
      unseen: names of other data sets; if `test` is given, a dictionary of names and inputs `(M, …)`.
      input_range: the largest possible value of the inputs of `test`; default: that of the ticket, if it is
        known, otherwise 1.
      custom_objects: see `find_tickets`.
      trust_saved_model: whether to load a SavedModel, which can run any code. One that you exported on
        this machine needs no such permission while it lies unchanged in its export directory.
      progress: whether to show a progress bar, if standard error is a terminal.
      config: a recipe file that names the data.
      **fields: fields of `Experiment`: `ece_bins`, and for named data `dataset`, `data_dir`, …

    Raises:
      UsageError, LotcalError: see `evaluation.measure.measure_opened`.
    """
    common = arguments.for_measure(
        split=split, scaled=scaled, shifts=shifts, severities=severities, progress=progress,
        input_range=input_range, trust_saved_model=trust_saved_model,
    )  # fmt: skip
    input_range, trusted = common.pop("input_range"), common.pop("trust_saved_model")
    if test is not None and split != "test":
        raise FieldError("split", split, "is of named data; here data is passed as objects")
    names = _names(unseen) if test is None else ()
    values = _data_fields(fields, config, named=test is None)
    if test is None:
        return _measured_on_named(model, trusted, values, _text(config), names, common)
    opened = _opened(model, test, trusted, common["progress"])
    record = recorded_fields(opened.path) if isinstance(model, Run | str | Path) else {}
    bins = Experiment(**({"ece_bins": record.get("ece_bins", DEFAULT_BINS)} | values)).ece_bins
    part, others = _given_parts(opened, test, unseen, input_range)
    return measure_opened(opened, part, data="the data", bins=bins, unseen=others, **common)


@_in_custom_object_scope
def measure_run(
    run: "Run | str | Path",
    *,
    shifts: Sequence[str] = (),
    severities: Sequence[int] = registry.SEVERITIES,
    unseen: Sequence[str] = (),
    custom_objects: Mapping[str, Any] | None = None,
    progress: bool = True,
    **fields: Any,
) -> list[Measurement]:
    """Measures the ticket of every level of a run on corrupted and unseen data, for `write_report`.

    The metrics are written to `conditions.csv` in the run directory, level by level. Levels that are in it
    with all of these conditions are not measured again, so that an interrupted call can be repeated.

    Args:
      run: a run on named data, whose test split is used.
      shifts, severities: corruptions of images (gaussian_noise, blur, contrast), each at 1 … 5.
      unseen: names of other data sets, recipes or TFDS data sets.
      custom_objects: see `find_tickets`.
      progress: whether to show a progress bar, if standard error is a terminal.
      **fields: `data_dir` and `memory_limit_mb`, where they are not as recorded.

    Returns:
      What was measured now, in the order of the levels.

    Raises:
      UsageError: `run` is not a run directory, its data has no name or has changed, no condition is given, or
        see `evaluation.measure.measure_opened`.
      LotcalError: a network gives NaN or infinity. The levels of the others are measured.
    """
    common = arguments.for_measure(shifts=shifts, severities=severities, progress=progress)
    chosen = {name: common[name] for name in ("shifts", "severities", "progress")}
    names, values = _names(unseen), _texts(fields)
    conditions = [Condition(shift, n) for shift in common["shifts"] for n in common["severities"]]
    conditions += [Condition(unseen=name) for name in names]
    if not conditions:
        raise UsageError("shifts and unseen are missing: give at least one of them")
    for name, value in values.items():
        if name not in PLACE_FIELDS:
            problem = f"the run's own data is measured; choose from {', '.join(PLACE_FIELDS)}"
            raise FieldError(name, value, problem)
    directory = _directory_of("run", run)
    if not is_run(directory):
        raise FieldError("run", directory, "is not a run directory")
    experiment = data_experiment(directory, values, unseen=bool(names))
    if not (levels := unmeasured(directory, conditions)):
        return []
    part, others = _named_parts(directory, experiment, "test", names, values, own=True)
    options = {"data": experiment.dataset, "bins": experiment.ece_bins, "unseen": others, **chosen}
    return _measured_levels(directory, levels, part, options)


def _measured_levels(
    directory: Path, levels: Sequence[int], part: Part, options: Mapping[str, Any]
) -> list[Measurement]:
    """Measures levels of a run on its test split, and records each at once.

    Raises:
      UsageError: see `measure_run`.
      LotcalError: a network gives NaN or infinity; the other levels are measured.
    """
    found, failed = [], list[LotcalError]()
    for level in levels:
        opened = open_model(level_path(directory, level))
        try:
            measured = measure_opened(opened, part, split="test", **options)
        except UsageError:
            raise
        except LotcalError as error:
            failed.append(error)
            continue
        add_conditions(directory, measured.rows(level, ticket_digest(directory, level)))
        found.append(measured)
    if failed:
        raise failed[0]
    return found


def _opened(model: Any, test: Any, trusted: bool, notes: bool) -> Opened:
    """A model to measure, read from its path or in memory; `notes`: whether messages about it are printed.

    Raises:
      UsageError: there is no such model, or one in memory is not a classifier or comes without data.
    """
    if isinstance(model, Run | str | Path):
        opened = open_model(_directory_of("model", model), trusted)
    else:
        given = GivenModel.of(model)
        if test is None:
            raise UsageError("test is missing: a model in memory is measured on (inputs, labels)")
        classes_of(given.model)
        opened = open_given(given)
    for note in opened.notes if notes else ():
        print(note, file=sys.stderr)
    return opened


def _measured_by_stored(
    path: Path, values: Mapping[str, Any], options: Mapping[str, Any]
) -> Measurement:
    """Measures a ticket or a run by stored predictions; see `measure_stored`.

    Raises:
      UsageError: see `measure_model`.
    """
    check_model(path)
    path, ticket = ticket_at(path)
    own = recorded(recorded_fields(path), **values)
    chosen = {"split": options["split"], "scaled": options["scaled"]}
    return measure_stored(path, ticket, data=own.dataset, bins=own.ece_bins, **chosen)


def _measured_on_named(
    model: Any,
    trusted: bool,
    values: Mapping[str, Any],
    config: str | None,
    unseen: Sequence[str],
    options: Mapping[str, Any],
) -> Measurement:
    """Measures a stored model on named data: that of its run, unless fields or a recipe name other data.

    Raises:
      UsageError, LotcalError: see `measure_model`.
    """
    if isinstance(model, Run | str | Path):
        path = _directory_of("model", model)
        if has_stored(path, values, config, *options["shifts"], *unseen):
            return _measured_by_stored(path, values, options)
    opened = _opened(model, None, trusted, options["progress"])
    if options["scaled"]:
        opened.temperature()  # That there is none is reported before data is loaded.
    experiment = data_experiment(opened.path, values, config, unseen=bool(unseen))
    of_run = is_of_run(recorded_fields(opened.path), values, config)
    part, others = _named_parts(opened.path, experiment, options["split"], unseen, values, of_run)
    data, bins = experiment.dataset, experiment.ece_bins
    return measure_opened(opened, part, data=data, bins=bins, unseen=others, **options)


def _named_parts(
    path: Path,
    experiment: Experiment,
    split: str,
    unseen: Sequence[str],
    given: Mapping[str, Any],
    own: bool,
) -> tuple[Part, dict[str, Part]]:
    """A split of named data, and the test splits of unseen data.

    Args:
      path: the model, in a run if `own`.
      experiment: describes the data.
      split: `val` or `test`.
      unseen: the names of the unseen data.
      given: the fields from which `experiment` was made.
      own: whether the data is that of the run, whose files must not have changed since.

    Raises:
      UsageError: the data cannot be loaded, or has changed.
    """
    _check_files(path, experiment, own)
    part = sources.load_part(experiment, split)
    others = {name: unseen_experiment(name, experiment, given) for name in unseen}
    return part, {name: sources.load_part(one, "test") for name, one in others.items()}


def _check_files(path: Path, experiment: Experiment, own: bool) -> None:
    """Checks that files hold the data of the run if they are to, and otherwise other data.

    Args:
      path: the model or the run.
      experiment: describes the data.
      own: whether the data is that of the run.

    Raises:
      UsageError: the files of the run have changed, or other files are a copy of them.
    """
    known, record = recorded_content(path), recorded_fields(path)
    if own:
        sources.check_unchanged(experiment, known)
        return
    if "data" not in known or experiment.source != record.get("source"):
        return
    try:
        found = sources.content(recorded(record, data_dir=experiment.data_dir))
    except UsageError:
        return  # They cannot be divided as the data of the run is.
    if found["data"] == known["data"]:
        problem = "is a copy of the run's data, whose splits are measured: give data_dir alone"
        raise FieldError("data_dir", experiment.data_dir, problem)


def _given_parts(
    opened: Opened, test: Any, unseen: Sequence[str] | Mapping[str, Any], input_range: float | None
) -> tuple[Part, dict[str, Part]]:
    """The examples that were passed as objects, and those of other tasks.

    Raises:
      UsageError: they are not valid.
    """
    classes = opened.runner.classes
    if classes is None:
        raise UsageError(f"{opened.path} does not say how many classes it has")
    if not isinstance(unseen, Mapping) and (isinstance(unseen, str) or len(unseen)):
        raise UsageError("unseen must be a dictionary of names and inputs where test is given")
    takes, ordered = opened.runner.inputs, opened.runner.ordered
    if input_range is None:
        input_range = (opened.ticket and opened.ticket.input_range) or 1.0
    inside: dict[str, Any] = {
        "classes": classes,
        "input_range": input_range,
        "takes": takes,
        "ordered": ordered,
    }
    others = {}
    for name, inputs in unseen.items() if isinstance(unseen, Mapping) else ():
        inputs = arranged(inputs, takes, f"{name} inputs", ordered=ordered)
        labels = np.zeros(_count(inputs if len(takes) == 1 else flat(inputs)[0][1]), np.int32)
        others[name] = given_data.part((inputs, labels), split=name, **inside)
    return given_data.part(test, split="test", **inside), others


def _names(unseen: Any) -> tuple[str, ...]:
    """The names of other data sets.

    Raises:
      FieldError: they are not names.
    """
    names = (unseen,) if isinstance(unseen, str) else unseen
    if not isinstance(names, list | tuple) or not all(isinstance(n, str) and n for n in names):
        raise FieldError("unseen", unseen, "must be a list of names of data sets")
    for name in names:
        if problem := data_name(name):
            raise FieldError("unseen", name, problem)
    return tuple(names)


def _count(inputs: Any) -> int:
    """The number of examples; 0 for what is not an array, which the checks of arrays refuse."""
    try:
        return len(inputs)
    except TypeError:
        return 0


def _directory_of(name: str, given: Any) -> Path:
    """The path of a model that is a run or a path.

    Raises:
      FieldError: it is neither.
    """
    if isinstance(given, Run):
        return given.directory
    return arguments.path_of(name, given, ", or the run that find_tickets returns")


@dataclasses.dataclass(frozen=True)
class _ExportRequest:
    """A ticket to export, the target directory, and the run of the ticket; None: unknown."""

    ticket: Ticket
    directory: Path
    store: RunStore | None

    @classmethod
    @refusing_damaged()
    def of(
        cls, given: Ticket | Run | str | Path, level: int | str, directory: str | Path | None
    ) -> "_ExportRequest":
        """The request for a ticket, or for a level of a run.

        Raises:
          UsageError: the ticket is missing or damaged.
        """
        target = None if directory is None else arguments.directory_of("directory", directory)
        if not isinstance(given, Run | Ticket):
            other = ", a ticket, or the run that find_tickets returns"
            path = arguments.path_of("ticket", given, other)
            given = read_ticket(path) if is_ticket(path) else given
        if isinstance(given, Ticket):
            if level != SELECTED:
                problem = "is given for a run, and here a ticket is exported: leave it out"
                raise FieldError("level", level, problem)
            return cls._of_ticket(given, target)
        run = _directory_of("run", given)
        if not is_run(run):
            raise FieldError("run", run, "is not a run directory")
        store = RunStore(run)
        if not store.finished():
            raise FieldError("run", run, "has no finished level")
        whole = isinstance(level, int) and not isinstance(level, bool)
        if level != SELECTED and not (whole and 0 <= int(level) < store.finished()):
            levels = f"0 … {store.finished() - 1}"
            raise FieldError("level", level, f"give a level's number, {levels}, or {SELECTED}")
        chosen = level == SELECTED
        number = selected_level(store.complete_records()) if chosen else int(level)
        ticket = store.read(number)
        name = EXPORT if chosen else f"{EXPORT}_{level_name(number)}"
        return cls(ticket, run / name if target is None else target, store)

    @classmethod
    def _of_ticket(cls, ticket: Ticket, target: Path | None) -> "_ExportRequest":
        """The request for a ticket, with its run where it was read from one."""
        place = ticket.directory
        run = None if place is None else place.resolve().parent.parent
        store = RunStore(run) if run is not None and is_run(run) else None
        if store is not None and store.finished() <= ticket.level:
            store = None  # A copy of the ticket without the levels before it.
        if target is None and store is not None:
            target = store.directory / f"{EXPORT}_{level_name(ticket.level)}"
        if target is None:
            raise UsageError("directory is missing: name where the ticket is exported to")
        return cls(ticket, target, store)

    def settled(self, options: ExportArguments, fields: Mapping[str, Any]) -> ExportArguments:
        """The options, with `scaled` from the fields or the run where it is None."""
        scaled = self._settings(fields).export_logits == "scaled"
        return dataclasses.replace(
            options, scaled=scaled if options.scaled is None else options.scaled
        )

    def earlier(self, options: ExportArguments) -> Exported | None:
        """An earlier export of the ticket with these options; None if there is none."""
        return exported(self.ticket, self.directory, options)

    def export(
        self,
        options: ExportArguments,
        read: Callable[[], Examples],
        fields: Mapping[str, Any],
        tolerance: Tolerance,
        class_names: Sequence[str] | None,
        progress: Callable[[str], None],
    ) -> Exported:
        """Exports the ticket, see `export_ticket`."""
        chosen: dict[str, Any] = {}
        if self.store is not None:
            with refusing_damaged():
                first = self.store.read(0)
            # Level 0 of a run that started from a ticket is as sparse as that.
            whole = all(mask.all() for mask in first.masks.values())
            dense = first.model() if whole else None
            chosen = {"dense": dense, "origin": self.store.experiment()}
        return export(
            self.ticket,
            self.directory,
            read,
            options,
            tolerance=tolerance,
            bins=self._settings(fields).ece_bins,
            class_names=class_names,
            progress=progress,
            **chosen,
        )

    def given_examples(
        self, formats: Sequence[str], test: Any, validation: Any, train: Any
    ) -> Examples:
        """The data that the caller passes.

        Raises:
          UsageError: it is not valid, or lacks what a format needs.
        """
        for name in formats:
            Material(validation=validation, training=train).require(
                registry.FORMATS[name].needs, name
            )
        network = self.ticket.dense()
        return Examples.given(
            test, validation, train, classes=classes_of(network), takes=specs_of(network)
        )

    def named_examples(
        self,
        given: Ticket | Run | str | Path,
        config: str | None,
        fields: Mapping[str, Any],
        progress: Callable[[str], None],
    ) -> Examples:
        """The named data of the run, or other data that the fields name.

        Raises:
          UsageError: no data is named.
        """
        if self.store is None:
            raise UsageError(
                "test is missing: files are compared with the ticket on (inputs, labels)"
            )
        unchanged = config is None and not fields.keys() - {"ece_bins", "export_logits"}
        of_run, recorded = self.has_data(fields, config), recorded_fields(self.store.directory)
        if isinstance(given, Run) and unchanged:
            dataset, name = given.load(), recorded.get("dataset")
        else:
            directory = self.store.directory
            experiment = data_experiment(directory, fields, config)
            _check_files(directory, experiment, of_run)
            progress(f"reading {experiment.dataset}")
            dataset, name = sources.load(experiment), experiment.dataset
        return Examples.of(dataset, int(recorded.get("seed", 0)), data=name, of_run=of_run)

    def has_data(self, fields: Mapping[str, Any], config: str | Path | None) -> bool:
        """Whether `named_examples` are those of the ticket's run, not of other data that is named.

        Raises:
          FieldError: they are to be divided otherwise than in the run.
        """
        if self.store is None:
            return False
        place, recipe = self.store.directory, _text(config)
        own = is_of_run(recorded_fields(place), fields, recipe)
        if own and (recipe is not None or fields.keys() - {"ece_bins", "export_logits"}):
            data_experiment(place, fields, recipe)
        return own

    def _settings(self, given: Mapping[str, Any]) -> Experiment:
        """An experiment with the given `ece_bins` and `export_logits`, or else with those of the run."""
        known = {} if self.store is None else self.store.experiment().get("experiment", {})
        known = {"ece_bins": self.ticket.record.get("ece_bins"), **known, **given}
        kept = {name: known.get(name) for name in ("ece_bins", "export_logits")}
        return Experiment(**{name: value for name, value in kept.items() if value is not None})


def _text(path: str | Path | None) -> str | None:
    return None if path is None else str(arguments.path_of("config", path))


def _texts(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields by name, with paths as strings."""
    return {n: str(v) if isinstance(v, Path) else v for n, v in fields.items()}


def _data_fields(
    fields: Mapping[str, Any], config: str | Path | None, *others: str, named: bool
) -> dict[str, Any]:
    """Checks fields that describe the data of a measurement or an export; `others` are valid too.

    Raises:
      FieldError: there is no such field, or it describes named data but data is passed as objects.
    """
    values, known = _texts(fields), (*DATA_FIELDS, *others)
    given = values if config is None else values | {"config": _text(config)}
    for name, value in given.items():
        if name not in (*known, "config"):
            raise FieldError(name, value, f"no such field here; choose from {', '.join(known)}")
        if not named and name not in ("ece_bins", *others):
            raise FieldError(name, value, "describes named data; here data is passed as objects")
    return values
