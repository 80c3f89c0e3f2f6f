"""Figures of runs under label noise: descent, best sizes, distance to the truth, calibration error."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lotcal_tf.analysis.figures import MARKERS
from lotcal_tf.analysis.label_noise import KL, OVERCONFIDENCE, Study
from lotcal_tf.analysis.panels import (
    DENSE,
    bests,
    clean,
    colors_of,
    legend,
    lines_of,
    mark,
    marker,
    plain,
    rows,
    titled,
    weights_axis,
    widened,
)
from lotcal_tf.analysis.published import published_with
from lotcal_tf.analysis.rules import ECES, RULES, Rule, by_validation, ece_minimum
from lotcal_tf.analysis.runs import DIFFICULTY, RecordedRun
from lotcal_tf.analysis.statistics import means_at

_DASHES = ("-", "--", "-.", ":")
_ERRORS = {
    "test": "test error",
    "test_noisy": "test error, noisy labels",
    "train": "train error",
}
_PUBLISHED_DENSE = {"marker": "x", "color": "#D55E00", "lw": 0, "ms": 6, "mew": 1.5}
_PUBLISHED_BEST = {"marker": "*", "color": "#D55E00", "lw": 0, "ms": 9, "mfc": "none", "mew": 1.2}


def draw(study: Study) -> dict[str, Figure]:
    """Draws all figures for which the runs have columns, by name."""
    drawn = {"descent": descent(study), "best_size": best_size(study)}
    if any(OVERCONFIDENCE in run.columns or KL in run.columns for run in study.runs):
        drawn["truth"] = truth(study)
    if any(name in run.columns for name in ECES for run in study.runs):
        drawn["ece"] = ece(study)
    return drawn


def descent(study: Study) -> Figure:
    """Test and training errors against remaining weights, a row of panels per difficulty and architecture.

    Test errors are on clean labels and, where they are recorded, on noisy ones. Each run is a thin
    line; a thick line joins the dense networks. A circle marks a best ticket, an empty triangle a
    bound; published values are crosses (dense) and stars (best pruned).
    """
    groups = rows(study.runs)
    colors = colors_of([run.model for run in study.runs])
    splits = {
        split: title
        for split, title in _ERRORS.items()
        if any(f"{split}_accuracy" in run.columns for run in study.runs)
    }
    size = (4.75 * min(len(splits), 2.4), 3.1 * len(groups) + 0.7)
    whole = Figure(figsize=size, layout="constrained")
    panels = whole.subplots(len(groups), len(splits), squeeze=False, sharex=True)
    entries = [*lines_of(study.runs, colors)]
    for number, (title, runs) in enumerate(groups.items()):
        published = _draw_published(panels[number][0], runs[0])
        for axes, split in zip(panels[number], splits, strict=True):
            _draw_errors(axes, runs, split, colors)
            weights_axis(axes, "remaining weights" if number == len(groups) - 1 else "")
            axes.set(title=titled(splits[split], title), ylim=(0, None))
        entries += [one for one in published if one.get_label() not in _labels(entries)]
    if any(len(dense_points(runs, "test")) > 1 for runs in groups.values()):
        entries.append(Line2D([], [], color=DENSE, lw=3, marker="o", label="dense networks"))
    legend(whole, [*entries, *bests(study.runs)])
    return whole


def _draw_errors(
    axes: Axes, runs: Sequence[RecordedRun], split: str, colors: Mapping[str, Any]
) -> None:
    """A thin line for each run, and a thick one that joins the dense networks."""
    shown = [run for run in runs if f"{split}_accuracy" in run.columns]
    for run in shown:
        color = colors[run.model]
        axes.plot(run.weights, run.error(split), color=color, lw=1, alpha=0.8)
        mark(axes, run, by_validation(run), run.error(split), color)
    dense = dense_points(shown, split)
    if len(dense) > 1:
        axes.plot(*zip(*dense, strict=True), "o-", color=DENSE, lw=3, ms=5, alpha=0.75)


def _draw_published(axes: Axes, run: RecordedRun) -> list[Line2D]:
    """Draws the published errors on the data and architecture of a run; the entries of the legend."""
    found = published_with(run)
    dense = [(r.full_weights, r.full_error) for r in found if r.full_weights]
    best = [(r.best_weights, r.best_error) for r in found if r.best_weights and r.best_error]
    entries = []
    for points, style, name in (
        (dense, _PUBLISHED_DENSE, "published, dense"),
        (best, _PUBLISHED_BEST, "published, best pruned"),
    ):
        if points:
            axes.plot(*zip(*points, strict=True), label="_", zorder=6, **style)  # type: ignore[arg-type]
            entries.append(Line2D([], [], label=name, **style))  # type: ignore[arg-type]
    return entries


def best_size(study: Study) -> Figure:
    """Best size against starting size and, if there are several, against difficulty.

    A row of panels for each rule. Each run is a point, or an empty triangle for a bound; a line joins
    the means of an architecture. The axis of best sizes spans the same factor as that of starting
    sizes, so that sizes independent of their start look flat.
    """
    difficulties = sorted({run.difficulty for run in study.runs}, key=lambda d: d or 0.0)
    several = len(difficulties) > 1
    shades = colors_of([_name(difficulty) for difficulty in difficulties])
    colors = colors_of([run.model for run in study.runs])
    shapes = _shapes(study.runs)
    size = (9.5 if several else 5.6, 3.6 * len(RULES) + 0.8)
    whole = Figure(figsize=size, layout="constrained")
    panels = whole.subplots(len(RULES), 2 if several else 1, squeeze=False, sharex="col")
    for row, (name, rule) in zip(panels, RULES.items(), strict=True):
        for runs in rows(study.runs).values():
            color, shape = shades[_name(runs[0].difficulty)], shapes[runs[0].architecture]
            _sizes(row[0], runs, rule, lambda c: c.start, color, shape)
            _published_sizes(row[0], runs[0])
        row[0].set(title=f"lowest error by {name}")
        for model in colors if several else ():
            runs = [run for run in study.runs if run.model == model]
            shape = shapes[runs[0].architecture]
            _sizes(row[1], runs, rule, lambda c: c.difficulty or 0.0, colors[model], shape)
            row[1].set(title="against difficulty")
            row[1].set_xticks([difficulty or 0.0 for difficulty in difficulties])
        if not any(rule(run) for run in study.runs):
            row[0].text(
                0.5, 0.5, "no run has a best ticket", transform=row[0].transAxes, ha="center"
            )
    _limit_sizes(panels)
    for axes, label in zip(panels[-1], ("weights of the dense network", DIFFICULTY), strict=False):
        axes.set_xlabel(label)
    legend(
        whole,
        _size_legend(study.runs, shades if several else {}, colors if several else {}, shapes),
    )
    return whole


def _limit_sizes(panels: np.ndarray) -> None:
    """Sets the axes of `best_size`: logarithmic, and of the same factor in both directions."""
    for row in panels:
        weights_axis(row[0], "")
        low, high = row[0].get_xlim()
        for axes in row:
            clean(axes)
            axes.set(yscale="log", ylabel="weights of the best ticket")
            axes.set_ylim(widened(axes.get_ylim(), high / low))
            plain(axes.yaxis)


def _size_legend(
    runs: Sequence[RecordedRun],
    shades: Mapping[str, Any],
    colors: Mapping[str, Any],
    shapes: Mapping[str, tuple[str, str]],
) -> list[Line2D]:
    found = [
        Line2D([], [], color=color, lw=1.8, label=f"{DIFFICULTY} {name}")
        for name, color in shades.items()
    ]
    found += [Line2D([], [], color=color, lw=1.8, label=name) for name, color in colors.items()]
    if len(shapes) > 1:
        found += [
            Line2D([], [], color="0.3", marker=shape, ls=dashes, label=name)
            for name, (shape, dashes) in shapes.items()
        ]
    found.append(marker("v", "bound of the best", face="none"))
    if any(row.best_weights and row.full_weights for run in runs for row in published_with(run)):
        found.append(Line2D([], [], label="published", **_PUBLISHED_BEST))  # type: ignore[arg-type]
    return found


def _shapes(runs: Sequence[RecordedRun]) -> dict[str, tuple[str, str]]:
    """A marker and dashes for each architecture."""
    names = dict.fromkeys(run.architecture for run in runs)
    return {n: (MARKERS[i % 4], _DASHES[i % 4]) for i, n in enumerate(names)}


def _published_sizes(axes: Axes, run: RecordedRun) -> None:
    found = [
        (row.full_weights, row.best_weights)
        for row in published_with(run)
        if row.full_weights and row.best_weights
    ]
    if found:
        axes.plot(*zip(*found, strict=True), zorder=6, **_PUBLISHED_BEST)  # type: ignore[arg-type]


def truth(study: Study) -> Figure:
    """KL(p* ‖ p) and over-confidence on the test split against density; a thin line per run."""
    titles = {KL: "KL(p* ‖ p), nats", OVERCONFIDENCE: "over-confidence: confidence − accuracy"}
    shown = {n: t for n, t in titles.items() if any(n in c.columns for c in study.runs)}
    whole, panels, colors = _against(
        study, shown, lambda run: 100 * run.columns["density"], "weights kept (%)"
    )
    for row, runs in zip(panels, rows(study.runs).values(), strict=True):
        for axes, name in zip(row, shown, strict=True):
            axes.axhline(0, color="0.6", lw=0.8)
            for run in runs:
                if name in run.columns:
                    kept = 100 * run.columns["density"]
                    mark(axes, run, by_validation(run), run.columns[name], colors[run.model], kept)
    panels[0][0].invert_xaxis()  # shared by all
    legend(whole, [*lines_of(study.runs, colors), *bests(study.runs)])
    return whole


def ece(study: Study) -> Figure:
    """ECE against remaining weights on clean and on noisy labels; a thin line per run.

    A diamond marks the minimum before the collapse, a circle the best ticket.
    """
    shown = {
        name: f"ECE on {labels}"
        for name, labels in ECES.items()
        if any(name in run.columns for run in study.runs)
    }
    whole, panels, colors = _against(study, shown, lambda run: run.weights, "remaining weights")
    for row, runs in zip(panels, rows(study.runs).values(), strict=True):
        for axes, name in zip(row, shown, strict=True):
            for run in runs:
                if name in run.columns:
                    color, values = colors[run.model], run.columns[name]
                    mark(axes, run, by_validation(run), values, color)
                    mark(axes, run, ece_minimum(run, name), values, color, shape="D")
            axes.set_ylim(0, None)
    entries = [*lines_of(study.runs, colors), marker("D", "lowest ECE"), *bests(study.runs)]
    legend(whole, entries)
    return whole


def _against(
    study: Study,
    shown: Mapping[str, str],
    places: Callable[[RecordedRun], np.ndarray],
    label: str,
) -> tuple[Figure, np.ndarray, dict[str, Any]]:
    """Panels of columns against a logarithmic axis; the figure, its panels and the networks' colours."""
    groups = rows(study.runs)
    colors = colors_of([run.model for run in study.runs])
    size = (4.75 * len(shown) + 0.6, 3.1 * len(groups) + 0.7)
    whole = Figure(figsize=size, layout="constrained")
    panels = whole.subplots(len(groups), len(shown), squeeze=False, sharex=True)
    for number, (row, (end, runs)) in enumerate(zip(panels, groups.items(), strict=True)):
        for axes, (name, title) in zip(row, shown.items(), strict=True):
            for run in runs:
                if name in run.columns:
                    color = colors[run.model]
                    axes.plot(places(run), run.columns[name], color=color, lw=1, alpha=0.8)
            weights_axis(axes, label if number == len(groups) - 1 else "")
            axes.set_title(titled(title, end))
    return whole, panels, colors


def dense_points(runs: Sequence[RecordedRun], split: str) -> list[tuple[float, float]]:
    """Weights and mean error over seeds of the dense networks, ordered by size."""
    return means_at((run.start, float(run.error(split)[0])) for run in runs)


def _sizes(
    axes: Axes,
    runs: Sequence[RecordedRun],
    rule: Rule,
    place: Callable[[RecordedRun], float],
    color: Any,
    style: tuple[str, str],
) -> None:
    shape, dashes = style
    sure: list[tuple[float, float]] = []
    for run in runs:
        found = rule(run)
        if found is None:
            continue
        size = float(run.weights[found.level])
        if found.is_bound:
            axes.plot(place(run), size, "v", color=color, ms=6, mfc="none", mew=1.2)
        else:
            axes.plot(place(run), size, shape, color=color, ms=4, alpha=0.6, mew=0)
            sure.append((place(run), size))
    if sure:
        axes.plot(*zip(*means_at(sure), strict=True), color=color, ls=dashes, lw=1.8)


def _name(difficulty: float | None) -> str:
    return "–" if difficulty is None else f"{difficulty:g}"


def _labels(entries: Sequence[Line2D]) -> set[Any]:
    return {entry.get_label() for entry in entries}
