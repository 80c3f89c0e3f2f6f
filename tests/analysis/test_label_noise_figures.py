"""That every figure is drawn, for every kind of runs, and alike each time."""

import dataclasses
import io

import numpy as np
import pytest
from matplotlib.image import imread

from lotcal_tf.analysis import label_noise_figures as figures
from lotcal_tf.analysis.figures import picture
from lotcal_tf.analysis.label_noise import Study
from lotcal_tf.analysis.panels import widened
from lotcal_tf.analysis.runs import DIFFICULTY, read_runs


def runs_of(directories):
    found, problems = read_runs(directories)
    assert not problems
    return found


def shape(figure):
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=50)
    pixels = imread(io.BytesIO(png.getvalue()), format="png")
    assert pixels[..., :3].std() > 0.02, "nothing is drawn"
    return pixels.shape[:2]


def test_figures_of_one_task(written_run):
    study = Study(
        runs_of(
            [
                written_run("a"),
                written_run("b", start=90_000),
                written_run("c", levels=18, fields={"seed": 1}),
            ]
        )
    )
    drawn = figures.draw(study)
    assert list(drawn) == ["descent", "best_size", "truth", "ece"]
    for figure in drawn.values():
        shape(figure)
    first, again = (picture("x", figures.descent(study), "").svg for _ in range(2))
    assert first == again and b"<dc:date>" not in first


def test_each_difficulty_has_a_row_of_panels(written_run):
    runs = [
        written_run(f"d{d}", fields={"source": "mixture_linear", DIFFICULTY: d}, levels=20)
        for d in (1, 2, 3)
    ]
    one, three = Study(runs_of(runs[:1])), Study(runs_of(runs))
    assert shape(figures.descent(three))[0] > 2 * shape(figures.descent(one))[0]
    assert shape(figures.best_size(three))[1] > 1.5 * shape(figures.best_size(one))[1]


def test_the_axis_of_sizes_is_widened_alike_on_both_sides():
    assert widened((2.0, 8.0), 100.0) == pytest.approx((0.4, 40.0))
    assert widened((2.0, 8.0), 3.0) == (2.0, 8.0)


@pytest.mark.parametrize("levels", [0, 1, 5])
def test_runs_without_a_best_ticket_are_drawn_too(written_run, levels):
    left_out = ("test_kl_true", "test_overconfidence", "test_ece")
    study = Study(runs_of([written_run("a", levels=levels, columns=left_out)]))
    assert study.runs[0].descent.best is None
    drawn = figures.draw(study)
    assert list(drawn) == ["descent", "best_size"]
    for figure in drawn.values():
        shape(figure)


def test_dense_networks_are_joined_by_their_means(written_run):
    runs = runs_of(
        [
            written_run("a"),
            written_run("b", fields={"seed": 1}, shift=2.0),
            written_run("c", start=10_000),
        ]
    )
    first, second = figures.dense_points(runs, "test")
    assert (first[0], second[0]) == (10_000, 300_000)
    errors = [c.error("test")[0] for c in runs if c.start == 300_000]
    assert second[1] == pytest.approx(np.mean(errors)) and errors[0] != errors[1]


def test_each_architecture_has_a_row_and_a_line_of_its_own(written_run):
    runs = runs_of(
        [
            written_run("a"),
            written_run("b", start=90_000),
            written_run("c", fields={"model": "lenet_300_100"}),
        ]
    )
    assert {run.architecture for run in runs} == {"lenet_W", "lenet_W_100"}
    of_one = [run for run in runs if run.architecture == "lenet_W"]
    two = Study(runs)
    assert len(figures.descent(two).axes) == 4 and len(figures.descent(Study(of_one)).axes) == 2
    # The thick line joins the two widths of one architecture only.
    thick = [
        line for axes in figures.descent(two).axes for line in axes.lines if line.get_lw() == 3
    ]
    assert {tuple(line.get_xdata()) for line in thick} == {(90_000, 300_000)}


def published_points(figure):
    return [
        tuple(zip(line.get_xdata(), line.get_ydata(), strict=True))
        for axes in figure.axes
        for line in axes.lines
        if line.get_marker() in ("x", "*")
    ]


def test_published_points_are_drawn_where_data_and_network_match(written_run):
    of_mnist = {"source": "mnist", "model": "lenet_300_100"}
    (run,) = runs_of([written_run("a", fields=of_mnist)])
    assert published_points(figures.descent(Study([run]))) == [], "ten classes are not recorded"
    run = dataclasses.replace(run, classes=10)
    dense, best = published_points(figures.descent(Study([run])))
    assert (266_200, 0.163) in dense and (5_987, 0.071) in best and len(dense) == len(best) == 7
    both = published_points(figures.best_size(Study([run])))
    assert len(both) == 2 and (266_200, 5_987) in both[0] and both[0] == both[1]
    labels = [text.get_text() for text in figures.descent(Study([run])).legends[0].get_texts()]
    assert {"published, dense", "published, best pruned"} <= set(labels)


def test_the_lowest_ece_is_marked(written_run):
    (run,) = runs_of([written_run("a")])
    # The runs have no noisy labels; the lowest ECE is two levels before the best ticket.
    values = np.where(np.arange(25) == run.descent.best - 2, 0.01, run.columns["test_ece"])
    run = dataclasses.replace(run, columns={**run.columns, "test_ece": values})
    (axes,) = figures.ece(Study([run])).axes
    marks = {line.get_marker(): line.get_xdata().tolist() for line in axes.lines}
    assert marks["D"] == [run.weights[run.descent.best - 2]]
    assert marks["o"] == [run.weights[run.descent.best]]


def test_errors_on_noisy_labels_have_a_panel_where_they_are_recorded(written_run):
    runs = runs_of([written_run("a"), written_run("b", start=90_000)])
    assert [axes.get_title() for axes in figures.descent(Study(runs)).axes] == [
        "test error",
        "train error",
    ]
    columns = {**runs[0].columns, "test_noisy_accuracy": 0.9 * runs[0].columns["test_accuracy"]}
    one = dataclasses.replace(runs[0], columns=columns)
    panels = figures.descent(Study([one, runs[1]])).axes
    assert panels[1].get_title() == "test error, noisy labels" and len(panels) == 3
    (line,) = (line for line in panels[1].lines if line.get_lw() == 1)
    assert line.get_ydata() == pytest.approx(1 - columns["test_noisy_accuracy"])
