"""The sweep command and `run_sweep`, with real runs."""

import functools
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import lotcal_tf
from lotcal_tf import sweep
from lotcal_tf.analysis.groups import group
from lotcal_tf.analysis.runs import read_runs
from lotcal_tf.compat import keras
from lotcal_tf.config.run_directory import finished_levels, recorded_threads
from lotcal_tf.errors import UsageError
from lotcal_tf.sweeps.grid import Grid
from lotcal_tf.sweeps.jobs import jobs_of
from lotcal_tf.sweeps.perform import predict

sys.path.append(str(Path(__file__).resolve().parents[1] / "tools"))
from compare_runs import differences

SMALL = ["--model=lenet_20_10", "--epochs=2", "--levels=2"]
# What the `train` command does, without the export: runs of a sweep export nothing.
TRAIN = """
import sys
from lotcal_tf.config.recipes import resolve
from lotcal_tf.lottery.run import run_experiment
run_experiment(resolve(dict(flag[2:].split("=") for flag in sys.argv[1:])))
"""


def runs(out):
    return sorted(path.parent for path in out.glob("*/experiment.json"))


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep of four runs, its directory and its output."""
    out = tmp_path_factory.mktemp("swept") / "out"
    call = [sys.executable, "-m", "lotcal_tf.sweep", "--calib=none,lwcc", "--seed=0..1", *SMALL]
    done = subprocess.run([*call, f"--out={out}", "--workers=2"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out, done


@pytest.mark.full
def test_every_run_is_the_same_as_a_single_one(swept, tmp_path):
    out, done = swept
    assert len(runs(out)) == 4
    assert all(finished_levels(run) == 3 for run in runs(out))
    assert all(recorded_threads(run) == 1 for run in runs(out))
    # The second run of a worker too: it shares the process, the data and the programs of the first.
    environment = {**os.environ, "TF_NUM_INTRAOP_THREADS": "1"}
    for run in runs(out)[-1:]:
        calib, seed = run.name.split("-")[:2]
        alone = tmp_path / run.name
        flags = [f"--calib={calib[6:]}", f"--seed={seed[5:]}", *SMALL, f"--out={alone}"]
        call = [sys.executable, "-c", TRAIN, *flags]
        subprocess.run(call, check=True, capture_output=True, env=environment)
        assert not list(differences(run, alone))
    assert str(out) in done.stdout
    assert sum(": done in" in line for line in done.stderr.splitlines()) == 4


@pytest.mark.full
def test_the_same_command_does_nothing_again(swept, call_command, tree):
    out, _ = swept
    before = tree(out)
    done = call_command(sweep, "--calib=none,lwcc", "--seed=0..1", *SMALL, f"--out={out}")
    assert done.code == 0
    assert tree(out) == before


def test_a_run_that_fails_does_not_stop_the_others(tmp_path, call_command):
    flags = ["--lr=1e30,1e-3", "--workers=1", "--plan=graph", *SMALL, f"--out={tmp_path}"]
    done = call_command(sweep, *flags)
    assert done.code == 1
    assert "1 of 2 runs failed" in done.err[-1]
    finished = {run.name.split("-")[0]: finished_levels(run) for run in runs(tmp_path)}
    assert finished["lr_0.001"] == 3


def start(out, *flags):
    call = [sys.executable, "-m", "lotcal_tf.sweep", *flags, f"--out={out}"]
    pipe = subprocess.PIPE
    return subprocess.Popen(call, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


LONG = [
    "--seed=0..1",
    "--model=lenet_20_10",
    "--epochs=150",
    "--levels=3",
    "--checkpoint_minutes=0",
]


def wait_for(condition):
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.full
def test_ctrl_c_leaves_every_run_resumable(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    process = start(cut, *LONG, "--workers=2")
    # One run trains; the other one may have begun earlier or later.
    wait_for(lambda: any(cut.glob("*/checkpoints/*")))
    os.killpg(process.pid, signal.SIGINT)  # As a terminal does: to all processes of the command.
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1].startswith("sweep: interrupted")
    assert "Traceback" not in err
    assert not list(cut.glob("*/.writer"))
    for out in (cut, whole):
        process = start(out, *LONG, "--workers=2")
        assert process.wait(timeout=120) == 0, process.stderr.read()
        process.communicate()
    assert len(runs(cut)) == 2
    for one, other in zip(runs(cut), runs(whole), strict=True):
        assert not list(differences(one, other))


@pytest.mark.full
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_all_processes_of_a_sweep_stores_a_checkpoint(tmp_path, number):
    """A worker gets it twice: the sweep passes it on."""
    process = start(tmp_path, *LONG[:-1], "--workers=1")
    wait_for(lambda: any(path.stat().st_size > 200 for path in tmp_path.glob("*/history.csv")))
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert list(tmp_path.glob("*/checkpoints/level_*"))


@pytest.mark.full
def test_two_sweeps_share_the_runs_of_a_directory(tmp_path):
    flags = ["--seed=0..3", *SMALL, "--workers=1"]
    both = [start(tmp_path, *flags) for _ in range(2)]
    outputs = [process.communicate(timeout=180) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert [finished_levels(run) for run in runs(tmp_path)] == [3] * 4
    # No level was trained twice: a level line is printed for each that is trained.
    for log in (tmp_path / "logs").iterdir():
        assert log.read_text().count("level  0:") == 1, log.read_text()


@pytest.mark.full
def test_a_prediction_is_about_right_in_order_of_magnitude(tmp_path, call_command):
    flags = ["--seed=0..1", *SMALL, "--plan=graph", "--workers=1"]
    done = call_command(sweep, *flags, f"--out={tmp_path}", "--dry_run")
    assert done.code == 0
    assert len(done.out.splitlines()) == 2
    words = r"2 of 2 runs left: about (\d+) (s|min) of training; .*"
    (number, unit) = re.fullmatch(words, done.err[-1]).groups()
    predicted = int(number) * {"s": 1, "min": 60}[unit]
    assert not list(tmp_path.iterdir())
    assert call_command(sweep, *flags, f"--out={tmp_path}").code == 0
    # The prediction leaves out what happens once in a process: imports, loading, compilation.
    tables = [np.genfromtxt(p, delimiter=",", names=True) for p in tmp_path.glob("*/metrics.csv")]
    took = sum(float(table["seconds"].sum()) for table in tables)
    assert len(tables) == 2
    assert predicted / 10 <= max(took, 1) <= max(predicted, 1) * 10


# The library


# Each call starts a process that imports TensorFlow: few calls, each of which tests several things.
def network():
    return keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3)], name="own"
    )


def arrays(count=90):
    draw = np.random.default_rng(0)
    labels = np.arange(count) % 3
    return draw.normal(size=(count, 6)).astype("float32") + labels[:, None], labels


FIELDS = {"epochs": 1, "levels": 1, "batch_size": 10, "plan": "graph", "workers": 1}
FIELDS |= {"progress": False}


@pytest.mark.full
def test_own_models_and_arrays(tmp_path):
    def sweep_of():
        return lotcal_tf.run_sweep(
            network, arrays(), arrays(30), out=tmp_path, axes={"seed": range(2)}, **FIELDS
        )

    found = sweep_of()
    assert [run.how for run in found] == ["done", "done"], found
    first, second = (lotcal_tf.load_ticket(run.directory / "tickets/level_00") for run in found)
    name = next(name for name in first.rewind if "kernel" in name)  # Biases all start at zero.
    assert np.any(first.rewind[name] != second.rewind[name])  # Each seed has its own weights.
    # A report averages over the seeds, although these determine weights and validation data.
    (setting,) = group(read_runs(runs(tmp_path))[0])[0].settings
    assert sorted(setting.runs) == [0, 1]
    assert [run.how for run in sweep_of()] == ["done", "done"]


@pytest.mark.full
def test_a_finished_run_whose_class_has_changed_fails(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    source = "from lotcal_tf.calibration.strategies import CrossEntropy\n\n\nclass Own(CrossEntropy):\n    {}\n"
    flags = [tmp_path / "out", *SMALL, "--plan=graph", "--calib=changing:Own"]
    (tmp_path / "changing.py").write_text(source.format("factor = 1"))
    assert start(*flags).wait(timeout=300) == 0
    again = start(*flags)
    _, err = again.communicate(timeout=300)
    assert again.returncode == 0, err
    (tmp_path / "changing.py").write_text(source.format("factor = 2"))
    changed = start(*flags)
    _, err = changed.communicate(timeout=300)
    assert changed.returncode == 1
    assert "calib_source differs" in err


@pytest.mark.full
def test_data_of_a_function_and_named_data(tmp_path):
    (found,) = lotcal_tf.run_sweep(network, arrays, out=tmp_path / "a", **FIELDS)
    assert found.how == "done", found

    def of_digits():
        layers = [keras.layers.Flatten(), keras.layers.Dense(10)]
        return keras.Sequential([keras.Input((8, 8, 1)), *layers], name="linear")

    # Named data by `dataset` is in `test_a_file_with_a_custom_layer_on_named_data`.
    recipe = tmp_path / "own.toml"
    recipe.write_text('source = "digits"\nlr = 0.0625\n')
    (found,) = lotcal_tf.run_sweep(of_digits, out=tmp_path / "b", config=recipe, **FIELDS)
    assert found.how == "done", found
    assert '"lr": 0.0625' in (found.directory / "experiment.json").read_text()

    both = lotcal_tf.run_sweep(
        "lenet_10_5", out=tmp_path / "c", axes={"calib": ["none", "lwcc"]}, **FIELDS
    )
    assert [run.how for run in both] == ["done", "done"], both
    assert [run.name.split("-")[0] for run in both] == ["calib_none", "calib_lwcc"]


class Doubled(keras.layers.Layer):
    def call(self, inputs):
        return 2 * inputs


@pytest.mark.full
def test_a_file_with_a_custom_layer_on_named_data(tmp_path):
    layers = [keras.layers.Flatten(), Doubled(), keras.layers.Dense(10)]
    keras.Sequential([keras.Input((8, 8, 1)), *layers], name="own").save(tmp_path / "own.keras")
    (found,) = lotcal_tf.run_sweep(
        tmp_path / "own.keras",
        out=tmp_path / "out",
        dataset="digits",
        custom_objects={"Doubled": Doubled},
        **FIELDS,
    )
    assert found.how == "done", found


def test_the_time_of_a_file_with_a_custom_layer_can_be_predicted(tmp_path):
    layers = [keras.layers.Flatten(), Doubled(), keras.layers.Dense(10)]
    keras.Sequential([keras.Input((8, 8, 1)), *layers], name="own").save(tmp_path / "own.keras")
    (job,) = jobs_of(Grid(fields={"model": str(tmp_path / "own.keras")}), tmp_path / "out")
    assert isinstance(predict(job, custom_objects={"Doubled": Doubled}), float)
    assert "Doubled" in predict(job)


@pytest.mark.parametrize(
    ("model", "data"),
    [
        (keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)]), arrays()),
        ("lenet_10", arrays()),
        (network, iter([])),
        (network, functools.partial(arrays, 90)),
        (None, arrays()),
    ],
    ids=["model", "name", "iterator", "partial", "nothing"],
)
def test_objects_that_cannot_be_given_are_refused(tmp_path, model, data):
    with pytest.raises(UsageError):
        lotcal_tf.run_sweep(model, data, out=tmp_path / "out", **FIELDS)
    assert not (tmp_path / "out").exists()


@pytest.mark.full
def test_a_lost_node_of_a_ray_cluster_loses_no_run(tmp_path):
    ray_cluster = pytest.importorskip("ray.cluster_utils", reason="Ray is not installed")
    flags = ["--calib=none,vwcc", "--seed=0..1", "--model=lenet_20_10", "--epochs=2", "--levels=8"]
    here = start(tmp_path / "here", *flags, "--workers=2")
    assert here.wait(timeout=300) == 0
    here.communicate()
    cluster = ray_cluster.Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    try:
        second = cluster.add_node(num_cpus=1)
        out = tmp_path / "there"
        process = start(out, *flags, "--checkpoint_minutes=0", f"--ray={cluster.address}")
        wait_for(lambda: len(list(out.glob("*/tickets/level_02"))) >= 2)
        cluster.remove_node(second, allow_graceful=False)
        printed, err = process.communicate(timeout=300)
    finally:
        cluster.shutdown()
    assert process.returncode == 0, err
    assert "4 of 4 runs are finished" in printed
    for one, other in zip(runs(tmp_path / "here"), runs(out), strict=True):
        assert not list(differences(one, other))
    for log in (out / "logs").iterdir():  # Each level was stored once.
        lines = [line for line in log.read_text().splitlines() if line.startswith("level ")]
        assert len(lines) == len({line.split(":")[0] for line in lines}), lines
