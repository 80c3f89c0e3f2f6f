"""Two worker processes on this machine: their tickets, what they write, and the death of one."""

import csv
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lotcal_tf import api, train
from lotcal_tf.compat import keras
from lotcal_tf.config import flags
from lotcal_tf.config.experiment import Experiment
from lotcal_tf.config.recipes import resolve
from lotcal_tf.data import digits
from lotcal_tf.lottery.run import run_experiment

ROOT = Path(__file__).resolve().parents[1]
COMMAND = [sys.executable, "-m", "lotcal_tf.train"]
# SGD: Adam would enlarge the last bits of a gradient that is almost 0.
FIELDS = {
    "source": "digits",
    "epochs": 2,
    "batch_size": 60,
    "optimizer": "sgd",
    "lr": 0.1,
    "momentum": 0.9,
    "augment": "crop_flip",
}


@pytest.fixture(scope="module")
def ticket(tmp_path_factory):
    """A dense network with BatchNorm, at the start of a run."""
    keras.utils.set_random_seed(7)
    layers = keras.layers
    x = layers.Flatten()(inputs := keras.Input((8, 8, 1)))
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(layers.Dense(12, name="hidden")(x)))
    model = keras.Model(inputs, layers.Dense(10, name="logits")(x))
    data = digits.load(Experiment())
    out = tmp_path_factory.mktemp("ticket") / "run"
    fields = {"levels": 0, "epochs": 1, "progress": False, "plan": "graph"}
    examples = next(data.train.in_order(200))
    api.find_tickets(model, tuple(map(np.asarray, examples)), out=out, **fields)
    return out / "tickets" / "level_00"


def given(ticket, out, **more):
    """The flags' values, as text."""
    values = FIELDS | {"ticket": ticket, "out": out} | more
    return {name: str(value) for name, value in values.items()}


def experiment(ticket, out, **more):
    """What the command makes of those flags."""
    return resolve(given(ticket, out, **more))


def start(directory, ticket, outs, levels, more=()):
    """A process for each of `outs`, the first the chief; standard error goes to files."""
    listeners = [socket.create_server(("localhost", 0)) for _ in outs]
    addresses = [f"localhost:{listener.getsockname()[1]}" for listener in listeners]
    for listener in listeners:
        listener.close()
    processes = []
    for index, out in enumerate(outs):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_CONFIG": json.dumps(task)}
        values = given(ticket, out, levels=levels, distribute="multi_worker", **dict(more))
        with (directory / f"err{index}").open("w") as err:
            processes.append(
                subprocess.Popen(
                    [*COMMAND, *(f"--{name}={value}" for name, value in values.items())],
                    cwd=directory,
                    env=environment,
                    stdout=subprocess.PIPE,
                    stderr=err,
                    text=True,
                )
            )
    return processes


