"""Compares strategies over all levels: draws metrics against the share of weights kept, or prints a table.

python tools/figures.py RUN… --png FILE     draws the figure
python tools/figures.py RUN…                prints a table of levels as Markdown

Runs with the same strategy must differ in their seed alone. Metrics are those of the test split before
temperature scaling. Lines and table entries are means over seeds; bands and ± are standard deviations.
"""

import argparse
import json
import statistics
from pathlib import Path

from matplotlib.figure import Figure
from train_commands import Row, cell, read

from lotcal_tf.tables import markdown

METRICS = {"accuracy": "test accuracy (%)", "ece": "ECE", "nll": "NLL"}
# Colours and line styles differ in lightness too, so that they can be distinguished in grey.
STYLES = (("#222222", "--"), ("#1b6ca8", "-"), ("#e08a1e", "-."), ("#3f9e6e", ":"))
TICKS = (100, 50, 20, 10, 5, 2, 1)


def by_strategy(runs: list[Path]) -> dict[str, list[list[Row]]]:
    """The levels of each run, by its strategy; plain training comes first.

    Raises:
      SystemExit: runs have different densities.
    """
    found: dict[str, list[list[Row]]] = {}
    for run in runs:
        recorded = json.loads((run / "experiment.json").read_text())["experiment"]
        found.setdefault(recorded["calib"], []).append(read(run))
    densities = {tuple(row["density"] for row in rows) for own in found.values() for rows in own}
    if len(densities) > 1:
        raise SystemExit("the runs have different densities: choose runs of one recipe")
    return dict(sorted(found.items(), key=lambda item: item[0] != "none"))


def column(rows: list[list[Row]], level: int, metric: str) -> list[float]:
    """The values of a metric at a level, one per seed."""
    return [float(own[level][f"test_{metric}"]) for own in rows]


def table(found: dict[str, list[list[Row]]]) -> str:
    """Every level of every strategy as a Markdown table; one row per level."""
    head = ["level", "kept"]
    head += [f"{calib}: {name}" for name in METRICS for calib in found]
    lines = [head]
    for level, row in enumerate(next(iter(found.values()))[0]):
        values = [
            cell(name, column(rows, level, name)) for name in METRICS for rows in found.values()
        ]
        lines.append([str(level), f"{float(row['density']):.1%}", *values])
    return markdown(lines)


def draw(found: dict[str, list[list[Row]]], path: Path) -> None:
    """Draws a panel per metric, with a line and a band per strategy."""
    figure = Figure(figsize=(10.5, 3.5), layout="constrained")
    panels = figure.subplots(1, len(METRICS))
    for axes, (metric, title) in zip(panels, METRICS.items(), strict=True):
        factor = 100 if metric == "accuracy" else 1
        for (calib, rows), (color, style) in zip(found.items(), STYLES, strict=False):
            kept = [100 * float(row["density"]) for row in rows[0]]
            values = [
                [factor * value for value in column(rows, level, metric)]
                for level in range(len(kept))
            ]
            means = [statistics.mean(own) for own in values]
            spread = [statistics.stdev(own) if len(own) > 1 else 0.0 for own in values]
            low = [mean - own for mean, own in zip(means, spread, strict=True)]
            high = [mean + own for mean, own in zip(means, spread, strict=True)]
            axes.fill_between(kept, low, high, color=color, alpha=0.18, linewidth=0)
            axes.plot(kept, means, style, color=color, linewidth=1.8, label=calib)
        axes.set(xscale="log", title=title, xlabel="weights kept (%)")
        axes.invert_xaxis()
        shown = [tick for tick in TICKS if tick >= kept[-1]]
        axes.set_xticks(shown, [str(tick) for tick in shown])
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.3)
    panels[0].legend(title="--calib", frameon=False)
    figure.savefig(path, dpi=130)


def main() -> None:
    """Draws the figure or prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument(
        "--png", type=Path, help="draw a figure to this file; default: print the table"
    )
    arguments = parser.parse_args()
    found = by_strategy(arguments.runs)
    if arguments.png:
        draw(found, arguments.png)
    else:
        print(table(found))


if __name__ == "__main__":
    main()
