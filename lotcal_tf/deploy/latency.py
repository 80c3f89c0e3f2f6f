"""The latency of LiteRT for one example: files take turns, so that other load on the machine affects all."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lotcal_tf.errors import LotcalError
from lotcal_tf.formats.tflite import TFLiteRunner

# The length of a turn in seconds; its first run warms the caches and is not counted.
_TURN = 0.02


@dataclass(frozen=True)
class Latency:
    """The latency of one example.

    Attributes:
      median_us: the median, in microseconds.
      p99_us: the 99th percentile (linear interpolation), in microseconds.
      runs: the number of runs.
    """

    median_us: float
    p99_us: float
    runs: int


def measure(
    files: Mapping[str, Path],
    example: Any,
    *,
    threads: Sequence[int] = (1, 2),
    seconds: float = 1.0,
) -> dict[str, dict[int, Latency]]:
    """Times `.tflite` files on a batch of one example, in rounds in which every file has a turn.

    Args:
      files: by name.
      example: inputs `(1, …)` that every file takes, see `lotcal_tf.inputs`.
      threads: numbers of threads, measured one after another.
      seconds: how long each file is timed at each number of threads; at least one turn.

    Returns:
      The latencies by name and number of threads.

    Raises:
      LotcalError: LiteRT cannot load or run a file.
    """
    found: dict[str, dict[int, Latency]] = {name: {} for name in files}
    for count in threads:
        runs = {name: ready(name, path, count, example) for name, path in files.items()}
        times: dict[str, list[int]] = {name: [] for name in files}
        for _ in range(max(1, round(seconds / _TURN))):
            for name, run in runs.items():
                times[name] += _turn(run)
        for name, values in times.items():
            found[name][count] = _summary(values)
    return found


def ready(name: str, path: Path, threads: int, example: Any) -> Callable[[], None]:
    """A function that runs the file once, on the example."""
    try:
        return TFLiteRunner(path, threads).prepared(example)
    except (ValueError, RuntimeError) as error:
        raise LotcalError(f"{name}: LiteRT cannot run {path}: {str(error).strip()}") from error


def _turn(run: Callable[[], None]) -> list[int]:
    """The times of the runs in one turn, in nanoseconds."""
    run()
    times: list[int] = []
    before = begin = time.perf_counter_ns()
    while not times or before - begin < _TURN * 1e9:
        run()
        now = time.perf_counter_ns()
        times.append(now - before)
        before = now
    return times


def _summary(nanoseconds: Sequence[int]) -> Latency:
    median, high = np.percentile(nanoseconds, [50, 99]) / 1000
    return Latency(float(median), float(high), len(nanoseconds))
