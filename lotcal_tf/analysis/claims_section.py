"""The chapter on the claims of arXiv 2306.12190: a table of verdicts, and sizes over all groups."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lotcal_tf.analysis.claims import CLAIMS, Finding, judge, over_classes, slope
from lotcal_tf.analysis.comparison import Row
from lotcal_tf.analysis.document import Chapter, Section, Table, Text
from lotcal_tf.analysis.figures import COLORS, MARKERS, picture, short
from lotcal_tf.analysis.groups import Group
from lotcal_tf.analysis.label_noise import NamedStudy, studies
from lotcal_tf.analysis.panels import clean, plain, weights_axis, widened
from lotcal_tf.analysis.rules import best_size
from lotcal_tf.analysis.runs import DIFFICULTY, RecordedRun
from lotcal_tf.analysis.statistics import means_at
from lotcal_tf.analysis.texts import counted, number, with_interval

TITLE = "Claims under label noise"
_NOTE = (
    "Values are means over seeds with their 95 % interval (Student's t) and the number of seeds; means of ratios are "
    "geometric. A seed counts with the mean over its widths and difficulties; bounds are left out. A claim holds if "
    "the whole interval lies in the range that is given, and does not hold if the interval lies outside. The factor of "
    "3.5 is that of the paper; the other ranges are our reading of its words. Sizes are those of levels, so seeds may "
    "agree exactly. Best sizes are by validation, our rule, and by test, the paper's definition, which uses test "
    "labels."
)
_CAPTION = (
    "Best size by validation against starting size and against the number of classes, of all groups; a line for each "
    "architecture and data set, means over seeds, without bounds."
)
_LEAST_FACTOR = 10.0  # of its axis of best sizes
_MOST = 12  # lines of the figure
Lines = dict[str, list[RecordedRun]]


def chapter(groups: Sequence[Group]) -> tuple[Chapter | None, list[Row]]:
    """The chapter and its numbers; None without finished runs under label noise."""
    named = studies(groups)
    if not named:
        return None, []
    found = judge(named)
    about = [
        Text(["The claims of arXiv 2306.12190, “Quantifying lottery tickets under label noise”."]),
        Text([_NOTE]),
        Text([f"{one.title}: {_described(one)}" for one in named]),
    ]
    sections = [
        Section(f"({claim}) {words}", [_table([one for one in found if one.claim == claim])])
        for claim, words in CLAIMS.items()
    ]
    figure = sizes(named)
    if figure is not None:
        drawn = picture("claims_sizes", figure, _CAPTION)
        sections.append(Section("Sizes over all groups", [drawn]))
    rows = [
        Row.of(one.where, f"claim {one.claim}: {one.verdict}", "claim", one.what, "", one.found)
        for one in found
        if one.found is not None
    ]
    return Chapter(TITLE, about, sections), rows


def _described(one: NamedStudy) -> str:
    """The runs of a study in words."""
    seeds = {run.seed for run in one.study.runs}
    numbers = f"{len(one.study.runs)} runs, {len(seeds)} seed{'s' * (len(seeds) != 1)}"
    return f"{numbers}, {one.group.title}, {one.words}"


def _table(found: Sequence[Finding]) -> Table:
    head = ["quantity", "runs", "value", "holds if", "verdict"]
    rows = []
    for one in found:
        form = "" if one.found is None else _form(one.found.mean)
        value = counted(with_interval(one.found, form), one.found)
        rows.append([one.what, one.where or "–", value, _range(one.limits), one.verdict or "–"])
    return Table("", [head, *rows], words=("runs", "holds if", "verdict"))


def _form(value: float) -> str:
    return ",.0f" if abs(value) >= 100 else ".3g"


def _range(limits: tuple[float, float] | None) -> str:
    if limits is None:
        return "–"
    low, high = limits
    if np.isinf(high):
        return f"above {round(low, 9):g}"
    least, most = (number(end, ".3g") for end in limits)
    return f"below {most}" if low == 0 else f"{least} to {most}"


def sizes(named: Sequence[NamedStudy]) -> Figure | None:
    """Best sizes against starting size and number of classes; None without two architectures or tasks."""
    lines = _lines(named)
    if len(lines) < 2:
        return None
    chosen = dict(list(lines.items())[:_MOST])
    counted = _by_classes(named)
    whole = Figure(figsize=(9.5 if counted else 6.2, 4.6), layout="constrained")
    panels = whole.subplots(1, 2 if counted else 1, squeeze=False)[0]
    for place, (name, runs) in enumerate(chosen.items()):
        _line(panels[0], place, name, _means(runs, lambda run: run.start))
    weights_axis(panels[0], "weights of the dense network")
    for place, (name, runs) in enumerate(list(counted.items())[:_MOST]):
        means = _means(runs, _classes)
        change = slope(means)
        words = "" if change is None else f": {change:+,.0f} weights per class"
        _line(panels[1], place, name + words, means)
    for axes, title in zip(
        panels, ("best size against starting size", "against classes"), strict=False
    ):
        axes.set(yscale="log", ylabel="weights of the best ticket", title=title)
        clean(axes)
        # Of the same factor as the starting sizes, so that sizes independent of them look flat.
        low, high = panels[0].get_xlim()
        axes.set_ylim(widened(axes.get_ylim(), max(high / low, _LEAST_FACTOR)))
        plain(axes.yaxis)
        legend = axes.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.17), fontsize=7.5, frameon=False
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
    if counted:
        panels[1].set_xlabel("number of classes")
        panels[1].set_xticks(
            sorted({c for runs in counted.values() for c, _ in _means(runs, _classes)})
        )
    return whole


def _lines(named: Sequence[NamedStudy]) -> Lines:
    """The runs of each architecture and task that have a best size, by name of the line."""
    found: dict[tuple[str, str], list[RecordedRun]] = {}
    for one in named:
        for run in one.study.runs:
            hard = "" if run.difficulty is None else f", {DIFFICULTY} {run.difficulty:g}"
            classes = f", {run.classes} classes" if run.field("classes") else ""
            name = f"{run.architecture}, {run.field('source')}{hard}{classes}"
            if best_size(run) is not None:
                found.setdefault((name, one.title), []).append(run)
    return _distinct(found)


def _by_classes(named: Sequence[NamedStudy]) -> Lines:
    """The comparable runs of each network that differ in their number of classes, by name of the line."""
    found: dict[tuple[str, str], list[RecordedRun]] = {}
    for alike in over_classes(named).comparable():
        for run in (run for one in alike for run in one.study.runs):
            name = f"{run.model}, {run.field('source')}"
            found.setdefault((name, alike[0].title), []).append(run)
    return {n: runs for n, runs in _distinct(found).items() if len(_means(runs, _classes)) > 1}


def _distinct(found: Mapping[tuple[str, str], list[RecordedRun]]) -> Lines:
    """Runs by name; where several have the same one, by name and group."""
    names = [name for name, _ in found]
    return {
        name if names.count(name) == 1 else f"{name} ({title})": runs
        for (name, title), runs in found.items()
    }


def _classes(run: RecordedRun) -> float:
    return float(run.classes or 0)


def _means(
    runs: Sequence[RecordedRun], place: Callable[[RecordedRun], float]
) -> list[tuple[float, float]]:
    """The mean best size at each place, in order."""
    sized = ((place(run), best_size(run)) for run in runs)
    return means_at((at, size) for at, size in sized if size is not None)


def _line(axes: Axes, place: int, name: str, means: Sequence[tuple[float, float]]) -> None:
    style: dict[str, Any] = {
        "color": COLORS[place % len(COLORS)],
        "marker": MARKERS[place % len(MARKERS)],
    }
    dashes = ("-", "--")[place // len(COLORS) % 2]
    axes.plot(*zip(*means, strict=True), ls=dashes, ms=5, lw=1.5, label=short(name), **style)
