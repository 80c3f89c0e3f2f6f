"""Figures over seeds: mean, deviation, interval, spread, rank correlation, paired differences."""

import dataclasses
import math
from collections.abc import Collection, Hashable, Mapping, Sequence

import numpy as np
from scipy import stats

# Up to so many pairs all their orders are gone through: 5040.
_EXACT = 7


@dataclasses.dataclass(frozen=True)
class Summary:
    """Values of several seeds in short.

    Attributes:
      n: how many.
      mean: theirs.
      sd: their standard deviation (ddof 1); None for one value.
      low, high: 95 % interval of the mean by Student's t; None for one value.
    """

    n: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None


@dataclasses.dataclass(frozen=True)
class RankCorrelation:
    """Spearman's: `rho` in [-1, 1] of `n` pairs; `p`, how often chance alone gives as much, two-sided."""

    n: int
    rho: float
    p: float


def summarise(values: Collection[float]) -> Summary | None:
    """The values in short; None for none.

    Raises:
      ValueError: a value is not finite.
    """
    found = np.asarray(list(values), np.float64)
    if not np.isfinite(found).all():
        raise ValueError("values must be finite")
    if not found.size:
        return None
    mean = float(found.mean())
    if found.size == 1:
        return Summary(1, mean, None, None, None)
    sd = float(found.std(ddof=1))
    half = float(stats.t.ppf(0.975, found.size - 1)) * sd / math.sqrt(found.size)
    return Summary(found.size, mean, sd, mean - half, mean + half)


def spread(values: Collection[float]) -> float | None:
    """Largest over smallest, 1 or more, of values above 0; None for fewer than two.

    Raises:
      ValueError: a value is 0 or less.
    """
    if any(not value > 0 for value in values):
        raise ValueError("the spread is that of values above 0")
    return max(values) / min(values) if len(values) > 1 else None


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> RankCorrelation | None:
    """Spearman's rank correlation of pairs; None where one side is constant or pairs are below 3.

    Up to 7 pairs `p` is exact, over all orders of one side; above, by Student's t.
    """
    if len(x) != len(y):
        raise ValueError(f"{len(x)} values against {len(y)}")
    if len(x) < 3 or len(set(x)) < 2 or len(set(y)) < 2:
        return None
    found = stats.spearmanr(x, y)
    p = float(found.pvalue)
    if len(x) <= _EXACT:
        # The t approximation takes a perfect order of five for a proof; 2 of its 120 orders are one.
        exact = stats.permutation_test(
            (stats.rankdata(x),),
            lambda ranks, axis: _product(ranks, stats.rankdata(y), axis),
            permutation_type="pairings",
            n_resamples=math.inf,
            vectorized=True,
        )
        p = float(exact.pvalue)
    return RankCorrelation(len(x), float(found.statistic), p)


def paired_difference(
    first: Mapping[Hashable, float], second: Mapping[Hashable, float]
) -> Summary | None:
    """`first - second` pair by pair, of what both have under one key; None where that is nothing."""
    return summarise([first[key] - second[key] for key in first if key in second])


def _product(ranks: np.ndarray, others: np.ndarray, axis: int) -> np.ndarray:
    """What orders pairings as the correlation of ranks does, without its constants."""
    centred = np.moveaxis(ranks, axis, -1) - others.mean()
    return np.asarray((centred * (others - others.mean())).sum(axis=-1))
