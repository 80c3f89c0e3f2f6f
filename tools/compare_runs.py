"""Compares two run directories bit by bit: tickets, metrics, history and exported TFLite files.

    python tools/compare_runs.py runs/before runs/after

Times are ignored, and so are columns that only one run has; these are listed. The exit code is 0 if
the runs are identical, otherwise 1. Each difference is printed in one line.
"""

import argparse
import csv
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import safetensors.numpy

TIMES = {"seconds"}
TENSORS = ("masks", "rewind", "trained")


def differences(first: Path, second: Path) -> Iterator[str]:
    """Gives one line for each difference between two runs."""
    yield from _tables(first, second)
    levels = [{path.name for path in run.glob("tickets/level_*")} for run in (first, second)]
    for level in sorted(levels[0] ^ levels[1]):
        yield f"{level}: in one run only"
    for level in sorted(levels[0] & levels[1]):
        for name in TENSORS:
            pair = [run / "tickets" / level / f"{name}.safetensors" for run in (first, second)]
            yield from _tensors(f"{level}/{name}", *pair)
    files = {
        path.relative_to(run) for run in (first, second) for path in run.glob("export*/*.tflite")
    }
    for file in sorted(files):
        here, there = first / file, second / file
        if not (here.exists() and there.exists()):
            yield f"{file}: in one run only"
        elif here.read_bytes() != there.read_bytes():
            yield f"{file}: bytes differ"


def _tensors(place: str, first: Path, second: Path) -> Iterator[str]:
    here, there = (safetensors.numpy.load(path.read_bytes()) for path in (first, second))
    for name in sorted(here.keys() ^ there.keys()):
        yield f"{place}: {name} in one run only"
    for name in sorted(here.keys() & there.keys()):
        same = here[name].dtype == there[name].dtype and np.array_equal(
            np.frombuffer(here[name].tobytes(), np.uint8),
            np.frombuffer(there[name].tobytes(), np.uint8),
        )
        if not same:
            yield f"{place}: {name} differs"


def _tables(first: Path, second: Path) -> Iterator[str]:
    for name in ("metrics.csv", "history.csv"):
        here, there = ([*csv.DictReader((run / name).open())] for run in (first, second))
        if len(here) != len(there):
            yield f"{name}: {len(here)} and {len(there)} rows"
            continue
        columns = [set(rows[0]) if rows else set() for rows in (here, there)]
        for column in sorted(columns[0] ^ columns[1]):
            print(f"{name}: column {column} is in one run only and is ignored")
        for number, (a, b) in enumerate(zip(here, there, strict=True)):
            for column in sorted((columns[0] & columns[1]) - TIMES):
                if a[column] != b[column]:
                    yield f"{name}: row {number}, {column}: {a[column]} and {b[column]}"


def main() -> None:
    """Prints the differences and exits with code 1 if there are any."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    given = parser.parse_args()
    found = list(differences(given.first, given.second))
    print("\n".join(found) if found else "identical")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
