"""A study's figures as PNG: descent, best sizes, distance to the truth, confidence."""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

from lotcal_tf.analysis.runs import DIFFICULTY, Chain
from lotcal_tf.analysis.study import KL, OVERCONFIDENCE, Study
from lotcal_tf.metrics import confidence

_DPI = 130
_BINS = 20
_DENSE = "0.15"
Predictions = tuple[np.ndarray, np.ndarray]


def draw(study: Study) -> dict[str, bytes]:
    """The figures that the study's columns allow, by file name."""
    drawn = {"descent.png": descent(study), "best_size.png": best_size(study)}
    if any(OVERCONFIDENCE in chain.columns or KL in chain.columns for chain in study.chains):
        drawn["truth.png"] = truth(study)
    return drawn


def descent(study: Study) -> bytes:
    """Test and train error against weights: a thin line a chain, dense networks joined by a thick one.

    A row of panels for each difficulty. A ring marks each best ticket; an empty triangle a bound.
    """
    groups = _by_difficulty(study.chains)
    colors = _colors([chain.model for chain in study.chains])
    whole = Figure(figsize=(9.5, 3.1 * len(groups) + 0.7), layout="constrained")
    panels = whole.subplots(len(groups), 2, squeeze=False, sharex=True)
    for number, (difficulty, chains) in enumerate(groups.items()):
        row, last = panels[number], number == len(groups) - 1
        for axes, split in zip(row, ("test", "train"), strict=True):
            for chain in chains:
                color = colors[chain.model]
                axes.plot(chain.weights, chain.error(split), color=color, lw=1, alpha=0.8)
                _mark(axes, chain, chain.error(split), color)
            dense = _dense(chains, split)
            if len(dense) > 1:
                axes.plot(*zip(*dense, strict=True), "o-", color=_DENSE, lw=3, ms=5, alpha=0.75)
            title = f"{split} error" + _at(difficulty)
            _weights_axis(axes, "remaining weights" if last else "")
            axes.set(title=title, ylim=(0, None))
    _legend(whole, study, colors, dense=len(colors) > 1)
    return _png(whole)


def best_size(study: Study) -> bytes:
    """Best size against starting size, and against difficulty where there are several.

    A point a chain, an empty triangle for a bound, a line through the means. Sizes have as long an
    axis as starting sizes have: a size that depends on its start by nothing is flat to the eye.
    """
    groups = _by_difficulty(study.chains)
    several = len(groups) > 1
    whole = Figure(figsize=(9.5 if several else 5.6, 4.2), layout="constrained")
    panels = whole.subplots(1, 2 if several else 1, squeeze=False)[0]
    shades = _colors([_name(difficulty) for difficulty in groups])
    for difficulty, chains in groups.items():
        color = shades[_name(difficulty)]
        _sizes(panels[0], chains, lambda c: c.start, color)
    _weights_axis(panels[0], "weights of the dense network")
    panels[0].set(title="best ticket against starting size")
    if several:
        _key(panels[0], shades, DIFFICULTY)
        colors = _colors([chain.model for chain in study.chains])
        for model, color in colors.items():
            chains = [chain for chain in study.chains if chain.model == model]
            _sizes(panels[1], chains, lambda c: c.difficulty or 0.0, color)
        panels[1].set(title="best ticket against difficulty", xlabel=DIFFICULTY)
        panels[1].set_xticks([difficulty or 0.0 for difficulty in groups])
        _key(panels[1], colors, "network")
    if not any(chain.descent.best is not None for chain in study.chains):
        panels[0].text(
            0.5, 0.5, "no chain has a best ticket", transform=panels[0].transAxes, ha="center"
        )
    low, high = panels[0].get_xlim()
    for axes in panels:
        _clean(axes)
        axes.set(yscale="log", ylabel="weights of the best ticket")
        axes.set_ylim(_widened(axes.get_ylim(), high / low))
        _plain(axes.yaxis)
    return _png(whole)


def _widened(limits: tuple[float, float], extent: float) -> tuple[float, float]:
    """Limits of a logarithmic axis, moved apart alike until they are `extent` times each other."""
    low, high = limits
    aside = max(1.0, math.sqrt(extent * low / high))
    return low / aside, high * aside


def truth(study: Study) -> bytes:
    """KL(p* ‖ p) and over-confidence on the test split against density; a thin line a chain."""
    titles = {KL: "KL(p* ‖ p), nats", OVERCONFIDENCE: "over-confidence: confidence − accuracy"}
    shown = {n: t for n, t in titles.items() if any(n in c.columns for c in study.chains)}
    groups = _by_difficulty(study.chains)
    colors = _colors([chain.model for chain in study.chains])
    size = (4.75 * len(shown) + 0.6, 3.1 * len(groups) + 0.7)
    whole = Figure(figsize=size, layout="constrained")
    panels = whole.subplots(len(groups), len(shown), squeeze=False, sharex=True)
    for row, (difficulty, chains) in zip(panels, groups.items(), strict=True):
        for axes, (name, title) in zip(row, shown.items(), strict=True):
            for chain in chains:
                if name in chain.columns:
                    kept = 100 * chain.columns["density"]
                    axes.plot(kept, chain.columns[name], color=colors[chain.model], lw=1, alpha=0.8)
                    _mark(axes, chain, chain.columns[name], colors[chain.model], kept)
            axes.axhline(0, color="0.6", lw=0.8)
            axes.set(xscale="log", title=title + _at(difficulty), xlabel="weights kept (%)")
            _plain(axes.xaxis)
            _clean(axes)
    panels[0][0].invert_xaxis()  # shared by all
    _legend(whole, study, colors, dense=False)
    return _png(whole)


