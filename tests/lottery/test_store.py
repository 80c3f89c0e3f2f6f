"""The run directory: whole or not there, verified, nobody else's."""

import contextlib
import csv
import dataclasses
import hashlib
import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from lotcal_tf.config import sealed
from lotcal_tf.config.run_directory import level_name
from lotcal_tf.errors import DamagedTicket, FieldError, TakenOver, UsageError
from lotcal_tf.files import DiskFull, parts
from lotcal_tf.lottery.checkpoints import Checkpoint
from lotcal_tf.lottery.run_tables import read_metrics
from lotcal_tf.lottery.store import RunStore, read_ticket
from lotcal_tf.lottery.ticket import Ticket
from lotcal_tf.lottery.ticket_files import TENSORS, read_header, read_predictions
from lotcal_tf.training.state import TrainingState
from lotcal_tf.training.trainer import Epoch

FILES = ("ticket.json", *(f"{name}.safetensors" for name in TENSORS))
RECORD = {"level": 0, "density": 0.1, "seconds": 1 / 3, "val_nll": 1e-17, "protected": "a, b"}


def make_ticket(level=0):
    draw = np.random.default_rng(level)
    kernel = draw.normal(size=(3, 2)).astype("float32")
    mask = np.array([[True, False], [True, True], [False, True]])
    history = [
        {"level": level, "epoch": epoch, "val_loss": 1 / (3 + level + epoch)} for epoch in range(2)
    ]
    return Ticket(
        level=level,
        architecture=json.dumps({"class_name": "Functional", "config": {"name": "tiny"}}),
        masks={"b/kernel": mask, "a/kernel": ~mask},
        rewind={"b/kernel": np.ones((3, 2), "float32"), "b/bias": np.zeros(2, "float16")},
        trained={"b/kernel": np.where(mask, kernel, np.float32(0)), "b/bias": np.ones(2, "int32")},
        record=RECORD | {"level": level},
        history=history,
        predictions={
            "test/labels": np.arange(3, dtype="int32") + level,
            "test/logits": draw.normal(size=(3, 2)).astype("float32"),
        },
    )


@pytest.fixture
def store(tmp_path):
    store = RunStore(tmp_path / "run")
    store.begin({"run_id": "mine"})
    return store


def test_a_ticket_comes_back_as_it_was(store):
    ticket = make_ticket()
    back = read_ticket(store.save(ticket))
    for part in TENSORS:
        given, found = getattr(ticket, part), getattr(back, part)
        assert {n: (v.dtype, v.tobytes()) for n, v in found.items()} == {
            n: (v.dtype, v.tobytes()) for n, v in given.items()
        }
    for field in ("level", "architecture", "record", "history", "density", "digest"):
        assert getattr(back, field) == getattr(ticket, field)


def test_a_level_that_cannot_be_stored_whole_is_not_there(store, monkeypatch, tree):
    store.save(make_ticket())
    before = tree(store.directory)

    def fails(*_):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", fails)
        with pytest.raises(OSError, match="disk full"):
            store.save(make_ticket(1))
    assert store.finished() == 1
    assert tree(store.directory) == before
    # What a killed process left over is cleared by the next begin.
    (store.tickets / ".level_01.4711").mkdir()
    store.begin({"run_id": "mine"})
    assert tree(store.directory) == before
    store.save(make_ticket(1))
    assert store.finished() == 2


def flipped(content, place):
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize("file", FILES)
def test_one_flipped_bit_anywhere_is_noticed(store, file):
    path = store.save(make_ticket()) / file
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(flipped(whole, place))
        with pytest.raises(DamagedTicket):
            read_ticket(path.parent)
    path.write_bytes(whole)
    assert read_ticket(path.parent).digest == make_ticket().digest


@pytest.mark.parametrize(
    ("file", "left"),
    [(file, left) for file in FILES for left in (0, -1)] + [(file, None) for file in FILES[1:]],
)
def test_a_truncated_or_missing_file_is_named_with_what_to_do(store, file, left):
    path = store.save(make_ticket()) / file
    whole = path.read_bytes()
    path.unlink()
    if left is not None:
        path.write_bytes(whole[:left])
    with pytest.raises(DamagedTicket) as caught:
        store.read(0)
    message = str(caught.value)
    assert str(path) in message and f"delete {path.parent}" in message
    assert "\n" not in message


