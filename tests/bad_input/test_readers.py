"""Every file of a run, damaged in every way: each command that reads it ends in one line."""

import json
import os
import shutil

import pytest

from lotcal_tf import evaluate, export, load_ticket, report, train
from lotcal_tf.config.sealed import seal, unseal
from lotcal_tf.errors import LotcalError

DEEP = b"[" * 100_000
# The content of a file becomes another; None: the file is removed.
DAMAGE = {
    "missing": lambda content: None,
    "empty": lambda content: b"",
    "NUL": lambda content: bytes(len(content)),
    "cut at the head": lambda content: content[:3],
    "cut in the middle": lambda content: content[: len(content) // 2],
    "cut at the end": lambda content: content[:-1],
    "longer": lambda content: content + b"x",
    "a bit": lambda content: content[:40] + bytes([content[40] ^ 1]) + content[41:],
    "not UTF-8": lambda content: b"\xff\xfe" + content,
    "another type": lambda content: b"[1, 2]",
    "a number": lambda content: b"1",
    "nested": lambda content: DEEP,
    "a long integer": lambda content: b'{"format": ' + b"9" * 5000 + b"}",
    "a size that lies": lambda content: (2**62).to_bytes(8, "little") + content[8:],
    "one line": lambda content: content.replace(b"\n", b" "),
}
# Files that are written and never read, or that another test covers.
UNREAD = {"history.csv", ".lock", "model_card.md", "README.md", "labels.txt", "experiment.lock"}
CHECKED_BY = {
    "experiment.json": ("evaluate", "export", "report"),
    "metrics.csv": ("report",),
    "ticket.json": ("evaluate", "export", "load", "report"),
    "masks.safetensors": ("evaluate", "export", "load"),
    "rewind.safetensors": ("evaluate", "export", "load"),
    "trained.safetensors": ("evaluate", "export", "load"),
    "predictions.safetensors": ("evaluate", "export", "load"),
}
# A change that the file's reader does not see, and that changes nothing.
HARMLESS = {("experiment.json", "one line"), ("ticket.json", "one line")}


@pytest.fixture
def damaged(here, digits_run):
    """damaged(path, damage) → a copy of the run with a damaged file; one at a time."""

    def make(name, damage):
        run = here.parent / "run"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(digits_run.directory, run)
        path = run / name
        before = path.read_bytes()
        content = damage(before)
        if content == before and content.count(b"\n") == 0 and damage is DAMAGE["one line"]:
            content = before + b"\n"  # of a file without lines
        path.unlink()  # it may be a link to the file of another level
        if content is not None:
            path.write_bytes(content)
        return run

    return make


def calls(run, level):
    """The commands that read a run."""
    ticket = run / "tickets" / f"level_{level:02d}"
    return {
        "evaluate": (evaluate, f"--model={ticket}"),
        "export": (export, f"--run={run}", f"--level={level}", "--formats=keras", "--seconds=0"),
        "report": (report, "--out=report.html", str(run)),
        "load": (None, ticket),
    }


def test_every_file_of_a_run_is_in_the_table(digits_run):
    names = {p.name for p in digits_run.directory.rglob("*") if p.is_file()}
    names = {n for n in names if "tfevents" not in n} - UNREAD
    assert names == set(CHECKED_BY), "a new file of a run needs bad cases"


@pytest.mark.parametrize(
    ("name", "command"),
    [(name, command) for name, found in CHECKED_BY.items() for command in found],
)
def test_a_damaged_file_is_refused_in_one_line(
    damaged, call_command, each, tree, name, command, here
):
    place = name if name in ("experiment.json", "metrics.csv") else f"tickets/level_01/{name}"

    def check(kind):
        run = damaged(place, DAMAGE[kind])
        before = tree(here.parent)
        module, *argv = calls(run, 1)[command]
        if module is None:
            with pytest.raises(LotcalError) as error:
                load_ticket(*argv)
            lines = [str(error.value)]
        else:
            done = call_command(module, *argv)
            assert done.code in (1, 2) and done.out == "", done
            lines = done.err
        (line,) = [text for text in lines if not text.startswith("reading ")]
        assert line.isprintable() and len(line) < 1000 and "Error(" not in line, line
        assert tree(here.parent) == before

    each([kind for kind in DAMAGE if (name, kind) not in HARMLESS], check)


VALUES = [
    None,
    1,
    -1,
    10**30,
    1.5,
    "x",
    "",
    "\0",
    [],
    {},
    [1],
    {"a": 1},
    True,
    "../../x",
    "9" * 5000,
]


@pytest.mark.parametrize("command", ["evaluate", "export", "report"])
@pytest.mark.parametrize("sealed", [True, False], ids=["sealed", "of version 0.1"])
def test_a_record_with_wrong_values_is_refused(damaged, call_command, each, command, sealed):
    """Values that are not those of a run under a right checksum, and in a file of an old version."""
    run = damaged("experiment.json", lambda content: content)
    path = run / "experiment.json"
    whole = unseal(path)
    experiment = whole["experiment"]
    changes = [{key: value} for key in whole for value in VALUES]
    changes += [{"experiment": {}}, {"experiment": {"dataset": "digits"}}]
    changes += [{"experiment": experiment | {key: {"a": []}}} for key in experiment]
    changes += [{"experiment": experiment | {key: "\0"}} for key in experiment]

    def check(change):
        content = whole | change
        path.write_bytes(seal(content) if sealed else json.dumps(content).encode())
        module, *argv = calls(run, 1)[command]
        done = call_command(module, *argv)
        shutil.rmtree(run / "export_level_01", ignore_errors=True)
        assert done.code in (0, 1, 2), done
        lines = [line for line in done.err if not line.startswith(("reading ", "writing "))]
        assert done.code == 0 or len(lines) == 1, done

    # Only what a command starts with: the whole of it would be trained and exported each time.
    each(changes[::11], check)


def test_a_run_that_is_continued_refuses_damage(damaged, call_command, each):
    flags = [f"--{n}={v}" for n, v in CONTINUED.items()]

    def check(kind):
        run = damaged("tickets/level_00/ticket.json", DAMAGE[kind])
        done = call_command(train, *flags, f"--out={run}", "--levels=2")
        assert done.code in (1, 2) and done.out == "", done
        assert len(done.err) == 1

    each([kind for kind in DAMAGE if ("ticket.json", kind) not in HARMLESS], check)


CONTINUED = {
    "model": "lenet_10",
    "epochs": 2,
    "prune_rate": 0.6,
    "seed": 5,
    "validation_size": 123,
    "ece_bins": 12,
    "plan": "graph",
}


@pytest.mark.parametrize("name", ["experiment.json", "metrics.csv", "tickets/level_01/ticket.json"])
@pytest.mark.parametrize("kind", ["directory", "loop", "fifo"])
def test_something_else_in_place_of_a_file_is_refused(damaged, call_command, name, kind, here):
    run = damaged(name, lambda content: None)
    path = run / name
    if kind == "directory":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path.name)
    else:
        os.mkfifo(path)
        pytest.skip("reading waits for a writer, as every program does")
    for module in (report,) if name == "metrics.csv" else (evaluate, report):
        _, *argv = calls(run, 1)[module.COMMAND.name]
        done = call_command(module, *argv)
        assert done.code in (1, 2) and len(done.err) == 1, done
