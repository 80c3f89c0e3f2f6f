"""Text for people: tables and percentages. No TensorFlow here."""

from collections.abc import Collection, Sequence

from tabulate import tabulate

Rows = Sequence[Sequence[str]]


def plain(rows: Rows, words: Collection[str] = ()) -> str:
    """A table to read in a terminal.

    Args:
      rows: of cells, the head first.
      words: heads of columns that stand to the left, as the first one does; the others are figures.
    """
    return _table(rows, words, "plain")


def markdown(rows: Rows, words: Collection[str] = ()) -> str:
    """A table for a page; arguments as for `plain`."""
    return _table([[cell.replace("|", "\\|") for cell in row] for row in rows], words, "pipe")


def percent(share: float, digits: int = 1) -> str:
    """0.9731 → `97.3 %`."""
    return f"{100 * share:.{digits}f} %"


def _table(rows: Rows, words: Collection[str], form: str) -> str:
    head, *others = rows
    sides = ["right" if i and name not in words else "left" for i, name in enumerate(head)]
    # Cells are text: `1,234` and `0.10` stay as they are.
    return tabulate(others, head, form, colalign=sides, disable_numparse=True)