def test_a_directory_that_is_no_ticket_is_told_so(tmp_path):
    for read in (read_ticket, read_header):
        with pytest.raises(UsageError, match=r"is not a ticket: give RUN/tickets/level_NN"):
            read(tmp_path)


def test_what_the_level_before_has_too_is_stored_once(store):
    first, second = (store.save(make_ticket(level)) for level in (0, 1))
    for file, shared in zip(FILES, (False, True, True, False, False), strict=True):
        assert (first / file).samefile(second / file) == shared
    third = store.save(
        dataclasses.replace(make_ticket(2), rewind={"b/kernel": np.zeros((3, 2), "float32")})
    )
    assert not (third / FILES[2]).samefile(second / FILES[2])


def test_a_file_system_without_links_stores_again(store, monkeypatch):
    def fails(*_):
        raise OSError("no links here")

    monkeypatch.setattr(Path, "hardlink_to", fails)
    first, second = (store.save(make_ticket(level)) for level in (0, 1))
    assert not (first / FILES[2]).samefile(second / FILES[2])
    assert read_ticket(second).digest == make_ticket(1).digest


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_tables_parse_back_to_the_records(store):
    tickets = [make_ticket(level) for level in range(3)]
    for ticket in tickets:
        for row in ticket.history:
            store.append_epoch(row)
        store.save(ticket)
    metrics = read_csv(store.directory / "metrics.csv")
    history = read_csv(store.directory / "history.csv")
    records = [ticket.record for ticket in tickets]
    epochs = [row for ticket in tickets for row in ticket.history]
    assert store.records() == records
    for rows, expected in ((metrics, records), (history, epochs)):
        assert [list(row) for row in rows] == [list(row) for row in expected]
        parsed = [{n: type(e[n])(r[n]) for n in e} for r, e in zip(rows, expected, strict=True)]
        assert parsed == expected


def test_an_epoch_is_in_the_history_at_once_and_goes_with_its_unfinished_level(store):
    store.save(make_ticket())
    store.append_epoch({"level": 1, "epoch": 0, "val_loss": 0.5})
    assert [row["level"] for row in read_csv(store.directory / "history.csv")] == ["0", "0", "1"]
    store.begin({"run_id": "mine"})
    assert [row["level"] for row in read_csv(store.directory / "history.csv")] == ["0", "0"]


def test_many_short_epochs_are_not_all_written_at_once_but_none_is_lost(store, monkeypatch):
    now, cost = [0.0], 0.5
    written = []
    real = RunStore.write_table

    def slow(self, name, rows):
        written.append(len(rows))
        now[0] += cost
        real(self, name, rows)

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(RunStore, "write_table", slow)
    for epoch in range(100):
        now[0] += 1
        store.append_epoch({"level": 0, "epoch": epoch, "val_loss": 0.5})
    # Half a second of writing is 2 % of 25 seconds.
    assert written == [1, 26, 51, 76]
    store.append_epoch({"level": 1, "epoch": 0, "val_loss": 0.5})
    assert written[-1] == 1  # A new level is written at once.


def test_tables_lost_between_a_level_and_its_rows_are_made_anew(store):
    store.save(make_ticket())
    table = (store.directory / "metrics.csv").read_bytes()
    (store.directory / "metrics.csv").unlink()
    store.begin({"run_id": "mine"})
    assert (store.directory / "metrics.csv").read_bytes() == table


def test_every_write_is_flushed_before_and_after_its_rename(store, disk):
    store.begin({"run_id": "other"})
    for level in range(2):
        store.append_epoch({"level": level, "epoch": 0})
        store.save(make_ticket(level))
    targets = [event[2].name for event in disk if event[0] == "rename"]
    tables = ["metrics.csv", "history.csv"]
    epoch, level = ["history.csv"], [*tables]
    assert targets == [
        "experiment.json", *epoch, "level_00", *level, *epoch, "level_01", *level
    ]  # fmt: skip


def test_finished_levels_end_at_the_first_gap(store):
    for level in (0, 1, 3):
        (store.tickets / level_name(level)).mkdir()
    assert store.finished() == 2


