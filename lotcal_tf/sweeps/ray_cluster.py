"""Runs jobs as tasks of a Ray cluster.

All nodes need the same Python environment, and see the working directory, the data and the sweep's
directory under the same paths. If a node is lost, Ray starts its jobs again on another one; they go on
after their last checkpoints.
"""

import functools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle

from lotcal_tf.config.extras import imported
from lotcal_tf.errors import FieldError
from lotcal_tf.sweeps.jobs import Job
from lotcal_tf.sweeps.worker import output_in, pickled, variables

_RETRIES = 3  # of a task whose node or process is lost
_AHEAD = 2  # jobs that are handed to Ray, for each CPU of the cluster


class LostOnCluster(Exception):
    """Ray could not finish a job; the message says why."""


class RayWorkers:
    """The workers of a Ray cluster.

    Args:
      work: what a worker does with a job, a function that cloudpickle can pickle.
      address: of the cluster; `auto`: the one that this machine belongs to.
      count: how many jobs Ray has at most at the same time; None: as many as it has CPUs for.
      threads_of: the number of CPUs of a job; its process has as many threads.
      gpus: the share of a GPU for a job.
      logs: the directory for what jobs print, each in NAME.log.
      warn: takes a line for the user about jobs that cannot begin.

    Raises:
      FieldError: there is no such cluster.
      UsageError: Ray is not installed, or the work cannot be pickled.
    """

    def __init__(
        self,
        work: Callable[[Job], Any],
        address: str,
        count: int | None,
        threads_of: Callable[[Job], int],
        gpus: float,
        logs: Path,
        warn: Callable[[str], None],
    ) -> None:
        self._ray = imported("ray", "ray")
        try:
            self._ray.init(address=address, log_to_driver=False, configure_logging=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            problem = f"no Ray cluster there ({error}); start one: ray start --head"
            raise FieldError("ray", address, problem) from error
        self.count, self.threads_of, self.gpus, self.warn = count, threads_of, gpus, warn
        self._checked: set[int] = set()  # the numbers of CPUs
        task = functools.partial(_perform, pickled(work), str(logs.absolute()), str(Path.cwd()))
        self._task = self._ray.put(task)
        self._remote = self._ray.remote(_call)
        self._jobs: dict[Any, Job] = {}

    @property
    def active(self) -> list[Job]:
        """The jobs that Ray has."""
        return list(self._jobs.values())

    def has_room(self) -> bool:
        """Whether Ray may have a further job."""
        cpus = int(self._ray.cluster_resources().get("CPU", 1))
        return len(self._jobs) < (self.count or _AHEAD * max(1, cpus))

    def begin(self, job: Job) -> None:
        """Gives a job to Ray. Processes are shared by jobs of the same number of threads only."""
        threads = self.threads_of(job)
        self._warn_if_too_large(threads)
        environment = {"TF_CPP_MIN_LOG_LEVEL": "2", **variables(threads)}
        task = self._remote.options(
            name=job.name,
            num_cpus=threads,
            num_gpus=self.gpus,
            max_retries=_RETRIES,
            runtime_env={"env_vars": environment},
        )
        self._jobs[task.remote(self._task, job)] = job

    def _warn_if_too_large(self, threads: int) -> None:
        """Warns once of jobs that no node can take; they wait, as a larger node may join."""
        if threads in self._checked:
            return
        self._checked.add(threads)
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if any(node.get("CPU", 0) >= threads and node.get("GPU", 0) >= self.gpus for node in nodes):
            return
        needs = f"{threads} CPU{'s' * (threads > 1)}" + (
            f" and {self.gpus:g} GPUs" if self.gpus else ""
        )
        self.warn(
            f"no node of the Ray cluster has {needs}, so runs wait until one joins: set --threads"
            + (" or --gpus" if self.gpus else "")
        )

    def wait(self, seconds: float) -> list[tuple[Job, Any]]:
        """Waits until a job has ended, at most some seconds; see `runner.Workers`."""
        tasks = list(self._jobs)
        if not tasks:
            time.sleep(seconds)
            return []
        ready, _ = self._ray.wait(tasks, num_returns=1, timeout=seconds)
        ready, _ = self._ray.wait(tasks, num_returns=len(tasks), timeout=0) if ready else ([], [])
        found = []
        for task in ready:
            try:
                result = self._ray.get(task)
            except (
                Exception
            ) as error:  # Of Ray: the process or the node is lost, or it was cancelled.
                result = LostOnCluster((str(error).splitlines() or [""])[0])
            found.append((self._jobs.pop(task), result))
        return found

    def stop(self) -> None:
        """Asks all jobs to stop after a checkpoint."""
        for task in self._jobs:
            self._ray.cancel(task, force=False)

    def close(self) -> None:
        """Leaves the cluster."""
        self._ray.shutdown()


def _call(task: Callable[[Job], Any], job: Job) -> Any:
    return task(job)


def _perform(work: bytes, logs: str, directory: str, job: Job) -> Any:
    """Does a job in a process of Ray."""
    os.chdir(directory)
    with output_in(Path(logs) / f"{job.name}.log"):
        return cloudpickle.loads(work)(job)
