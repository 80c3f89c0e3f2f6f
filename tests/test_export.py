"""The command that exports, whole: one tiny run on the digits, and the files that came of it."""

import json
import shutil
import types
from pathlib import Path

import numpy as np
import pytest

from lotcal_tf import api, export, measuring
from lotcal_tf.compat import keras
from lotcal_tf.config.recipes import resolve
from lotcal_tf.formats.tflite import Float32, Int8
from lotcal_tf.lottery.run import run_experiment
from lotcal_tf.lottery.store import RunStore
from lotcal_tf.lottery.ticket import selected_level

# See conftest.
pytestmark = pytest.mark.usefixtures("determinism")

ROOT = Path(__file__).resolve().parents[1]
FLAGS = {"model": "lenet_16_10", "epochs": 2, "levels": 2, "prune_rate": 0.6, "seed": 5}
LOOSE = ("--accuracy_tolerance=0.2", "--ece_tolerance=0.2")  # A net that has hardly learnt.


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run; no test changes it."""
    out = tmp_path_factory.mktemp("export") / "run"
    fields = {**FLAGS, "validation_size": 123, "ece_bins": 12, "plan": "graph", "out": str(out)}
    return run_experiment(resolve(fields), progress=False).directory


@pytest.fixture
def call(capfd):
    """call(*flags) → code, out and the lines of err; in this process, whose TensorFlow is there."""

    def run_command(*flags):
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            export.run(flags)
        out, err = capfd.readouterr()
        return types.SimpleNamespace(code=left.value.code, out=out, err=err.splitlines())

    return run_command


def parity_of(directory):
    return json.loads((directory / "parity.json").read_text())


def test_by_default_the_best_level_becomes_two_small_files(call, run, tmp_path):
    done = call(f"--run={run}", f"--out={tmp_path / 'out'}", "--seconds=0.02", *LOOSE)
    assert done.code == 0, done.err
    parity = parity_of(tmp_path / "out")
    best = selected_level(RunStore(run).records())
    assert (parity["level"], parity["split"], parity["examples"]) == (best, "test", 360)
    assert parity["ece_bins"] == 12
    assert {row["file"] for row in parity["files"].values()} == {
        "ticket_float32.tflite", "ticket_int8.tflite"
    }  # fmt: skip
    for row in parity["files"].values():
        path = tmp_path / "out" / row["file"]
        assert path.stat().st_size == row["bytes"] == min(row["bytes_by_encoding"].values())
        assert row["file"] in done.out
    # What `evaluate` measures of the files is what the gate saw.
    for name in ("ticket_float32.tflite", "ticket_int8.tflite"):
        given = {"dataset": "digits", "ece_bins": "12"}
        found = measuring.evaluate_model(tmp_path / "out" / name, resolve(given), given)
        (row,) = (row for row in parity["files"].values() if row["file"] == name)
        for figure, value in row["measured"].items():
            assert found.metrics[figure] == pytest.approx(value, abs=1e-6)
    report = json.loads((tmp_path / "out" / "sparsity_report.json").read_text())
    measured = {row["file"]: row["latency"] for row in report["files"]}
    assert len(measured) == 4 and all(set(row) == {"1", "2"} for row in measured.values())
    assert not list(tmp_path.glob(".out*"))


def test_a_numbered_level_goes_to_a_place_of_its_own(call, run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    done = call(f"--run={copy}", "--level=1", "--formats=keras", "--seconds=0")
    assert done.code == 0, done.err
    assert [p.name for p in copy.glob("export*")] == ["export_level_01"]
    assert parity_of(copy / "export_level_01")["level"] == 1
    # By name alone it is found what run it is of.
    found = measuring.evaluate_model(copy / "export_level_01" / "ticket.keras", resolve({}), {})
    assert (found.kind, found.data, found.ece_bins) == ("keras", "digits", 12)
    assert call(f"--run={copy}", "--formats=keras", "--seconds=0").code == 0
    assert (copy / "export" / "parity.json").is_file()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "--run is missing"),
        (["--run=absent"], "--run=absent: is no run directory"),
        (["--run={run}", "--level=3"], "--level=3: {run} has not finished it; finished: 0 … 2"),
        (["--run={run}", "--level=-1"], "--level=-1: give a level's number, or best"),
        (["--run={run}", "--formats=onnx"], "--formats=onnx: choose of keras, saved_model"),
        (["--run={run}", "--formats="], "--formats=: choose of keras"),
        (["--run={run}", "--encoding=zip"], "--encoding=zip: choose one of smallest, dense"),
        (
            ["--run={run}", "--formats=float32,keras", "--encoding=sparse"],
            "--encoding=sparse: keras has no sparse encoding",
        ),
        (["--run={run}", "--output=classes"], "--output=classes: choose one of logits, prob"),
        (["--run={run}", "--ece_tolerance=-1"], "--ece_tolerance=-1: must be a finite number"),
        (["--run={run}", "--seconds=nan"], "--seconds=nan: must be a finite number"),
        (["--run={run}", "--epochs=3"], "'epochs'"),
        (["--run={taken}", "--out={taken}"], "holds something other than an export"),
    ],
)
def test_a_wrong_request_is_told_in_one_line(call, run, tmp_path, flags, words):
    taken = shutil.copytree(run, tmp_path / "taken")
    before = sorted(path for path in tmp_path.rglob("*"))
    places = {"run": run, "taken": taken}
    done = call(*(flag.format(**places) for flag in flags))
    assert (done.code, done.out) == (2, "")
    assert done.err[-1].startswith("export: ")
    assert words.format(**places) in done.err[-1]
    assert sorted(path for path in tmp_path.rglob("*")) == before
    assert not (run / "export").exists()


def test_a_damaged_ticket_is_refused(call, run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    masks = copy / "tickets" / "level_01" / "masks.safetensors"
    content = bytearray(masks.read_bytes())
    content[-1] ^= 1
    # Levels may share a file: this one alone is to be damaged.
    masks.unlink()
    masks.write_bytes(content)
    done = call(f"--run={copy}", "--level=1")
    assert (done.code, done.out) == (2, "")
    assert "masks.safetensors is damaged" in done.err[-1]
    assert not list(copy.glob("export*")) + list(copy.glob(".export*"))


def test_a_run_without_a_level_is_refused(call, tmp_path):
    (tmp_path / "tickets").mkdir()
    (tmp_path / "experiment.json").write_text("{}")
    for flags in ([], ["--level=0"]):
        done = call(f"--run={tmp_path}", *flags)
        assert done.code == 2
        assert "finished" in done.err[-1]


def test_a_file_that_says_something_else_fails(call, run, tmp_path, monkeypatch):
    def wrong(self, model, path, *rest):
        model.layers[-1].bias.assign_add(np.arange(10, dtype="float32"))
        write(self, model, path, *rest)

    write = Float32.write
    monkeypatch.setattr(Float32, "write", wrong)
    out = tmp_path / "out"
    done = call(f"--run={run}", f"--out={out}", "--formats=float32", "--encoding=dense")
    assert (done.code, done.out) == (1, "")
    assert "ticket_float32.tflite differs from the ticket by" in done.err[-1]
    assert not list(tmp_path.iterdir())


def test_tolerances_are_flags(call, run, tmp_path):
    flags = [f"--run={run}", f"--out={tmp_path / 'out'}", "--formats=float32", "--seconds=0"]
    done = call(*flags, "--float_tolerance=0")
    # Rounding alone is more than nothing.
    assert done.code == 1 and "more than 0 (float_tolerance)" in done.err[-1]
    assert call(*flags).code == 0


def test_interruption_leaves_nothing_and_is_130(call, run, tmp_path, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(Int8, "write", interrupt)
    done = call(f"--run={run}", f"--out={tmp_path / 'out'}", "--seconds=0")
    assert (done.code, done.out, done.err[-1]) == (130, "", "export: interrupted")
    assert not list(tmp_path.iterdir())


def test_data_of_ones_own_is_for_the_library(call, tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    x, y = np.random.default_rng(0).normal(size=(30, 4)), np.arange(30) % 3
    api.find_tickets(
        model, (x, y), epochs=1, levels=0, batch_size=10, plan="graph", out=tmp_path, progress=False
    )
    done = call(f"--run={tmp_path}")
    assert done.code == 2
    assert "export its tickets by lotcal_tf.export_ticket" in done.err[-1]


@pytest.mark.parametrize(
    ("flags", "code"), [(["--help"], 0), (["--run=absent"], 2), (["--formats=onnx"], 2), ([], 2)]
)
def test_answers_in_a_second_and_without_tensorflow(at_once, flags, code):
    done = at_once("export", *flags)
    assert (done.code, len(done.told)) == (code, code == 2)
    for name in (*(flag.name for flag in export.FLAGS), *export.FIELDS, "config"):
        assert (f"\n  --{name}\n" in done.out) == (code == 0)
