"""The run directory: whole or not there, verified, nobody else's."""

import csv
import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest

from lotcal_tf.config.run_directory import level_name
from lotcal_tf.errors import DamagedTicket, FieldError, UsageError
from lotcal_tf.lottery.store import RunStore, read_ticket
from lotcal_tf.lottery.ticket import Ticket
from lotcal_tf.lottery.ticket_files import TENSORS, read_header, read_predictions

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


def test_tables_lost_between_a_level_and_its_rows_are_made_anew(store):
    store.save(make_ticket())
    table = (store.directory / "metrics.csv").read_bytes()
    (store.directory / "metrics.csv").unlink()
    store.begin({"run_id": "mine"})
    assert (store.directory / "metrics.csv").read_bytes() == table


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
