"""Every file of a run is written, flushed, renamed, and then its directory is flushed."""

import os
from pathlib import Path

import pytest

from lotcal_tf import evaluate, report, train
from lotcal_tf.files import parts

# What is not read again: the log, and the lock, which is empty or holds a sign of life.
NOT_DURABLE = ("tfevents", ".writer")


@pytest.fixture
def events(monkeypatch):
    """The calls of fsync and rename, in order: ("fsync", path) and ("rename", source, target)."""
    found, fsync = [], os.fsync

    def noted_fsync(handle):
        number = handle if isinstance(handle, int) else handle.fileno()
        found.append(("fsync", str(Path(f"/proc/self/fd/{number}").readlink())))
        fsync(handle)

    def noted(rename):
        def call(source, target):
            rename(source, target)
            found.append(("rename", str(Path(source).absolute()), str(Path(target).absolute())))

        return call

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "rename", noted(os.rename))
    monkeypatch.setattr(os, "replace", noted(os.replace))
    return found


def check_durable(path, events):
    """Checks that a file came to its name by a rename of a flushed file."""
    renames = [
        (number, Path(event[1]), Path(event[2]))
        for number, event in enumerate(events)
        if event[0] == "rename" and path.is_relative_to(event[2])
    ]
    assert renames, f"{path} was written under its final name"
    number, source, target = renames[-1]
    before = [event[1] for event in events[:number] if event[0] == "fsync"]
    after = [event[1] for event in events[number:] if event[0] == "fsync"]
    assert str(source / path.relative_to(target)) in before, f"{path} was not flushed"
    assert str(target.parent) in after, f"the directory of {target} was not flushed"


def run(command, *argv):
    with pytest.raises(SystemExit) as ended:
        command.run([str(word) for word in argv])
    assert ended.value.code == 0


def test_every_file_of_the_commands_is_durable(tmp_path, events):
    out = tmp_path / "run"
    fields = ("--epochs=3", "--levels=1", "--model=lenet_10", "--checkpoint_minutes=0")
    run(train, *fields, f"--out={out}")
    run(report, out, "-o", tmp_path / "report.html", "--csv", tmp_path / "report.csv")
    run(evaluate, f"--model={out}")
    files = [p for p in parts(tmp_path) if not any(n in p.name for n in NOT_DURABLE)]
    names = {path.name for path in files}
    assert {"experiment.json", "metrics.csv", "history.csv", "ticket.json"} <= names
    assert {"ticket_float32.tflite", "parity.json", "report.html", "report.csv"} <= names
    linked = {}
    for path in files:
        key = path.stat().st_ino
        if key not in linked:  # Levels share equal files by hard links.
            check_durable(path, events)
        linked[key] = path
    checkpoints = {e[2] for e in events if e[0] == "rename" and "checkpoints" in e[2]}
    assert len(checkpoints) == 2 * 2  # After each epoch of each level but the last one.
    for checkpoint in checkpoints:
        for name in ("checkpoint.json", "tensors.safetensors"):
            check_durable(Path(checkpoint) / name, events)
