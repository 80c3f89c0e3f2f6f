"""Gives the jobs of a sweep to workers, and follows them to their end."""

import dataclasses
import functools
import itertools
import tempfile
import time
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from lotcal_tf.config.arguments import SweepArguments
from lotcal_tf.config.process import cpus
from lotcal_tf.config.run_directory import finished_levels
from lotcal_tf.errors import RunsFailed
from lotcal_tf.files import temporary, usable_out, write_new
from lotcal_tf.sweeps.display import Display
from lotcal_tf.sweeps.jobs import LOGS, Job
from lotcal_tf.sweeps.local import LocalWorkers, default_workers, threads_of
from lotcal_tf.sweeps.perform import (
    DONE,
    FAILED,
    IN_USE,
    NO_ROOM,
    STOPPED,
    CustomObjects,
    Outcome,
    TaskOf,
    perform,
    predict,
)
from lotcal_tf.sweeps.ray_cluster import RayWorkers

ATTEMPTS = (
    2  # of a job whose worker dies, or for which there is no room although files can be written
)
WAIT_SECONDS = 1.0
RETRY_SECONDS = 5.0
_PROBE = b"\0" * (1 << 20)


class Workers(Protocol):
    """What jobs run on: processes of this machine, or a cluster."""

    @property
    def active(self) -> Sequence[Job]:
        """The jobs that have begun and not ended."""

    def has_room(self) -> bool:
        """Whether a further job can begin."""

    def begin(self, job: Job) -> None:
        """Starts a job."""

    def wait(self, seconds: float) -> Sequence[tuple[Job, Any]]:
        """Waits until a job has ended, at most some seconds; gives those that have ended.

        Each comes with its result, or with an exception if its worker died.
        """

    def stop(self) -> None:
        """Asks all jobs to stop after a checkpoint."""

    def close(self) -> None:
        """Ends all workers, which must be idle."""


@dataclasses.dataclass(frozen=True)
class SweepRun:
    """A run of a sweep and how it ended.

    Attributes:
      name: the name of its directory.
      directory: the run directory.
      how: `done` or `failed`.
      line: why it failed; empty if it is done.
    """

    name: str
    directory: Path
    how: str
    line: str = ""


class Runner:
    """Runs the jobs of a sweep.

    A job that fails does not stop the others. One that another process is running is tried again
    later. If the disk is full, no job begins until there is room; a job that finds it full again fails.

    Args:
      jobs: the jobs.
      workers: what they run on.
      out: the directory of the sweep.
      display: shows how far they are.
    """

    def __init__(self, jobs: Sequence[Job], workers: Workers, out: Path, display: Display) -> None:
        self.workers, self.out, self.display = workers, out, display
        self.jobs, self.results = jobs, dict[str, SweepRun]()
        self._waiting = deque(jobs)
        self._later: list[tuple[float, Job]] = []
        self._counts = Counter[tuple[str, str]]()  # of the results of each job
        self._full = False

    def run(self) -> list[SweepRun]:
        """Runs all jobs; finished ones are not trained again.

        Returns:
          The results, in the order of the jobs.

        Raises:
          KeyboardInterrupt: a signal ended the sweep. All jobs that ran have been stopped, and go on
            when they are run again.
        """
        try:
            with self.display:
                for job in self.jobs:
                    if job.can_be_skipped:
                        self._end(job, Outcome(DONE), found=True)
                        self._waiting.remove(job)
                while self._waiting or self._later or self.workers.active:
                    self._begin()
                    for job, result in self.workers.wait(WAIT_SECONDS):
                        self._take(job, result)
                    self._show()
        except KeyboardInterrupt:
            self.workers.stop()
            while self.workers.active:
                self.workers.wait(WAIT_SECONDS)
            raise
        finally:
            self.workers.close()
        return [self.results[job.name] for job in self.jobs]

    def _begin(self) -> None:
        """Starts as many jobs as there is room for."""
        now = time.monotonic()
        self._waiting += [job for due, job in self._later if due <= now]
        self._later = [(due, job) for due, job in self._later if due > now]
        if self._full and not self._has_space():
            return
        while self._waiting and self.workers.has_room():
            job = self._waiting.popleft()
            if self._counts and job.can_be_skipped:  # by another sweep
                self._end(job, Outcome(DONE), found=True)
            else:
                self.workers.begin(job)

    def _has_space(self) -> bool:
        try:
            with temporary(self.out / "probe") as probe:
                write_new(probe, _PROBE)
        except OSError:
            return False
        self._full = False
        self.display.line("there is room again: the sweep goes on")
        return True

    def _take(self, job: Job, result: Any) -> None:
        """Takes the result of a job that has ended."""
        kind = job.name, "" if isinstance(result, Exception) else result.how
        self._counts[kind] += 1
        attempt = self._counts[kind]
        if isinstance(result, Exception):
            if attempt < ATTEMPTS:
                self.display.line(f"{job.name}: {result}; it is tried again")
                self._waiting.append(job)
                return
            result = Outcome(FAILED, f"{result}, {attempt} times")
        if result.how == IN_USE:
            if attempt == 1:
                self.display.line(
                    f"{job.name}: another process runs it; it is looked at again later"
                )
            self._later.append((time.monotonic() + RETRY_SECONDS, job))
        elif result.how == NO_ROOM:
            if attempt == ATTEMPTS:
                self._end(job, Outcome(FAILED, result.line))
            else:
                self._waiting.appendleft(job)
            if self._waiting and not self._full:
                self.display.line(f"{result.line}; the sweep waits until there is room")
            self._full = True
        elif result.how == STOPPED:  # by someone else: the sweep goes on
            self._end(job, Outcome(FAILED, f"{result.line}; the same command continues it"))
        else:
            self._end(job, result)

    def _end(self, job: Job, outcome: Outcome, *, found: bool = False) -> None:
        result = SweepRun(job.name, job.directory, outcome.how, outcome.line)
        self.results[job.name] = result
        self.display.ended(job, outcome, found=found)

    def _show(self) -> None:
        self.display.show({job.name: finished_levels(job.directory) for job in self.workers.active})


