"""Runs several train commands in parallel, each on one processor core, and reads their metrics."""

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
class TrainCommand:
    """One call of the train command.

    Attributes:
      name: name of its run directory and of its log file.
      flags: its flags, without `--out`.
    """

    name: str
    flags: Sequence[str]


def run_all(commands: Sequence[TrainCommand], out: Path) -> list[Path]:
    """Runs commands, one per core at a time; finished runs are not trained again.

    Args:
      commands: the commands.
      out: directory for run directories and logs.

    Returns:
      The run directories, in the order of the commands.

    Raises:
      SystemExit: a command failed; the message names its log.
    """
    cores: Queue[int] = Queue()
    for core in sorted(os.sched_getaffinity(0)):
        cores.put(core)
    out.mkdir(parents=True, exist_ok=True)

    def run(command: TrainCommand) -> Path:
        directory = out / command.name
        call = [sys.executable, "-m", "lotcal_tf.train", *command.flags]
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
        print(f"finished: {command.name}", file=sys.stderr, flush=True)
        return directory

    with ThreadPoolExecutor(cores.qsize()) as pool:
        return list(pool.map(run, commands))


def read(directory: Path) -> list[Row]:
    """Reads `metrics.csv` of a run, one row per level."""
    with (directory / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def cell(metric: str, values: Sequence[float]) -> str:
    """Mean ± standard deviation of values (without the deviation for one value); accuracy in per cent."""
    scale, digits = (100, 2) if metric == "accuracy" else (1, 4)
    spread = f" ± {scale * statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{scale * statistics.mean(values):.{digits}f}{spread}"
