"""The settings of a group compared: means over seeds, paired differences, and a ranking."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lotcal_tf.analysis.groups import Group, Setting
from lotcal_tf.analysis.runs import RecordedRun
from lotcal_tf.analysis.statistics import Summary, paired_difference, summarise
from lotcal_tf.analysis.texts import with_interval

# Test metrics by name: their titles in tables and figures.
METRICS: Mapping[str, str] = {
    "accuracy": "Accuracy",
    "ece": "ECE",
    "nll": "NLL",
    "brier": "Brier score",
}
SCALED: Mapping[str, str] = {"ece_scaled": "ECE", "nll_scaled": "NLL"}
# Means over corruptions of the test split.
SHIFTED: Mapping[str, str] = {f"shifted_{name}": title for name, title in METRICS.items()}
# Densities of the tables where none are given: those of Frankle & Carbin's figures.
DENSITIES = (1.0, 0.21, 0.135, 0.036)
NEAR = 0.1  # a level stands for a density from which it differs by at most this share
# Validation accuracy that a setting may lose against `none` and still be chosen.
ACCURACY_LOSS = 0.002


@dataclasses.dataclass(frozen=True)
class Place:
    """A column of the tables: a density, or the selected level of each run.

    Attributes:
      density: None for the selected levels.
    """

    density: float | None

    @property
    def title(self) -> str:
        """Its header."""
        return "selected" if self.density is None else f"{100 * self.density:.3g} %"

    def level(self, run: RecordedRun) -> int | None:
        """The level of a run that stands for it; None if the run has none."""
        if self.density is None:
            return run.selected
        distance = np.abs(run.columns["density"] - self.density)
        level = int(distance.argmin())
        return level if distance[level] <= NEAR * self.density else None

    def in_all(self, runs: Sequence[RecordedRun]) -> bool:
        """Whether all of the runs have the level."""
        return all(self.level(run) is not None for run in runs)

    def values(self, setting: Setting, column: str) -> dict[Any, float]:
        """A column of the runs that have the level and a value, by replicate."""
        found = {
            replicate: run.metric(column, self.level(run))
            for replicate, run in setting.runs.items()
        }
        return {replicate: value for replicate, value in found.items() if value is not None}


SELECTED = Place(None)


def places(group: Group, densities: Sequence[float] | None) -> list[Place]:
    """The columns of a group's tables: the densities that at least one of its runs has, and `selected`."""
    found = [Place(density) for density in densities or DENSITIES]
    return [
        place
        for place in (*found, SELECTED)
        if any(place.level(run) is not None for run in group.finished)
    ]


@dataclasses.dataclass(frozen=True)
class Curve:
    """A column against density, over the replicates of a setting.

    Attributes:
      density, mean, low, high: `(L,)`, by level; `low` and `high` are the ends of the 95 % interval of the
        mean by Student's t, NaN for one replicate.
    """

    density: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def curve(setting: Setting, column: str) -> Curve | None:
    """A column against density; None if no run has it. Levels are averaged by their number."""
    runs = [run for run in setting.runs.values() if column in run.columns]
    rows = []
    for level in range(max((len(run.weights) for run in runs), default=0)):
        own = [run for run in runs if run.metric(column, level) is not None]
        found = summarise([float(run.columns[column][level]) for run in own])
        if found is not None:
            density = np.exp(np.mean([np.log(run.columns["density"][level]) for run in own]))
            low, high = (math.nan if x is None else x for x in (found.low, found.high))
            rows.append((float(density), found.mean, low, high))
    return Curve(*np.array(rows).T) if rows else None


@dataclasses.dataclass(frozen=True)
class Row:
    """One number of the report, a row of the CSV file.

    Attributes:
      group, setting: their titles.
      kind: `run`, a value of one run; `interval`, one of its stored predictions, with its interval;
        `descent`, a size of one run under label noise, whose metric ends in `_bound` if the run ends there;
        `mean` over seeds;
        `difference from none`, the strategy, or from the plain value of another field, e.g. `difference from
        rewind=init`, paired by seed; `rank`, the mean of a ranking.
      metric: a column of `metrics.csv`, or another metric of the test split.
      at: the density or `selected` that the level stands for; empty for rows of all levels.
      seed, level, density: of one run.
      n: number of seeds.
      value, sd, low, high: the value, the standard deviation over seeds, and the 95 % interval.
    """

    group: str
    setting: str
    kind: str
    metric: str
    value: float
    at: str = ""
    seed: Any = None
    level: int | None = None
    density: float | None = None
    n: int | None = None
    sd: float | None = None
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, group: str, setting: str, kind: str, metric: str, at: str, found: Summary) -> "Row":
        """A row of a summary over seeds."""
        return cls(
            group, setting, kind, metric, found.mean, at, None, None, None, found.n, found.sd,
            found.low, found.high,
        )  # fmt: skip


