"""How train commands are run, and how their metrics are written."""

import sys

import pytest


@pytest.fixture(scope="module")
def tool(load):
    return load("train_commands")


def test_commands_are_run_and_a_failed_one_names_its_log(tool, tmp_path, monkeypatch):
    calls = []

    def call(words, **_):
        calls.append(words)
        return int("--calib=mda" in words)

    monkeypatch.setattr(tool.subprocess, "call", call)
    out = tmp_path / "out"
    commands = [
        tool.TrainCommand("a-seed_0", ["--seed=0", "--epochs=2"]),
        tool.TrainCommand("b_0.1", ["--lr=0.1"]),
    ]
    runs = tool.run_all(commands, out)
    assert runs == [out / "a-seed_0", out / "b_0.1"]
    start = [sys.executable, "-m", "lotcal_tf.train"]
    assert sorted(calls) == [
        [*start, "--lr=0.1", f"--out={runs[1]}"],
        [*start, "--seed=0", "--epochs=2", f"--out={runs[0]}"],
    ]
    with pytest.raises(SystemExit, match=r"--calib=mda failed, see .*mda\.log"):
        tool.run_all([tool.TrainCommand("mda", ["--calib=mda"])], out)


def test_a_cell_is_mean_and_sample_deviation(tool):
    # Of 1 and 3: mean 2, deviation sqrt(2).
    assert tool.cell("nll", [1.0, 3.0]) == "2.0000 ± 1.4142"
    assert tool.cell("accuracy", [0.01, 0.03]) == "2.00 ± 1.41"
    assert tool.cell("ece", [0.25]) == "0.2500"


def test_rows_are_read_by_column(tool, tmp_path):
    (tmp_path / "metrics.csv").write_text("level,density\n0,1.0\n1,0.8\n")
    assert [row["density"] for row in tool.read(tmp_path)] == ["1.0", "0.8"]
