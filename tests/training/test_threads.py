"""The number of threads: resolved by rule, recorded, and kept when a run continues."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf import find_tickets
from lotcal_tf.compat import keras
from lotcal_tf.errors import FieldError
from lotcal_tf.training import threads

ROOT = Path(__file__).resolve().parents[2]
# What the `train` command does, without the export.
SCRIPT = """
import sys
from lotcal_tf.config import flags
from lotcal_tf.config.recipes import resolve
flags.start_tensorflow()
from lotcal_tf.lottery.run import run_experiment
run_experiment(resolve(dict(word.split("=") for word in sys.argv[1:])))
"""


def run(directory, **fields):
    """Runs an experiment in a new process on one CPU; gives realised values and standard error."""
    given = {"model": "lenet_4", "epochs": 1, "batch_size": 200, "out": directory} | fields
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *(f"{name}={value}" for name, value in given.items())],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads((directory / "experiment.json").read_text())["realised"], done.stderr


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    directory = tmp_path_factory.mktemp("threads") / "run"
    return directory, run(directory, levels=0, threads=3, plan="graph")


@pytest.mark.full
def test_requested_threads_are_set_and_recorded(begun):
    _, (realised, error) = begun
    assert realised["threads"] == 3
    assert "threads=3" in error and "1 CPU" in error


@pytest.mark.full
def test_a_run_continues_with_the_recorded_threads_and_plan(begun):
    directory, _ = begun
    # The rules would give 1 thread and, without a convolution, the plan `xla`.
    realised, error = run(directory, levels=1)
    assert (realised["threads"], realised["plan"]) == (3, "graph")
    assert "began with" not in error


def test_by_default_there_is_one_thread_per_cpu(monkeypatch):
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    assert tf.config.threading.get_intra_op_parallelism_threads() == 0
    assert threads.in_effect() == len(os.sched_getaffinity(0))
    assert threads.resume(None, None) == threads.resume(None, threads.in_effect()) == []
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "5")
    assert threads.in_effect() == 5


def model():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])


def test_what_is_in_effect_can_be_requested_and_nothing_else(tmp_path):
    train = np.zeros((30, 4), "float32"), np.arange(30) % 3
    fields = {"epochs": 1, "levels": 0, "batch_size": 9, "plan": "graph", "progress": False}
    now = threads.in_effect()
    with pytest.raises(FieldError) as raised:
        find_tickets(model(), train, **fields, threads=now + 1, out=tmp_path / "run")
    assert raised.value.field == "threads" and str(now) in str(raised.value)
    assert not list(tmp_path.iterdir())
    found = find_tickets(model(), train, **fields, threads=now, out=tmp_path / "run")
    record = json.loads((found.directory / "experiment.json").read_text())
    assert (record["realised"]["threads"], "threads" in record["identity"]) == (now, False)


def test_it_is_reported_when_the_recorded_threads_cannot_be_used():
    model()  # TensorFlow runs.
    now = threads.in_effect()
    (note,) = threads.resume(None, now + 1)
    assert f"threads={now}," in note and f"--threads={now + 1}" in note


@pytest.mark.parametrize("wrong", [0, -1, 1025, 10**9, "many", 1.5])
def test_the_field_refuses_what_is_no_number_of_threads(wrong, tmp_path):
    with pytest.raises(FieldError) as raised:
        find_tickets("lenet_4", threads=wrong, out=tmp_path / "run")
    assert raised.value.field == "threads"
