"""One experiment gives one result: repeated, continued, in one process with others, and as a prefix."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

import lotcal_tf
from lotcal_tf.training import programs

ROOT = Path(__file__).resolve().parents[1]
DIGITS = {"model": "lenet_8", "epochs": 3, "levels": 1, "batch_size": 50, "calib": "vwcc"}
TIMES = {"seconds"}

both_plans = pytest.mark.parametrize("plan", ["xla", "graph"])


def search(directory, **fields):
    return lotcal_tf.find_tickets(**DIGITS | fields, out=directory, progress=False).directory


def table(path):
    with path.open(newline="") as file:
        return [{n: v for n, v in row.items() if n not in TIMES} for row in csv.DictReader(file)]


def tables(directory):
    return {name: table(directory / name) for name in ("metrics.csv", "history.csv")}


def tensors(directory):
    """The bytes of all tensors of all tickets, by path."""
    found = sorted(directory.glob("tickets/*/*.safetensors"))
    return {str(path.relative_to(directory)): path.read_bytes() for path in found}


@pytest.mark.full
@both_plans
def test_a_repeated_run_gives_the_same_tickets_tables_and_files(plan, tmp_path):
    runs = [search(tmp_path / name, plan=plan) for name in "ab"]
    assert len(tensors(runs[0])) == 2 * 4
    assert tensors(runs[0]) == tensors(runs[1])
    assert tables(runs[0]) == tables(runs[1])
    files = [lotcal_tf.export_ticket(run, formats=["float32", "int8"], seconds=0) for run in runs]
    one, other = ([path.read_bytes() for path in each.files.values()] for each in files)
    assert len(one) >= 2 and one == other


@pytest.mark.full
def test_a_search_in_a_process_with_others_is_the_same_as_alone(tmp_path, monkeypatch):
    search(tmp_path / "first", plan="xla", seed=0)
    known = programs.compiled()
    shared = search(tmp_path / "shared", plan="xla", seed=1)
    assert programs.compiled() == known
    monkeypatch.setattr(programs, "call", lambda function, *args: function(*args))
    alone = search(tmp_path / "alone", plan="xla", seed=1)
    assert tensors(shared) == tensors(alone)
    assert tables(shared) == tables(alone)


@pytest.mark.full
@both_plans
def test_more_epochs_begin_with_the_same_epochs(plan, tmp_path):
    few, many = (
        table(search(tmp_path / str(n), plan=plan, epochs=n, levels=0) / "history.csv")
        for n in (3, 5)
    )
    assert (len(few), len(many)) == (3, 5)
    assert many[:3] == few


@pytest.mark.full
@both_plans
def test_more_levels_begin_with_the_same_levels(plan, tmp_path):
    few, many = (search(tmp_path / str(n), plan=plan, epochs=1, levels=n) for n in (1, 3))
    assert len(tensors(many)) == 2 * len(tensors(few))
    assert tensors(few).items() <= tensors(many).items()
    for name, rows in tables(few).items():
        assert len(rows) == 2 and tables(many)[name][:2] == rows


@pytest.mark.full
@pytest.mark.parametrize("model", ["lenet_8", "resnet8_4"])
def test_two_processes_give_the_same_bits(model, tmp_path):
    flags = [
        f"--{name}={value}" for name, value in (DIGITS | {"model": model, "epochs": 1}).items()
    ]
    for name in "ab":
        subprocess.run(
            [sys.executable, "-m", "lotcal_tf.train", *flags, f"--out={tmp_path / name}"],
            env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": str(ord(name))},
            check=True,
            capture_output=True,
        )
    one, other = tmp_path / "a", tmp_path / "b"
    assert tensors(one) == tensors(other)
    assert tables(one) == tables(other)
    files = [sorted(run.glob("export/*.tflite")) for run in (one, other)]
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]
    assert files[0]
