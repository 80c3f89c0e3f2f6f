"""A worker process: does the jobs that come through a pipe, one after another, until it is closed.

    python -m lotcal_tf.sweeps.worker DESCRIPTOR DIRECTORY

It keeps TensorFlow loaded, data in memory and compiled programs, so that a further run of the same kind
begins at once.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cloudpickle

from lotcal_tf.errors import UsageError, first_line


def pickled(work: Callable[..., Any]) -> bytes:
    """What a worker does with a job, as it is sent to its process.

    Raises:
      UsageError: it holds something that cannot be sent.
    """
    try:
        return bytes(cloudpickle.dumps(work))
    except Exception as error:
        # Objects of any library may be in it, each with its own errors.
        raise UsageError(
            f"model or data cannot be sent to a worker process ({first_line(error)}): make models and pipelines inside "
            "the functions that return them"
        ) from error


def variables(threads: int) -> dict[str, str]:
    """The environment variables of a worker whose TensorFlow has some threads; it finds the same modules."""
    path = os.pathsep.join(place or str(Path.cwd()) for place in sys.path)
    return {"TF_NUM_INTRAOP_THREADS": str(threads), "PYTHONPATH": path}


def serve(pipe: Connection, logs: Path) -> None:
    """Does jobs.

    Args:
      pipe: gives first the pickled function that does a job, then jobs, then None; takes their results.
      logs: the directory for what jobs print, each in NAME.log.
    """
    # Signals of a terminal reach all its processes; the sweep alone decides, and sends SIGTERM.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    with contextlib.suppress(EOFError, OSError):  # The sweep has ended.
        work = cloudpickle.loads(pipe.recv_bytes())
        while (job := pipe.recv()) is not None:
            with output_in(logs / f"{job.name}.log"):
                result = work(job)
            pipe.send(result)


def _end_with(parent: int) -> None:
    """Stops this process, after a checkpoint, when the process of the sweep ends."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def output_in(path: Path) -> Iterator[None]:
    """Appends everything that this process prints to a file, as far as there is room for it."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            for number in (1, 2):
                os.dup2(file.fileno(), number)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])), Path(sys.argv[2]))
