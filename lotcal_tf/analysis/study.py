"""A study: chains read together, its claims as numbers."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lotcal_tf.analysis.runs import DIFFICULTY, Chain
from lotcal_tf.analysis.statistics import (
    RankCorrelation,
    Summary,
    paired_difference,
    rank_correlation,
    spread,
    summarise,
)
from lotcal_tf.metrics import wrong_confident

# So many difficulties make a rank correlation worth reporting.
DIFFICULTIES = 5
KL, OVERCONFIDENCE, SURE_AND_WRONG = "test_kl_true", "test_overconfidence", "test_wrong_confident"
# What the full network and the best ticket are compared by.
COMPARED = (
    "test_error",
    KL,
    "test_tv_true",
    "test_bayes_error",
    "test_excess_error",
    "test_ece",
    OVERCONFIDENCE,
    SURE_AND_WRONG,
)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A figure of full networks against that of their best tickets, chain by chain."""

    full: Summary
    best: Summary
    difference: Summary
    ratio: Summary | None


@dataclasses.dataclass(frozen=True)
class Cell:
    """The chains of one difficulty and one starting size; what differs is the seed.

    Attributes:
      sizes: of best tickets; bounds are left out, and counted.
      bounds: chains that end in the sweet spot.
      without: chains without a best ticket.
    """

    difficulty: float | None
    model: str
    start: int
    chains: int
    sizes: Summary | None
    bounds: int
    without: int
    compared: dict[str, Comparison]


@dataclasses.dataclass(frozen=True)
class Spread:
    """Largest over smallest best size over starting sizes, at one difficulty.

    Attributes:
      models: how many starting sizes have a best size.
      of_means: of the sizes' means over seeds.
      by_seed: of each seed by itself.
    """

    difficulty: float | None
    models: int
    of_means: float | None
    by_seed: Summary | None


@dataclasses.dataclass(frozen=True)
class Correlation:
    """Best size against difficulty.

    Attributes:
      difficulties: how many there are.
      models: how many starting sizes have a best size at each of them.
      of_means: of the mean best size of those starting sizes at each difficulty.
      by_chain: rho of each starting size and seed by itself.
      missing: why there is none; empty: there is.
    """

    difficulties: int
    models: int
    of_means: RankCorrelation | None
    by_chain: Summary | None
    missing: str


