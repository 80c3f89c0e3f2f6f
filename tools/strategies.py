"""Compares the built-in strategies, or their hyperparameters, over many pruning runs.

    python tools/strategies.py search --dataset=mnist --data_dir=DIR --out=runs/search
    python tools/strategies.py table --dataset=mnist --data_dir=DIR --out=runs/table --seeds=3

`search` tries the settings of `GRID` and ranks them by validation data only: the lowest mean
validation NLL over the levels between 21 % and 3.6 % kept, among settings whose mean validation
accuracy there is at most 0.2 points below that of `none`. `table` runs every strategy with its default
hyperparameters and prints test metrics, mean ± standard deviation over seeds. Each pruning run is one
process on one core. Finished runs are not trained again, so an interrupted call can be continued.
"""

import argparse
import itertools
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from train_commands import Row, TrainCommand, cell, read, run_all

from lotcal_tf.tables import markdown

Settings = Mapping[str, Any]

# `slimming` is missing: it needs convolutions, which LeNet-300-100 does not have.
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
METRICS = ("accuracy", "ece", "nll", "brier", "ece_scaled", "nll_scaled")


def candidates() -> list[tuple[str, Settings]]:
    """All strategies of the grid with all combinations of their settings."""
    return [
        (name, dict(zip(grid, values, strict=True)))
        for name, grid in GRID.items()
        for values in itertools.product(*grid.values())
    ]


def label(calib: str, settings: Settings) -> str:
    """A strategy and its settings as text, e.g. `lwcc calib_weight=0.1`."""
    return " ".join([calib, *(f"{name}={value}" for name, value in settings.items())])


def train_command(calib: str, settings: Settings, common: Sequence[str]) -> TrainCommand:
    """The train command of a strategy with its settings."""
    flags = [f"--{name}={value}" for name, value in settings.items()]
    name = label(calib, settings).replace(" ", "-").replace("=", "_")
    return TrainCommand(name, [f"--calib={calib}", *flags, *common])


def mean(levels: Sequence[Row], column: str) -> float:
    """The mean of a column over levels."""
    return statistics.mean(float(row[column]) for row in levels)


def search(trials: Sequence[tuple[str, Settings]], runs: Sequence[Path]) -> str:
    """The ranking of the settings as Markdown; the chosen settings of each strategy are marked."""
    levels: dict[tuple[str, str], list[Row]] = {}
    for (calib, settings), run in zip(trials, runs, strict=True):
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
    """The level whose density is nearest to the given one.

    Raises:
      SystemExit: no level is within 10 % of the density.
    """
    nearest = min(levels, key=lambda r: abs(float(r["density"]) - density))
    if abs(float(nearest["density"]) - density) > 0.1 * density:
        raise SystemExit(f"no level near {density:.1%} kept: choose more --levels")
    return nearest


def table(trials: Sequence[tuple[str, Settings]], runs: Sequence[Path]) -> str:
    """Test metrics of each strategy at the densities of `KEPT`, as one Markdown table per metric."""
    parts = []
    for metric in METRICS:
        lines = [[metric, *KEPT]]
        for calib in dict.fromkeys(calib for calib, _ in trials):
            own = [read(run) for (c, _), run in zip(trials, runs, strict=True) if c == calib]
            cells = []
            for density in KEPT.values():
                values = [float(at(density, rows)[f"test_{metric}"]) for rows in own]
                cells.append(cell(metric, values))
            lines.append([calib, *cells])
        parts.append(markdown(lines))
    return "\n\n".join(parts)


def main() -> None:
    """Trains all settings and prints the tables."""
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
    trials: list[tuple[str, Settings]]
    trials = [(c, {**s, "seed": seed}) for seed in range(given.seeds) for c, s in base]
    runs = run_all([train_command(c, s, common) for c, s in trials], given.out)
    print((search if given.what == "search" else table)(trials, runs))


if __name__ == "__main__":
    main()
