"""Figures of stored predictions under label noise: confidence, calibration by class, mixtures."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D

from lotcal_tf.analysis.networks import Plane, Predicted, Shown, plane
from lotcal_tf.analysis.panels import NETWORK_STYLES, clean, legend, network_lines
from lotcal_tf.metrics import confidence
from lotcal_tf.metrics.bins import bin_statistics, means

_BINS = 20  # of a histogram
_CURVE_BINS = 10
_LEAST = 10  # examples of a bin of a calibration curve
_POSITIONS = 15  # bins of the position between the centres
_CELLS = 14  # of the plane, in each direction
_TITLE = 9  # size
_TICKS = (0, 0.5, 1)  # each tick takes time
_SHARES, _RAREST = (0.001, 0.01, 0.1, 1), 1e-4  # of a histogram
_OUTCOMES: tuple[dict[str, Any], ...] = (
    {"fill": True, "color": "#9ecae1"},
    {"fill": False, "color": "#a6340b", "lw": 1.5},
)


@dataclasses.dataclass(frozen=True)
class ClassCurve:
    """A calibration curve, mean over classes and seeds.

    Attributes:
      predicted: mean predicted probability of a class, by bin, `(M,)`; NaN for empty bins.
      share: share of examples of that class, mean over classes and seeds, `(M,)`.
      deviation: standard deviation of the shares over classes and seeds (ddof 1), `(M,)`; NaN if only
        one has the bin.
    """

    predicted: np.ndarray
    share: np.ndarray
    deviation: np.ndarray


def class_curve(predictions: Sequence[Predicted], noisy: bool) -> ClassCurve:
    """The share of a class among the examples for which it is predicted with about some probability.

    Each class of each seed has a curve; bins of fewer than 10 examples are left out of it.

    Args:
      predictions: one for each seed.
      noisy: whether noisy labels count, or clean ones.
    """
    places, shares = [], []
    for one in predictions:
        labels, probabilities = one.noisy if noisy else one.labels, one.probabilities
        for number in range(probabilities.shape[1]):
            event = np.clip(probabilities[:, number], 0, 1)
            bins = bin_statistics(labels == number, event, _CURVE_BINS)
            enough = bins.counts >= _LEAST
            places.append(np.where(enough, bins.confidence, np.nan))
            shares.append(np.where(enough, bins.accuracy, np.nan))
    found = [_of_columns(np.array(values)) for values in (places, shares)]
    counts = np.isfinite(shares).sum(0)
    squares = np.nansum((np.array(shares) - found[1]) ** 2, axis=0)
    return ClassCurve(found[0], found[1], np.sqrt(means(squares, counts - 1)))


def _of_columns(values: np.ndarray) -> np.ndarray:
    """The means of the columns without NaN; NaN for empty columns."""
    return means(np.nansum(values, axis=0), np.isfinite(values).sum(0))


def calibration(shown: Sequence[Shown]) -> Figure:
    """Calibration curves averaged over classes and seeds, on clean and on noisy labels."""
    whole = Figure(figsize=(7.6, 3.5 * len(shown) + 0.4), layout="constrained")
    panels = whole.subplots(len(shown), 2, squeeze=False, sharex=True, sharey=True)
    for row, one in zip(panels, shown, strict=True):
        for axes, noisy in zip(row, (False, True), strict=True):
            axes.plot([0, 1], [0, 1], color="0.6", lw=1)
            for name, predictions in one.networks.items():
                curve, style = class_curve(predictions, noisy), NETWORK_STYLES[name]
                at, mean = curve.predicted, curve.share
                axes.fill_between(
                    at,
                    np.clip(mean - curve.deviation, 0, 1),
                    np.clip(mean + curve.deviation, 0, 1),
                    color=style["color"],
                    alpha=0.14,
                    lw=0,
                )
                full = np.isfinite(mean)
                axes.plot(at[full], mean[full], lw=1.6, ms=4, **style)
            axes.set(xlim=(0, 1), ylim=(0, 1), xticks=_TICKS, yticks=_TICKS)
            axes.set_title(f"{one.title}\n{'noisy' if noisy else 'clean'} labels", fontsize=_TITLE)
            clean(axes)
        row[0].set_ylabel("share of the class")
    for axes in panels[-1]:
        axes.set_xlabel("predicted probability of a class")
    legend(whole, network_lines())
    return whole


def confidences(shown: Sequence[Shown]) -> Figure:
    """Histograms of the probability of the predicted class, separately for right and wrong ones.

    A row of panels per width, a column per network; all seeds share a histogram.
    """
    names = [n for n in NETWORK_STYLES if any(n in one.networks for one in shown)]
    whole = Figure(figsize=(3.3 * len(names), 2.6 * len(shown) + 0.5), layout="constrained")
    panels = whole.subplots(len(shown), len(names), squeeze=False, sharex=True, sharey=True)
    for row, one in zip(panels, shown, strict=True):
        for axes, name in zip(row, names, strict=True):
            axes.set(yscale="log", xlim=(0, 1), ylim=(_RAREST, 1), xticks=_TICKS, yticks=_SHARES)
            axes.minorticks_off()
            clean(axes)
            if name in one.networks:
                words = _histogram(axes, one.networks[name])
                axes.set_title(f"{one.title}, {name}\n{words}", fontsize=_TITLE)
            else:
                axes.set_title(f"{one.title}, {name}\nnone", fontsize=_TITLE)
        row[0].set_ylabel("share of examples")
    for axes in panels[-1]:
        axes.set_xlabel("probability of the predicted class")
    panels[0][0].legend(fontsize=8, frameon=False, loc="upper left")
    return whole


def _histogram(axes: Axes, predictions: Sequence[Predicted]) -> str:
    """Draws a histogram; what it shows in words."""
    edges = np.linspace(0, 1, _BINS + 1)
    labels = np.concatenate([one.labels for one in predictions])
    classes, sure = (
        np.concatenate(part)
        for part in zip(*(confidence(one.logits) for one in predictions), strict=True)
    )
    parts = [sure[classes == labels], sure[classes != labels]]
    # Not in a stack: on a logarithmic axis, its heights are not proportional to shares.
    for values, style, name in zip(parts, _OUTCOMES, ("right", "wrong"), strict=True):
        shares = np.histogram(values, edges)[0] / labels.size
        axes.stairs(shares, edges, label=name, **style)
    wrong = parts[1].size
    share = f", {np.mean(parts[1] > 0.9):.0%} of them above 0.9" if wrong else ""
    return f"{wrong / labels.size:.1%} wrong{share}"


def conditionals(shown: Sequence[Shown]) -> Figure | None:
    """Predicted and true probability of class 1 of a mixture, a row of panels per width.

    The first panel has their means against the position between the centres. The others show for each
    network the mean |p* − p| on the plane through the centres, as a shade. None without mixtures.
    """
    planes = [(one, found) for one in shown if (found := plane(one.run)) is not None]
    planes = [pair for pair in planes if _fits(*pair)]
    if not planes:
        return None
    names = [n for n in NETWORK_STYLES if any(n in one.networks for one, _ in planes)]
    columns = 1 + len(names)
    whole = Figure(figsize=(2.75 * columns, 2.75 * len(planes) + 0.5), layout="constrained")
    panels = whole.subplots(len(planes), columns, squeeze=False)
    for row, (one, found) in zip(panels, planes, strict=True):
        _along(row[0], one, found)
        cells = {n: gaps(one.networks[n], found) for n in names if n in one.networks}
        highest = max(float(np.nanmax(values)) for values, *_ in cells.values())
        row[1].set_ylabel("second half")
        own = dict(zip(names, row[1:], strict=True))
        for name, axes in own.items():
            if name in cells:
                drawn = _on_plane(axes, name, one.networks[name], found, cells[name], highest)
            else:
                axes.set_visible(False)
        whole.colorbar(drawn, ax=list(own.values()), label="mean |p* − p|", fraction=0.05)
    legend(whole, [*network_lines(), Line2D([], [], color="#CC79A7", lw=2.5, label="true p*")])
    return whole


def _fits(one: Shown, found: Plane) -> bool:
    """Whether the predictions are of the whole test split of the mixture."""
    parts = [p for predictions in one.networks.values() for p in predictions]
    return all(p.logits.shape == (found.truth.size, 2) for p in parts)


def _along(axes: Axes, one: Shown, found: Plane) -> None:
    """p and p* of class 1 against the position between the centres; bands are deviations over seeds."""
    low, high = np.quantile(found.position, (0.005, 0.995))
    edges = np.linspace(low, high, _POSITIONS + 1)
    at = (edges[:-1] + edges[1:]) / 2
    axes.plot(at, _binned(found.position, found.truth, edges), color="#CC79A7", lw=2.5)
    for name, predictions in one.networks.items():
        binned = np.array(
            [_binned(found.position, p.probabilities[:, 1], edges) for p in predictions]
        )
        mean, style = binned.mean(0), NETWORK_STYLES[name]
        if len(binned) > 1:
            aside = binned.std(0, ddof=1)
            axes.fill_between(
                at, mean - aside, mean + aside, color=style["color"], alpha=0.14, lw=0
            )
        axes.plot(at, mean, lw=1.5, ms=3, **style)
    axes.set(
        ylim=(0, 1),
        yticks=_TICKS,
        xlabel="position between the centres",
        ylabel="probability of class 1",
    )
    axes.set_title(one.title, fontsize=_TITLE)
    clean(axes)


def _binned(places: np.ndarray, values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The mean of values in bins of their places; NaN for empty bins."""
    counts, _ = np.histogram(places, edges)
    sums, _ = np.histogram(places, edges, weights=values)
    return means(sums, counts)


