"""The tables of a run, `metrics.csv` and `history.csv`. They are derived from the tickets. No TensorFlow here."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lotcal_tf.config.run_directory import level_path, stored_levels
from lotcal_tf.errors import UsageError
from lotcal_tf.lottery.ticket_files import read_header, refusing_damaged


def as_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows as CSV with a header; empty if there are no rows."""
    text = io.StringIO()
    writer = csv.DictWriter(
        text, list(dict.fromkeys(c for row in rows for c in row)), lineterminator="\n"
    )
    if rows:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def read_metrics(run: Path) -> bytes:
    """The content of `metrics.csv`, verified against the tickets.

    A row that a killed process could not write is added from its ticket. Runs of older versions,
    and tables without tickets, are not verified.

    Raises:
      OSError: the table cannot be read.
      UsageError: the table does not match the tickets, or a ticket is damaged.
    """
    path = run / "metrics.csv"
    content = path.read_bytes()
    with refusing_damaged():
        headers = [read_header(level_path(run, level)) for level in stored_levels(run)]
    if not headers or not all("run" in header for header in headers):
        return content
    records = [header["record"] for header in headers]
    whole = as_csv(records)
    one_short = (as_csv([*records[:n], *records[n + 1 :]]) for n in range(len(records)))
    if content != whole and content not in one_short:
        raise UsageError(
            f"{path} does not match the tickets of its run: the command that started the run writes "
            "it again"
        )
    return whole


def selected_level(records: Sequence[Mapping[str, Any]]) -> int:
    """The level of the selected ticket, chosen by validation data only.

    This is the sparsest level from 1 on whose validation NLL is at most one standard error above the
    lowest; the standard error is that of the level with the lowest NLL. If there is only level 0,
    it is selected.
    """
    pruned = [record for record in records if record["level"] >= 1]
    if not pruned:
        return 0
    lowest = min(pruned, key=lambda record: record["val_nll"])
    limit = lowest["val_nll"] + lowest["val_nll_se"]
    return max(int(record["level"]) for record in pruned if record["val_nll"] <= limit)
