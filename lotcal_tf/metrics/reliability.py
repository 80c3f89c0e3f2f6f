"""Reliability diagrams: accuracy against confidence in each bin, as an image."""

import textwrap
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lotcal_tf.metrics.bins import BinStatistics
from lotcal_tf.metrics.classification import DEFAULT_BINS, prediction_bins

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette for the colour-blind, lightened.
ACCURACY_COLOR = "#4c8fc4"
OVERCONFIDENT_COLOR = "#f0a878"
UNDERCONFIDENT_COLOR = "#8fd0b5"
_CAP_COLOR = "#1d4e79"
_EMPTY_COLOR = "#cccccc"
_COUNT_COLOR = "#9a9a9a"
_TEXT_COLOR = "#333333"
_PIXELS, _DOTS_PER_INCH = 480, 100

_Heights: TypeAlias = NDArray[np.float64]


def reliability_diagram(
    labels: ArrayLike, logits: ArrayLike, *, bins: int = DEFAULT_BINS, title: str = ""
) -> NDArray[np.uint8]:
    """Draws the reliability diagram of the predicted classes.

    Each bar shows the accuracy of a bin, and a coloured piece the gap to the bin's mean confidence.
    The mean of the gaps, weighted by the counts shown below, is the ECE. Empty bins are hatched to
    distinguish them from an accuracy of 0. After Guo et al. 2017 (arXiv 1706.04599), fig. 1.

    Args:
        labels: `(N,)` integers in [0, K).
        logits: `(N, K)`, finite.
        bins: number of bins of equal width on (0, 1], at least 1.
        title: plain text above the diagram; it is cut after two lines.

    Returns:
        `(480, 480, 3)` uint8, RGB.

    Raises:
        ValueError: an argument has another shape or range.
    """
    return bins_diagram(prediction_bins(labels, logits, bins=bins), title=title)


def bins_diagram(statistics: BinStatistics, *, title: str = "") -> NDArray[np.uint8]:
    """Draws the reliability diagram of given bins; see `reliability_diagram`."""
    # Imported here because matplotlib is slow to import. pyplot would keep figures and choose a GUI.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    inches = _PIXELS / _DOTS_PER_INCH
    figure = Figure(figsize=(inches, inches), dpi=_DOTS_PER_INCH, facecolor="white")
    canvas: Any = FigureCanvasAgg(figure)  # Its methods have no types.
    draw(figure, statistics, title)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def draw(figure: "Figure", statistics: BinStatistics, title: str) -> None:
    """Draws a reliability diagram, and the histogram of confidence below it."""
    diagram = figure.add_axes((0.14, 0.285, 0.825, 0.54))
    histogram = figure.add_axes((0.14, 0.1, 0.825, 0.15), sharex=diagram)
    _draw_gaps(diagram, statistics)
    _draw_counts(histogram, statistics)
    diagram.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
    diagram.tick_params(labelbottom=False)
    histogram.set(xlabel="confidence", ylabel="examples")
    for axes in (diagram, histogram):
        axes.set_axisbelow(True)
        axes.grid(axis="y", color="#ececec", linewidth=0.8)
        axes.tick_params(labelsize=8, colors=_TEXT_COLOR, length=3)
        axes.yaxis.set_label_coords(-0.125, 0.5)
        axes.spines[["top", "right"]].set_visible(False)
        for label in (axes.xaxis.label, axes.yaxis.label):
            label.set(size=9, color=_TEXT_COLOR)

    handles, names = diagram.get_legend_handles_labels()
    figure.legend(
        handles, names, loc="center", bbox_to_anchor=(0.5, 0.855), ncols=len(names), frameon=False,
        fontsize=7.5, labelcolor=_TEXT_COLOR, handlelength=1.2, handletextpad=0.5,
        columnspacing=1.1,
    )  # fmt: skip
    centred: dict[str, Any] = {"x": 0.5, "ha": "center", "va": "center", "color": _TEXT_COLOR}
    lines = textwrap.wrap(title, width=68 if len(title) > 52 else 52, max_lines=2, placeholder="…")
    # parse_math=False: a $ in a title must not start TeX.
    figure.text(y=0.957, s="\n".join(lines), size=8.5 if len(title) > 52 else 11, weight="bold",
                parse_math=False, **centred)  # fmt: skip
    figure.text(y=0.902, s=_caption(statistics), size=9, **centred)


def _draw_gaps(axes: "Axes", statistics: BinStatistics) -> None:
    edges, accuracy, gap = statistics.edges, statistics.accuracy, statistics.gap
    empty = statistics.counts == 0

    def bars(where: NDArray[np.bool_], bottom: _Heights, top: _Heights, **style: Any) -> None:
        if where.any():  # Otherwise the legend would name bars that do not exist.
            outline = {"edgecolor": "white", "linewidth": _outline(statistics)}
            keywords: dict[str, Any] = outline | style
            axes.bar(edges[:-1][where], (top - bottom)[where], np.diff(edges)[where],
                     bottom=bottom[where], align="edge", **keywords)  # fmt: skip

    floor, ceiling = np.zeros(empty.size), np.ones(empty.size)
    axes.plot([0, 1], [0, 1], "--", color=_TEXT_COLOR, linewidth=1.0, label="calibrated")
    bars(empty, floor, ceiling, color="#fafafa", edgecolor=_EMPTY_COLOR, hatch="///", linewidth=0.0,
         label="no examples")  # fmt: skip
    bars(~empty, floor, accuracy, color=ACCURACY_COLOR)
    over, under = gap > 0, gap < 0  # Both False for NaN.
    bars(over, accuracy, statistics.confidence, color=OVERCONFIDENT_COLOR, label="overconfident")
    bars(under, statistics.confidence, accuracy, color=UNDERCONFIDENT_COLOR, label="underconfident")
    # Marks the accuracy also where it is 0 or below the confidence.
    axes.hlines(accuracy[~empty], edges[:-1][~empty], edges[1:][~empty], color=_CAP_COLOR,
                linewidth=1.8, clip_on=False, zorder=3, label="accuracy")  # fmt: skip


def _draw_counts(axes: "Axes", statistics: BinStatistics) -> None:
    from matplotlib.ticker import EngFormatter

    counts, most = statistics.counts, int(statistics.counts.max())
    axes.bar(statistics.edges[:-1], counts, np.diff(statistics.edges), align="edge",
             color=_COUNT_COLOR, edgecolor="white", linewidth=_outline(statistics))  # fmt: skip
    short = EngFormatter(places=1, sep="")
    axes.set_yticks([0, most], ["0", f"{most:,}" if most < 10_000 else short(most)])


def _outline(statistics: BinStatistics) -> float:
    # A white outline separates wide bars, but would hide narrow ones.
    return 0.7 if statistics.counts.size <= 30 else 0.0


def _caption(statistics: BinStatistics) -> str:
    bins, examples = statistics.counts.size, int(statistics.counts.sum())
    return (
        f"ECE {statistics.expected_gap:.4f} with {bins} bin{'s' * (bins != 1)}, "
        f"{examples:,} example{'s' * (examples != 1)}"
    )
