"""Runs the train command over a grid: every combination of some flags' values, a chain each.

python tools/grid.py --over=model=lenet_50_20,lenet_100_20 --over=seed=0,1,2 --dataset=mixture --out=DIR

Other flags go to every chain. A chain is called after its values; what is finished is not run again.
"""

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path

from chains import Chain, run_all


def grid(over: Sequence[str], flags: Sequence[str]) -> list[Chain]:
    """The chains of a grid, the last flag's values going fastest.

    Args:
      over: `flag=value,value,…` each.
      flags: of every chain.

    Raises:
      SystemExit: one of `over` names no flag or no value.
    """
    axes = []
    for text in over:
        name, _, values = text.partition("=")
        if not name or not values:
            raise SystemExit(f"--over={text}: write --over=flag=value,value")
        axes.append([f"{name}={value}" for value in values.split(",")])
    return [
        Chain("-".join(point).replace("=", "_"), [*flags, *(f"--{flag}" for flag in point)])
        for point in itertools.product(*axes)
    ]


def main() -> None:
    """Runs the chains and prints their directories."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--over", action="append", required=True, help="flag=value,value")
    parser.add_argument("--out", type=Path, required=True)
    given, flags = parser.parse_known_args()
    for directory in run_all(grid(given.over, flags), given.out):
        print(directory)


if __name__ == "__main__":
    main()
