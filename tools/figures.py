"""Draws accuracy and calibration error of a run against the share of weights kept, or prints a table.

python tools/figures.py RUN --png docs/results/mnist_chain.png     draws the figure
python tools/figures.py RUN                                        prints the table as Markdown
"""

import argparse
import csv
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

Rows = list[dict[str, str]]


def read(run: Path) -> Rows:
    """Reads `metrics.csv` of a run, one row per level."""
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def markdown(rows: Rows) -> str:
    """The test metrics of each level as a Markdown table."""
    lines = [
        f"| level | kept | weights | accuracy | ECE ({rows[0]['ece_bins']} bins) | NLL | Brier |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        lines.append(
            f"| {row['level']} | {float(row['density']):.1%} | {int(row['weights']):,} "
            f"| {float(row['test_accuracy']):.2%} | {float(row['test_ece']):.4f} "
            f"| {float(row['test_nll']):.4f} | {float(row['test_brier']):.4f} |"
        )
    return "\n".join(lines)


def _panel(axes: Axes, kept: list[float], values: list[float], title: str, color: str) -> None:
    axes.plot(kept, values, "o-", color=color, markersize=4)
    axes.axhline(values[0], color="0.6", linewidth=1, linestyle="--")
    axes.annotate("dense", (kept[-1], values[0]), fontsize=8, color="0.4", va="bottom", ha="right")
    axes.set(xscale="log", title=title, xlabel="weights kept (%)")
    axes.invert_xaxis()
    ticks = [100, 50, 20, 10, 5, 2, 1]
    shown = [tick for tick in ticks if tick >= kept[-1]]
    axes.set_xticks(shown, [str(tick) for tick in shown])
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)


def draw(rows: Rows, path: Path) -> None:
    """Draws accuracy and ECE in two panels."""
    kept = [100 * float(row["density"]) for row in rows]
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    accuracy = [100 * float(row["test_accuracy"]) for row in rows]
    _panel(left, kept, accuracy, "test accuracy (%)", "#1b6ca8")
    ece = [float(row["test_ece"]) for row in rows]
    _panel(right, kept, ece, "expected calibration error", "#c0532b")
    figure.savefig(path, dpi=130)


def main() -> None:
    """Draws the figure or prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument(
        "--png", type=Path, help="draw a figure to this file instead of printing the table"
    )
    arguments = parser.parse_args()
    rows = read(arguments.run)
    if arguments.png:
        draw(rows, arguments.png)
    else:
        print(markdown(rows))


if __name__ == "__main__":
    main()
