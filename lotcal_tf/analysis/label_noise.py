"""Runs under label noise: the networks that are compared at each width, and their sizes, as numbers.

The networks of a width are its full (dense) network, its best ticket by each of two rules (`RULES`),
and the best small dense network (`Study.small_dense`).
"""

import dataclasses
import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lotcal_tf.analysis.groups import OF_NOISE, Group, Setting
from lotcal_tf.analysis.rules import ECES, RULES, Rule, best_size, best_sizes, ece_minimum
from lotcal_tf.analysis.runs import RecordedRun, grouped, in_order
from lotcal_tf.analysis.statistics import (
    RankCorrelation,
    Summary,
    paired_difference,
    rank_correlation,
    summarise,
    summarise_ratios,
)
from lotcal_tf.config.experiment import FIELDS
from lotcal_tf.metrics import wrong_confident

# A rank correlation is reported from this number of difficulties on.
DIFFICULTIES = 5
KL, OVERCONFIDENCE, WRONG_CONFIDENT = "test_kl_true", "test_overconfidence", "test_wrong_confident"
# Metrics by which networks are compared.
COMPARED = (
    "test_error",
    "test_noisy_error",
    KL,
    "test_tv_true",
    "test_bayes_error",
    "test_excess_error",
    *ECES,
    OVERCONFIDENCE,
    WRONG_CONFIDENT,
)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One metric of the full networks and of their best tickets, paired by run.

    Attributes:
      full, best: the metric over runs.
      difference: best minus full, over runs.
    """

    full: Summary
    best: Summary
    difference: Summary


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of some level of runs that differ in their seed.

    Attributes:
      found: the sizes without bounds; None if there are none.
      bounds: number of runs with a bound.
      without: number of runs without such a level.
    """

    found: Summary | None
    bounds: int
    without: int

    @classmethod
    def of(cls, runs: Sequence[RecordedRun], rule: Rule, geometric: bool = False) -> "Sizes":
        """The sizes of the levels that a rule finds, with their mean or their geometric mean."""
        levels = [rule(run) for run in runs]
        return cls(
            (summarise_ratios if geometric else summarise)(best_sizes(runs, rule)),
            bounds=sum(one is not None and one.is_bound for one in levels),
            without=sum(one is None for one in levels),
        )


