"""What the stored predictions of single runs say: metrics with intervals, bins of confidence."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from lotcal_tf.analysis.comparison import Place
from lotcal_tf.analysis.groups import Group
from lotcal_tf.analysis.runs import RecordedRun
from lotcal_tf.config.run_directory import level_path
from lotcal_tf.errors import LotcalError
from lotcal_tf.lottery.ticket_files import read_predictions
from lotcal_tf.metrics import Estimate, metric_intervals, prediction_bins
from lotcal_tf.metrics.bins import BinStatistics, means

# Metrics of single runs, before and after temperature scaling; further ones of dense networks and selected tickets.
RAW = ("accuracy", "ece", "debiased_ece", "nll", "brier")
FURTHER = ("adaptive_ece", "classwise_ece", "mce", "aurc", "overconfidence")
SCALED = ("ece", "debiased_ece", "nll", "brier")


@dataclasses.dataclass(frozen=True)
class Measured:
    """A level of a run, measured on its stored predictions of the test split.

    Attributes:
      run: the run.
      level: its number.
      metrics: by name, with 95 % intervals; those after temperature scaling end in `_scaled`.
      bins: of its confidence.
    """

    run: RecordedRun
    level: int
    metrics: dict[str, Estimate]
    bins: BinStatistics


def measure(group: Group, chosen: Sequence[Place], problems: list[str]) -> list[Measured]:
    """Measures the levels of all finished runs that stand for a column of the tables.

    Args:
      group: the group.
      chosen: the columns.
      problems: gets a line for each ticket that cannot be read; the others are measured.
    """
    return [measured for run in group.finished for measured in _of_run(run, chosen, problems)]


def _of_run(run: RecordedRun, chosen: Sequence[Place], problems: list[str]) -> Iterator[Measured]:
    levels = {level for place in chosen if (level := place.level(run)) is not None}
    for level in sorted(levels):
        ticket = level_path(run.directory, level)
        if not ticket.is_dir():
            continue  # tables without tickets
        try:
            labels, logits = read_predictions(ticket, "test")
            metrics, bins = _metrics(run, level, labels, logits)
        except LotcalError as error:
            problems.append(f"predictions left out: {error}")
            return  # one line for a run
        yield Measured(run, level, metrics, bins)


def _metrics(
    run: RecordedRun, level: int, labels: np.ndarray, logits: np.ndarray
) -> tuple[dict[str, Estimate], BinStatistics]:
    bins = int(run.field("ece_bins"))
    names = (*RAW, *FURTHER) if level in (0, run.selected) else RAW
    found = metric_intervals(labels, logits, bins=bins, names=names)
    # The stored predictions are averages over passes if there is a temperature of these.
    averaged = run.metric("mc_temperature", level)
    temperature = run.metric("temperature", level) if averaged is None else averaged
    if temperature is not None and temperature > 0:
        scaled = metric_intervals(labels, logits / temperature, bins=bins, names=SCALED)
        found |= {f"{name}_scaled": one for name, one in scaled.items()}
    return found, prediction_bins(labels, logits, bins=bins)


def pooled(measured: Sequence[BinStatistics]) -> BinStatistics:
    """The bins of several runs together, e.g. of all seeds; all have the same edges."""
    counts = np.sum([one.counts for one in measured], axis=0)
    sums = [
        np.sum([np.nan_to_num(values(one)) * one.counts for one in measured], axis=0)
        for values in (lambda one: one.confidence, lambda one: one.accuracy)
    ]
    confidence, accuracy = (means(one, counts) for one in sums)
    return BinStatistics(measured[0].edges, counts, confidence=confidence, accuracy=accuracy)
