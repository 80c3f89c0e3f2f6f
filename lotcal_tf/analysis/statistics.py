"""Statistics over seeds: mean, deviation, interval, spread, rank correlation, paired difference."""

import dataclasses
import math
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence

import numpy as np
from scipy import stats

# Up to this number of pairs, `p` is exact: 7 pairs have 5040 orders.
_EXACT = 7


@dataclasses.dataclass(frozen=True)
class Summary:
    """Summary of the values of several seeds.

    Attributes:
      n: number of values.
      mean: mean of the values.
      sd: standard deviation of the values (ddof 1); None for one value.
      low, high: 95 % confidence interval of the mean by Student's t; None for one value.
    """

    n: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None


@dataclasses.dataclass(frozen=True)
class RankCorrelation:
    """Spearman's rank correlation.

    Attributes:
      n: number of pairs.
      rho: correlation in [-1, 1].
      p: two-sided p-value.
    """

    n: int
    rho: float
    p: float


def summarise(values: Collection[float]) -> Summary | None:
    """Summarises values; None if there are none.

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


def summarise_ratios(values: Collection[float]) -> Summary | None:
    """Summarises values above 0 by their logarithms; None if there are none.

    `mean` is the geometric mean, `low` and `high` are the ends of its 95 % interval; `sd` is None.

    Raises:
      ValueError: a value is 0 or less, or not finite.
    """
    if any(not value > 0 for value in values):
        raise ValueError(f"values must be above 0, got {min(values)}")
    found = summarise([math.log(value) for value in values])
    if found is None:
        return None
    low, high = (None if end is None else _exp(end) for end in (found.low, found.high))
    return Summary(found.n, math.exp(found.mean), None, low, high)


def means_at(pairs: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """The mean of y at each x, ordered by x."""
    found: dict[float, list[float]] = {}
    for x, y in pairs:
        found.setdefault(x, []).append(y)
    return [(x, float(np.mean(own))) for x, own in sorted(found.items())]


def _exp(value: float) -> float:
    """The exponential, infinite where it is too large for a number: two seeds have wide intervals."""
    return math.exp(value) if value < 700 else math.inf


def spread(values: Collection[float]) -> float | None:
    """Ratio of the largest to the smallest of values above 0; None for fewer than two values.

    Raises:
      ValueError: a value is 0 or less.
    """
    if any(not value > 0 for value in values):
        raise ValueError(f"values must be above 0, got {min(values)}")
    return max(values) / min(values) if len(values) > 1 else None


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> RankCorrelation | None:
    """Spearman's rank correlation; None for fewer than 3 pairs or if one side is constant.

    `p` is exact for up to 7 pairs, by permutation; above, it comes from Student's t, and is at least 2 / n!.

    Raises:
      ValueError: `x` and `y` differ in length.
    """
    if len(x) != len(y):
        raise ValueError(f"x and y must have the same length, got {len(x)} and {len(y)}")
    if len(x) < 3 or len(set(x)) < 2 or len(set(y)) < 2:
        return None
    found = stats.spearmanr(x, y)
    p = float(found.pvalue)
    if len(x) <= _EXACT:
        # For five pairs in perfect order the t approximation gives p = 0; exact is 2 of 120 orders.
        exact = stats.permutation_test(
            (stats.rankdata(x),),
            lambda ranks, axis: _product(ranks, stats.rankdata(y), axis),
            permutation_type="pairings",
            n_resamples=math.inf,
            vectorized=True,
        )
        p = float(exact.pvalue)
    p = max(p, 2 / math.factorial(len(x)))
    return RankCorrelation(len(x), float(found.statistic), p)


def paired_difference(
    first: Mapping[Hashable, float], second: Mapping[Hashable, float]
) -> Summary | None:
    """Summarises `first[key] - second[key]` over the keys of both; None without such keys."""
    return summarise([first[key] - second[key] for key in first if key in second])


def _product(ranks: np.ndarray, others: np.ndarray, axis: int) -> np.ndarray:
    """The numerator of Spearman's correlation, which orders pairings as the correlation does."""
    centred = np.moveaxis(ranks, axis, -1) - others.mean()
    return np.asarray((centred * (others - others.mean())).sum(axis=-1))