def confidences(predicted: Mapping[str, Sequence[tuple[Predictions, Predictions]]]) -> bytes:
    """Histograms of confidence of full networks and their best tickets, right and wrong apart.

    Args:
      predicted: by network, a pair a chain: labels `(N,)` and logits `(N, K)` of the full network,
        and of the best ticket. Chains of one network are taken together.
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
            # Beside each other, not stacked: on a logarithmic axis a stack's upper part is no share.
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
    return _png(whole)


def _by_difficulty(chains: Sequence[Chain]) -> dict[float | None, list[Chain]]:
    groups: dict[float | None, list[Chain]] = {}
    for chain in chains:
        groups.setdefault(chain.difficulty, []).append(chain)
    return groups


def _dense(chains: Sequence[Chain], split: str) -> list[tuple[float, float]]:
    """The dense networks' weights and mean errors over seeds, by size."""
    errors: dict[int, list[float]] = {}
    for chain in chains:
        errors.setdefault(chain.start, []).append(float(chain.error(split)[0]))
    return [(start, float(np.mean(found))) for start, found in sorted(errors.items())]


def _mark(
    axes: Axes, chain: Chain, values: np.ndarray, color: Any, places: np.ndarray | None = None
) -> None:
    best = chain.descent.best
    if best is not None:
        x = (chain.weights if places is None else places)[best]
        bound = chain.descent.best_is_bound
        shape, face = ("v", "none") if bound else ("o", "white")
        axes.plot(x, values[best], shape, color=color, ms=6, mfc=face, mew=1.5, zorder=5)


def _sizes(
    axes: Axes,
    chains: Sequence[Chain],
    place: Callable[[Chain], float],
    color: Any,
) -> None:
    sure: dict[float, list[float]] = {}
    for chain in chains:
        if chain.descent.best is None:
            continue
        size = float(chain.weights[chain.descent.best])
        if chain.descent.best_is_bound:
            axes.plot(place(chain), size, "v", color=color, ms=6, mfc="none", mew=1.2)
        else:
            axes.plot(place(chain), size, "o", color=color, ms=4, alpha=0.6, mew=0)
            sure.setdefault(place(chain), []).append(size)
    means = [(x, float(np.mean(sizes))) for x, sizes in sorted(sure.items())]
    if means:
        axes.plot(*zip(*means, strict=True), "-", color=color, lw=1.8)


def _colors(names: Sequence[str]) -> dict[str, Any]:
    """A colour for each name, from dark to light in the order they come."""
    known = list(dict.fromkeys(names))
    scale = np.linspace(0.0, 0.85, max(len(known), 2))
    return {name: colormaps["viridis"](place) for name, place in zip(known, scale, strict=False)}


def _name(difficulty: float | None) -> str:
    return "–" if difficulty is None else f"{difficulty:g}"


def _at(difficulty: float | None) -> str:
    return "" if difficulty is None else f", {DIFFICULTY} {difficulty:g}"


def _count(value: float, place: int | None = None) -> str:
    """25000 → `25k`."""
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:g}{letter}"
    return f"{value:g}"


def _plain(axis: Any) -> None:
    """Plain numbers on a logarithmic axis: 1, 2, 5 of each decade where it is short."""
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
    """What the colours mean, below the panel, where it hides no point."""
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
    starts = {chain.model: chain.start for chain in study.chains}
    lines = [
        Line2D([], [], color=color, lw=1.5, label=f"{model} ({starts[model]:,})")
        for model, color in colors.items()
    ]
    if dense:
        lines.append(Line2D([], [], color=_DENSE, lw=3, marker="o", label="dense networks"))
    bounds = {
        chain.descent.best_is_bound for chain in study.chains if chain.descent.best is not None
    }
    common: dict[str, Any] = {"color": "0.3", "lw": 0, "mew": 1.5, "ms": 6}
    if False in bounds:
        lines.append(Line2D([], [], marker="o", mfc="white", label="best ticket", **common))
    if True in bounds:
        lines.append(Line2D([], [], marker="v", mfc="none", label="bound of the best", **common))
    whole.legend(handles=lines, loc="outside lower center", ncols=4, fontsize=8, frameon=False)


def _png(whole: Figure) -> bytes:
    content = io.BytesIO()
    whole.savefig(content, format="png", dpi=_DPI)
    return content.getvalue()
