"""Runs the train command over a grid, i.e. for every combination of the values of some flags.

python tools/grid.py --over=model=lenet_50_20,lenet_100_20 --over=seed=0,1,2 --dataset=mixture_linear --out=DIR

Other flags are passed to every command. Run directories are named after the values. Finished runs are
not trained again.
"""

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path

from train_commands import TrainCommand, run_all


def grid(over: Sequence[str], flags: Sequence[str]) -> list[TrainCommand]:
    """The commands of a grid; values of the last flag change fastest.

    Args:
      over: texts `flag=value,value,…`.
      flags: the flags of every command.

    Raises:
      SystemExit: a text in `over` has no flag or no value.
    """
    axes = []
    for text in over:
        name, _, values = text.partition("=")
        if not name or not values:
            raise SystemExit(f"--over={text}: write --over=flag=value,value")
        axes.append([f"{name}={value}" for value in values.split(",")])
    return [
        TrainCommand("-".join(point).replace("=", "_"), [*flags, *(f"--{flag}" for flag in point)])
        for point in itertools.product(*axes)
    ]


def main() -> None:
    """Runs the commands and prints their run directories."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--over",
        action="append",
        required=True,
        help="a flag and its values: flag=value,value",
    )
    parser.add_argument("--out", type=Path, required=True)
    given, flags = parser.parse_known_args()
    for directory in run_all(grid(given.over, flags), given.out):
        print(directory)


if __name__ == "__main__":
    main()