def gaps(
    predictions: Sequence[Predicted], found: Plane
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mean |p* − p| of all seeds in cells of the plane; NaN in cells without examples.

    Returns:
      `(C, C)`, by first and second half; and the edges of the cells, `(C + 1,)` each.
    """
    low, high = np.quantile(found.places, (0.005, 0.995), axis=0)
    edges = [np.linspace(low[i], high[i], _CELLS + 1) for i in (0, 1)]
    first, second = found.places.T
    gap = np.mean([np.abs(found.truth - p.probabilities[:, 1]) for p in predictions], axis=0)
    counts, _, _ = np.histogram2d(first, second, edges)
    sums, _, _ = np.histogram2d(first, second, edges, weights=gap)
    return means(sums, counts), edges[0], edges[1]


def _on_plane(
    axes: Axes,
    name: str,
    predictions: Sequence[Predicted],
    found: Plane,
    cells: tuple[np.ndarray, np.ndarray, np.ndarray],
    highest: float,
) -> AxesImage:
    """Draws |p* − p| on the plane, and the centres of both classes."""
    values, first, second = cells
    extent = (first[0], first[-1], second[0], second[-1])
    drawn = axes.imshow(
        values.T, vmin=0, vmax=highest, cmap="cividis", extent=extent, origin="lower", aspect="auto"
    )
    axes.set(xlim=extent[:2], ylim=extent[2:], xticks=(0, 1), yticks=(0, 1))
    for centers, shape in zip(found.centers, ("o", "s"), strict=True):
        axes.plot(*centers.T, shape, color="white", mec="black", ms=6, lw=0)
    every = np.mean([np.abs(found.truth - p.probabilities[:, 1]).mean() for p in predictions])
    axes.set_title(f"{name}\nmean {every:.3f}", fontsize=_TITLE)
    axes.set_xlabel("first half of the inputs")
    axes.grid(False)
    return drawn
