"""Runs under label noise: the claims that several of them support together, as numbers."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lotcal_tf.analysis.runs import RecordedRun
from lotcal_tf.analysis.statistics import (
    RankCorrelation,
    Summary,
    paired_difference,
    rank_correlation,
    spread,
    summarise,
)
from lotcal_tf.metrics import wrong_confident

# A rank correlation is reported from this number of difficulties on.
DIFFICULTIES = 5
KL, OVERCONFIDENCE, WRONG_CONFIDENT = "test_kl_true", "test_overconfidence", "test_wrong_confident"
# Metrics by which the full network and the best ticket are compared.
COMPARED = (
    "test_error",
    KL,
    "test_tv_true",
    "test_bayes_error",
    "test_excess_error",
    "test_ece",
    OVERCONFIDENCE,
    WRONG_CONFIDENT,
)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One metric of the full networks and of their best tickets, paired by run.

    Attributes:
      full, best: the metric over runs.
      difference: best minus full, over runs.
      ratio: best / full, over runs; None if a full network has 0.
    """

    full: Summary
    best: Summary
    difference: Summary
    ratio: Summary | None


@dataclasses.dataclass(frozen=True)
class Cell:
    """The runs of one difficulty and one starting size, which differ in their seed.

    Attributes:
      difficulty: of the task; None if the data has no difficulty.
      model: name of the network.
      start: prunable weights of the dense network.
      runs: number of runs.
      sizes: weights of the best tickets, without bounds; None if there are none.
      bounds: number of runs that end inside their sweet spot, so that their best size is a bound.
      without: number of runs without a best ticket.
      compared: full networks and best tickets, by metric.
    """

    difficulty: float | None
    model: str
    start: int
    runs: int
    sizes: Summary | None
    bounds: int
    without: int
    compared: dict[str, Comparison]


@dataclasses.dataclass(frozen=True)
class Spread:
    """Ratio of the largest to the smallest best size over starting sizes, at one difficulty.

    Attributes:
      difficulty: of the task; None if the data has no difficulty.
      models: number of starting sizes with a best size.
      of_means: the ratio of the mean sizes over seeds; None for fewer than two starting sizes.
      by_seed: the ratio within each seed, over seeds; None if no seed has two starting sizes.
    """

    difficulty: float | None
    models: int
    of_means: float | None
    by_seed: Summary | None


@dataclasses.dataclass(frozen=True)
class Correlation:
    """Rank correlation of best size and difficulty.

    Attributes:
      difficulties: number of difficulties.
      models: number of starting sizes with a best size at each difficulty.
      of_means: correlation of the mean best size of these starting sizes at each difficulty.
      by_start_and_seed: rho of each starting size and seed, over both.
      missing: why `of_means` is None; empty otherwise.
    """

    difficulties: int
    models: int
    of_means: RankCorrelation | None
    by_start_and_seed: Summary | None
    missing: str


