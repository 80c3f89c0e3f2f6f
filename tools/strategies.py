"""Compares the strategies of the catalog, or settings of one, by chains of the train command.

    python tools/strategies.py search --dataset=mnist --data_dir=DIR --out=runs/search
    python tools/strategies.py table --dataset=mnist --data_dir=DIR --out=runs/table --seeds=3

`search` tries the settings of `GRID` and ranks them by validation data alone: the lowest mean
validation NLL of the levels between 21 % and 3.6 % kept, among settings whose mean validation
accuracy there is within 0.2 points of `none`'s. `table` runs the same strategies with their default
hyperparameters and prints test figures, mean ± standard deviation over the seeds. A chain is one process
on one core, as many beside each other as there are cores; a chain that is finished is not run
again, so an interrupted call continues.
"""

import argparse
import itertools
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from chains import Chain, Row, cell, read, run_all

from lotcal_tf.tables import markdown

Settings = Mapping[str, Any]

# `slimming` is not among them: it trains convolutional networks only, and for speed.
GRID: Mapping[str, Mapping[str, Sequence[Any]]] = {
    "none": {},
    "vwcc": {"dropout_rate": [0.05, 0.1, 0.2]},
    "mixup": {"mixup_a": [0.02, 0.05, 0.1, 0.2]},
    "mda": {"calib_weight": [0.01, 0.1, 1.0]},
    "lwcc": {"calib_weight": [0.03, 0.1, 0.3, 1.0]},
    "lwcc_si": {"calib_weight": [0.1, 0.3], "dropout_rate": [0.1, 0.2]},
    "nba": {"calib_weight": [0.03, 0.1, 0.3, 1.0]},
}
KEPT = {"100 %": 1.0, "21 %": 0.21, "13.5 %": 0.135, "3.6 %": 0.036}
FIGURES = ("accuracy", "ece", "nll", "brier", "ece_scaled", "nll_scaled")


def candidates() -> list[tuple[str, Settings]]:
    """Every strategy of the grid with every combination of its settings."""
    return [
        (name, dict(zip(grid, values, strict=True)))
        for name, grid in GRID.items()
        for values in itertools.product(*grid.values())
    ]


def label(calib: str, settings: Settings) -> str:
    """`lwcc calib_weight=0.1`."""
    return " ".join([calib, *(f"{name}={value}" for name, value in settings.items())])


def chain(calib: str, settings: Settings, common: Sequence[str]) -> Chain:
    """The chain of a strategy with its settings."""
    flags = [f"--{name}={value}" for name, value in settings.items()]
    name = label(calib, settings).replace(" ", "-").replace("=", "_")
    return Chain(name, [f"--calib={calib}", *flags, *common])


def mean(levels: Sequence[Row], column: str) -> float:
    """The mean of a column."""
    return statistics.mean(float(row[column]) for row in levels)


def search(chains: Sequence[tuple[str, Settings]], runs: Sequence[Path]) -> str:
    """The ranking of the settings, as Markdown; the chosen one of each strategy is marked."""
    levels: dict[tuple[str, str], list[Row]] = {}
    for (calib, settings), run in zip(chains, runs, strict=True):
        tried = {name: value for name, value in settings.items() if name != "seed"}
        own = levels.setdefault((calib, label(calib, tried)), [])
        own += [r for r in read(run) if 0.035 <= float(r["density"]) <= 0.215]
    rows = [(*key, mean(own, "val_nll"), mean(own, "val_accuracy")) for key, own in levels.items()]
    needed = next(row[3] for row in rows if row[0] == "none") - 0.002
    lines = [["strategy and settings", "validation NLL", "validation accuracy", ""]]
    for calib, text, nll, accuracy in rows:
        able = [row for row in rows if row[0] == calib and row[3] >= needed]
        best = min((row[2] for row in able), default=None)
        mark = "chosen" if nll == best else ("" if accuracy >= needed else "accuracy too low")
        lines.append([text, f"{nll:.4f}", f"{accuracy:.2%}", mark])
    return markdown(lines, words=[""])


def at(density: float, levels: Sequence[Row]) -> Row:
    """The level of that density, to a tenth of it.

    Raises:
      SystemExit: there is none.
    """
    nearest = min(levels, key=lambda r: abs(float(r["density"]) - density))
    if abs(float(nearest["density"]) - density) > 0.1 * density:
        raise SystemExit(f"no level near {density:.1%} kept: take more --levels")
    return nearest


def table(chains: Sequence[tuple[str, Settings]], runs: Sequence[Path]) -> str:
    """Test figures of each strategy at the densities of `KEPT`, as Markdown tables."""
    parts = []
    for figure in FIGURES:
        lines = [[figure, *KEPT]]
        for calib in dict.fromkeys(calib for calib, _ in chains):
            own = [read(run) for (c, _), run in zip(chains, runs, strict=True) if c == calib]
            cells = []
            for density in KEPT.values():
                values = [float(at(density, rows)[f"test_{figure}"]) for rows in own]
                cells.append(cell(figure, values))
            lines.append([calib, *cells])
        parts.append(markdown(lines))
    return "\n\n".join(parts)


def main() -> None:
    """Runs the chains and prints the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("search", "table"))
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--data_dir")
    parser.add_argument("--levels", type=int, default=15)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--lr", type=float, default=1.2e-3)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    common = [f"--{name}={getattr(given, name)}" for name in ("dataset", "levels", "epochs", "lr")]
    if given.data_dir:
        common.append(f"--data_dir={given.data_dir}")
    base = candidates() if given.what == "search" else [(name, {}) for name in GRID]
    chains: list[tuple[str, Settings]]
    chains = [(c, {**s, "seed": seed}) for seed in range(given.seeds) for c, s in base]
    runs = run_all([chain(c, s, common) for c, s in chains], given.out)
    print((search if given.what == "search" else table)(chains, runs))


if __name__ == "__main__":
    main()