@dataclasses.dataclass(frozen=True)
class Study:
    """Chains that belong together, see `runs.read_runs`, and what they say."""

    chains: Sequence[Chain]

    def cells(self) -> list[Cell]:
        """Each difficulty and starting size."""
        return [
            Cell(
                difficulty=chains[0].difficulty,
                model=chains[0].model,
                start=chains[0].start,
                chains=len(chains),
                sizes=summarise(best_sizes(chains)),
                bounds=sum(chain.descent.best_is_bound for chain in chains),
                without=sum(chain.descent.best is None for chain in chains),
                compared=compare(chains),
            )
            for chains in _grouped(self.chains, lambda c: (c.difficulty, c.model))
        ]

    def spreads(self) -> list[Spread]:
        """Best sizes over starting sizes, at each difficulty."""
        found = []
        for chains in _grouped(self.chains, lambda c: c.difficulty):
            means = [
                summary.mean
                for group in _grouped(chains, lambda c: c.model)
                if (summary := summarise(best_sizes(group)))
            ]
            seeds = [
                ratio
                for group in _grouped(chains, lambda c: c.seed)
                if (ratio := spread(best_sizes(group)))
            ]
            found.append(Spread(chains[0].difficulty, len(means), spread(means), summarise(seeds)))
        return found

    def correlation(self) -> Correlation:
        """Best sizes over difficulties."""
        sizes = [
            {
                chains[0].difficulty: summary.mean
                for chains in _grouped(own, lambda c: c.difficulty)
                if (summary := summarise(best_sizes(chains)))
            }
            for own in _grouped(self.chains, lambda c: c.model)
        ]
        difficulties = sorted({c.difficulty for c in self.chains if c.difficulty is not None})
        count = len(difficulties)
        if count < DIFFICULTIES:
            missing = f"needs {DIFFICULTIES} difficulties, there are {count}"
            return Correlation(count, 0, None, None, missing)
        # A mean over whatever has a best size would compare one starting size with another.
        whole = [found for found in sizes if set(found) == set(difficulties)]
        means = [float(np.mean([found[d] for found in whole])) for d in difficulties if whole]
        rhos = []
        for chains in _grouped(self.chains, lambda c: (c.model, c.seed)):
            own_sizes = {c.difficulty: size for c in chains if (size := best_size(c))}
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

    def as_dict(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        return {
            "difficulty_field": DIFFICULTY if self.has_difficulty else None,
            "chains": [describe(chain) for chain in self.chains],
            "cells": [dataclasses.asdict(cell) for cell in self.cells()],
            "claims": {
                "spread": [dataclasses.asdict(found) for found in self.spreads()],
                "rank_correlation": dataclasses.asdict(self.correlation()),
                "full_against_best": {
                    name: dataclasses.asdict(found) for name, found in compare(self.chains).items()
                },
            },
        }

    @property
    def has_difficulty(self) -> bool:
        """Whether the data has the field that says how hard it is."""
        return any(chain.difficulty is not None for chain in self.chains)


def best_size(chain: Chain) -> int | None:
    """Weights of the best ticket; None where it has none or only a bound."""
    found = chain.descent
    sure = found.best is not None and not found.best_is_bound
    return int(chain.weights[found.best]) if sure else None


def best_sizes(chains: Sequence[Chain]) -> list[int]:
    """`best_size` of the chains that have one."""
    return [size for chain in chains if (size := best_size(chain)) is not None]


def figure(chain: Chain, name: str, level: int | None) -> float | None:
    """A figure of a level; `test_error`, `val_error` and `train_error` beside the columns."""
    if name.endswith("_error") and name not in chain.columns:
        accuracy = chain.figure(name.replace("_error", "_accuracy"), level)
        return None if accuracy is None else 1 - accuracy
    return chain.figure(name, level)


def with_predictions(chain: Chain, predicted: Mapping[int, tuple[np.ndarray, np.ndarray]]) -> Chain:
    """The chain with the share of confident wrong predictions at some levels filled in.

    Args:
      chain: as read; runs of older versions have no such column.
      predicted: by level, labels `(N,)` and logits `(N, K)` of the test split.
    """
    column = chain.columns.get(SURE_AND_WRONG, np.full(chain.weights.size, np.nan)).copy()
    for level, (labels, logits) in predicted.items():
        column[level] = wrong_confident(labels, logits)
    return dataclasses.replace(chain, columns={**chain.columns, SURE_AND_WRONG: column})


def compare(chains: Sequence[Chain]) -> dict[str, Comparison]:
    """Full network against best ticket, of every chain that names one, bounds too.

    A figure that no chain has at both is left out; a ratio is taken where no full network has 0.
    """
    found = {}
    for name in COMPARED:
        full: dict[Any, float] = {}
        best: dict[Any, float] = {}
        for chain in chains:
            dense, ticket = figure(chain, name, 0), figure(chain, name, chain.descent.best)
            if dense is not None and ticket is not None:
                full[chain.directory], best[chain.directory] = dense, ticket
        before, after = summarise(full.values()), summarise(best.values())
        difference = paired_difference(best, full)
        if before is None or after is None or difference is None:
            continue
        positive = all(value > 0 for value in full.values())
        ratio = summarise([best[key] / full[key] for key in full]) if positive else None
        found[name] = Comparison(before, after, difference, ratio)
    return found


def describe(chain: Chain) -> dict[str, Any]:
    """One chain and its reading, as JSON can hold it."""
    found = chain.descent
    shown = {"threshold": found.threshold, "peak": found.peak, "best": found.best}
    shown |= {"collapse": found.collapse, "lowest": found.lowest}
    compared = ("train_error", "val_error", *COMPARED)
    return {
        "run": str(chain.directory),
        "dataset": chain.field("dataset"),
        "label_noise": chain.field("label_noise"),
        "noise_kind": chain.field("noise_kind"),
        "wrong_labels": dict(chain.wrong_labels),
        "difficulty": chain.difficulty,
        "model": chain.model,
        "seed": chain.seed,
        "levels": len(chain.weights) - 1,
        "weights": chain.start,
        "verdict": found.verdict,
        "threshold_is_bound": found.threshold_is_bound,
        "best_is_bound": found.best_is_bound,
        "sweet_spot": [_place(chain, level) for level in found.sweet_spot or ()],
        **{name: _place(chain, level) for name, level in shown.items()},
        "full": {name: figure(chain, name, 0) for name in compared},
        "best_figures": {name: figure(chain, name, found.best) for name in compared},
    }


def _place(chain: Chain, level: int | None) -> dict[str, Any] | None:
    if level is None:
        return None
    return {
        "level": level,
        "weights": int(chain.weights[level]),
        "density": float(chain.columns["density"][level]),
    }


def _grouped(chains: Sequence[Chain], key: Callable[[Chain], Any]) -> list[list[Chain]]:
    """Chains of one key together, in the order the keys first come."""
    groups: dict[Any, list[Chain]] = {}
    for chain in chains:
        groups.setdefault(key(chain), []).append(chain)
    return list(groups.values())
