"""The comparison's pure parts: the settings tried, the setting chosen, and the tables."""

import csv
import re
import statistics

import pytest

from lotcal_tf.config.experiment import Experiment
from lotcal_tf.config.registry import STRATEGIES


@pytest.fixture(scope="module")
def tool(load):
    return load("strategies")


@pytest.fixture
def run(tmp_path):
    """run(levels) → a run directory whose metrics.csv has those rows, densities first."""

    def write(rows):
        directory = tmp_path / str(len(list(tmp_path.iterdir())))
        directory.mkdir()
        with (directory / "metrics.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        return directory

    return write


def test_every_strategy_is_tried_with_settings_it_has(tool):
    tried = tool.candidates()
    # Slimming is for convolutional networks only.
    assert {name for name, _ in tried} == set(STRATEGIES) - {"slimming"}
    for name, settings in tried:
        found = Experiment.of(calib=name, **settings).settings
        assert {key: found[key] for key in settings} == settings
    labels = [tool.label(name, settings) for name, settings in tried]
    assert len(set(labels)) == len(labels)


def test_candidates_are_all_combinations(tool, monkeypatch):
    grid = {"none": {}, "lwcc_si": {"calib_weight": [0.1, 0.3], "passes": [2, 5]}}
    monkeypatch.setattr(tool, "GRID", grid)
    assert tool.candidates() == [
        ("none", {}),
        ("lwcc_si", {"calib_weight": 0.1, "passes": 2}),
        ("lwcc_si", {"calib_weight": 0.1, "passes": 5}),
        ("lwcc_si", {"calib_weight": 0.3, "passes": 2}),
        ("lwcc_si", {"calib_weight": 0.3, "passes": 5}),
    ]


def test_label(tool):
    assert tool.label("none", {}) == "none"
    settings = {"calib_weight": 0.1, "seed": 0}
    assert tool.label("lwcc", settings) == "lwcc calib_weight=0.1 seed=0"


# (density, validation NLL, validation accuracy); what lies outside 21 % … 3.6 % must not count.
OUTSIDE = [(1.0, 9.0, 0.1), (0.263, 9.0, 0.1), (0.029, 9.0, 0.1)]
RUNS = {
    ("none", ()): [(0.211, 0.10, 0.97), (0.0361, 0.20, 0.95)],  # means .15 and .96
    ("lwcc", (("calib_weight", 0.1),)): [(0.211, 0.10, 0.97), (0.0361, 0.10, 0.95)],
    # Best by NLL, but 0.21 points below `none`, which is more than 0.2.
    ("lwcc", (("calib_weight", 0.2),)): [(0.211, 0.02, 0.9679), (0.0361, 0.02, 0.9479)],
    # 0.19 points below is near enough.
    ("lwcc", (("calib_weight", 0.3),)): [(0.211, 0.08, 0.9681), (0.0361, 0.10, 0.9481)],
    ("nba", (("calib_weight", 0.1),)): [(0.211, 0.01, 0.5), (0.0361, 0.01, 0.5)],
}


def squeezed(text):
    """A table's text with single spaces."""
    return re.sub(" +", " ", text)


def test_the_lowest_nll_among_the_accurate_is_chosen(tool, run):
    trials = [(name, dict(settings)) for name, settings in RUNS]
    names = ("density", "val_nll", "val_accuracy")
    runs = [run([dict(zip(names, row, strict=True)) for row in OUTSIDE + r]) for r in RUNS.values()]
    assert squeezed(tool.search(trials, runs)).splitlines()[2:] == [
        "| none | 0.1500 | 96.00% | chosen |",
        "| lwcc calib_weight=0.1 | 0.1000 | 96.00% | |",
        "| lwcc calib_weight=0.2 | 0.0200 | 95.79% | accuracy too low |",
        "| lwcc calib_weight=0.3 | 0.0900 | 95.81% | chosen |",
        "| nba calib_weight=0.1 | 0.0100 | 50.00% | accuracy too low |",
    ]


def test_a_setting_is_ranked_by_the_mean_of_its_seeds(tool, run):
    values = {("none", 0): 0.1, ("lwcc", 0): 0.2, ("none", 1): 0.3, ("lwcc", 1): 0.1}
    trials = [(calib, {"seed": seed}) for calib, seed in values]
    row = {"density": 0.1, "val_accuracy": 0.9}
    runs = [run([row | {"val_nll": nll}]) for nll in values.values()]
    assert squeezed(tool.search(trials, runs)).splitlines()[2:] == [
        "| none | 0.2000 | 90.00% | chosen |",
        "| lwcc | 0.1500 | 90.00% | chosen |",
    ]


def test_a_table_without_such_a_level_says_so(tool, run):
    rows = [{"density": 1.0} | {f"test_{metric}": 0.0 for metric in tool.METRICS}]
    with pytest.raises(SystemExit, match=r"no level near 21.0% kept: choose more --levels"):
        tool.table([("none", {"seed": 0})], [run(rows)])


def test_the_table_takes_the_nearest_level_and_the_spread_over_seeds(tool, run):
    def levels(shift):
        rows = []
        for density in (1.0, 0.263, 0.211, 0.169, 0.135, 0.0362, 0.029):
            row = {f"test_{metric}": density + shift for metric in tool.METRICS}
            rows.append({"density": density} | row)
        return rows

    trials = [("none", {"seed": 0}), ("lwcc", {"seed": 0}), ("none", {"seed": 1})]
    text = squeezed(tool.table(trials, [run(levels(s)) for s in (0.0, 0.5, 0.01)]))
    parts = [part.splitlines() for part in text.split("\n\n")]
    assert [part[0].split(" | ")[0] for part in parts] == [f"| {f}" for f in tool.METRICS]
    spread = statistics.stdev([0.0, 0.01])
    means = [100.5, 21.6, 14.0, 4.12]  # Per cent: .005 is the seeds' mean shift.
    cells = [f"{mean:.2f} ± {100 * spread:.2f}" for mean in means]
    assert parts[0][2] == f"| none | {' | '.join(cells)} |"
    assert parts[1][2].split(" | ")[2] == f"0.2160 ± {spread:.4f}"
    # A single seed has no spread.
    assert parts[1][3] == "| lwcc | 1.5000 | 0.7110 | 0.6350 | 0.5362 |"


def test_a_command_is_named_by_its_settings(tool):
    command = tool.train_command("lwcc", {"calib_weight": 0.1, "seed": 0}, ["--epochs=2"])
    assert command.name == "lwcc-calib_weight_0.1-seed_0"
    assert command.flags == ["--calib=lwcc", "--calib_weight=0.1", "--seed=0", "--epochs=2"]
