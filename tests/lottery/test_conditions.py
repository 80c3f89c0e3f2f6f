"""`conditions.csv`: rows are kept by level and condition, and only while the ticket is the same. No training."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from lotcal_tf.config import sealed
from lotcal_tf.errors import UsageError
from lotcal_tf.lottery.conditions import (
    Condition,
    add_conditions,
    condition_row,
    read_conditions,
    ticket_digest,
    unmeasured,
)

BLUR, CARS = Condition("blur", 2), Condition(unseen="cars, red")


def write_ticket(run, level, digest):
    """A ticket of which only the header can be read."""
    directory = run / "tickets" / f"level_{level:02d}"
    directory.mkdir(parents=True, exist_ok=True)
    header = {"level": level, "sha256": {"trained": digest * 64}, "record": {}, "history": []}
    (directory / "ticket.json").write_bytes(sealed.seal(header | {"architecture": {"config": {}}}))


@pytest.fixture
def run(tmp_path):
    """A run of two levels."""
    for level, digest in enumerate("ab"):
        write_ticket(tmp_path, level, digest)
    return tmp_path


def rows(run, level, value):
    ticket = ticket_digest(run, level)
    return [
        condition_row(level, ticket, BLUR, {"ece": value, "accuracy": 0.5, "nll": 1, "brier": 1}),
        condition_row(level, ticket, CARS, {"auroc": value / 3, "confidence": 0.5}),
    ]


def test_rows_are_read_as_they_were_added_and_replace_older_ones(run):
    assert read_conditions(run) == []
    add_conditions(run, rows(run, 1, 0.1))
    add_conditions(run, rows(run, 0, 0.2))
    add_conditions(run, rows(run, 1, 0.3)[:1])
    wanted = [*rows(run, 0, 0.2), rows(run, 1, 0.3)[0], rows(run, 1, 0.1)[1]]
    found = read_conditions(run)
    assert len(found) == 4
    assert all(one in wanted for one in found)
    assert [path.name for path in run.iterdir()].count("conditions.csv") == 1


def test_processes_that_add_rows_at_the_same_time_lose_none(run):
    def add(level):
        for severity in range(1, 31):
            found = {"ece": 0.1, "accuracy": 0.5, "nll": 1, "brier": 1}
            place = Condition(f"shift {level}", severity)
            add_conditions(run, [condition_row(level, ticket_digest(run, level), place, found)])

    # Each call opens the lock anew, so that threads exclude each other as processes do.
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(add, (0, 1)))
    assert len(read_conditions(run)) == 60


def test_a_level_is_unmeasured_until_it_has_all_conditions(run):
    assert unmeasured(run, [BLUR, CARS]) == [0, 1]
    add_conditions(run, rows(run, 1, 0.1))
    assert unmeasured(run, [BLUR, CARS]) == [0]
    assert unmeasured(run, [BLUR, Condition("blur", 3)]) == [0, 1]


def test_rows_of_a_replaced_ticket_are_dropped(run):
    add_conditions(run, [*rows(run, 0, 0.2), *rows(run, 1, 0.1)])
    write_ticket(run, 1, "c")
    assert {one["level"] for one in read_conditions(run)} == {0}
    assert unmeasured(run, [BLUR]) == [1]


def test_a_table_without_tickets_is_read(run, tmp_path_factory):
    add_conditions(run, rows(run, 1, 0.1))
    alone = tmp_path_factory.mktemp("alone")
    (alone / "conditions.csv").write_bytes((run / "conditions.csv").read_bytes())
    assert read_conditions(alone) == read_conditions(run) != []


@pytest.mark.parametrize(
    "content",
    [
        b"level,shift\n0,blur\n",
        b"level,ticket,shift,severity,unseen,ece\nx,a,blur,1,,0.1\n",
        b"level,ticket,shift,severity,unseen,ece\n0,a,blur,1,,high\n",
        b"level,ticket,shift,severity,unseen,ece\n0,a,blur\n",
        b"level,ticket,shift,severity,unseen,ece\n0,a,blur,1,,0.1\n",
        b"level,ticket,shift,severity,unseen,auroc\n0,a,,0,cars,0.1\n",
        b"\xff\xfe",
    ],
)
def test_a_damaged_table_is_named(run, content):
    (run / "conditions.csv").write_bytes(content)
    with pytest.raises(UsageError, match=r"conditions\.csv cannot be read .*delete it"):
        read_conditions(run)