def run_jobs(
    jobs: Sequence[Job],
    out: Path,
    options: SweepArguments,
    *,
    task_of: TaskOf | None = None,
    custom_objects: CustomObjects = None,
) -> list[SweepRun]:
    """Runs the jobs of a sweep in processes of this machine, or on a Ray cluster.

    Args:
      jobs: the jobs.
      out: the directory of the sweep.
      options: `workers` (None: `default_workers`, or all CPUs of the cluster), `ray`, the address of a
        cluster (None: this machine), `gpus`, the share of a GPU for each job on a cluster, `progress`.
      task_of, custom_objects: see `perform`.

    Returns:
      How each run ended, in the order of the jobs.
    """
    if all(job.can_be_skipped for job in jobs):
        return [SweepRun(job.name, job.directory, DONE) for job in jobs]
    work = functools.partial(perform, task_of=task_of, custom_objects=custom_objects)
    with usable_out(out):
        out.mkdir(parents=True, exist_ok=True)
    most = default_workers() if options.ray is None else cpus()
    count = min(options.workers or most, len(jobs))
    threads = functools.partial(threads_of, workers=count)
    display = Display(jobs, options.progress)
    pool: Workers
    if options.ray is None:
        pool = LocalWorkers(work, count, threads, out / LOGS)
    else:
        pool = RayWorkers(
            work, options.ray, options.workers, threads, options.gpus, out / LOGS, display.line
        )
    ordered = sorted(jobs, key=threads)
    found = {r.name: r for r in Runner(ordered, pool, out, display).run()}
    return [found[job.name] for job in jobs]


def predict_jobs(
    jobs: Sequence[Job], workers: int | None = None, custom_objects: CustomObjects = None
) -> float:
    """Predicts how long jobs take on this machine, by timing a few steps of each kind.

    As many are timed at the same time as will run, since they slow each other down.

    Args:
      jobs: the jobs, at least one; their finished levels do not count.
      workers: how many jobs run at the same time; None: `default_workers`.
      custom_objects: see `perform`.

    Returns:
      Seconds.

    Raises:
      RunsFailed: a run could not be timed.
    """
    count = min(workers or default_workers(), len(jobs))
    kinds = {job.kind: job for job in jobs}
    timed = deque(itertools.islice(itertools.cycle(kinds.values()), max(count, len(kinds))))
    measured: dict[str, list[float]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as logs:
        threads = functools.partial(threads_of, workers=count)
        work = functools.partial(predict, custom_objects=custom_objects)
        pool = LocalWorkers(work, count, threads, Path(logs))
        try:
            while timed or pool.active:
                while timed and pool.has_room():
                    pool.begin(timed.popleft())
                for job, result in pool.wait(WAIT_SECONDS):
                    if not isinstance(result, float):
                        raise RunsFailed(f"{job.name} cannot be timed: {result}")
                    measured[job.kind].append(result)
        finally:
            pool.stop()
            while pool.active:
                pool.wait(WAIT_SECONDS)
            pool.close()
    seconds = []
    for job in jobs:
        levels = job.experiment.levels + 1
        left = max(0, levels - finished_levels(job.directory)) / levels
        seconds.append(left * sum(measured[job.kind]) / len(measured[job.kind]))
    return max(sum(seconds) / count, *seconds)