@dataclasses.dataclass(frozen=True)
class Study:
    """Finished runs of one group and one strategy, and their claims."""

    runs: Sequence[RecordedRun]

    def cells(self) -> list[Cell]:
        """One cell for each difficulty and starting size."""
        return [
            Cell(
                difficulty=runs[0].difficulty,
                model=runs[0].model,
                start=runs[0].start,
                runs=len(runs),
                sizes=summarise(best_sizes(runs)),
                bounds=sum(run.descent.best_is_bound for run in runs),
                without=sum(run.descent.best is None for run in runs),
                compared=compare(runs),
            )
            for runs in _grouped(self.runs, lambda c: (c.difficulty, c.model))
        ]

    def spreads(self) -> list[Spread]:
        """The spread of best sizes over starting sizes, for each difficulty."""
        found = []
        for runs in _grouped(self.runs, lambda c: c.difficulty):
            means = [
                summary.mean
                for group in _grouped(runs, lambda c: c.model)
                if (summary := summarise(best_sizes(group)))
            ]
            seeds = [
                ratio
                for group in _grouped(runs, lambda c: c.seed)
                if (ratio := spread(best_sizes(group)))
            ]
            found.append(Spread(runs[0].difficulty, len(means), spread(means), summarise(seeds)))
        return found

    def correlation(self) -> Correlation:
        """The rank correlation of best size and difficulty."""
        sizes = [
            {
                runs[0].difficulty: summary.mean
                for runs in _grouped(own, lambda c: c.difficulty)
                if (summary := summarise(best_sizes(runs)))
            }
            for own in _grouped(self.runs, lambda c: c.model)
        ]
        difficulties = sorted({c.difficulty for c in self.runs if c.difficulty is not None})
        count = len(difficulties)
        if count < DIFFICULTIES:
            missing = f"it needs at least {DIFFICULTIES} difficulties, and there are {count}"
            return Correlation(count, 0, None, None, missing)
        # Means must cover the same starting sizes at each difficulty to be comparable.
        whole = [found for found in sizes if set(found) == set(difficulties)]
        means = [float(np.mean([found[d] for found in whole])) for d in difficulties if whole]
        rhos = []
        for runs in _grouped(self.runs, lambda c: (c.model, c.seed)):
            own_sizes = {c.difficulty: size for c in runs if (size := best_size(c))}
            alone = rank_correlation([d or 0.0 for d in own_sizes], list(own_sizes.values()))
            if len(own_sizes) >= DIFFICULTIES and alone is not None:
                rhos.append(alone.rho)
        found = rank_correlation(difficulties, means) if whole else None
        missing = ""
        if not whole:
            missing = f"no starting size has a best ticket at each of the {count} difficulties"
        elif found is None:
            missing = "all difficulties have the same best size"
        return Correlation(count, len(whole), found, summarise(rhos), missing)

    @property
    def has_difficulty(self) -> bool:
        """Whether the runs' data has a difficulty."""
        return any(run.difficulty is not None for run in self.runs)


def best_size(run: RecordedRun) -> int | None:
    """Weights of a run's best ticket; None if it has none, or only a bound."""
    found = run.descent
    sure = found.best is not None and not found.best_is_bound
    return int(run.weights[found.best]) if sure else None


def best_sizes(runs: Sequence[RecordedRun]) -> list[int]:
    """The best sizes of the runs that have one."""
    return [size for run in runs if (size := best_size(run)) is not None]


def metric(run: RecordedRun, name: str, level: int | None) -> float | None:
    """A metric of a level: a column, or `test_error`, `val_error` or `train_error`; None without one."""
    if name.endswith("_error") and name not in run.columns:
        accuracy = run.metric(name.replace("_error", "_accuracy"), level)
        return None if accuracy is None else 1 - accuracy
    return run.metric(name, level)


def with_predictions(
    run: RecordedRun, predicted: Mapping[int, tuple[np.ndarray, np.ndarray]]
) -> RecordedRun:
    """Fills in the share of wrong predictions that are confident, at some levels of a run.

    Args:
      run: the run; runs of older versions lack this column.
      predicted: by level, labels `(N,)` and logits `(N, K)` of the test split.

    Returns:
      A copy of the run with the column.
    """
    column = run.columns.get(WRONG_CONFIDENT, np.full(run.weights.size, np.nan)).copy()
    for level, (labels, logits) in predicted.items():
        column[level] = wrong_confident(labels, logits)
    return dataclasses.replace(run, columns={**run.columns, WRONG_CONFIDENT: column})


def compare(runs: Sequence[RecordedRun]) -> dict[str, Comparison]:
    """Compares full networks and best tickets, bounds included, by each metric of `COMPARED`.

    A metric that no run has for both is left out. A ratio needs values above 0 for all full
    networks.
    """
    found = {}
    for name in COMPARED:
        full: dict[Any, float] = {}
        best: dict[Any, float] = {}
        for run in runs:
            dense, ticket = metric(run, name, 0), metric(run, name, run.descent.best)
            if dense is not None and ticket is not None:
                full[run.directory], best[run.directory] = dense, ticket
        before, after = summarise(full.values()), summarise(best.values())
        difference = paired_difference(best, full)
        if before is None or after is None or difference is None:
            continue
        positive = all(value > 0 for value in full.values())
        ratio = summarise([best[key] / full[key] for key in full]) if positive else None
        found[name] = Comparison(before, after, difference, ratio)
    return found


def _grouped(
    runs: Sequence[RecordedRun], key: Callable[[RecordedRun], Any]
) -> list[list[RecordedRun]]:
    """Runs grouped by a key, in the order in which the keys first occur."""
    groups: dict[Any, list[RecordedRun]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return list(groups.values())
