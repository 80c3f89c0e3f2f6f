"""Exporting a level of a run directory, with that run's own data."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lotcal_tf.config import registry
from lotcal_tf.config.experiment import FIELDS, Experiment
from lotcal_tf.config.run_directory import level_name
from lotcal_tf.data import arrays, sources
from lotcal_tf.deploy.examples import Examples
from lotcal_tf.deploy.export import Exported, export
from lotcal_tf.deploy.parity import Tolerance
from lotcal_tf.errors import DamagedTicket, UsageError
from lotcal_tf.evaluation.open_model import recorded_experiment
from lotcal_tf.lottery.store import RunStore
from lotcal_tf.lottery.ticket import selected_level


def export_level(
    run: Path,
    level: int | None,
    given: Mapping[str, Any],
    *,
    directory: Path | None = None,
    formats: Sequence[str] = registry.DEFAULT_FORMATS,
    encoding: str | None = None,
    output: str = "logits",
    float_tolerance: float = Tolerance.exact,
    accuracy_tolerance: float = Tolerance.accuracy,
    ece_tolerance: float = Tolerance.ece,
    seconds: float = 0.5,
    progress: Callable[[str], None] = lambda line: None,
) -> Exported:
    """Exports a level of a run, measured on the run's test split; where it has none, on validation.

    Args:
      run: the run directory.
      level: its number; None: the best, chosen by validation data.
      given: fields of the experiment that stand in place of the recorded ones, such as `data_dir`.
      directory: where to; None: `export/` of the run, or `export_level_NN/` for a numbered level.
      formats, encoding, output, seconds, progress: see `deploy.export.export`.
      float_tolerance, accuracy_tolerance, ece_tolerance: see `deploy.parity.Tolerance`.

    Raises:
      UsageError: the run has no such level, or it is damaged; or see `deploy.export.export`.
      ExportMismatch: a file is farther from the ticket than the tolerances.
    """
    store = RunStore(run)
    if not store.finished():
        raise UsageError(f"{run} is a run without a finished level")
    experiment = _recorded(run, given)
    number = selected_level(store.records()) if level is None else level
    try:
        ticket = store.read(number)
        dense = store.read(0).model()
    except DamagedTicket as error:
        # What was asked for cannot be exported; nothing that ran has failed.
        raise UsageError(str(error)) from error
    progress(f"reading {experiment.dataset}")
    dataset = sources.load(experiment)
    name = "export" if level is None else f"export_{level_name(number)}"
    return export(
        ticket,
        directory or run / name,
        Examples.of(dataset, experiment.seed),
        formats=formats,
        encoding=encoding,
        output=output,
        scaled=experiment.export_logits == "scaled",
        tolerance=Tolerance(float_tolerance, accuracy_tolerance, ece_tolerance),
        bins=experiment.ece_bins,
        dense=dense,
        origin=store.experiment(),
        seconds=seconds,
        progress=progress,
    )


def _recorded(run: Path, given: Mapping[str, Any]) -> Experiment:
    """The run's experiment, with the fields that are given in place of its own."""
    recorded = recorded_experiment(run)
    known = {name: value for name, value in recorded.items() if name in FIELDS}
    if arrays.is_fingerprint(known.get("source", "")):
        raise UsageError(
            f"{run} was found on data of your own: export its tickets by lotcal_tf.export_ticket"
        )
    return Experiment(**{**known, **given})
