"""The claims of arXiv 2306.12190, each as numbers with intervals over seeds and a verdict.

A finding is one number and the range in which it supports the claim. It holds if the whole 95 % interval
lies in the range, and does not hold if the interval lies outside. Otherwise it is undecided, and the
finding says what is needed.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lotcal_tf.analysis.label_noise import KL, NamedStudy, Study, metric
from lotcal_tf.analysis.rules import (
    ECES,
    RULES,
    Rule,
    best_size,
    ece_minimum,
    lowest_pruned,
    size_at,
)
from lotcal_tf.analysis.runs import DIFFICULTY, RecordedRun, grouped
from lotcal_tf.analysis.statistics import (
    Summary,
    means_at,
    spread,
    summarise,
    summarise_ratios,
)
from lotcal_tf.config.experiment import FIELDS

CLAIMS: Mapping[str, str] = {
    "a": "Best sizes hardly depend on the starting size",
    "b": "The best pruned error is below that of the full network and does not depend on it",
    "c": "XOR needs about twice the weights of the linear mixture",
    "d": "More classes need more weights",
    "e": "Architectures agree on the size",
    "f": "The best pruned network is far closer to the true conditional than the full one, and about as close "
    "as the best small dense one",
    "g": "The calibration error against noisy labels is lowest at the best pruned network",
}
# A factor of 3.5 as published; the other ranges are our reading of "about", "far" and "agree".
# 1 itself is not below 1, nor 0 above 0.
_FLAT = (0.0, 3.5)
_BELOW = (0.0, math.nextafter(1, 0))
_HALF = (0.0, 0.5)
_TWICE = (math.sqrt(2), 2 * math.sqrt(2))
_WITHIN_TWO = (0.5, 2.0)
_NO_SLOPE = (-0.25, 0.25)
_ABOVE_0 = (math.nextafter(0, 1), math.inf)

# What runs may differ in that are compared by a claim over groups, and still share their definitions.
_OF_TASK = ("dataset", "source", "label_noise")
_OF_CLASSES = ("dataset", "classes")
_OF_NETWORK = ("dataset", "Network", "Training")
MIXTURES = ("mixture_linear", "mixture_xor")


@dataclasses.dataclass(frozen=True)
class Finding:
    """A number that supports a claim or does not.

    Attributes:
      claim: its letter, see `CLAIMS`.
      what: the quantity.
      where: the runs.
      found: the quantity over seeds; None if there is none.
      limits: the range in which it supports the claim; None: it is given for comparison only.
      needs: what is missing if `found` is None.
    """

    claim: str
    what: str
    where: str
    found: Summary | None
    limits: tuple[float, float] | None
    needs: str = ""

    @property
    def verdict(self) -> str:
        """`holds`, `does not hold`, `undecided: …`, or empty without limits."""
        if self.found is None:
            return f"undecided: needs {self.needs}"
        if self.limits is None:
            return ""
        least, most = self.limits
        low, high = self.found.low, self.found.high
        if low is None or high is None:
            return "undecided: needs at least two seeds"
        if low == high:  # Sizes lie on a grid of levels, so that two seeds can agree by chance.
            return "undecided: needs more seeds, all of them give the same"
        if least <= low and high <= most:
            return "holds"
        if high < least or low > most:
            return "does not hold"
        return "undecided: needs more seeds, the interval crosses a limit"


def judge(named: Sequence[NamedStudy]) -> list[Finding]:
    """All findings, in the order of `CLAIMS`; a claim that no run can decide has one that says so."""
    within = [finding for one in named for finding in _within(one)]
    whole = [*within, *_tasks(named), *_classes(named), *_architectures(named)]
    return sorted(whole, key=lambda finding: finding.claim)


def over_seeds(
    runs: Sequence[RecordedRun], value: Callable[[RecordedRun], float | None], ratio: bool = False
) -> Summary | None:
    """A value over seeds: of each seed the mean over its runs that have one; None without values.

    Args:
      runs: of several seeds.
      value: of a run.
      ratio: whether means are geometric.
    """
    found = [(run.seed, one) for run in runs if (one := value(run)) is not None]
    return _ratios_over_seeds(found) if ratio else summarise(_means_by_seed(found))


# Claims that one study can decide


def _within(one: NamedStudy) -> list[Finding]:
    """The findings of a single study: claims a, b, f and g."""
    study, where = one.study, one.title
    starts = "two widths of one architecture with a best ticket, of one seed"
    apart = f"{starts}, whose starting sizes differ by more than a factor of {_FLAT[1]:g}"
    found = []
    for name, rule in RULES.items():
        found += [
            Finding("a", f"largest / smallest best size (by {name})", where,
                    _spreads(study, rule, relative=False), _FLAT, apart),
            Finding("a", f"the same / largest over smallest starting size (by {name})", where,
                    _spreads(study, rule, relative=True), _BELOW, starts),
        ]  # fmt: skip
    return found + _errors(study, where) + _conditionals(study, where) + _minima(study, where)


def _errors(study: Study, where: str) -> list[Finding]:
    found = []
    # Runs whose full network has the lowest test error count, too: without them, the ratio would always be
    # below 1.
    for name, rule in {**RULES, "test, as published": lowest_pruned}.items():
        found += [
            Finding("b", f"test error, best ticket / full network (by {name})", where,
                    over_seeds(study.runs, _best_to_full("test_error", rule), ratio=True), _BELOW,
                    "runs with a best ticket"),
            Finding("b", f"slope of the best ticket's test error on the full network's (by {name})", where,
                    _error_slopes(study, rule), _NO_SLOPE,
                    "three widths of one architecture with a best ticket, of one seed"),
        ]  # fmt: skip
    return found


def _conditionals(study: Study, where: str) -> list[Finding]:
    found = []
    for column, title in ((KL, "KL(p* ‖ p)"), ("test_tv_true", "mean ½ Σ |p* − p|")):
        for name, rule in RULES.items():
            found += [
                Finding("f", f"{title}, best ticket / full network (by {name})", where,
                        over_seeds(study.runs, _best_to_full(column, rule), ratio=True), _HALF,
                        "runs with a best ticket and known conditionals"),
                Finding("f", f"{title}, best ticket / small dense network (by {name})", where,
                        over_seeds(study.runs, _best_to_small(study, column, rule), ratio=True), _WITHIN_TWO,
                        "two widths of one architecture with a best ticket and known conditionals"),
            ]  # fmt: skip
    return found


def _minima(study: Study, where: str) -> list[Finding]:
    needs = "runs with a best ticket and a lowest ECE that are not bounds"
    found = []
    for column, labels in ECES.items():
        limits = _WITHIN_TWO if column == "test_noisy_ece" else None
        for name, rule in RULES.items():
            ratios = over_seeds(study.runs, _minimum_to_best(column, rule), ratio=True)
            what = f"size of the lowest ECE on {labels} / best size (by {name})"
            found.append(Finding("g", what, where, ratios, limits, needs))
    return found


def _spreads(study: Study, rule: Rule, relative: bool) -> Summary | None:
    """The spread of best sizes over the widths of an architecture, at equal difficulty and seed."""

    def found(runs: Sequence[RecordedRun]) -> float | None:
        sized = [run for run in runs if best_size(run, rule)]
        of_best = spread([best_size(run, rule) or 0 for run in sized])
        of_start = spread([run.start for run in sized])
        # A small range of best sizes says something only of a large one of starting sizes.
        if of_best is None or of_start is None or of_start <= (1 if relative else _FLAT[1]):
            return None
        return of_best / of_start if relative else of_best

    return _over_seeds_of_widths(study, found, ratio=True)


def _error_slopes(study: Study, rule: Rule) -> Summary | None:
    def found(runs: Sequence[RecordedRun]) -> float | None:
        pairs = [_pair(run, "test_error", rule) for run in runs]
        return slope([pair for pair in pairs if pair is not None])

    return _over_seeds_of_widths(study, found)


def _over_seeds_of_widths(
    study: Study, value: Callable[[Sequence[RecordedRun]], float | None], ratio: bool = False
) -> Summary | None:
    """A value of the runs that differ in width only, over seeds."""
    chains = grouped(study.runs, lambda run: (run.difficulty, run.architecture, run.seed))
    values = {runs[0].directory: value(runs) for runs in chains}
    return over_seeds([runs[0] for runs in chains], lambda c: values[c.directory], ratio)


def slope(pairs: Sequence[tuple[float, float]]) -> float | None:
    """The least-squares slope of y on x; None for fewer than three pairs, or if all x are equal."""
    if len(pairs) < 3 or len({x for x, _ in pairs}) < 2:
        return None
    x, y = np.array(pairs, np.float64).T
    return float(np.polyfit(x, y - y[0], 1)[0])  # exactly 0 if all y are equal


def _pair(run: RecordedRun, name: str, rule: Rule) -> tuple[float, float] | None:
    """A metric of the full network and of the best ticket."""
    best = rule(run)
    full, pruned = metric(run, name, 0), metric(run, name, None if best is None else best.level)
    return None if full is None or pruned is None else (full, pruned)


def _best_to_full(name: str, rule: Rule) -> Callable[[RecordedRun], float | None]:
    def ratio(run: RecordedRun) -> float | None:
        pair = _pair(run, name, rule)
        if pair is None:
            return None
        # No error on N test examples counts as half an error: a ratio of 0 has no logarithm.
        least = 0.5 / run.test_examples if name == "test_error" and run.test_examples else 0.0
        return _ratio(max(pair[1], least), max(pair[0], least))

    return ratio


def _best_to_small(study: Study, name: str, rule: Rule) -> Callable[[RecordedRun], float | None]:
    def ratio(run: RecordedRun) -> float | None:
        pair, small = _pair(run, name, rule), study.small_dense(run)
        dense = None if small is None else metric(small, name, 0)
        return None if pair is None or dense is None else _ratio(pair[1], dense)

    return ratio


def _minimum_to_best(column: str, rule: Rule) -> Callable[[RecordedRun], float | None]:
    def ratio(run: RecordedRun) -> float | None:
        lowest, best = size_at(run, ece_minimum(run, column)), best_size(run, rule)
        return None if lowest is None or best is None else lowest / best

    return ratio


# Claims that need several studies


def _tasks(named: Sequence[NamedStudy]) -> list[Finding]:
    """Claim c: best sizes of both mixtures at equal difficulty, network and seed."""
    own = [one for one in named if one.study.runs[0].field("source") in MIXTURES]
    needs = f"runs of {' and '.join(MIXTURES)} with equal {DIFFICULTY}, network and seed, that have a best ticket"
    what = "best size, XOR / linear"
    several = Several(own, _OF_TASK, lambda run: run.field("source"))
    found = []
    for alike in several.comparable():
        linear, xor = (
            [one for one in alike if one.study.runs[0].field("source") == source]
            for source in MIXTURES
        )
        for pair in itertools.product(linear, xor):
            first, second = (one.study.runs for one in pair)
            for name, rule in RULES.items():
                value = _size_ratios(first, second, rule, lambda run: (run.difficulty, run.model))
                found.append(
                    Finding("c", f"{what} (by {name})", _titles(pair), value, _TWICE, needs)
                )
    return found or [Finding("c", what, "", None, _TWICE, several.missing(needs))]


def _classes(named: Sequence[NamedStudy]) -> list[Finding]:
    """Claim d: the slope of best sizes against the number of classes, at equal network and seed."""
    needs = (
        "runs with at least three numbers of classes (--classes), equal network, seed and --train_size "
        "per class, that have a best ticket"
    )
    what = "weights per additional class"
    several = over_classes(named)
    found = []
    for alike in several.comparable():
        for name, rule in RULES.items():
            chains: dict[Any, list[tuple[float, float]]] = {}
            for run, size in _sized(alike, rule):
                key = run.seed, run.difficulty, run.model
                chains.setdefault(key, []).append((float(run.classes or 0), float(size)))
            slopes = [(key[0], slope(pairs)) for key, pairs in chains.items()]
            value = summarise(_means_by_seed([(n, x) for n, x in slopes if x is not None]))
            found.append(
                Finding("d", f"{what} (by {name})", _titles(alike), value, _ABOVE_0, needs)
            )
    return found or [Finding("d", what, "", None, _ABOVE_0, several.missing(needs))]


def over_classes(named: Sequence[NamedStudy]) -> "Several":
    """The studies that differ in their number of classes."""
    known = [one for one in named if one.study.runs[0].classes is not None]
    return Several(known, _OF_CLASSES, lambda run: run.classes)


def _architectures(named: Sequence[NamedStudy]) -> list[Finding]:
    """Claim e: the best size of each architecture over that of the first, on the same data and seed."""
    needs = "runs of two architectures on the same data, of one seed, that have a best ticket"
    several = Several(named, _OF_NETWORK, lambda run: run.architecture)
    found = []
    for alike in several.comparable():
        chains: dict[str, list[tuple[NamedStudy, list[RecordedRun]]]] = {}
        for one in alike:
            for runs in grouped(one.study.runs, lambda run: run.architecture):
                chains.setdefault(runs[0].architecture, []).append((one, runs))
        first, *others = chains
        for other in others:
            for pair in itertools.product(chains[first], chains[other]):
                (one, own), (two, compared) = pair
                for name, rule in RULES.items():
                    what = f"best size, {other} / {first} (by {name})"
                    value = _size_ratios(own, compared, rule, lambda run: run.difficulty)
                    where = _titles([one, two])
                    found.append(Finding("e", what, where, value, _WITHIN_TWO, needs))
    what = "best size of two architectures"
    return found or [Finding("e", what, "", None, _WITHIN_TWO, several.missing(needs))]


@dataclasses.dataclass(frozen=True)
class Several:
    """Studies that a claim compares with each other.

    Attributes:
      named: the studies.
      free: fields, and sections of fields, in which the groups that are compared may differ.
      varies: what must differ between the runs that are compared.
    """

    named: Sequence[NamedStudy]
    free: Sequence[str]
    varies: Callable[[RecordedRun], Any]

    def comparable(self) -> list[list[NamedStudy]]:
        """The sets of studies that agree in all that is not free, and differ in what must differ."""
        return self._sets(lambda one: (one.words, self._fixed(one)))

    def missing(self, needs: str) -> str:
        """What is needed without comparable studies: `needs`, and the fields in which studies differ."""
        names: dict[str, None] = {}
        for same_data in self._sets(lambda one: self._fixed(one, "Data")):
            fixed = [{**self._fixed(one), "strategy": one.words} for one in same_data]
            every = dict.fromkeys(name for one in fixed for name in one)
            names |= {n: None for n in every if len({repr(one.get(n)) for one in fixed}) > 1}
        return f"{needs} and agree in {', '.join(names)}" if names else needs

    def _sets(self, key: Callable[[NamedStudy], Any]) -> list[list[NamedStudy]]:
        found: dict[str, list[NamedStudy]] = {}
        for one in self.named:
            found.setdefault(repr(key(one)), []).append(one)
        return [own for own in found.values() if len({self.varies(c) for c in _runs(own)}) > 1]

    def _fixed(self, one: NamedStudy, section: str = "") -> dict[str, Any]:
        """The fields of a group that are not free, of one section or all; `train_size` as that of a class."""
        found, classes = {}, one.study.runs[0].classes or 1
        for name, value in sorted(one.group.common.items()):
            own = FIELDS[name].metadata["section"] if name in FIELDS else ""
            if name not in self.free and own not in self.free and section in ("", own):
                found[name] = value / classes if name == "train_size" and value else value
        return found


def _size_ratios(
    first: Sequence[RecordedRun],
    second: Sequence[RecordedRun],
    rule: Rule,
    key: Callable[[RecordedRun], Any],
) -> Summary | None:
    """Best sizes of the second runs over those of the first, at equal keys, over seeds."""
    sizes: list[dict[Any, list[float]]] = [{}, {}]
    for runs, own in zip((first, second), sizes, strict=True):
        for run in runs:
            if (size := best_size(run, rule)) is not None:
                own.setdefault((run.seed, key(run)), []).append(size)
    below, above = sizes
    return _ratios_over_seeds(
        [(k[0], _geometric(above[k]) / _geometric(own)) for k, own in below.items() if k in above]
    )


def _sized(named: Sequence[NamedStudy], rule: Rule) -> list[tuple[RecordedRun, int]]:
    """The runs that have a best size, with it."""
    return [(run, size) for run in _runs(named) if (size := best_size(run, rule)) is not None]


def _titles(named: Sequence[NamedStudy]) -> str:
    return "; ".join(dict.fromkeys(one.title for one in named))


def _means_by_seed(values: Sequence[tuple[int, float]]) -> list[float]:
    """The mean of each seed."""
    return [mean for _, mean in means_at(values)]


def _ratios_over_seeds(ratios: Sequence[tuple[int, float]]) -> Summary | None:
    """Ratios with their seed: the geometric mean of each seed, over seeds."""
    logs = _means_by_seed([(seed, math.log(ratio)) for seed, ratio in ratios])
    return summarise_ratios([math.exp(value) for value in logs])


def _runs(named: Sequence[NamedStudy]) -> list[RecordedRun]:
    return [run for one in named for run in one.study.runs]


def _ratio(first: float, second: float) -> float | None:
    return first / second if first > 0 and second > 0 else None


def _geometric(values: Sequence[float]) -> float:
    return math.exp(float(np.mean(np.log(values))))
