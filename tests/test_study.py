"""The command on hand-made run directories; a copy of a real run for the histograms."""

import csv
import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lotcal_tf import files, study
from lotcal_tf.config import sealed
from lotcal_tf.lottery.run_tables import as_csv

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = [90_000, 40_000, 20_000, 6_000, 1_000]
TRAIN = [0.0, 0.02, 0.15, 0.18, 0.6]
ERROR = [0.30, 0.40, 0.25, 0.20, 0.65]


def write_run(directory, seed=0, **fields):
    directory.mkdir(parents=True)
    experiment = {
        "dataset": "tiny",
        "source": "tiny",
        "model": "lenet_5",
        "seed": seed,
        "levels": 4,
    }
    whole = {"experiment": experiment | fields, "realised": {"examples": {"val": 6000}}}
    (directory / "experiment.json").write_text(json.dumps(whole))
    names = ("level", "density", "weights", "train_accuracy", "val_accuracy", "test_accuracy")
    with (directory / "metrics.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow([*names, "test_overconfidence"])
        for level, (weights, train, error) in enumerate(zip(WEIGHTS, TRAIN, ERROR, strict=True)):
            rows.writerow(
                [
                    level,
                    weights / WEIGHTS[0],
                    weights,
                    1 - train,
                    1 - error,
                    1 - error / 2,
                    error / 3,
                ]
            )
    return directory


@pytest.fixture
def call(call_command):
    return functools.partial(call_command, study)


@pytest.fixture
def runs(tmp_path):
    return [write_run(tmp_path / f"run_{seed}", seed) for seed in range(2)]


def test_a_study_is_printed_and_written(call, runs, tmp_path):
    out = tmp_path / "deep" / "study"
    done = call(runs[0], "-o", out, runs[1])  # flags stand anywhere
    assert (done.code, done.err) == (0, [])
    written = ["best_size.png", "descent.png", "study.json", "study.md", "truth.png"]
    assert sorted(path.name for path in out.iterdir()) == written
    assert done.out.splitlines()[-5:] == [f"  {out / name}" for name in written]
    text = (out / "study.md").read_text()
    assert text.startswith("# Study\n\n2 runs of tiny, no label noise\n")
    assert all(f"]({name})" in text for name in written if name.endswith(".png"))
    assert "6,000" in done.out and "double descent" in done.out
    whole = json.loads((out / "study.json").read_text())
    assert [row["best"]["weights"] for row in whole["runs"]] == [6000, 6000]
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert call(*runs, f"--out={out}").code == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_test_metrics_are_not_used_for_selection(call, runs, tmp_path):
    path = runs[0] / "metrics.csv"
    rows = [line.split(",") for line in path.read_text().splitlines()]
    place = rows[0].index("test_accuracy")
    for row in rows[1:]:
        row[place] = "0.99" if row[0] == "0" else "0.01"
    call(runs[0], "-o", tmp_path / "before")
    path.write_text("\n".join(",".join(row) for row in rows))
    call(runs[0], "-o", tmp_path / "after")
    found = []
    for name in ("before", "after"):
        (run,) = json.loads((tmp_path / name / "study.json").read_text())["runs"]
        assert run.pop("full") and run.pop("best_metrics")
        found.append(run)
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["{run}"], "--out is missing"),
        (["-o", "{out}"], "no run is given"),
        (["{run}", "absent", "-o", "{out}"], "absent: no such directory"),
        (["{run}/metrics.csv", "-o", "{out}"], "metrics.csv: no such directory"),
        (["{run}", "-o", "{run}/metrics.csv"], "--out={run}/metrics.csv: is not a directory"),
        (
            ["{run}", "-o", "{run}/metrics.csv/x"],
            "--out={run}/metrics.csv/x: {run}/metrics.csv is not a directory",
        ),
        (["{run}", "-o"], "o"),
        (["{run}", "-o", "{out}", "--epochs=3"], "'epochs'"),
        (["{run}", "-o", "{out}", "--config=a.toml"], "'config'"),
        (["{run}", "-o", "{out}", "--data_dir=x"], "'data_dir'"),
        (["{run}", "{run}", "-o", "{out}"], "are the same experiment"),
        (
            ["{run}", "{noisy}", "-o", "{out}"],
            "run_1 cannot be compared with {run}: label_noise is 0.2",
        ),
        (["{run}", "{cut}", "-o", "{out}"], "run_2 is not finished: level 5 of 9 is missing"),
        (["{run}", "-o", "{out}", "--histograms"], "tickets/level_00 is not a ticket"),
    ],
)
def test_a_wrong_request_is_reported_in_one_line_and_writes_nothing(call, tmp_path, argv, words):
    places = {
        "run": write_run(tmp_path / "run_0"),
        "noisy": write_run(tmp_path / "run_1", seed=1, label_noise=0.2),
        "cut": write_run(tmp_path / "run_2", seed=2, levels=9),
        "out": tmp_path / "out",
    }
    done = call(*(word.format(**places) for word in argv))
    assert (done.code, done.out) == (2, "")
    (line,) = done.err
    assert line.startswith("study: ")
    assert words.format(**places) in line
    assert not (tmp_path / "out").exists()


