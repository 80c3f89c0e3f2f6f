"""`conditions.csv` of a run: its tickets on corrupted images and on unseen data. No TensorFlow here.

A row is one level under one condition: `shift` and `severity` name a corruption of the test images, `unseen`
names the data of another task. Other columns are `ticket`, a digest of the network, by which rows of a
replaced ticket are left out, and the metrics of `metrics.measure` or `metrics.unseen.measure_unseen`.
"""

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lotcal_tf.config.run_directory import level_path, stored_levels
from lotcal_tf.errors import UsageError
from lotcal_tf.files import one_at_a_time, write_atomically
from lotcal_tf.lottery.run_tables import as_csv
from lotcal_tf.lottery.ticket_files import read_header, refusing_damaged

Row = Mapping[str, Any]
# The metrics that every row on corrupted and on unseen data has.
OF_CORRUPTED = ("accuracy", "ece", "nll", "brier")
OF_UNSEEN = ("auroc", "confidence")


class Condition(NamedTuple):
    """A corruption and its severity, or the name of unseen data."""

    shift: str = ""
    severity: int = 0
    unseen: str = ""


def condition_row(
    level: int, ticket: str, condition: Condition, metrics: Mapping[str, float]
) -> Row:
    """A row of the table."""
    return {"level": level, "ticket": ticket, **condition._asdict(), **metrics}


def condition_of(row: Row) -> Condition:
    """The condition of a row."""
    return Condition(*(row[name] for name in Condition._fields))


def read_conditions(run: Path) -> list[Row]:
    """The rows of a run, without those of tickets that were replaced since; none if it has no such table.

    The rows of a run without tickets, i.e. tables only, are not verified.

    Raises:
      UsageError: the table or a ticket is damaged.
    """
    path = run / "conditions.csv"
    if not path.exists():
        return []
    try:
        rows = [_parsed(one) for one in csv.DictReader(io.StringIO(path.read_text(), newline=""))]
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise UsageError(
            f"{path} cannot be read ({error}): delete it, and measure the run again"
        ) from error
    levels = stored_levels(run)
    known = {level: ticket_digest(run, level) for level in levels}
    return [one for one in rows if not levels or known.get(one["level"]) == one["ticket"]]


def add_conditions(run: Path, rows: Sequence[Row]) -> None:
    """Adds rows to the table of a run; they replace rows of the same level and condition.

    Raises:
      UsageError: see `read_conditions`.
    """
    with one_at_a_time(run):
        found = {(one["level"], condition_of(one)): one for one in (*read_conditions(run), *rows)}
        write_atomically(run / "conditions.csv", as_csv([found[key] for key in sorted(found)]))


def unmeasured(run: Path, conditions: Collection[Condition]) -> list[int]:
    """The finished levels that were not measured under all of these conditions.

    Raises:
      UsageError: see `read_conditions`.
    """
    found = {(one["level"], condition_of(one)) for one in read_conditions(run)}
    return [n for n in stored_levels(run) if any((n, one) not in found for one in conditions)]


@refusing_damaged()
def ticket_digest(run: Path, level: int) -> str:
    """A digest of the network of a level.

    Raises:
      UsageError: the ticket is damaged.
    """
    return str(read_header(level_path(run, level))["sha256"]["trained"])[:10]


def _parsed(cells: Mapping[str, str]) -> Row:
    """A row, from the texts of its cells."""
    names = ("level", "ticket", *Condition._fields)
    condition = Condition(cells["shift"], int(cells["severity"]), cells["unseen"])
    metrics = {n: float(cell) for n, cell in cells.items() if n not in names and cell}
    missing = {*(OF_UNSEEN if condition.unseen else OF_CORRUPTED)} - metrics.keys()
    if missing:
        raise ValueError(f"a row lacks {min(missing)}")
    return condition_row(int(cells["level"]), cells["ticket"], condition, metrics)
