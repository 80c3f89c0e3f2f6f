"""What the figures of runs under label noise share: rows of panels, colours, axes and legends."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator

from lotcal_tf.analysis.rules import Lowest
from lotcal_tf.analysis.runs import DIFFICULTY, RecordedRun

DENSE = "0.15"
# The networks that are compared: colours of Okabe and Ito, dashes and markers, which differ in grey, too.
NETWORK_STYLES: Mapping[str, dict[str, Any]] = {
    "full": {"color": "#000000", "ls": "--", "marker": "s"},
    "best ticket": {"color": "#0072B2", "ls": "-", "marker": "o"},
    "small dense": {"color": "#E69F00", "ls": ":", "marker": "^"},
}


def rows(runs: Sequence[RecordedRun]) -> dict[str, list[RecordedRun]]:
    """Runs by difficulty and architecture, i.e. by row of panels; the keys are for the titles."""
    several = len({run.architecture for run in runs}) > 1
    found: dict[str, list[RecordedRun]] = {}
    for run in runs:
        parts = [run.architecture] if several else []
        parts += [] if run.difficulty is None else [f"{DIFFICULTY} {run.difficulty:g}"]
        found.setdefault(", ".join(parts), []).append(run)
    return found


def titled(title: str, row: str) -> str:
    """The title of a panel in a row, see `rows`."""
    return f"{title}, {row}" if row else title


def mark(
    axes: Axes,
    run: RecordedRun,
    found: Lowest | None,
    values: np.ndarray,
    color: Any,
    places: np.ndarray | None = None,
    shape: str = "o",
) -> None:
    """Marks a level of a run; a bound with an empty triangle."""
    if found is not None:
        x = (run.weights if places is None else places)[found.level]
        shape, face = ("v", "none") if found.is_bound else (shape, "white")
        axes.plot(x, values[found.level], shape, color=color, ms=6, mfc=face, mew=1.5, zorder=5)


def colors_of(names: Sequence[str]) -> dict[str, Any]:
    """A colour for each name, from dark to light in the given order."""
    known = list(dict.fromkeys(names))
    scale = np.linspace(0.0, 0.85, max(len(known), 2))
    return {name: colormaps["viridis"](place) for name, place in zip(known, scale, strict=False)}


def plain(axis: Any) -> None:
    """Labels a logarithmic axis with plain numbers; the shorter it is, the more per decade."""
    low, high = sorted(axis.get_view_interval())
    extent = high / max(low, 1e-12)
    marks = (1, 1.5, 2, 3, 5, 7) if extent < 15 else (1, 2, 5) if extent < 3000 else (1,)
    decades = range(-4, 10)
    axis.set_ticks([t for d in decades for m in marks if low <= (t := m * 10.0**d) <= high])
    axis.set_major_formatter(FuncFormatter(_count))
    axis.set_minor_locator(NullLocator())  # each tick takes time and space


def weights_axis(axes: Axes, label: str) -> None:
    """A logarithmic axis of weights."""
    axes.set(xscale="log", xlabel=label)
    plain(axes.xaxis)
    clean(axes)


def widened(limits: tuple[float, float], extent: float) -> tuple[float, float]:
    """Limits of a logarithmic axis, widened equally on both sides to span the factor `extent`."""
    low, high = limits
    aside = max(1.0, math.sqrt(extent * low / high))
    return low / aside, high * aside


def clean(axes: Axes) -> None:
    """Leaves out the upper and the right edge of a panel."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)


def legend(whole: Figure, handles: Sequence[Line2D]) -> None:
    """A legend below all panels."""
    whole.legend(
        handles=list(handles),
        loc="outside lower center",
        ncols=4,
        fontsize=8,
        frameon=False,
    )


def lines_of(runs: Sequence[RecordedRun], colors: Mapping[str, Any]) -> list[Line2D]:
    """The entries of a legend for networks, with the weights of their dense network."""
    starts = {run.model: run.start for run in runs}
    return [
        Line2D([], [], color=color, lw=1.5, label=f"{model} ({starts[model]:,})")
        for model, color in colors.items()
    ]


def marker(shape: str, label: str, face: str = "white") -> Line2D:
    """The entry of a legend for a marker."""
    return Line2D([], [], color="0.3", lw=0, mew=1.5, ms=6, marker=shape, mfc=face, label=label)


def network_lines() -> list[Line2D]:
    """The entries of a legend for the networks that are compared."""
    return [
        Line2D([], [], lw=1.6, ms=4, label=name, **style) for name, style in NETWORK_STYLES.items()
    ]


def bests(runs: Sequence[RecordedRun]) -> list[Line2D]:
    """The entries of a legend for the best tickets that the runs have."""
    bounds = {run.descent.best_is_bound for run in runs if run.descent.best is not None}
    found = [marker("o", "best ticket")] if False in bounds else []
    return found + ([marker("v", "bound of the best", face="none")] if True in bounds else [])


def _count(value: float, place: int | None = None) -> str:
    """A short label, e.g. `25k` for 25000."""
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:g}{letter}"
    return f"{value:g}"