@pytest.mark.parametrize("content", [None, {}, {".hidden": "x"}])
def test_a_new_or_empty_directory_is_taken(tmp_path, content, tree):
    directory = tmp_path / "run"
    if content is not None:
        directory.mkdir()
        for name, text in content.items():
            (directory / name).write_text(text)
    before = tree(tmp_path)
    RunStore(directory).check("mine", {})
    assert tree(tmp_path) == before  # checking writes nothing
    RunStore(directory).begin({"run_id": "mine"})
    RunStore(directory).check("mine", {})
    assert RunStore(directory).experiment() == {"run_id": "mine"}


@pytest.mark.parametrize(
    ("there", "out", "problem"),
    [
        ({"experiment.json": '{"run_id": "theirs"}'}, ".", "holds another run, theirs"),
        ({"experiment.json": "{}"}, ".", "holds another run"),
        ({"thesis.tex": "x"}, ".", "holds files but no experiment.json"),
        ({"file": "x"}, "file", "Not a directory; choose another"),
        ({"file": "x"}, "file/below", "Not a directory; choose another"),
    ],
)
def test_what_is_not_this_run_is_refused_and_left_alone(tmp_path, there, out, problem, tree):
    for name, text in there.items():
        (tmp_path / name).write_text(text)
    before = tree(tmp_path)
    with pytest.raises(FieldError, match=problem) as caught:
        RunStore(tmp_path / out).check("mine", {})
    assert caught.value.field == "out"
    assert "choose" in str(caught.value) and "\n" not in str(caught.value)
    assert tree(tmp_path) == before


def test_a_directory_that_may_not_be_written_to_is_refused(tmp_path, monkeypatch, tree):
    # The tests may run as root, who may write everywhere: the question is answered for it.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(FieldError, match=f"{tmp_path} cannot be written to"):
        RunStore(tmp_path / "deep" / "run").check("mine", {})
    assert tree(tmp_path) == {}


def test_an_unreadable_experiment_is_named(store):
    (store.directory / "experiment.json").write_text("{")
    with pytest.raises(UsageError, match=r"experiment\.json cannot be read"):
        store.check("mine", {})


def test_a_store_that_does_not_write_reads_what_is_there(store, tmp_path, tree):
    store.save(make_ticket(0))
    before, onlooker = tree(tmp_path), RunStore(store.directory, writes=False)
    onlooker.check("mine", {})
    onlooker.begin({"run_id": "theirs"})
    onlooker.append_epoch({"level": 1})
    onlooker.save(make_ticket(1))
    RunStore(tmp_path / "nowhere", writes=False).begin({})
    assert tree(tmp_path) == before
    assert onlooker.finished() == 1
    assert onlooker.read(0).digest == make_ticket(0).digest


def test_another_run_is_refused_by_the_fields_that_differ(store):
    store.begin({"run_id": "theirs", "identity": {"lr": 0.1, "seed": 3, "calib_source": "a1"}})
    with pytest.raises(FieldError) as caught:
        store.check("mine", {"lr": 0.2, "epochs": 5, "calib_source": "b2"})
    assert str(caught.value).startswith(f"out={store.directory}: holds another run, theirs: ")
    for part in ("lr is 0.2 here, 0.1 there", "seed is default here, 3 there"):
        assert part in str(caught.value)
    assert "epochs is 5 here, default there" in str(caught.value)
    assert "calib_source differs" in str(caught.value)


def test_predictions_are_read_by_themselves(store):
    store.save(make_ticket())
    path = store.save(make_ticket(1))
    labels, logits = read_predictions(path, "test")
    np.testing.assert_array_equal(labels, [1, 2, 3])
    assert logits.shape == (3, 2)
    with pytest.raises(UsageError, match="no predictions of the val split"):
        read_predictions(path, "val")


# --- one writer ------------------------------------------------------------------------------------


def test_a_directory_has_one_writer(store):
    store.lock()
    store.lock()  # It has it already.
    other, onlooker = RunStore(store.directory), RunStore(store.directory, writes=False)
    with pytest.raises(FieldError, match="^out=.*another call in this process"):
        other.lock()
    onlooker.lock()
    store.save(make_ticket())
    store.close()
    store.close()
    other.lock()
    other.close()
    assert sorted(path.name for path in store.directory.iterdir()) == [
        "experiment.json", "history.csv", "metrics.csv", "tickets"
    ]  # fmt: skip


