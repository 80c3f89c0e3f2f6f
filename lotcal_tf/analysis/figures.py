"""Figures of a report: metrics against density, and reliability diagrams.

Colours are those of Okabe and Ito, which the colour-blind distinguish; lines differ in dashes and markers
too, so that they are distinguished in grey. Files are the same for the same runs.
"""

import contextlib
import io
import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from lotcal_tf.analysis.comparison import curve
from lotcal_tf.analysis.document import Picture
from lotcal_tf.analysis.groups import Setting
from lotcal_tf.metrics.bins import BinStatistics

# Okabe and Ito, from dark to light as far as the hues allow.
COLORS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_DASHES = ("--", "-", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
MOST = len(COLORS)  # settings in one figure
_TICKS = (0, 0.5, 1)  # of a reliability diagram; each tick takes time
_LETTERS = 60  # of a label
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "lotcal_tf",
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
}


def styled() -> contextlib.AbstractContextManager[None]:
    """The style of all figures of a report."""
    return matplotlib.rc_context(_STYLE)


def picture(name: str, figure: Figure, caption: str) -> Picture:
    """A figure as SVG and PDF, without dates."""

    def drawn(form: str, *dates: str) -> bytes:
        content = io.BytesIO()
        with styled():
            figure.savefig(content, format=form, metadata=dict.fromkeys(dates))
        figure.set_layout_engine("none")  # the layout is found once
        return content.getvalue()

    svg = drawn("svg", "Date", "Creator")
    return Picture(
        name, _shortened(svg), lambda: drawn("pdf", "CreationDate", "Creator", "Producer"), caption
    )


def _shortened(svg: bytes) -> bytes:
    """The same drawing with coordinates of two digits after the point, and without indentation."""
    svg = re.sub(rb' d="[^"]*"', lambda path: re.sub(rb"(\.\d\d)\d+", rb"\1", path[0]), svg)
    return re.sub(rb"\n\s+", b"\n", svg)


def curves(settings: Sequence[Setting], columns: Mapping[str, str]) -> Figure:
    """Panels of metrics against density: a line per setting, a band for the 95 % interval of its mean.

    Args:
      settings: at most `MOST`.
      columns: the titles of the panels by column, see `RecordedRun.columns`; one, or an even number.
    """
    rows = -(-len(columns) // 2)
    figure = Figure(figsize=(8.6, 2.9 * rows + 0.3 * -(-len(settings) // 3)), layout="constrained")
    panels = figure.subplots(rows, min(2, len(columns)), squeeze=False, sharex=True)
    named: set[int] = set()
    for axes, (column, title) in zip(panels.flat, columns.items(), strict=True):
        factor = 100 if "accuracy" in column else 1
        for place, setting in enumerate(settings):
            found = curve(setting, column)
            if found is None:
                continue
            kept = 100 * found.density
            style: dict[str, Any] = _style(place)
            # Of several panels, the first that has the setting gives the entry of the legend.
            label = short(setting.label) if place not in named else None
            named.add(place)
            axes.fill_between(
                kept,
                factor * found.low,
                factor * found.high,
                color=style["color"],
                alpha=0.14,
                lw=0,
            )
            axes.plot(kept, factor * found.mean, label=label, **style)
        axes.set_title(f"{title}, %" if factor == 100 else title, loc="left")
        _limit(axes, 100.0 if factor == 100 else math.inf)
        _density_axis(axes)
    for axes in panels[-1]:
        axes.set_xlabel("weights kept, %")
    legend = figure.legend(
        loc="outside lower center", ncols=min(3, len(settings)), handlelength=3.5
    )
    for text in legend.get_texts():
        text.set_parse_math(False)  # a $ in a name must not start TeX
    return figure


def reliability(
    panels: Sequence[tuple[str, Sequence[tuple[str, BinStatistics]]]],
) -> Figure:
    """A reliability diagram per setting: accuracy against confidence, and how many examples a bin has.

    Args:
      panels: a title, and one or two curves with their names: of the dense and of the selected level.
    """
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(2.87 * columns, 3.6 * rows), layout="constrained")
    grid = figure.subplots(
        2 * rows, columns, squeeze=False, sharex=True, height_ratios=(3, 1) * rows
    )
    for place in range(rows * columns):
        row, column = divmod(place, columns)
        diagram, counts = grid[2 * row, column], grid[2 * row + 1, column]
        if place >= len(panels):
            diagram.remove()
            counts.remove()
            continue
        title, lines = panels[place]
        eces = ", ".join(f"{bins.expected_gap:.4f} {name}" for name, bins in lines)
        diagram.plot([0, 1], [0, 1], color="#9a9a9a", lw=1)
        for number, (name, bins) in enumerate(lines):
            _reliability_lines(diagram, counts, name, bins, number)
        words = f"{textwrap.fill(short(title), 38)}\nECE {eces}"
        diagram.set_title(words, loc="left", fontsize=8.5, parse_math=False)
        diagram.set(xlim=(0, 1), ylim=(0, 1), xticks=_TICKS, yticks=_TICKS, ylabel="accuracy")
        counts.tick_params(labelbottom=True)
        counts.set(xlabel="confidence", ylabel="examples, %", ylim=(0, None))
    handles, names = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2, handlelength=3.5)
    return figure


def _reliability_lines(
    diagram: Axes, counts: Axes, name: str, bins: BinStatistics, number: int
) -> None:
    """Accuracy against confidence in one panel, the shares of the bins in the other."""
    full = bins.counts > 0
    style = _style(number) | {"ms": 4}
    diagram.plot(bins.confidence[full], bins.accuracy[full], label=name, **style)
    shares = 100 * bins.counts / bins.counts.sum()
    counts.stairs(shares, bins.edges, color=style["color"], ls=style["ls"], lw=1.3)


def _limit(axes: Axes, highest: float) -> None:
    """Limits the axis of a metric to its range, and to bands of at most the size of the lines' extent.

    The interval of two seeds can be many times as wide as the differences that the figure is about.
    """
    means = [float(value) for line in axes.lines for value in np.asarray(line.get_ydata())]
    least, most = min(means, default=0.0), max(means, default=1.0)
    extent = max(most - least, 0.1 * most, 1e-6)
    low, high = axes.get_ylim()
    axes.set_ylim(max(0.0, low, least - extent), min(highest + 0.02 * extent, high, most + extent))


def short(label: str) -> str:
    """A label that fits into a legend."""
    return label if len(label) <= _LETTERS else f"{label[: _LETTERS - 1]}…"


def _style(place: int) -> dict[str, Any]:
    return {
        "color": COLORS[place % MOST],
        "ls": _DASHES[place % MOST],
        "marker": MARKERS[place % MOST],
        "ms": 4.5,
        "mfc": "white" if place % 2 else COLORS[place % MOST],
        "mew": 1.1,
        "lw": 1.5,
    }


def _density_axis(axes: Axes) -> None:
    """A logarithmic axis of the weights kept in per cent, the dense network on the left."""
    axes.set_xscale("log")
    low, high = sorted(axes.get_xlim())
    # The axis is shared: the last panel decides, with the limits of all.
    for marks in ((1, 2, 5), (1, 2, 3, 4, 5, 6, 7, 8, 9)):  # few levels span less than an octave
        ticks = [m * 10.0**d for d in range(-5, 3) for m in marks]
        shown = [tick for tick in ticks if low <= tick <= high]
        if len(shown) > 1:
            break
    axes.set_xticks(shown if len(shown) > 1 else [low, high])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axes.minorticks_off()
    axes.set_xlim(high, low)
