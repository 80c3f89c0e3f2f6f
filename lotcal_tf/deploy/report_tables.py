"""The sparsity report as tables: rows of cells, the first row the column names.

All functions take the report as JSON, as `SparsityReport.as_dict` gives it and files store it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from lotcal_tf import tables
from lotcal_tf.config.registry import LITERT
from lotcal_tf.deploy.sparsity_report import DENSE

# The columns that hold text.
LAYER_WORDS = ("dense", "compact", "zeros", "stored", "executed", "why not faster")
FILE_WORDS = ("encoding",)


def by_file(layers: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """The layer rows of each file."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in layers:
        found.setdefault(row["file"], []).append(row)
    return found


def layer_cells(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The table of kernels of one file; the rows of a layer with several kernels name the kernel."""
    layers = [row["layer"] for row in rows]
    head = ["layer", "dense", "compact", "zeros", "stored", "executed", "why not faster"]
    return [
        head,
        *(
            [
                row["layer"]
                if layers.count(row["layer"]) == 1
                else f"{row['layer']}/{row['weight']}",
                "×".join(map(str, row["dense_shape"])),
                "×".join(map(str, row["compact_shape"])),
                tables.percent(row["zeros"] / row["weights"]),
                row["stored"],
                row["executed"],
                row["why"],
            ]
            for row in rows
        ),
    ]


def file_cells(files: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The table of files.

    Each number of threads has a column with median and 99th percentile. Sizes and latencies are
    also given relative to those of the dense network, if that is in the table: sizes of files that
    LiteRT runs, as it does the dense network's.
    """
    counts = list(dict.fromkeys(threads for row in files for threads in row["latency"]))
    dense: Mapping[str, Any] = next((row for row in files if row["file"] == DENSE), {})
    rows = [["file", "encoding", "bytes", "smaller", "gzipped"]]
    for n in counts:
        rows[0] += [f"µs, {n} thread{'s' * (n != '1')} (p99)", "faster"]
    for row in files:
        cells = [row["file"], row["encoding"], f"{row['bytes']:,}"]
        alike = row.get("runtime") == LITERT  # older reports do not name it
        cells.append(_ratio(dense.get("bytes") if alike else None, row["bytes"]))
        cells.append(f"{row['gzipped']:,}")
        for n in counts:
            time = row["latency"].get(n)
            reference = dense.get("latency", {}).get(n)
            cells.append(f"{time['median_us']:.1f} ({time['p99_us']:.1f})" if time else "–")
            cells.append(_ratio(reference and reference["median_us"], time and time["median_us"]))
        rows.append(cells)
    return rows


def _ratio(dense: float | None, this: float | None) -> str:
    return f"{dense / this:.2f} ×" if dense and this else "–"


def report_text(report: Mapping[str, Any]) -> str:
    """All tables of a report as text for a terminal."""
    layers = [
        f"{file}\n{tables.plain(layer_cells(rows), LAYER_WORDS)}"
        for file, rows in by_file(report["layers"]).items()
    ]
    files = tables.plain(file_cells(report["files"]), FILE_WORDS)
    timed = any(row["latency"] for row in report["files"])
    title = f"latency of one example on {report['machine']}" if timed else "files"
    return "\n\n".join([*layers, f"{title}\n{files}"])
