"""Figures of runs under label noise: descent, best sizes, distance to the truth, confidence."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

from lotcal_tf.analysis.label_noise import KL, OVERCONFIDENCE, Study
from lotcal_tf.analysis.runs import DIFFICULTY, RecordedRun
from lotcal_tf.metrics import confidence

_BINS = 20
_DENSE = "0.15"
Predictions = tuple[np.ndarray, np.ndarray]
# By network, the predictions of a full network and of its best ticket, of each run.
PredictionsByModel = dict[str, list[tuple[Predictions, Predictions]]]


def draw(study: Study) -> dict[str, Figure]:
    """Draws all figures for which the runs have columns, by name."""
    drawn = {"descent": descent(study), "best_size": best_size(study)}
    if any(OVERCONFIDENCE in run.columns or KL in run.columns for run in study.runs):
        drawn["truth"] = truth(study)
    return drawn


def descent(study: Study) -> Figure:
    """Test and training error against remaining weights, with a row of panels per difficulty.

    Each run is a thin line; a thick line joins the dense networks. A circle marks a best ticket, an
    empty triangle a bound.
    """
    groups = _by_difficulty(study.runs)
    colors = _colors([run.model for run in study.runs])
    whole = Figure(figsize=(9.5, 3.1 * len(groups) + 0.7), layout="constrained")
    panels = whole.subplots(len(groups), 2, squeeze=False, sharex=True)
    for number, (difficulty, runs) in enumerate(groups.items()):
        row, last = panels[number], number == len(groups) - 1
        for axes, split in zip(row, ("test", "train"), strict=True):
            for run in runs:
                color = colors[run.model]
                axes.plot(run.weights, run.error(split), color=color, lw=1, alpha=0.8)
                _mark(axes, run, run.error(split), color)
            dense = _dense(runs, split)
            if len(dense) > 1:
                axes.plot(*zip(*dense, strict=True), "o-", color=_DENSE, lw=3, ms=5, alpha=0.75)
            title = f"{split} error" + _at(difficulty)
            _weights_axis(axes, "remaining weights" if last else "")
            axes.set(title=title, ylim=(0, None))
    _legend(whole, study, colors, dense=len(colors) > 1)
    return whole


def best_size(study: Study) -> Figure:
    """Best size against starting size and, if there are several, against difficulty.

    Each run is a point, or an empty triangle for a bound; a line joins the means. The axis of best
    sizes spans the same factor as that of starting sizes, so that sizes independent of their start
    look flat.
    """
    groups = _by_difficulty(study.runs)
    several = len(groups) > 1
    whole = Figure(figsize=(9.5 if several else 5.6, 4.2), layout="constrained")
    panels = whole.subplots(1, 2 if several else 1, squeeze=False)[0]
    shades = _colors([_name(difficulty) for difficulty in groups])
    for difficulty, runs in groups.items():
        color = shades[_name(difficulty)]
        _sizes(panels[0], runs, lambda c: c.start, color)
    _weights_axis(panels[0], "weights of the dense network")
    panels[0].set(title="best ticket against starting size")
    if several:
        _key(panels[0], shades, DIFFICULTY)
        colors = _colors([run.model for run in study.runs])
        for model, color in colors.items():
            runs = [run for run in study.runs if run.model == model]
            _sizes(panels[1], runs, lambda c: c.difficulty or 0.0, color)
        panels[1].set(title="best ticket against difficulty", xlabel=DIFFICULTY)
        panels[1].set_xticks([difficulty or 0.0 for difficulty in groups])
        _key(panels[1], colors, "network")
    if not any(run.descent.best is not None for run in study.runs):
        panels[0].text(
            0.5, 0.5, "no run has a best ticket", transform=panels[0].transAxes, ha="center"
        )
    low, high = panels[0].get_xlim()
    for axes in panels:
        _clean(axes)
        axes.set(yscale="log", ylabel="weights of the best ticket")
        axes.set_ylim(_widened(axes.get_ylim(), high / low))
        _plain(axes.yaxis)
    return whole


def _widened(limits: tuple[float, float], extent: float) -> tuple[float, float]:
    """Limits of a logarithmic axis, widened equally on both sides to span the factor `extent`."""
    low, high = limits
    aside = max(1.0, math.sqrt(extent * low / high))
    return low / aside, high * aside


def truth(study: Study) -> Figure:
    """KL(p* ‖ p) and over-confidence on the test split against density; a thin line per run."""
    titles = {KL: "KL(p* ‖ p), nats", OVERCONFIDENCE: "over-confidence: confidence − accuracy"}
    shown = {n: t for n, t in titles.items() if any(n in c.columns for c in study.runs)}
    groups = _by_difficulty(study.runs)
    colors = _colors([run.model for run in study.runs])
    size = (4.75 * len(shown) + 0.6, 3.1 * len(groups) + 0.7)
    whole = Figure(figsize=size, layout="constrained")
    panels = whole.subplots(len(groups), len(shown), squeeze=False, sharex=True)
    for row, (difficulty, runs) in zip(panels, groups.items(), strict=True):
        for axes, (name, title) in zip(row, shown.items(), strict=True):
            for run in runs:
                if name in run.columns:
                    kept = 100 * run.columns["density"]
                    axes.plot(kept, run.columns[name], color=colors[run.model], lw=1, alpha=0.8)
                    _mark(axes, run, run.columns[name], colors[run.model], kept)
            axes.axhline(0, color="0.6", lw=0.8)
            axes.set(xscale="log", title=title + _at(difficulty), xlabel="weights kept (%)")
            _plain(axes.xaxis)
            _clean(axes)
    panels[0][0].invert_xaxis()  # shared by all
    _legend(whole, study, colors, dense=False)
    return whole


def confidences(predicted: Mapping[str, Sequence[tuple[Predictions, Predictions]]]) -> Figure:
    """Histograms of the confidence of full networks and best tickets, by right and wrong.

    Args:
      predicted: by network, a pair for each run: the predictions of its full network and of its best
        ticket, each as labels `(N,)` and logits `(N, K)`. Runs of one network share a histogram.
    """
    whole = Figure(figsize=(9.5, 2.6 * len(predicted) + 0.5), layout="constrained")
    panels = whole.subplots(len(predicted), 2, squeeze=False, sharex=True, sharey=True)
    edges = np.linspace(0, 1, _BINS + 1)
    for row, (model, pairs) in zip(panels, predicted.items(), strict=True):
        for axes, which, place in zip(row, ("full network", "best ticket"), (0, 1), strict=True):
            labels = np.concatenate([pair[place][0] for pair in pairs])
            classes, sure = (
                np.concatenate(part)
                for part in zip(*(confidence(pair[place][1]) for pair in pairs), strict=True)
            )
            parts = [sure[classes == labels], sure[classes != labels]]
            weights = [np.full(part.size, 1 / labels.size) for part in parts]
            # Side by side: in a stack on a logarithmic axis, heights are not proportional to shares.
            axes.hist(
                parts,
                edges,
                weights=weights,
                color=["#7fb3d5", "#c0532b"],
                label=["right", "wrong"],
            )
            wrong = parts[1].size
            share = f"{np.mean(parts[1] > 0.9):.0%} of them above 0.9" if wrong else "none"
            axes.set(
                title=f"{model}, {which}\n{wrong / labels.size:.1%} wrong, {share}",
                yscale="log",
                xlim=(0, 1),
            )
            axes.title.set_fontsize(10)
            _clean(axes)
        row[0].set_ylabel("share of examples")
    for axes in panels[-1]:
        axes.set_xlabel("confidence")
    panels[0][0].legend(fontsize=8, frameon=False, loc="upper left")
    return whole


def _by_difficulty(runs: Sequence[RecordedRun]) -> dict[float | None, list[RecordedRun]]:
    groups: dict[float | None, list[RecordedRun]] = {}
    for run in runs:
        groups.setdefault(run.difficulty, []).append(run)
    return groups


def _dense(runs: Sequence[RecordedRun], split: str) -> list[tuple[float, float]]:
    """Weights and mean error over seeds of the dense networks, ordered by size."""
    errors: dict[int, list[float]] = {}
    for run in runs:
        errors.setdefault(run.start, []).append(float(run.error(split)[0]))
    return [(start, float(np.mean(found))) for start, found in sorted(errors.items())]


def _mark(
    axes: Axes, run: RecordedRun, values: np.ndarray, color: Any, places: np.ndarray | None = None
) -> None:
    best = run.descent.best
    if best is not None:
        x = (run.weights if places is None else places)[best]
        bound = run.descent.best_is_bound
        shape, face = ("v", "none") if bound else ("o", "white")
        axes.plot(x, values[best], shape, color=color, ms=6, mfc=face, mew=1.5, zorder=5)


def _sizes(
    axes: Axes,
    runs: Sequence[RecordedRun],
    place: Callable[[RecordedRun], float],
    color: Any,
) -> None:
    sure: dict[float, list[float]] = {}
    for run in runs:
        if run.descent.best is None:
            continue
        size = float(run.weights[run.descent.best])
        if run.descent.best_is_bound:
            axes.plot(place(run), size, "v", color=color, ms=6, mfc="none", mew=1.2)
        else:
            axes.plot(place(run), size, "o", color=color, ms=4, alpha=0.6, mew=0)
            sure.setdefault(place(run), []).append(size)
    means = [(x, float(np.mean(sizes))) for x, sizes in sorted(sure.items())]
    if means:
        axes.plot(*zip(*means, strict=True), "-", color=color, lw=1.8)


def _colors(names: Sequence[str]) -> dict[str, Any]:
    """A colour for each name, from dark to light in the given order."""
    known = list(dict.fromkeys(names))
    scale = np.linspace(0.0, 0.85, max(len(known), 2))
    return {name: colormaps["viridis"](place) for name, place in zip(known, scale, strict=False)}


def _name(difficulty: float | None) -> str:
    return "–" if difficulty is None else f"{difficulty:g}"


def _at(difficulty: float | None) -> str:
    return "" if difficulty is None else f", {DIFFICULTY} {difficulty:g}"


def _count(value: float, place: int | None = None) -> str:
    """A short label, e.g. `25k` for 25000."""
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:g}{letter}"
    return f"{value:g}"


def _plain(axis: Any) -> None:
    """Labels a logarithmic axis with plain numbers; the shorter it is, the more per decade."""
    low, high = sorted(axis.get_view_interval())
    extent = high / max(low, 1e-12)
    marks = (1, 1.5, 2, 3, 5, 7) if extent < 15 else (1, 2, 5) if extent < 3000 else (1,)
    decades = range(-4, 10)
    axis.set_ticks([t for d in decades for m in marks if low <= (t := m * 10.0**d) <= high])
    axis.set_major_formatter(FuncFormatter(_count))
    axis.set_minor_formatter(NullFormatter())


def _weights_axis(axes: Axes, label: str) -> None:
    axes.set(xscale="log", xlabel=label)
    _plain(axes.xaxis)
    _clean(axes)


def _clean(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)


def _key(axes: Axes, colors: Mapping[str, Any], title: str) -> None:
    """Puts the legend of the colours below the panel, where it hides no point."""
    lines = [Line2D([], [], color=color, lw=1.8, label=name) for name, color in colors.items()]
    axes.legend(
        handles=lines,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.15),
        ncols=5,
        fontsize=8,
        frameon=False,
        title=title,
        title_fontsize=8,
    )


def _legend(whole: Figure, study: Study, colors: Mapping[str, Any], dense: bool) -> None:
    starts = {run.model: run.start for run in study.runs}
    lines = [
        Line2D([], [], color=color, lw=1.5, label=f"{model} ({starts[model]:,})")
        for model, color in colors.items()
    ]
    if dense:
        lines.append(Line2D([], [], color=_DENSE, lw=3, marker="o", label="dense networks"))
    bounds = {run.descent.best_is_bound for run in study.runs if run.descent.best is not None}
    common: dict[str, Any] = {"color": "0.3", "lw": 0, "mew": 1.5, "ms": 6}
    if False in bounds:
        lines.append(Line2D([], [], marker="o", mfc="white", label="best ticket", **common))
    if True in bounds:
        lines.append(Line2D([], [], marker="v", mfc="none", label="bound of the best", **common))
    whole.legend(handles=lines, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