@pytest.mark.parametrize("write", ["begin", "save", "append_epoch", "repair"])
def test_a_store_that_was_taken_over_writes_nothing_more(store, tree, write):
    store.save(make_ticket())
    store.lock()
    path = store.directory / ".writer"
    path.write_text(path.read_text().replace('"token": "', '"token": "other'))
    (store.directory / "metrics.csv").write_text("old")
    before = tree(store.directory)
    calls = {
        "begin": lambda: store.begin({"run_id": "theirs"}),
        "save": lambda: store.save(make_ticket(1)),
        "append_epoch": lambda: store.append_epoch({"level": 1, "epoch": 0}),
        "repair": store.repair,
    }
    with pytest.raises(TakenOver, match="finished levels are kept"):
        calls[write]()
    assert tree(store.directory) == before
    store.close()


def test_a_directory_that_cannot_be_created_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FieldError, match="^out="):
        RunStore(tmp_path / "file" / "run").lock()


def test_a_directory_whose_first_write_failed_is_usable(tmp_path, monkeypatch):
    store = RunStore(tmp_path / "run")

    def fails(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails)
        with pytest.raises(DiskFull, match="No space left on device"):
            store.begin({"run_id": "mine"})
    (tmp_path / "run" / "tickets").mkdir(exist_ok=True)  # as version 0.2 left it
    (tmp_path / "run" / ".writer").touch()
    store.check("mine", {})
    store.begin({"run_id": "mine"})
    assert store.recorded


# --- killed, or out of space, at any call ----------------------------------------------------------


def carried_out(store):
    """A run of two levels, continued from where it is."""
    store.check("mine", {})
    store.lock()
    store.verify()
    store.begin({"run_id": "mine"})
    for level in store.missing(1):
        found, _ = store.checkpoint(level)
        done = list(found.epochs) if found else []
        for row in make_ticket(level).history[len(done) :]:
            store.append_epoch(row)
            done.append(Epoch(**row, train_loss=1.0, train_accuracy=0.5, val_accuracy=0.5))
            tensors = {"weights/00000": np.full(3, len(done), "float32")}
            store.save_checkpoint(Checkpoint(level, tuple(done), TrainingState(len(done), tensors)))
        store.save(make_ticket(level))
    store.close()


