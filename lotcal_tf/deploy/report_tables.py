"""A verdict to read: its tables as rows of text, the first one the heads, and as one text.

All take what `Verdict.as_dict` gives, so that `verdict.json` and a model card can be shown too.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from lotcal_tf import tables
from lotcal_tf.deploy.sparsity_report import DENSE
from lotcal_tf.lottery.progress import percent

# Of their columns these are no figures.
LAYER_WORDS = ("dense", "compact", "zeros", "stored", "executed", "why not faster")
FILE_WORDS = ("encoding",)


def by_file(layers: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """The rows of layers of each file."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in layers:
        found.setdefault(row["file"], []).append(row)
    return found


def layer_cells(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """One file's table of layers."""
    head = ["layer", "dense", "compact", "zeros", "stored", "executed", "why not faster"]
    return [
        head,
        *(
            [
                row["layer"],
                "×".join(map(str, row["dense_shape"])),
                "×".join(map(str, row["compact_shape"])),
                percent(row["zeros"] / row["weights"]),
                row["stored"],
                row["executed"],
                row["why"],
            ]
            for row in rows
        ),
    ]


def file_cells(files: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The table of files.

    A column of median and 99th percentile for each number of threads; size and speed as multiples
    of the dense network's, where that is among them.
    """
    counts = list(dict.fromkeys(threads for row in files for threads in row["latency"]))
    dense: Mapping[str, Any] = next((row for row in files if row["file"] == DENSE), {})
    rows = [["file", "encoding", "bytes", "smaller", "gzipped", "sparse-encoded"]]
    for n in counts:
        rows[0] += [f"µs, {n} thread{'s' * (n != '1')} (p99)", "faster"]
    for row in files:
        sparse = row["sparse_bytes"]
        cells = [row["file"], row["encoding"], f"{row['bytes']:,}"]
        cells.append(_times(dense.get("bytes"), row["bytes"]))
        cells += [f"{row['gzipped']:,}", "–" if sparse is None else f"{sparse:,}"]
        for n in counts:
            time = row["latency"].get(n)
            whole = dense.get("latency", {}).get(n)
            cells.append(f"{time['median_us']:.1f} ({time['p99_us']:.1f})" if time else "–")
            cells.append(_times(whole and whole["median_us"], time and time["median_us"]))
        rows.append(cells)
    return rows


def _times(dense: float | None, this: float | None) -> str:
    return f"{dense / this:.2f} ×" if dense and this else "–"


def verdict_text(whole: Mapping[str, Any]) -> str:
    """What `Verdict.as_dict` gives, as text to read."""
    layers = [
        f"{file}\n{tables.plain(layer_cells(rows), LAYER_WORDS)}"
        for file, rows in by_file(whole["layers"]).items()
    ]
    files = tables.plain(file_cells(whole["files"]), FILE_WORDS)
    return "\n\n".join([*layers, f"latency of one example on {whole['machine']}\n{files}"])