@dataclasses.dataclass(frozen=True)
class Cell:
    """The runs of one difficulty and one starting size, which differ in their seed.

    Attributes:
      difficulty: of the task; None if the data has no difficulty.
      model: name of the network.
      start: weights of the dense network.
      runs: number of runs.
      sizes: best sizes, by rule.
      minima: sizes at the minimum of the calibration error with their geometric mean, by column of
        `ECES`.
      networks: metrics over seeds, by network and metric; networks that no run has are left out.
    """

    difficulty: float | None
    model: str
    start: int
    runs: int
    sizes: dict[str, Sizes]
    minima: dict[str, Sizes]
    networks: dict[str, dict[str, Summary]]


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
        """One cell for each difficulty and starting size, those of an architecture together."""
        runs = sorted(self.runs, key=lambda c: (c.difficulty or 0.0, c.architecture, c.start))
        return [
            Cell(
                difficulty=runs[0].difficulty,
                model=runs[0].model,
                start=runs[0].start,
                runs=len(runs),
                sizes={name: Sizes.of(runs, rule) for name, rule in RULES.items()},
                minima={
                    name: Sizes.of(runs, functools.partial(ece_minimum, column=name), True)
                    for name in ECES
                    if any(name in run.columns for run in runs)
                },
                networks=self.networks(runs),
            )
            for runs in grouped(runs, lambda c: (c.difficulty, c.model))
        ]

    def correlation(self) -> Correlation:
        """The rank correlation of best size and difficulty."""
        sizes = [
            {
                runs[0].difficulty: summary.mean
                for runs in grouped(own, lambda c: c.difficulty)
                if (summary := summarise(best_sizes(runs)))
            }
            for own in grouped(self.runs, lambda c: c.model)
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
        for runs in grouped(self.runs, lambda c: (c.model, c.seed)):
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

    def small_dense(self, run: RecordedRun) -> RecordedRun | None:
        """The run of the same seed whose level 0 is the best small dense network beside a run.

        Of the networks of the same architecture and difficulty with fewer weights, it has the lowest
        validation error at level 0, mean over seeds; of equal ones it is the smallest. None without a
        smaller network of the same seed.
        """
        smaller = [
            one
            for one in self.runs
            if one.start < run.start
            and (one.architecture, one.difficulty) == (run.architecture, run.difficulty)
        ]
        groups = grouped(smaller, lambda c: c.model)
        means = [(float(np.mean([c.error("val")[0] for c in g])), g[0].start, g) for g in groups]
        own = min(means, key=lambda one: one[:2])[2] if means else []
        return next((one for one in own if one.seed == run.seed), None)

    def levels(self, run: RecordedRun) -> dict[str, tuple[RecordedRun, int]]:
        """The networks that are compared beside a run: their run and level by name, see `NETWORKS`."""
        found: dict[str, tuple[RecordedRun, int]] = {"full": (run, 0)}
        for name, rule in zip(NETWORKS[1:3], RULES.values(), strict=True):
            best = rule(run)
            found |= {} if best is None else {name: (run, best.level)}
        small = self.small_dense(run)
        return found | ({} if small is None else {"small dense": (small, 0)})

    def networks(self, runs: Sequence[RecordedRun]) -> dict[str, dict[str, Summary]]:
        """Metrics over runs, by network (see `NETWORKS`) and metric; `weights` are among them."""
        levels = [self.levels(run) for run in runs]
        found: dict[str, dict[str, Summary]] = {}
        for network in NETWORKS:
            places = [own[network] for own in levels if network in own]
            for name in ("weights", *COMPARED):
                values = [v for run, n in places if (v := metric(run, name, n)) is not None]
                summary = summarise(values)
                if summary is not None:
                    found.setdefault(network, {})[name] = summary
        return found

    @property
    def has_difficulty(self) -> bool:
        """Whether the runs' data has a difficulty."""
        return any(run.difficulty is not None for run in self.runs)


# The networks that are compared at each width; the second and the third are those of `RULES`.
NETWORKS = ("full", "best ticket", "lowest test error", "small dense")


@dataclasses.dataclass(frozen=True)
class NamedStudy:
    """A study, with its group.

    Attributes:
      title: a short name, another one for each study.
      group: the group.
      words: what its runs have in common of what may vary in a group, network and difficulty aside.
      study: the runs.
    """

    title: str
    group: Group
    words: str
    study: Study


def studies(groups: Sequence[Group]) -> list[NamedStudy]:
    """The studies of groups: one for each setting, network and difficulty aside; none without noise or test data."""
    found: list[NamedStudy] = []
    titles = Counter[str]()
    for group in groups:
        own: dict[str, list[RecordedRun]] = {}
        for setting in group.settings if group.has_noise else ():
            if runs := [run for run in setting.runs.values() if run.has_test]:
                own.setdefault(_without_noise(setting), []).extend(runs)
        for words, runs in own.items():
            parts = [str(runs[0].field("dataset"))]
            parts += [f"{runs[0].classes} classes"] if runs[0].field("classes") else []
            parts += [words] if len(own) > 1 else []
            title = ", ".join(parts)
            titles[title] += 1
            title += f" ({titles[title]})" if titles[title] > 1 else ""
            found.append(NamedStudy(title, group, words, Study(in_order(runs))))
    return found


def _without_noise(setting: Setting) -> str:
    """What a setting is, network and difficulty aside."""
    values = {n: v for n, v in setting.values.items() if n not in OF_NOISE} | dict(setting.settings)
    values |= {
        f"tickets' {name}": value
        for name, value in setting.of_tickets.items()
        if name not in FIELDS or value != FIELDS[name].default
    }
    return ", ".join(f"{name}={value}" for name, value in values.items() if value not in (None, ()))


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

    A metric that no run has for both is left out.
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
        found[name] = Comparison(before, after, difference)
    return found