def worse_on_validation(group: Group, chosen: Sequence[Place]) -> list[str]:
    """A sentence for each setting whose validation ECE and NLL are both above those of `none`."""
    found = []
    for setting in group.settings:
        baseline = group.baseline(setting)
        if baseline is None:
            continue
        # A run with more levels than the others must not hide what they have in common.
        runs = [*setting.runs.values(), *baseline.runs.values()]
        pruned = [place for place in chosen if place.density is not None and place.in_all(runs)]
        if not pruned:
            continue
        pairs = {
            name: paired_difference(
                *(_averaged(one, pruned, f"val_{name}") for one in (setting, baseline))
            )
            for name in ("ece", "nll")
        }
        found += _warning(setting, baseline, pairs["ece"], pairs["nll"], len(pruned))
    return found


def _warning(
    setting: Setting, baseline: Setting, ece: Summary | None, nll: Summary | None, densities: int
) -> list[str]:
    """The sentence, if both metrics rise."""
    if ece is None or nll is None or ece.mean <= 0 or nll.mean <= 0:
        return []
    seeds = f"{ece.n} seed{'s' * (ece.n != 1)}"
    by = " and ".join(with_interval(one, ".4f") for one in (ece, nll))
    what = (
        f"{setting.label} has a higher validation ECE and NLL than {baseline.label}: by {by}, mean over "
        f"{densities} densit{'y' if densities == 1 else 'ies'} and {seeds}"
    )
    if ece.low is None or nll.low is None:
        return [f"{what}. One seed has no interval, so this may be chance."]
    sure = min(ece.low, nll.low) > 0
    end = (
        "It makes calibration worse here." if sure else "An interval includes 0: it may be chance."
    )
    return [f"{what}, with 95 % intervals. {end}"]


def _averaged(setting: Setting, chosen: Sequence[Place], column: str) -> dict[Any, float]:
    """The mean over places, of the replicates that have all of them."""
    values = [place.values(setting, column) for place in chosen]
    whole = [replicate for replicate in setting.runs if all(replicate in own for own in values)]
    return {replicate: float(np.mean([own[replicate] for own in values])) for replicate in whole}


@dataclasses.dataclass(frozen=True)
class Ranked:
    """A setting in a ranking.

    Attributes:
      group, setting: the setting and its group.
      value: the metric over seeds, each the mean over the places.
      accuracy: validation accuracy likewise.
      verdict: `best`: the best of its strategy; `accuracy too low`; or empty.
    """

    group: Group
    setting: Setting
    value: Summary
    accuracy: Summary
    verdict: str = ""


def rank(
    settings: Sequence[tuple[Group, Setting]], metric: str, densities: Sequence[float] | None
) -> list[Ranked]:
    """Ranks settings on the same data, with the same densities, by a validation metric; the best is first.

    The value of a run is the mean over the densities, without the dense level if there are others. A
    setting whose mean validation accuracy, paired by seed, is more than 0.2 points below that of `none` is
    not chosen.
    """
    found = [one for pair in settings if (one := _rankable(*pair, metric, densities)) is not None]
    sign = -1 if metric == "val_accuracy" else 1
    found.sort(key=lambda one: (one.verdict != "", sign * one.value.mean))
    known: set[str] = set()
    marked = []
    for one in found:
        best = not one.verdict and one.setting.strategy not in known
        known |= {one.setting.strategy} if best else set()
        marked.append(dataclasses.replace(one, verdict="best") if best else one)
    return sorted(marked, key=lambda one: sign * one.value.mean)


def _rankable(
    group: Group, setting: Setting, metric: str, densities: Sequence[float] | None
) -> Ranked | None:
    """A setting that has the metric, marked if its accuracy is too low."""
    chosen = ranking_places(group, densities)
    if not chosen:
        return None
    value = summarise(_averaged(setting, chosen, metric).values())
    accuracies = _averaged(setting, chosen, "val_accuracy")
    accuracy = summarise(accuracies.values())
    if value is None or accuracy is None:
        return None
    verdict, baseline = "", group.baseline(setting)
    if baseline is not None:
        lost = paired_difference(accuracies, _averaged(baseline, chosen, "val_accuracy"))
        if lost is not None and lost.mean < -ACCURACY_LOSS - 1e-12:
            verdict = "accuracy too low"
    return Ranked(group, setting, value, accuracy, verdict)


def ranking_places(group: Group, densities: Sequence[float] | None) -> list[Place]:
    """The densities of a ranking: those given, or the default ones that all runs have.

    Without the dense level if there are others.
    """
    chosen = [place for place in places(group, densities) if place.density is not None]
    if not densities:
        chosen = [place for place in chosen if place.in_all(group.finished)]
    return [place for place in chosen if place.density != 1] or chosen
