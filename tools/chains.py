"""Runs many chains of the train command, one process on one core, and reads what they measured."""

import csv
import dataclasses
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

Row = dict[str, str]


@dataclasses.dataclass(frozen=True)
class Chain:
    """One call of the train command.

    Attributes:
      name: what its run directory and its log are called.
      flags: without `--out`.
    """

    name: str
    flags: Sequence[str]


def run_all(chains: Sequence[Chain], out: Path) -> list[Path]:
    """Runs the chains, as many at once as there are cores; gives their run directories.

    A chain that is finished is not run again, so an interrupted call continues.

    Raises:
      SystemExit: a chain failed; its log is named.
    """
    cores: Queue[int] = Queue()
    for core in sorted(os.sched_getaffinity(0)):
        cores.put(core)
    out.mkdir(parents=True, exist_ok=True)

    def run(chain: Chain) -> Path:
        directory = out / chain.name
        call = [sys.executable, "-m", "lotcal_tf.train", *chain.flags]
        core = cores.get()
        try:
            log = directory.with_suffix(directory.suffix + ".log")
            with log.open("w") as file:
                code = subprocess.call(
                    [*call, f"--out={directory}"],
                    stdout=file,
                    stderr=file,
                    preexec_fn=lambda: os.sched_setaffinity(0, {core}),
                )
        finally:
            cores.put(core)
        if code:
            raise SystemExit(f"{' '.join(call)} failed, see {log}")
        print(f"done: {chain.name}", file=sys.stderr, flush=True)
        return directory

    with ThreadPoolExecutor(cores.qsize()) as pool:
        return list(pool.map(run, chains))


def read(directory: Path) -> list[Row]:
    """The levels of a run."""
    with (directory / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def cell(figure: str, values: Sequence[float]) -> str:
    """Mean ± standard deviation, accuracy in per cent; a single value has no spread."""
    scale, digits = (100, 2) if figure == "accuracy" else (1, 4)
    spread = f" ± {scale * statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{scale * statistics.mean(values):.{digits}f}{spread}"
