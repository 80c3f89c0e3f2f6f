"""Runs that are made again from tables: the fields are those of the names and flags, the values those of the table."""

import csv
from pathlib import Path

import numpy as np

from lotcal_tf.analysis.groups import group
from lotcal_tf.analysis.runs import read_runs
from lotcal_tf.config.run_directory import find_runs
from lotcal_tf.lottery.conditions import Condition, condition_row
from lotcal_tf.lottery.run_tables import as_csv

COLUMNS = ("level", "density", "weights", "train_accuracy", "val_accuracy", "test_accuracy")


def test_restored_runs_are_grouped_and_paired_as_the_first_ones(load, tmp_path):
    tables = tmp_path / "tables"
    tables.mkdir()
    given = {}
    for name in ("calib_none-seed_0", "calib_none-seed_1", "calib_lwcc_si-seed_1"):
        accuracy = np.round(np.random.default_rng(len(given)).random(3), 4)
        given[name] = accuracy
        with (tables / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for level in range(3):
                writer.writerow([level, 0.8**level, 10 - level, *accuracy[[level] * 3]])
    (tables / "conditions").mkdir()
    rows = [
        condition_row(2, "0123456789", Condition(unseen="cars"), {"auroc": 0.7, "confidence": 0.5})
    ]
    (tables / "conditions" / "calib_none-seed_1.csv").write_bytes(as_csv(rows))
    flags = {"dataset": "mnist", "validation_size": "90"}
    tool = load("restore_runs")
    made = [tool.restore(table, flags, tmp_path / "runs") for table in sorted(tables.glob("*.csv"))]

    runs, problems = read_runs(find_runs([tmp_path / "runs"]))
    assert not problems
    assert sorted(run.directory for run in runs) == sorted(map(Path, made))
    assert {run.examples for run in runs} == {90}
    assert all(run.is_finished for run in runs)
    (one,) = group(runs)
    found = {s.strategy: s.runs for s in one.settings}
    assert {name: set(seeds) for name, seeds in found.items()} == {"none": {0, 1}, "lwcc_si": {1}}
    assert found["none"][1].metric("test_auroc_cars", 2) == 0.7
    assert not found["none"][0].unseen
    for strategy, seed in (("none", 0), ("none", 1), ("lwcc_si", 1)):
        run = found[strategy][seed]
        assert (run.experiment.lr, run.experiment.epochs) == (1e-4, 60)
        accuracy = given[f"calib_{strategy}-seed_{seed}"]
        np.testing.assert_array_equal(run.columns["test_accuracy"], accuracy)


def test_under_label_noise_the_share_of_wrong_labels_is_that_of_the_noise_drawn_again(
    load, tmp_path
):
    table = tmp_path / "seed_3.csv"
    table.write_text(",".join(COLUMNS) + "\n0,1,10,0.5,0.5,0.5\n")
    flags = {"dataset": "digits", "label_noise": "0.2", "noise_kind": "symmetric"}
    load("restore_runs").restore(table, flags, tmp_path / "runs")
    (run,), _ = read_runs(find_runs([tmp_path / "runs"]))
    # 200 validation examples, a fifth of them noisy and each of these wrong; 360 test examples.
    assert (run.classes, run.examples, run.test_examples) == (10, 200, 360)
    assert run.wrong_labels["val"] == 0.2