def end(processes):
    """Standard output of each, when all have ended; none is left behind."""
    try:
        return [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def pair(ticket, tmp_path_factory):
    """A run of two levels by two workers; the second got another directory."""
    directory = tmp_path_factory.mktemp("pair")
    outs = directory / "run", directory / "elsewhere"
    processes = start(directory, ticket, outs, 1)
    outputs = end(processes)
    assert [process.returncode for process in processes] == [0, 0], list(directory.glob("err*"))
    return directory, outputs


@pytest.mark.full
def test_two_workers_find_what_one_process_finds(pair, ticket, tmp_path):
    run = pair[0] / "run"
    one = run_experiment(
        experiment(ticket, tmp_path / "one", levels=1, plan="graph"), progress=False
    )
    for level in (0, 1):
        mine, theirs = (
            api.load_ticket(r / f"tickets/level_0{level}") for r in (one.directory, run)
        )
        for name, mask in mine.masks.items():
            np.testing.assert_array_equal(theirs.masks[name], mask)
        for name, value in mine.trained.items():
            np.testing.assert_allclose(theirs.trained[name], value, rtol=1e-4, atol=1e-5)
    for table in ("metrics.csv", "history.csv"):
        for mine, theirs in zip(rows(one.directory / table), rows(run / table), strict=True):
            texts = {"protected", "health", "source", "source_level"} & {*mine}
            assert [theirs[column] for column in texts] == [mine[column] for column in texts]
            for column in {*mine} - texts - {"seconds"}:
                # A confidence at the edge of a bin of the calibration error may fall either side.
                rough = 0.01 if "ce" in column.split("_") or "ece" in column else 1e-6
                expected = pytest.approx(float(mine[column]), rel=1e-4, abs=rough)
                assert float(theirs[column]) == expected, column
    realised = json.loads((run / "experiment.json").read_text())["realised"]
    assert (realised["replicas"], realised["plan"]) == (2, "graph")


@pytest.mark.full
def test_only_the_chief_writes_and_exports(pair):
    directory, (chief, other) = pair
    assert sorted(path.name for path in directory.iterdir()) == ["err0", "err1", "run"]
    assert (directory / "run" / "export" / "ticket_float32.tflite").is_file()
    assert "selected: level 1" in chief
    assert other.strip().endswith("this worker is done; the chief writes and exports")
    assert (directory / "err1").read_text() == ""


@pytest.mark.full
def test_the_death_of_a_worker_ends_the_run_and_harms_no_level(pair, ticket, tmp_path):
    run = pair[0] / "run"
    processes = start(tmp_path, ticket, (run, run), 30)
    try:
        until = time.monotonic() + 200
        while not (run / "tickets" / "level_03").is_dir() and time.monotonic() < until:
            time.sleep(0.05)
        processes[1].kill()
        killed = time.monotonic()
        processes[0].wait(120)
    finally:
        end(processes)
    lines = (tmp_path / "err0").read_text().splitlines()
    assert processes[0].returncode == 1, lines
    assert time.monotonic() - killed < 120
    assert any("2 finished levels found, going on at level 2" in line for line in lines)
    lost = "was lost; finished levels are kept: the same command on all workers goes on"
    assert lines[-1] == f"train: worker 1 of TF_CONFIG {lost}"
    # What is there is whole, and one process can continue it.
    levels = len(list((run / "tickets").glob("level_*")))
    assert levels >= 4
    continued = experiment(ticket, run, levels=levels, plan="graph")
    again = run_experiment(continued, progress=False)
    assert (again.found, len(again.records)) == (levels, levels + 1)
    for level in range(levels + 1):
        assert again.ticket(level).level == level


@pytest.mark.full
def test_workers_killed_within_a_level_end_as_if_they_had_not_been(ticket, tmp_path):
    fields = {"levels": 0, "more": {"epochs": 40, "checkpoint_minutes": 0}}
    runs = tmp_path / "whole", tmp_path / "killed"
    end(start(tmp_path, ticket, (runs[0], runs[0]), **fields))
    processes = start(tmp_path, ticket, (runs[1], runs[1]), **fields)
    checkpoint = runs[1] / "checkpoints" / "level_00_epoch_0003"
    until = time.monotonic() + 200
    while not checkpoint.is_dir() and time.monotonic() < until:
        time.sleep(0.005)
    for process in processes:
        process.kill()
    end(processes)
    assert (runs[1] / "checkpoints").is_dir() and not (runs[1] / "tickets" / "level_00").is_dir()
    end(start(tmp_path, ticket, (runs[1], runs[1]), **fields))
    lines = (tmp_path / "err0").read_text().splitlines()
    assert any("going on at level 0, after" in line for line in lines), lines
    mine, theirs = (api.load_ticket(run / "tickets" / "level_00") for run in runs)
    assert (mine.digest, mine.history) == (theirs.digest, theirs.history)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (None, "TF_CONFIG is not set"),
        ("{", "TF_CONFIG is not valid JSON"),
        ("{}", "TF_CONFIG has no"),
    ],
)
def test_a_wrong_cluster_is_reported_before_anything_else(
    config, words, tmp_path, monkeypatch, capsys
):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if config is not None:
        monkeypatch.setenv("TF_CONFIG", config)
    monkeypatch.setattr(flags, "start_tensorflow", lambda: pytest.fail("TensorFlow was started"))
    out = tmp_path / "run"
    with pytest.raises(SystemExit) as left:
        train.run([f"--out={out}", "--distribute=multi_worker"])
    (line,) = capsys.readouterr().err.splitlines()
    assert (left.value.code, line.startswith(f"train: {words}")) == (2, True)
    assert not out.exists()
