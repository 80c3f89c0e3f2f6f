"""How long LiteRT takes for one example: several files measured in turns, so that all meet alike what else goes on."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lotcal_tf.errors import LotcalError

# A file's turn lasts about so long: caches are warm after its first run, which is not counted.
_TURN = 0.02


@dataclass(frozen=True)
class Latency:
    """How long one example took.

    Attributes:
      median_us: the median, in microseconds.
      p99_us: the 99th percentile (linear interpolation), in microseconds.
      runs: how many were timed.
    """

    median_us: float
    p99_us: float
    runs: int


def measure(
    files: Mapping[str, Path], *, threads: Sequence[int] = (1, 2), seconds: float = 1.0
) -> dict[str, dict[int, Latency]]:
    """Times `.tflite` files on a batch of one example, in rounds in which each file has its turn.

    Args:
      files: by the names that the result takes over.
      threads: numbers of threads, each measured by itself.
      seconds: how long each file is timed at each number of threads; at least one run a round.

    Returns:
      By file, by number of threads.

    Raises:
      LotcalError: LiteRT cannot load or run a file.
    """
    found: dict[str, dict[int, Latency]] = {name: {} for name in files}
    for count in threads:
        runs = {name: _ready(name, path, count) for name, path in files.items()}
        times: dict[str, list[int]] = {name: [] for name in files}
        for _ in range(max(1, round(seconds / _TURN))):
            for name, run in runs.items():
                times[name] += _turn(run)
        for name, values in times.items():
            found[name][count] = _summary(values)
    return found


def _ready(name: str, path: Path, threads: int) -> Callable[[], None]:
    """A function that runs the file once, on one made-up example."""
    from ai_edge_litert.interpreter import Interpreter

    try:
        interpreter = Interpreter(str(path), num_threads=threads)
        for given in interpreter.get_input_details():
            interpreter.resize_tensor_input(given["index"], [1, *given["shape"][1:]])
        interpreter.allocate_tensors()
        for given in interpreter.get_input_details():
            interpreter.set_tensor(given["index"], _example(given))
        interpreter.invoke()
    except (ValueError, RuntimeError) as error:
        raise LotcalError(f"{name}: LiteRT cannot run {path}: {str(error).strip()}") from error
    return interpreter.invoke


def _example(tensor: Mapping[str, Any]) -> Any:
    """Inputs for a tensor; no kernel's time hangs on ordinary values."""
    uniform = np.random.default_rng(0).random(tuple(tensor["shape"]))
    scale = 1 if np.issubdtype(tensor["dtype"], np.floating) else 100
    return (uniform * scale).astype(tensor["dtype"])


def _turn(run: Callable[[], None]) -> list[int]:
    """Times of the runs of one turn, in nanoseconds, after one that is not counted."""
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