def failing_at(patch, number, fail):
    """Calls `fail` in place of the call of the given number; gives the number of calls that are left."""
    left = [number]

    def counted(owner, name):
        real = getattr(owner, name)

        def wrapper(*given, **named):
            left[0] -= 1
            if left[0] == -1:
                fail()
            return real(*given, **named)

        patch.setattr(owner, name, wrapper)

    for owner, name in [
        (os, "fsync"), (os, "open"), (Path, "rename"), (Path, "replace"), (Path, "mkdir"),
        (Path, "hardlink_to"), (Path, "unlink"),
    ]:  # fmt: skip
        counted(owner, name)
    return left


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The files of a run that was not interrupted, and its number of calls."""
    directory = tmp_path_factory.mktemp("uninterrupted") / "run"
    with pytest.MonkeyPatch.context() as patch:
        left = failing_at(patch, 10_000, None)
        carried_out(RunStore(directory))
    files = {p.relative_to(directory): p.read_bytes() for p in parts(directory)}
    return files, 10_000 - left[0]


@pytest.mark.full
def test_a_run_killed_at_any_call_ends_as_one_that_was_not(tmp_path, uninterrupted):
    whole, calls = uninterrupted
    assert calls > 50
    for number in range(calls):
        directory = tmp_path / str(number) / "run"
        child = os.fork()
        if child == 0:
            try:
                failing_at(pytest.MonkeyPatch(), number, lambda: os._exit(9))
                carried_out(RunStore(directory))
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 9, number
        carried_out(RunStore(directory))
        assert {p.relative_to(directory): p.read_bytes() for p in parts(directory)} == whole, number


def test_a_run_that_is_out_of_space_at_any_call_goes_on_when_there_is_some(tmp_path, uninterrupted):
    whole, calls = uninterrupted

    def full():
        raise OSError(28, "No space left on device")

    for number in range(calls):
        directory = tmp_path / str(number) / "run"
        store = RunStore(directory)
        with pytest.MonkeyPatch.context() as patch:
            failing_at(patch, number, full)
            # Without hard links and without a heartbeat to remove, a run goes on.
            with contextlib.suppress(OSError, FieldError):
                carried_out(store)
        store.close()
        carried_out(RunStore(directory))
        assert {p.relative_to(directory): p.read_bytes() for p in parts(directory)} == whole, number


# --- whole or refused ------------------------------------------------------------------------------


@pytest.fixture
def run(store):
    """A run of three levels."""
    for level in range(3):
        store.save(make_ticket(level))
    return store


def examined(store):
    """Everything that continuing a run reads."""
    store.check("mine", {})
    store.verify()
    store.missing(2)
    store.begin({"run_id": "mine"})
    assert read_metrics(store.directory) == (store.directory / "metrics.csv").read_bytes()
    return [store.read(level).digest for level in range(3)]


DAMAGES = {
    "emptied": lambda content: b"",
    "header only": lambda content: content[:8],
    "half": lambda content: content[: len(content) // 2],
    "last byte": lambda content: content[:-1],
    "bit": lambda content: flipped(content, len(content) // 2),
    "zeros": lambda content: bytes(len(content)),
}
TABLES = ("metrics.csv", "history.csv")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_damaged_file_of_any_level_is_refused(run, level, file, damage):
    path = run.tickets / level_name(level) / file
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(DamagedTicket) as caught:
        examined(run)
    assert file in str(caught.value) and f"delete {run.tickets}/level_0" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", [*DAMAGES, "missing"])
@pytest.mark.parametrize("file", ["experiment.json", *TABLES])
def test_a_damaged_record_or_table_is_written_again(run, tree, file, damage):
    path = run.directory / file
    whole = tree(run.directory)
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(DAMAGES[damage](path.read_bytes()))
    if file == "experiment.json":
        assert not run.recorded
        with pytest.raises(UsageError, match="experiment.json") as caught:
            run.experiment()
        assert "\n" not in str(caught.value)
        with pytest.raises(UsageError):
            run.check("theirs", {})
    assert examined(run) == [make_ticket(level).digest for level in range(3)]
    assert tree(run.directory) == whole


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_table_is_not_read(run, damage):
    path = run.directory / "metrics.csv"
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(UsageError, match="does not match the tickets of its run"):
        read_metrics(run.directory)


def test_a_row_that_a_kill_cut_off_is_read_from_its_ticket(run):
    path = run.directory / "metrics.csv"
    whole = path.read_bytes()
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    assert read_metrics(run.directory) == whole


def test_a_table_without_tickets_is_read_as_it_is(run):
    shutil.rmtree(run.tickets)
    (run.directory / "metrics.csv").write_text("level\n0\n")
    assert read_metrics(run.directory) == b"level\n0\n"


# Masks and rewind weights are the same in these levels.
@pytest.mark.parametrize("file", ["ticket.json", "trained.safetensors", "predictions.safetensors"])
def test_a_file_of_another_level_is_refused(run, file):
    one, other = (run.tickets / level_name(level) / file for level in (1, 2))
    one.write_bytes(other.read_bytes())
    with pytest.raises(DamagedTicket, match=file):
        examined(run)


def test_a_level_under_another_name_is_refused(run):
    one, other = (run.tickets / level_name(level) for level in (1, 2))
    one.rename(run.tickets / "aside")
    other.rename(one)
    for read in (read_header, read_ticket):
        with pytest.raises(DamagedTicket, match="is that of level 2"):
            read(one)
    # Outside of a run, a ticket may have any other name.
    assert read_ticket((run.tickets / "aside").rename(run.directory / "mine")).level == 1


def test_a_level_of_another_run_is_refused(run, tmp_path):
    other = RunStore(tmp_path / "other")
    other.begin({"run_id": "theirs"})
    other.save(make_ticket(0))
    path = run.tickets / level_name(0)
    shutil.rmtree(path)
    shutil.copytree(other.tickets / level_name(0), path)
    for read in (read_header, read_ticket):
        with pytest.raises(DamagedTicket, match="is of another run, theirs"):
            read(path)
    with pytest.raises(DamagedTicket):
        examined(run)


def test_the_record_of_another_run_is_refused(run, tmp_path):
    RunStore(tmp_path / "other").begin({"run_id": "theirs"})
    shutil.copy(tmp_path / "other" / "experiment.json", run.directory)
    with pytest.raises(FieldError, match="holds another run, theirs"):
        examined(run)
    with pytest.raises(DamagedTicket, match="is of another run, mine"):
        run.read(0)


def test_a_level_that_was_pruned_from_another_one_is_refused(run):
    shutil.rmtree(run.tickets / level_name(1))
    other = make_ticket(1)
    other.trained["b/bias"] += 1
    with pytest.raises(DamagedTicket, match="level_02 was pruned from another level_01") as caught:
        run.save(other)
    assert "delete level_02 and every later level" in str(caught.value)
    with pytest.raises(DamagedTicket, match="level_02 was pruned from another level_01"):
        run.verify()


def test_a_missing_level_is_named_and_can_be_filled(run, tree):
    before = tree(run.directory)
    shutil.rmtree(run.tickets / level_name(1))
    run.verify()
    assert (run.missing(2), run.missing(4), run.missing(0)) == ([1], [1, 3, 4], [])
    (line,) = run.gaps(4)
    assert "level_01 is missing" in line
    with pytest.raises(UsageError, match="level_01 is missing .* by the command that started"):
        run.complete_records()
    run.begin({"run_id": "mine"})
    assert [row["level"] for row in read_csv(run.directory / "metrics.csv")] == ["0", "2"]
    run.save(make_ticket(1))
    assert tree(run.directory) == before


def test_a_level_without_its_ticket_is_refused(run):
    (run.tickets / level_name(1) / "ticket.json").unlink()
    with pytest.raises(DamagedTicket, match="level_01 has no ticket.json; delete it"):
        run.verify()


# --- other versions --------------------------------------------------------------------------------


def as_written_by_version_0_2(run):
    """Takes from a run what later versions added."""
    record = sealed.unseal(run.directory / "experiment.json")
    (run.directory / "experiment.json").write_text(json.dumps(record))
    for path in run.tickets.glob("*/ticket.json"):
        header = sealed.unseal(path)
        old = {name: value for name, value in header.items() if name not in ("run", "before")}
        digest = hashlib.sha256(json.dumps(old, sort_keys=True).encode()).hexdigest()
        path.write_text(json.dumps(old | {"checksum": digest}, indent=1))


def test_a_run_of_version_0_2_is_read_and_continued(run):
    as_written_by_version_0_2(run)
    assert examined(run) == [make_ticket(level).digest for level in range(3)]
    run.save(make_ticket(3))
    run.verify()
    assert run.missing(3) == []
    assert run.header(3)["before"]["masks"] == run.header(2)["sha256"]["masks"]


def test_damage_in_a_run_of_version_0_2_is_noticed(run):
    as_written_by_version_0_2(run)
    path = run.tickets / level_name(1) / "ticket.json"
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(flipped(whole, place))
        with pytest.raises(DamagedTicket):
            run.verify()


def test_a_gap_in_a_run_of_version_0_2_is_refused_with_the_way_out(run):
    as_written_by_version_0_2(run)
    shutil.rmtree(run.tickets / level_name(1))
    run.verify()
    assert run.missing(0) == []
    with pytest.raises(UsageError, match="has no level_01, from which level_02 was pruned; delete"):
        run.missing(2)


def test_newer_formats_are_refused_by_name(run, monkeypatch):
    paths = [run.directory / "experiment.json", run.tickets / level_name(1) / "ticket.json"]
    for path in paths:
        whole = path.read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(sealed, "FORMAT", 7)
            path.write_bytes(sealed.seal(sealed.unseal(path)))
        with pytest.raises(UsageError, match="has format 7, of a newer version") as caught:
            run.experiment() if path == paths[0] else run.verify()
        assert "\n" not in str(caught.value)
        if path == paths[0]:
            with pytest.raises(UsageError, match="format 7"):
                run.check("mine", {})
        path.write_bytes(whole)
