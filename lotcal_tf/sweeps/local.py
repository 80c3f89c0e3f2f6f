"""Runs jobs in worker processes of this machine, see `worker`.

TensorFlow sets its threads once per process, so a worker takes jobs of one number of threads only.
"""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lotcal_tf.config import registry
from lotcal_tf.config.process import cpus
from lotcal_tf.config.run_directory import recorded_threads
from lotcal_tf.sweeps.jobs import Job
from lotcal_tf.sweeps.worker import pickled, variables

Work = Callable[[Job], Any]


def default_workers() -> int:
    """One worker per CPU; one if there is a GPU, whose memory TensorFlow takes whole."""
    return 1 if Path("/dev/nvidia0").exists() else cpus()


def threads_of(job: Job, workers: int) -> int:
    """The number of threads of a job while others run beside it.

    It is the number that the job sets, or that its run began with. Otherwise it is one for a dense
    network, which gains little from more, and an equal share of the CPUs for any other.
    """
    experiment = job.experiment
    if experiment.threads is not None:
        return experiment.threads
    if recorded := recorded_threads(job.directory):
        return recorded
    return 1 if registry.is_dense(experiment.model) else max(1, cpus() // workers)


class Died(Exception):
    """A worker process ended while it was doing a job; the message says how."""


class Worker:
    """One worker process; it does one job at a time.

    Args:
      work: what it does with a job, pickled.
      threads: of TensorFlow.
      logs: the directory for what jobs print, each in NAME.log.

    Attributes:
      job: the job it is doing; None: it is idle.
      pipe: what becomes ready when the job ends, for `multiprocessing.connection.wait`.
    """

    def __init__(self, work: bytes, threads: int, logs: Path) -> None:
        self.threads = threads
        self.job: Job | None = None
        self.pipe, there = multiprocessing.Pipe()
        environment = {"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ, **variables(threads)}
        call = [sys.executable, "-m", "lotcal_tf.sweeps.worker", str(there.fileno()), str(logs)]
        self._process = subprocess.Popen(call, env=environment, pass_fds=[there.fileno()])
        there.close()
        with contextlib.suppress(OSError):  # It died at once: `result` says so.
            self.pipe.send_bytes(work)

    def begin(self, job: Job) -> None:
        """Starts a job."""
        self.job = job
        with contextlib.suppress(OSError):  # It died meanwhile: `result` says so.
            self.pipe.send(job)

    def result(self) -> Any:
        """The result of the job, which has ended.

        Raises:
          Died: the process ended.
        """
        self.job = None
        try:
            return self.pipe.recv()
        except (EOFError, OSError) as error:
            code = self._process.wait()
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            raise Died(f"its worker process ended with {how}") from error

    def stop(self) -> None:
        """Asks a job to stop after a checkpoint."""
        self._process.terminate()

    def close(self) -> None:
        """Ends an idle process, and waits for its end."""
        with contextlib.suppress(OSError):
            self.pipe.send(None)
        self.pipe.close()
        self._process.wait()


class LocalWorkers:
    """Worker processes on this machine.

    Args:
      work: what a worker does with a job, a function that cloudpickle can pickle.
      count: the number of workers.
      threads_of: the number of threads of a job.
      logs: the directory for what jobs print.

    Raises:
      UsageError: the work cannot be pickled.
    """

    def __init__(
        self, work: Work, count: int, threads_of: Callable[[Job], int], logs: Path
    ) -> None:
        self.count, self.threads_of = count, threads_of
        self._work, self._logs = pickled(work), logs
        self._workers: list[Worker] = []

    @property
    def active(self) -> list[Job]:
        """The jobs that are being done."""
        return [worker.job for worker in self._workers if worker.job is not None]

    def has_room(self) -> bool:
        """Whether a further job can begin now."""
        return len(self.active) < self.count

    def begin(self, job: Job) -> None:
        """Starts a job; there must be room."""
        threads = self.threads_of(job)
        idle = [worker for worker in self._workers if worker.job is None]
        worker = next((worker for worker in idle if worker.threads == threads), None)
        if worker is None and len(self._workers) == self.count:
            idle[0].close()
            self._workers.remove(idle[0])
        if worker is None:
            worker = Worker(self._work, threads, self._logs)
            self._workers.append(worker)
        worker.begin(job)

    def wait(self, seconds: float) -> list[tuple[Job, Any]]:
        """Waits until a job has ended, at most some seconds.

        Returns:
          The jobs that have ended, each with its result, or with `Died` if its worker did.
        """
        busy = [(worker, worker.job) for worker in self._workers if worker.job is not None]
        ready = multiprocessing.connection.wait([worker.pipe for worker, _ in busy], seconds)
        found: list[tuple[Job, Any]] = []
        for worker, job in busy:
            if worker.pipe not in ready:
                continue
            try:
                found.append((job, worker.result()))
            except Died as died:
                found.append((job, died))
                self._workers.remove(worker)
        return found

    def stop(self) -> None:
        """Asks all jobs to stop after a checkpoint."""
        for worker in self._workers:
            if worker.job is not None:
                worker.stop()

    def close(self) -> None:
        """Ends all workers, which must be idle."""
        for worker in self._workers:
            worker.close()
        self._workers = []
