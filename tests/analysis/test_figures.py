"""Figures against density and of reliability: what is drawn, and by what lines differ."""

import io

import numpy as np
import pytest
from matplotlib import colors
from matplotlib.image import imread

from lotcal_tf.analysis import figures
from lotcal_tf.analysis.groups import Setting
from lotcal_tf.analysis.runs import RecordedRun
from lotcal_tf.metrics.bins import bin_statistics


def setting(label, *values, densities=(1.0, 0.5, 0.25)):
    """A setting whose runs have some values of `test_nll`, one per level."""
    runs = {}
    for seed, own in enumerate(values):
        columns = {"weights": np.array(densities) * 100, "density": np.array(densities)}
        columns["test_nll"] = np.array(own, float)
        runs[seed] = RecordedRun(label, {}, {}, {}, 100, columns)
    return Setting(label, {"calib": label}, {}, {}, runs)


def drawn(figure):
    png = io.BytesIO()
    with figures.styled():
        figure.savefig(png, format="png", dpi=60)
    return imread(io.BytesIO(png.getvalue()), format="png")[..., :3]


def test_a_line_is_the_mean_and_the_dense_network_is_on_the_left():
    figure = figures.curves(
        [setting("none", [1, 2, 3], [3, 4, 5]), setting("vwcc", [1, 1, 1])], {"test_nll": "NLL"}
    )
    axes = figure.axes[0]
    plain, single = axes.lines
    assert plain.get_xdata().tolist() == [100, 50, 25]
    assert plain.get_ydata().tolist() == [2, 3, 4]
    assert axes.get_xlim()[0] > axes.get_xlim()[1] and axes.get_xscale() == "log"
    assert single.get_ydata().tolist() == [1, 1, 1]
    assert figure.axes[0].get_title(loc="left") == "NLL"
    assert drawn(figure).std() > 0.02


def test_accuracy_is_in_per_cent_and_within_its_range():
    one = setting("none", [0.9, 0.98, 0.99], [0.5, 1.0, 0.99])
    for run in one.runs.values():
        run.columns["test_accuracy"] = run.columns.pop("test_nll")
    (axes, *_) = figures.curves([one], {"test_accuracy": "Accuracy"}).axes
    assert axes.lines[0].get_ydata() == pytest.approx([70, 99, 99])
    assert axes.get_title(loc="left") == "Accuracy, %"
    low, high = axes.get_ylim()
    assert low >= 0 and high < 102


def test_a_wide_band_does_not_hide_the_lines():
    """The interval of the mean of two seeds, 1 ± 12.7, against lines from 1 to 2."""
    figure = figures.curves(
        [setting("none", [0, 1, 2], [2, 1, 2]), setting("vwcc", [2, 2, 1])], {"test_nll": "NLL"}
    )
    low, high = figure.axes[0].get_ylim()
    assert (low, high) == pytest.approx((0, 3), abs=0.1)


def test_lines_differ_in_colour_dashes_and_markers():
    many = [setting(f"s{n}", [1, 2, 3]) for n in range(figures.MOST)]
    lines = figures.curves(many, {"test_nll": "NLL"}).axes[0].lines
    for name in ("color", "linestyle", "marker"):
        values = [getattr(line, f"get_{name}")() for line in lines]
        if name == "linestyle":  # matplotlib names all custom dashes alike
            values = [line._unscaled_dash_pattern for line in lines]
        assert len({repr(value) for value in values}) == figures.MOST
    # Of two that are alike in grey, the dashes differ; white would be invisible.
    grey = [np.dot(colors.to_rgb(color), (0.299, 0.587, 0.114)) for color in figures.COLORS]
    assert max(grey) < 0.75


def test_names_are_text_and_not_mathematics():
    name = "calib=$\\frac{"
    figure = figures.curves([setting(name, [1, 2, 3])], {"test_nll": "NLL"})
    assert figure.legends[0].get_texts()[0].get_text() == name
    drawn(figure)
    bins = bin_statistics([1, 0, 1], [0.9, 0.4, 0.7], 5)
    drawn(figures.reliability([(name, [("dense", bins)])]))
    assert len(figures.short("x" * 500)) == 60


def test_reliability_shows_accuracy_against_confidence_of_full_bins():
    dense = bin_statistics([1, 0, 1, 1], [0.9, 0.5, 0.7, 0.5], 5)
    figure = figures.reliability([("one", [("dense", dense), ("selected", dense)]), ("two", [])])
    diagram, counts = figure.axes[0], figure.axes[2]
    diagonal, line, _ = diagram.lines
    assert diagonal.get_xdata().tolist() == [0, 1]
    assert line.get_xdata() == pytest.approx([0.5, 0.7, 0.9])
    assert line.get_ydata() == pytest.approx([0.5, 1, 1])
    assert counts.patches[0].get_data().values.tolist() == [0, 0, 50, 25, 25]
    assert diagram.get_title(loc="left") == "one\nECE 0.1000 dense, 0.1000 selected"
    assert drawn(figure).std() > 0.02