def test_a_write_that_fails_leaves_the_study_before_it(call, runs, tmp_path, monkeypatch):
    out = tmp_path / "out"
    call(runs[0], "-o", out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def fails(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", fails)
    done = call(*runs, "-o", out)
    assert done.code == 1
    (line,) = done.err
    assert line.startswith(f"study: {out}/") and "bytes; free some space" in line
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def with_double_descent(run, directory):
    """A copy of a run whose metrics make level 2 the best; it has no column of confident errors.

    Runs of older versions have no such column.
    """
    shutil.copytree(run, directory)
    records = []
    for level, (train, error) in enumerate([(0.0, 0.3), (0.02, 0.9), (0.15, 0.05)]):
        path = directory / "tickets" / f"level_{level:02d}" / "ticket.json"
        header = sealed.unseal(path)
        header["record"] |= {"train_accuracy": 1 - train, "val_accuracy": 1 - error}
        del header["record"]["test_wrong_confident"]
        path.write_bytes(sealed.seal(header))
        records.append(header["record"])
    (directory / "metrics.csv").write_bytes(as_csv(records))
    return directory


def test_histograms_are_of_stored_predictions_and_need_no_tensorflow(digits_run, tmp_path):
    run, out = with_double_descent(digits_run.directory, tmp_path / "run"), tmp_path / "out"
    code = (
        "import sys; from lotcal_tf import study\n"
        "try: study.run(sys.argv[1:])\n"
        "finally: assert not {'tensorflow', 'tf_keras', 'sklearn'} & set(sys.modules)\n"
    )
    call = [sys.executable, "-c", code, str(run), "-o", str(out), "--histograms"]
    done = subprocess.run(
        call, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (out / "confidence.png").stat().st_size > 1000
    assert f"  {out / 'confidence.png'}" in done.stdout.splitlines()
    (read,) = json.loads((out / "study.json").read_text())["runs"]
    assert read["best"]["level"] == 2
    found = [read[part]["test_wrong_confident"] for part in ("full", "best_metrics")]
    recorded = [digits_run.records[level]["test_wrong_confident"] for level in (0, 2)]
    assert found == recorded


def test_damaged_predictions_are_refused(call, digits_run, tmp_path):
    run = with_double_descent(digits_run.directory, tmp_path / "run")
    path = run / "tickets" / "level_02" / "predictions.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    done = call(run, "-o", tmp_path / "out", "--histograms")
    assert (done.code, done.out) == (2, "")
    assert "predictions.safetensors is damaged" in done.err[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("argv", "code"), [(["--help"], 0), (["absent", "-o", "x"], 2)])
def test_answers_in_a_second_and_without_tensorflow(at_once, argv, code):
    done = at_once("lotcal_tf.study", *argv)
    assert (done.code, len(done.err)) == (code, code == 2)
    assert ("usage: python -m lotcal_tf.study RUN… [--flag=value …]" in done.out) == (code == 0)
    assert ("\n  --out, -o\n" in done.out) == (code == 0)
