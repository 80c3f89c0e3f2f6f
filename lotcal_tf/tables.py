"""Tables, percentages and times as text, without TensorFlow."""

from collections.abc import Collection, Sequence

from tabulate import tabulate

Rows = Sequence[Sequence[str]]


def plain(rows: Rows, words: Collection[str] = ()) -> str:
    """A table for the terminal.

    Args:
      rows: the rows of cells; the first row is the header.
      words: headers of the columns to align left; the first column always is, others align right.
    """
    return _table(rows, words, "plain")


def markdown(rows: Rows, words: Collection[str] = ()) -> str:
    """A Markdown table; arguments as for `plain`. Cells are text, never HTML."""

    def text(cell: str) -> str:
        return " ".join(cell.replace("|", "\\|").replace("<", "&lt;").splitlines())

    return _table([[text(cell) for cell in row] for row in rows], words, "pipe")


def percent(share: float, digits: int = 1) -> str:
    """A share as a percentage, e.g. `97.3 %` for 0.9731."""
    return f"{100 * share:.{digits}f} %"


def duration(seconds: float) -> str:
    """Formats a time, rounded as an estimate: `40 s`, `12 min`, `3 h 20 min`, `25 h`, `4 days`."""
    if seconds < 99.5:
        return f"{round(seconds)} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    if minutes < 9 * 60 + 55:
        hours, tens = divmod(round(minutes / 10), 6)
        return f"{hours} h {10 * tens} min" if tens else f"{hours} h"
    hours = round(minutes / 60)
    return f"{hours} h" if hours < 72 else f"{round(hours / 24)} days"


def _table(rows: Rows, words: Collection[str], form: str) -> str:
    head, *others = rows
    sides = ["right" if i and name not in words else "left" for i, name in enumerate(head)]
    # disable_numparse keeps cells such as `1,234` and `0.10` as they are.
    return tabulate(others, head, form, colalign=sides, disable_numparse=True)
