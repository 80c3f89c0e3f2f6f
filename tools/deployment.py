"""Prints a table of the exports of a run: size, latency, accuracy and ECE of each file.

python tools/deployment.py RUN/export_level_*
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lotcal_tf.tables import markdown

HEAD = (
    "kept", "file", "encoding", "bytes", "smaller", "gzipped", "µs, 1 thread", "faster",
    "µs, 2 threads", "accuracy, ticket → file", "ECE, ticket → file",
)  # fmt: skip


def rows(directory: Path) -> list[list[str]]:
    """The rows of one export: first the dense network, then each file."""
    card = _json(directory / "model_card.json")
    sizes = {row["file"]: row for row in card["sparsity_report"]["files"]}
    parity = {row["file"]: row for row in card["parity"]["files"].values()}
    dense = next(iter(sizes.values()))
    kept = f"{100 * card['record']['density']:.1f} %"
    found = []
    for name, row in sizes.items():
        if name == "masked network":
            continue
        compared = parity.get(name)
        found.append(
            [
                "100 %" if name == dense["file"] else kept,
                name,
                row["encoding"],
                f"{row['bytes']:,}",
                f"{dense['bytes'] / row['bytes']:.1f} ×",
                f"{row['gzipped']:,}",
                *_times(row, dense),
                _pair(compared, "accuracy", 100, 2) if compared else "–",
                _pair(compared, "ece", 1, 4) if compared else "–",
            ]
        )
    return found


def table(directories: Sequence[Path]) -> str:
    """The rows of several exports as a Markdown table."""
    found = [row for directory in directories for row in rows(directory)]
    return markdown([HEAD, *found], words=HEAD[:3])


def _times(row: dict[str, Any], dense: dict[str, Any]) -> list[str]:
    if not row["latency"]:
        return ["–", "–", "–"]
    one, two = (row["latency"][threads]["median_us"] for threads in ("1", "2"))
    return [f"{one:.1f}", f"{dense['latency']['1']['median_us'] / one:.2f} ×", f"{two:.1f}"]


def _pair(compared: dict[str, Any], metric: str, scale: float, digits: int) -> str:
    ticket, file = (scale * compared[side][metric] for side in ("ticket", "measured"))
    return f"{ticket:.{digits}f} → {file:.{digits}f}"


def _json(path: Path) -> Any:
    return json.loads(path.read_text())


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("exports", nargs="+", type=Path)
    print(table(parser.parse_args().exports))


if __name__ == "__main__":
    main()
