"""Measuring a ticket or an exported file, on data of one's own or on data that has a name."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lotcal_tf import metrics
from lotcal_tf.config import registry
from lotcal_tf.config.experiment import FIELDS, Experiment
from lotcal_tf.config.recipes import recipe_names, resolve
from lotcal_tf.data import arrays, sources
from lotcal_tf.data.splits import Part
from lotcal_tf.errors import UsageError
from lotcal_tf.evaluation import measure
from lotcal_tf.evaluation.measure import Measurement, measure_opened
from lotcal_tf.evaluation.open_model import Opened, open_model, recorded_experiment


def measure_model(
    model: str | Path,
    test: Any,
    *,
    bins: int = metrics.DEFAULT_BINS,
    scaled: bool = False,
    shifts: Sequence[str] = (),
    severities: Sequence[int] = registry.SEVERITIES,
    unseen: Mapping[str, Any] | None = None,
    input_range: float = 1.0,
    progress: bool = True,
) -> Measurement:
    """Measures a ticket or an exported file on data of one's own.

    Args:
      model: a `.tflite` file, a SavedModel's directory, RUN/tickets/level_NN, or RUN for its best.
      test: `(inputs, labels)` arrays, or an unbatched `tf.data` pipeline of such pairs.
      bins: of the calibration errors.
      scaled: divide a ticket's logits by its temperature.
      shifts: corruptions: gaussian_noise, blur, contrast; for images `(height, width, channels)`.
      severities: of 1 … 5.
      unseen: by name, inputs `(M, …)` of other tasks.
      input_range: the largest value inputs can take; images are corrupted in [0, input_range].
      progress: whether to show a bar on standard error, where that is a terminal.

    Raises:
      UsageError: model, data or an argument is not what it must be.
      LotcalError: the model gives a value that is not finite.
    """
    opened = open_model(Path(model))
    if opened.runner.classes is None:
        raise UsageError(f"{opened.path} does not say how many classes it tells apart")
    inside: dict[str, Any] = {"classes": opened.runner.classes, "input_range": input_range}
    others = {
        name: arrays.part_of_test((inputs, np.zeros(len(inputs), np.int32)), **inside)
        for name, inputs in (unseen or {}).items()
    }
    return measure_opened(
        opened,
        arrays.part_of_test(test, **inside),
        data="the data",
        split="test",
        bins=bins,
        scaled=scaled,
        shifts=shifts,
        severities=severities,
        unseen=others,
        progress=progress,
    )


def evaluate_model(
    model: Path,
    experiment: Experiment,
    given: Mapping[str, Any],
    *,
    split: str = "test",
    scaled: bool = False,
    shifts: Sequence[str] = (),
    severities: Sequence[int] = registry.SEVERITIES,
    unseen: Sequence[str] = (),
) -> Measurement:
    """Measures a ticket or a file on data that has a name, as the `evaluate` command does.

    Args:
      model: see `measure_model`.
      experiment: names the data.
      given: the fields that were set explicitly, `config` among them; all others of a model that
        lies in a run directory come from that run, so that its splits are those of its training.
      split: `test`, or `val`, cut as the run cut it, and with its label noise.
      scaled, shifts, severities: see `measure_model`.
      unseen: recipes or TFDS sets.

    Raises:
      UsageError: see `measure_model`.
      LotcalError: likewise.
    """
    opened = open_model(model)
    if scaled:
        opened.temperature()  # That there is none is told before data is loaded.
    experiment = _as_recorded(opened, experiment, given)
    part = _part(experiment, split)
    others = {name: _part(_of_name(name, experiment), "test") for name in unseen}
    return measure_opened(
        opened,
        part,
        data=experiment.dataset,
        split=split,
        bins=experiment.ece_bins,
        scaled=scaled,
        shifts=shifts,
        severities=severities,
        unseen=others,
        progress=True,
    )


def predictions(tickets: Sequence[Path], data_dir: str | None = None) -> list[tuple[Any, Any]]:
    """Labels `(N,)` and logits `(N, K)` of tickets of one run, on that run's own test split.

    Args:
      tickets: RUN/tickets/level_NN, all of one run.
      data_dir: where TFDS keeps its data; None: where the run had it from.

    Raises:
      UsageError: a ticket is none, or its data is not there or has no name.
    """
    opened = [open_model(path) for path in tickets]
    given = {"data_dir": data_dir} if data_dir else {}
    experiment = _as_recorded(opened[0], Experiment(data_dir=data_dir), given)
    part = _part(experiment, "test")
    return [measure.predictions(one, part, experiment.dataset) for one in opened]


def _as_recorded(opened: Opened, experiment: Experiment, given: Mapping[str, Any]) -> Experiment:
    """The experiment with what the model's run records and no flag contradicts."""
    if "source" in given:
        experiment = dataclasses.replace(experiment, dataset=experiment.source)
    recorded = recorded_experiment(opened.path)
    recorded = {name: value for name, value in recorded.items() if name in FIELDS}
    named = {"dataset", "source", "config"} & set(given)
    if not recorded:
        if not named:
            raise UsageError(f"--dataset is missing: {opened.path} lies in no run that has data")
        return experiment
    flags = {name: getattr(experiment, name) for name in given if name in FIELDS}
    if not named or (named == {"dataset"} and experiment.dataset == recorded.get("dataset")):
        if arrays.is_fingerprint(recorded["source"]):
            raise UsageError(
                f"{opened.path} was found on data of your own: give --dataset, or measure it by "
                "lotcal_tf.measure_model"
            )
        return Experiment(**(recorded | flags))
    # Other data: of the run there are the draw of a validation split and the bins.
    kept = {name: recorded[name] for name in ("seed", "ece_bins") if name in recorded}
    return dataclasses.replace(experiment, **(kept | flags))


def _of_name(name: str, experiment: Experiment) -> Experiment:
    """A recipe's data, else the TFDS set of that name; from where the experiment has its own."""
    other = (
        resolve({"dataset": name})
        if name in recipe_names()
        else Experiment(dataset=name, source=name)
    )
    return dataclasses.replace(
        other, data_dir=experiment.data_dir, memory_limit_mb=experiment.memory_limit_mb
    )


def _part(experiment: Experiment, split: str) -> Part:
    """One split of named data; the test split alone where that can be had."""
    alone = registry.source(experiment.source).load_test() if split == "test" else None
    if alone is not None:
        return alone(experiment)
    return sources.load(experiment).part(split)
