"""Which directories are runs and levels, by name alone."""

import pytest

from lotcal_tf.config.run_directory import (
    check_ticket,
    finished_levels,
    is_run,
    level_name,
    level_path,
)
from lotcal_tf.errors import FieldError


@pytest.mark.parametrize(
    ("levels", "finished"), [((), 0), ((0,), 1), ((0, 1, 2), 3), ((0, 1, 3), 2), ((1,), 0)]
)
def test_levels_count_from_0_without_a_gap(tmp_path, levels, finished):
    for level in levels:
        level_path(tmp_path, level).mkdir(parents=True)
    assert finished_levels(tmp_path) == finished


def test_a_level_that_is_being_written_is_not_finished(tmp_path):
    level_path(tmp_path, 0).mkdir(parents=True)
    (tmp_path / "tickets" / ".level_01.4711").mkdir()
    (tmp_path / "tickets" / "level_01").write_text("no directory")
    assert finished_levels(tmp_path) == 1


def test_a_run_is_told_from_its_tickets(tmp_path):
    level_path(tmp_path, 7).mkdir(parents=True)
    assert is_run(tmp_path)
    assert not is_run(tmp_path / "tickets")
    assert not is_run(tmp_path / "tickets" / "level_07")
    assert not is_run(tmp_path / "absent")


def test_only_a_ticket_and_a_run_can_be_started_from(tmp_path):
    level = level_path(tmp_path, 0)
    level.mkdir(parents=True)
    check_ticket(str(tmp_path))
    with pytest.raises(FieldError, match="is not a ticket: give RUN/tickets/level_NN, or RUN"):
        check_ticket(str(level))
    (level / "ticket.json").touch()
    check_ticket(str(level))


def test_names_sort_as_levels_do():
    names = [level_name(level) for level in (0, 7, 99)]
    assert names == ["level_00", "level_07", "level_99"] == sorted(names)
