"""What a person sees of a search: a bar on a terminal, lines elsewhere, a table at the end."""

import io
import re

import pytest

from lotcal_tf.lottery.progress import ProgressBar, level_line, table

FIELDS = {"plan": "graph", "levels": 2}
PER_LEVEL = 18  # steps of two epochs


class Terminal(io.StringIO):
    def isatty(self):
        return True


class StopsAt:
    """An observer that ends the search where level and epoch are reached."""

    def __init__(self, level, epoch):
        self.place = (level, epoch)

    def on_progress(self, progress):
        if progress.epoch is not None and (progress.level, progress.epoch.epoch) == self.place:
            raise KeyboardInterrupt

    def on_start(self, total_steps, done): ...
    def on_level(self, ticket, predictions): ...
    def on_end(self): ...


def bars(text):
    """Every state of the bar that was drawn: (percent, steps done, steps in all)."""
    states = re.findall(r"(\d+)%\|[^|\r\n]*\| (\d+)/(\d+) \[", text)
    return [tuple(map(int, state)) for state in states]


def epochs_named(text):
    return re.findall(r"(level \d+ epoch \d+):", text)


@pytest.mark.parametrize(("rewind", "skipped"), [("init", 0), ("step:4", 4)])
def test_the_bar_reaches_the_end_of_the_chain(begin, tmp_path, rewind, skipped):
    terminal = Terminal()
    begin(tmp_path, rewind=rewind, observers=[ProgressBar(terminal)], **FIELDS).run()
    states, total = bars(terminal.getvalue()), 3 * PER_LEVEL - 2 * skipped
    assert states[0] == (0, 0, total)
    assert states[-1] == (100, total, total)
    assert [done for _, done, _ in states] == sorted(done for _, done, _ in states)
    assert terminal.getvalue().count("% kept") == 3
    assert epochs_named(terminal.getvalue())[-1] == "level 2 epoch 1"


def test_the_bar_of_a_resumed_run_counts_what_is_left(begin, tmp_path):
    first, second = Terminal(), Terminal()
    fields = FIELDS | {"rewind": "step:4"}
    with pytest.raises(KeyboardInterrupt):
        begin(tmp_path, observers=[ProgressBar(first), StopsAt(1, 0)], **fields).run()
    assert bars(first.getvalue())[-1][0] < 100
    assert first.getvalue().endswith("\n")  # the bar is closed: what follows has its own line
    begin(tmp_path, observers=[ProgressBar(second)], **fields).run()
    left = 2 * (PER_LEVEL - 4)
    assert "1 finished levels found, going on at level 1" in second.getvalue()
    assert bars(second.getvalue())[0] == (0, 0, left)
    assert bars(second.getvalue())[-1] == (100, left, left)


def test_elsewhere_a_line_a_level_and_nothing_else(begin, tmp_path, capsys):
    chain = begin(tmp_path, observers=[ProgressBar()], **FIELDS | {"levels": 1}).run()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [level_line(record) for record in chain.store.records()]
    assert "\r" not in err and "\x1b" not in err


RECORD = {
    "level": 3, "density": 0.512, "weights": 12345, "seconds": 1.26, "ece_bins": 15,
    "test_accuracy": 0.97225, "test_ece": 0.01234, "test_nll": 0.5, "test_brier": 0.25,
    "val_accuracy": 0.9, "val_ece": 0.1, "val_nll": 0.75, "val_brier": 0.125, "val_nll_se": 0.0,
}  # fmt: skip
NO_TEST = {name: value for name, value in RECORD.items() if not name.startswith("test")}


def test_a_level_is_told_in_one_line_by_the_test_split_where_there_is_one():
    assert level_line(RECORD) == (
        "level  3:  51.2 % kept, test accuracy 97.22 %, ECE 0.0123, NLL 0.5000 (1.3 s)"
    )
    assert level_line(NO_TEST) == (
        "level  3:  51.2 % kept, val accuracy 90.00 %, ECE 0.1000, NLL 0.7500 (1.3 s)"
    )


def test_table_shows_every_level_and_marks_the_best():
    nlls = {0: 0.1, 1: 0.6, 2: 0.5, 3: 0.7}
    records = [RECORD | {"level": level, "val_nll": nll} for level, nll in nlls.items()]
    title, head, *rows = table(records).splitlines()
    assert title == "figures of the test split; ECE in 15 bins"
    assert " ".join(head.split()) == "level kept weights accuracy ECE NLL Brier val NLL"
    assert [row.split()[0] for row in rows] == ["0", "1", "2", "3"]
    assert [row.split()[0] for row in rows if row.endswith("<- best")] == ["2"]
    shown = "2 51.2 % 12,345 97.22 % 0.0123 0.5000 0.2500 0.5000 <- best"
    assert " ".join(rows[2].split()) == shown
    assert len({len(row.removesuffix("  <- best")) for row in [head, *rows]}) == 1


def test_table_without_a_test_split_shows_validation():
    title, _, row = table([NO_TEST | {"level": 0}]).splitlines()
    assert title.startswith("figures of the val split")
    assert "90.00 %" in row and "0.1250" in row and row.endswith("<- best")
