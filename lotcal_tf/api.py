"""The library: find tickets in a Keras model, load them, export them, measure them.

Each function here is also what the command of that kind calls.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from lotcal_tf.compat import keras
from lotcal_tf.config import custom, registry
from lotcal_tf.config.experiment import (
    FIELDS,
    Experiment,
    check_together,
    setting_fields,
)
from lotcal_tf.config.recipes import resolve
from lotcal_tf.config.run_data import (
    DATA_FIELDS,
    data_experiment,
    recorded_fields,
    unseen_experiment,
)
from lotcal_tf.config.run_directory import is_run, level_name
from lotcal_tf.data import arrays, sources
from lotcal_tf.data.splits import Dataset, Part
from lotcal_tf.deploy.examples import Examples
from lotcal_tf.deploy.export import Exported, export, exported
from lotcal_tf.deploy.parity import DEFAULT_TOLERANCE, Tolerance
from lotcal_tf.errors import DamagedTicket, FieldError, UsageError
from lotcal_tf.evaluation.measure import Measurement, measure_opened, measure_stored
from lotcal_tf.evaluation.open_model import Opened, open_model
from lotcal_tf.lottery.run import Run, run_experiment
from lotcal_tf.lottery.store import RunStore, read_ticket
from lotcal_tf.lottery.task import GivenTask
from lotcal_tf.lottery.ticket import Ticket, selected_level
from lotcal_tf.metrics import DEFAULT_BINS
from lotcal_tf.models.checks import classes_of

SELECTED = "selected"


def find_tickets(
    model: "keras.Model | str | None" = None,
    train: Any = None,
    test: Any = None,
    validation: Any = None,
    *,
    config: str | Path | None = None,
    callbacks: Sequence["keras.callbacks.Callback"] = (),
    progress: bool = True,
    **fields: Any,
) -> Run:
    """Finds lottery tickets in a Keras model; without one, in the network that `fields` name.

    Args:
      model: a tf_keras model, functional or sequential, maybe nested, that gives logits. Its weights
        are the initialisation; it is not changed. Without data: the name of a built-in network, as
        the command's `--model`; None: that of the recipe.
      train: `(inputs, labels)` arrays, or an unbatched `tf.data` pipeline of such pairs.
      test: likewise; measured on, never used for selection. None: tables show validation metrics.
      validation: likewise; None: drawn from train by seed (field `validation_size`).
      config: without a model: a recipe file, as the command's `--config`.
      callbacks: Keras callbacks, driven once per level at its beginning, its end and those of its
        epochs. One that overrides `on_train_batch_begin` or `on_train_batch_end` is refused: many
        steps run inside one program. Callbacks are no part of a run's identity.
      progress: whether to show a bar or lines on standard error.
      **fields: of `Experiment` (epochs, levels, prune_rate, calib, out, …) and hyperparameters of
        the strategy and the criterion. `calib` and `criterion` take a class too. Calling again with
        the same ones continues an interrupted run.

    Returns:
      The run, with its tickets.

    Raises:
      UsageError: data, model or a field is not valid; nothing was written.
      TrainingDiverged: a loss was not finite; finished levels are kept.
    """
    values = _texts(fields)
    classes = {n: values[n] for n in ("calib", "criterion") if isinstance(values.get(n), type)}
    values |= {name: custom.name_of(found) for name, found in classes.items()}
    common: dict[str, Any] = {
        "strategy": classes.get("calib"),
        "criterion": classes.get("criterion"),
        "callbacks": callbacks,
        "progress": progress,
    }
    given = any(data is not None for data in (train, test, validation))
    if model is None and given:
        raise UsageError("model is missing: pass a tf_keras model beside the data")
    if model is None or (isinstance(model, str) and not given):
        named = {} if model is None else {"model": model}
        experiment = resolve(values | named, _text(config))
        _refuse_workers(experiment)
        return run_experiment(experiment, **common)
    if train is None or config is not None:
        raise UsageError("a model needs train=(inputs, labels) beside it, and takes no config")
    for name, value in values.items():
        field = FIELDS.get(name) or setting_fields().get(name)
        if field is not None and field.metadata["named_only"]:
            problem = "describes named data or a built-in network; here both are passed as objects"
            raise FieldError(name, value, problem)
    network: Any = model
    count = classes_of(network)
    experiment = Experiment.of(**values)
    check_together(experiment, values)
    _refuse_workers(experiment)
    dataset = _dataset(train, test, validation, experiment, count)
    return run_experiment(experiment, lambda e: GivenTask(e, network, dataset), **common)


def load_ticket(directory: str | Path) -> Ticket:
    """Loads and verifies a ticket.

    Args:
      directory: `RUN/tickets/level_NN`.

    Raises:
      UsageError: it is not a ticket.
      DamagedTicket: a file does not match its checksum.
    """
    return read_ticket(Path(directory))


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
    output: str = "logits",
    scaled: bool | None = None,
    tolerance: Tolerance = DEFAULT_TOLERANCE,
    seconds: float = 0.5,
    reuse: bool = False,
    progress: Callable[[str], None] = lambda line: None,
    config: str | Path | None = None,
    **fields: Any,
) -> Exported:
    """Exports a ticket as files, each verified against it; see `deploy.export.export`.

    Args:
      ticket: the ticket; or a run or its directory, of which `level` is exported.
      directory: where to; an earlier export there is replaced. None, for a run: its `export/`, or
        `export_level_NN/` for a numbered level.
      test: `(inputs, labels)` arrays, or an unbatched `tf.data` pipeline of such pairs; the files are
        compared with the ticket on them. None, for a run on named data: that data.
      validation: likewise; int8 formats find their ranges and their temperature by them. `Run`
        gives its own as `run.validation`.
      train: likewise; quantisation-aware training runs over them.
      level: of a run: a level's number, or `selected`.
      formats: names of file formats.
      encoding: dense, sparse, compact or compact_sparse for all files; None: the smallest of each.
      output: `logits` or `probabilities`.
      scaled: divide the logits by the ticket's temperature, so that their softmax is calibrated. None: as
        the run's field `export_logits` says; a ticket alone is scaled.
      tolerance: how far a file may be from its ticket.
      seconds: how long each file's latency is measured; 0: not at all.
      reuse: whether an earlier export of the same ticket to the same formats is returned as it is.
      progress: called with a line for each step.
      config: a recipe file that names other data for a run.
      **fields: of `Experiment`, in place of what the run recorded: `ece_bins`, `export_logits`, and for
        named data `data_dir`, `dataset`, …

    Raises:
      UsageError: something does not fit; nothing was written.
      ExportMismatch: a file is farther from its ticket than the tolerance; nothing is left.
    """
    values = _data_fields(fields, config, "export_logits", named=test is None)
    request = _ExportRequest.of(ticket, level, directory)
    recorded = {"ece_bins": request.ticket.record.get("ece_bins"), **request.recorded, **values}
    kept = {name: recorded.get(name) for name in ("ece_bins", "export_logits")}
    settings = Experiment(**{name: value for name, value in kept.items() if value is not None})
    scaled = settings.export_logits == "scaled" if scaled is None else scaled
    if reuse:
        found = exported(request.ticket, request.directory, formats=formats, scaled=scaled)
        if found is not None:
            return found
    if test is None:
        if request.store is None:
            raise UsageError(
                "test is missing: files are compared with the ticket on (inputs, labels)"
            )
        own = config is None and not values.keys() - {"ece_bins", "export_logits"}
        if isinstance(ticket, Run) and own:
            dataset = ticket.load()
        else:
            experiment = data_experiment(request.store.directory, values, _text(config))
            progress(f"reading {experiment.dataset}")
            dataset = sources.load(experiment)
        examples = Examples.of(dataset, request.recorded["seed"])
    else:
        classes = classes_of(request.ticket.dense())
        examples = Examples.given(test, validation, train, classes=classes)
    return export(
        request.ticket,
        request.directory,
        examples,
        formats=formats,
        encoding=encoding,
        output=output,
        scaled=scaled,
        tolerance=tolerance,
        bins=settings.ece_bins,
        dense=None if request.store is None else _read(request.store, 0).model(),
        origin=None if request.store is None else request.store.experiment(),
        seconds=seconds,
        progress=progress,
    )


def measure_model(
    model: Run | str | Path,
    test: Any = None,
    *,
    split: str = "test",
    scaled: bool = False,
    shifts: Sequence[str] = (),
    severities: Sequence[int] = registry.SEVERITIES,
    unseen: Sequence[str] | Mapping[str, Any] = (),
    input_range: float = 1.0,
    progress: bool = True,
    config: str | Path | None = None,
    **fields: Any,
) -> Measurement:
    """Measures a ticket or an exported file.

    Args:
      model: a file of a registered format, a SavedModel's directory, RUN/tickets/level_NN; or a run
        or its directory, of which the selected ticket is measured.
      test: `(inputs, labels)` arrays, or an unbatched `tf.data` pipeline of such pairs. None: named
        data, that of the model's run unless `fields` or `config` name other data. A ticket on its own
        run's data is measured by the predictions stored with it, unless a field of the data is given.
      split: of named data: `test`, or `val`, drawn as the run drew it and with its label noise.
      scaled: divide a ticket's logits by its temperature.
      shifts: corruptions: gaussian_noise, blur, contrast; for images `(height, width, channels)`.
      severities: of 1 … 5.
      unseen: names of recipes or TFDS data sets; beside `test` inputs `(M, …)` of other tasks by name.
      input_range: of `test`: the largest value inputs can have; images are corrupted in [0, input_range].
      progress: whether to show a bar on standard error, where that is a terminal.
      config: a recipe file that names the data.
      **fields: of `Experiment`: `ece_bins` (default: that of the model's run), and for named data
        `dataset`, `data_dir`, …

    Raises:
      UsageError: model, data or an argument is not valid.
      LotcalError: the model gives a value that is not finite.
    """
    values = _data_fields(fields, config, named=test is None)
    opened = open_model(model.directory if isinstance(model, Run) else Path(model))
    common: dict[str, Any] = {
        "split": split,
        "scaled": scaled,
        "shifts": shifts,
        "severities": severities,
        "progress": progress,
    }
    if test is not None:
        kept = {"ece_bins": recorded_fields(opened.path).get("ece_bins", DEFAULT_BINS)}
        bins = Experiment(**(kept | values)).ece_bins
        part, others = _given_parts(opened, test, unseen, input_range)
        return measure_opened(opened, part, data="the data", bins=bins, unseen=others, **common)
    if scaled:
        opened.temperature()  # That there is none is reported before data is loaded.
    experiment = data_experiment(opened.path, values, _text(config), unseen=bool(unseen))
    if opened.ticket is not None and not (
        shifts or unseen or config or values.keys() - {"ece_bins"}
    ):
        return measure_stored(
            opened, data=experiment.dataset, split=split, bins=experiment.ece_bins, scaled=scaled
        )
    part = sources.load_part(experiment, split)
    others = {n: sources.load_part(unseen_experiment(n, experiment), "test") for n in unseen}
    data, bins = experiment.dataset, experiment.ece_bins
    return measure_opened(opened, part, data=data, bins=bins, unseen=others, **common)


def _given_parts(
    opened: Opened, test: Any, unseen: Sequence[str] | Mapping[str, Any], input_range: float
) -> tuple[Part, dict[str, Part]]:
    """The examples passed as objects, and those of other tasks.

    Raises:
      UsageError: they are not what they should be.
    """
    classes = opened.runner.classes
    if classes is None:
        raise UsageError(f"{opened.path} does not say how many classes it has")
    if unseen and not isinstance(unseen, Mapping):
        raise UsageError("unseen must be a dictionary of names and inputs where test is given")
    inside: dict[str, Any] = {"classes": classes, "input_range": input_range}
    others = {
        name: arrays.part_of_test((inputs, np.zeros(len(inputs), np.int32)), **inside)
        for name, inputs in (unseen.items() if isinstance(unseen, Mapping) else ())
    }
    return arrays.part_of_test(test, **inside), others


@dataclasses.dataclass(frozen=True)
class _ExportRequest:
    """A ticket to export, where to, and the run that it is of; None: not known."""

    ticket: Ticket
    directory: Path
    store: RunStore | None

    @classmethod
    def of(
        cls, given: Ticket | Run | str | Path, level: int | str, directory: str | Path | None
    ) -> "_ExportRequest":
        """The ticket that is meant.

        Raises:
          UsageError: there is none, or it is damaged.
        """
        if isinstance(given, Ticket):
            if directory is None:
                raise UsageError("directory is missing: name where the ticket is exported to")
            return cls(given, Path(directory), None)
        run = given.directory if isinstance(given, Run) else Path(given)
        if not is_run(run):
            raise FieldError("run", run, "is not a run directory")
        store = RunStore(run)
        if not store.finished():
            raise FieldError("run", run, "has no finished level")
        if level != SELECTED and not isinstance(level, int):
            raise FieldError("level", level, f"give a level's number, or {SELECTED}")
        number = selected_level(store.records()) if level == SELECTED else int(level)
        ticket = _read(store, number)
        name = "export" if level == SELECTED else f"export_{level_name(number)}"
        return cls(ticket, run / name if directory is None else Path(directory), store)

    @property
    def recorded(self) -> dict[str, Any]:
        """The fields of the run; {} where it is not known."""
        return {} if self.store is None else dict(self.store.experiment()["experiment"])


def _read(store: RunStore, level: int) -> Ticket:
    """A run's ticket; what is damaged cannot be exported, which is a wrong request."""
    try:
        return store.read(level)
    except DamagedTicket as error:
        raise UsageError(str(error)) from error


def _text(path: str | Path | None) -> str | None:
    return None if path is None else str(path)


def _texts(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields by name; what is a path is a string in an experiment."""
    return {n: str(v) if isinstance(v, Path) else v for n, v in fields.items()}


def _data_fields(
    fields: Mapping[str, Any], config: str | Path | None, *others: str, named: bool
) -> dict[str, Any]:
    """Fields that say what a model is measured or exported on; `others` are valid too.

    Raises:
      FieldError: there is no such field; or it describes named data, and data is passed as objects.
    """
    values, known = _texts(fields), (*DATA_FIELDS, *others)
    given = values if config is None else values | {"config": config}
    for name, value in given.items():
        if name not in (*known, "config"):
            raise FieldError(name, value, f"no such field here; choose from {', '.join(known)}")
        if not named and name not in ("ece_bins", *others):
            raise FieldError(name, value, "describes named data; here data is passed as objects")
    return values


def _refuse_workers(experiment: Experiment) -> None:
    if experiment.distribute == "multi_worker":
        problem = "is for the train command: workers must meet before TensorFlow is first used"
        raise FieldError("distribute", experiment.distribute, problem)


def _dataset(
    train: Any, test: Any, validation: Any, experiment: Experiment, classes: int
) -> Dataset:
    """The data set of arrays or pipelines, all of one kind."""
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
