"""The chapter on the claims of arXiv 2306.12190: a table of verdicts, and sizes over all groups."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lotcal_tf.analysis.claims import CLAIMS, Finding, judge
from lotcal_tf.analysis.comparison import Row
from lotcal_tf.analysis.document import Chapter, Picture, Section, Table, Text
from lotcal_tf.analysis.figures import COLORS, MARKERS, picture, short
from lotcal_tf.analysis.groups import Group
from lotcal_tf.analysis.label_noise import NamedStudy, best_size, studies
from lotcal_tf.analysis.label_noise_section import with_interval
from lotcal_tf.analysis.panels import clean, plain, weights_axis
from lotcal_tf.analysis.runs import RecordedRun

TITLE = "Claims under label noise"
_NOTE = (
    "Mean over seeds with its 95 % interval (Student's t) and the number of seeds; means of ratios are geometric. A "
    "seed counts with the mean over its widths and difficulties; bounds are left out. A claim holds if the whole "
    "interval lies in the given range, and does not hold if the interval lies outside. The factor of 3.5 is that of "
    "the paper; the other ranges are our reading of its words. by validation: best by our rule; by test, as "
    "published: by the paper's definition, which uses test labels."
)
_CAPTION = (
    "Best size by validation against starting size and against the number of classes, of all groups; a line for each "
    "architecture and data set, means over seeds, without bounds."
)
_MOST = 12  # lines of the figure


def chapter(groups: Sequence[Group]) -> tuple[Chapter | None, list[Row]]:
    """The chapter and its numbers; None without finished runs under label noise."""
    named = [one for group in groups for one in studies(group)]
    if not named:
        return None, []
    found = judge(named)
    parts: list[Text | Table | Picture] = [_table(found)]
    figure = sizes(named)
    if figure is not None:
        parts.append(picture("claims_sizes", figure, _CAPTION))
    about = [
        Text(["The claims of arXiv 2306.12190, “Quantifying lottery tickets under label noise”."])
    ]
    rows = [
        Row.of(one.where, f"claim {one.claim}: {one.verdict}", "claim", one.what, "", one.found)
        for one in found
        if one.found is not None
    ]
    return Chapter(TITLE, about, [Section("Verdicts", parts)]), rows


def _table(found: Sequence[Finding]) -> Table:
    head = ["claim", "quantity", "runs", "value", "holds in", "verdict"]
    rows = []
    for place, one in enumerate(found):
        first = not place or found[place - 1].claim != one.claim
        name = f"({one.claim}) {CLAIMS[one.claim]}" if first else f"({one.claim})"
        value = "–" if one.found is None else with_interval(one.found, _form(one.found.mean))
        rows.append(
            [name, one.what, one.where or "–", value, _range(one.limits), one.verdict or "–"]
        )
    words = ("quantity", "runs", "holds in", "verdict")
    return Table("", [head, *rows], words=words, note=_NOTE)


def _form(value: float) -> str:
    return ",.0f" if abs(value) >= 100 else ".3g"


def _range(limits: tuple[float, float] | None) -> str:
    if limits is None:
        return "–"
    low, high = limits
    if np.isinf(high):
        return f"above {low:g}"
    return f"below {high:.3g}" if low in (0, 1) else f"{low:.3g} to {high:.3g}"


def sizes(named: Sequence[NamedStudy]) -> Figure | None:
    """Best sizes against starting size and number of classes; None without two architectures or tasks."""
    lines = _lines(named)
    if len(lines) < 2:
        return None
    chosen = dict(list(lines.items())[:_MOST])
    counted = {n: runs for n, runs in _by_classes(named).items() if len(_means(runs, _classes)) > 1}
    whole = Figure(figsize=(9.5 if counted else 6.2, 4.6), layout="constrained")
    panels = whole.subplots(1, 2 if counted else 1, squeeze=False)[0]
    for place, (name, runs) in enumerate(chosen.items()):
        _line(panels[0], place, name, _means(runs, lambda run: run.start))
    weights_axis(panels[0], "weights of the dense network")
    for place, (name, runs) in enumerate(list(counted.items())[:_MOST]):
        _line(panels[1], place, name, _means(runs, _classes))
    for axes, title in zip(
        panels, ("best size against starting size", "against classes"), strict=False
    ):
        axes.set(yscale="log", ylabel="weights of the best ticket", title=title)
        clean(axes)
        plain(axes.yaxis)
        legend = axes.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.13), fontsize=7.5, frameon=False
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
    if counted:
        panels[1].set_xlabel("number of classes")
        panels[1].set_xticks(
            sorted({c for runs in counted.values() for c, _ in _means(runs, _classes)})
        )
    return whole


def _lines(named: Sequence[NamedStudy]) -> dict[str, list[RecordedRun]]:
    """The runs of each architecture and task that have a best size, by name of the line."""
    found: dict[str, list[RecordedRun]] = {}
    for one in named:
        for run in one.study.runs:
            hard = "" if run.difficulty is None else f", nu {run.difficulty:g}"
            name = f"{run.architecture}{hard}, {one.title}"
            if best_size(run) is not None:
                found.setdefault(name, []).append(run)
    return found


def _by_classes(named: Sequence[NamedStudy]) -> dict[str, list[RecordedRun]]:
    """The runs of each network and data set, whatever its classes."""
    found: dict[str, list[RecordedRun]] = {}
    for one in named:
        for run in one.study.runs:
            if run.classes is not None and run.difficulty is None:
                name = f"{run.model}, {run.field('source')}"
                found.setdefault(name, []).append(run)
    return found


def _classes(run: RecordedRun) -> float:
    return float(run.classes or 0)


def _means(
    runs: Sequence[RecordedRun], place: Callable[[RecordedRun], float]
) -> list[tuple[float, float]]:
    """The mean best size at each place, in order."""
    found: dict[float, list[int]] = {}
    for run in runs:
        size = best_size(run)
        if size is not None:
            found.setdefault(place(run), []).append(size)
    return [(at, float(np.mean(sizes))) for at, sizes in sorted(found.items())]


def _line(axes: Axes, place: int, name: str, means: Sequence[tuple[float, float]]) -> None:
    style: dict[str, Any] = {
        "color": COLORS[place % len(COLORS)],
        "marker": MARKERS[place % len(MARKERS)],
    }
    dashes = ("-", "--")[place // len(COLORS) % 2]
    axes.plot(*zip(*means, strict=True), ls=dashes, ms=5, lw=1.5, label=short(name), **style)
