"""Reads the cluster from `TF_CONFIG`, and waits until all its processes have started.

This module does not need TensorFlow, so that a wrong `TF_CONFIG` is reported at once. It reports a
missing worker by its name, where TensorFlow would wait forever.
"""

import dataclasses
import json
import os
import socket
import time
from collections.abc import Mapping
from typing import Any

from lotcal_tf.errors import UsageError, WorkerLost, shown

WAIT_SECONDS = 120.0

_EXAMPLE = (
    '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'
)


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The processes of a distributed run. All of them train.

    Attributes:
      addresses: `host:port` of each task, `chief 0` or `worker 0` first.
      task: the task of this process.
    """

    addresses: Mapping[str, str]
    task: str

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the files: the chief or, without one, the first worker."""
        return self.task == next(iter(self.addresses))


def of(distribute: str) -> Cluster | None:
    """Returns the cluster that an experiment needs; None if it runs on one machine.

    Args:
      distribute: the field of the experiment.

    Raises:
      UsageError: the experiment needs a cluster, and `TF_CONFIG` does not describe one.
    """
    return parse(os.environ.get("TF_CONFIG")) if distribute == "multi_worker" else None


def parse(text: str | None) -> Cluster:
    """Parses a `TF_CONFIG`, in TensorFlow's own format.

    Args:
      text: JSON with `cluster` (a list of `host:port` under `worker`, and at most one under
        `chief`) and `task` (`type` and `index` of this process); None if the variable is not set.

    Raises:
      UsageError: the text is not valid. The message says what is wrong in one line.
    """
    if not text:
        raise _wrong(f"is not set: give every worker its own, such as {_EXAMPLE}")
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _wrong(f"is not valid JSON ({error}): {shown(text)!r}") from error
    cluster, task = _mapping(config, "cluster"), _mapping(config, "task")
    unknown = sorted(set(cluster) - {"chief", "worker"})
    if unknown:
        raise _wrong(f"cluster.{unknown[0]}: only chief and worker take part in a run")
    addresses: dict[str, str] = {}
    for job in ("chief", "worker"):
        tasks = cluster.get(job, [])
        if not isinstance(tasks, list):
            raise _wrong(f"cluster.{job}={tasks!r}: must be a list of host:port")
        for index, address in enumerate(tasks):
            problem = _address_problem(address, addresses.values())
            if problem:
                raise _wrong(f"cluster.{job}[{index}]={shown(repr(address))}: {problem}")
            addresses[f"{job} {index}"] = address
    if not addresses:
        raise _wrong("cluster: names no worker; give at least one host:port")
    if len(cluster.get("chief", [])) > 1:
        raise _wrong(f"cluster.chief={cluster['chief']!r}: there can be only one")
    own = f"{task.get('type')} {task.get('index')}"
    if own not in addresses:
        known = ", ".join(addresses)
        raise _wrong(f"task={json.dumps(task)}: is not in the cluster, which has {known}")
    return Cluster(addresses, own)


def wait_for_workers(cluster: Cluster, seconds: float = WAIT_SECONDS) -> None:
    """Waits until every other process of the cluster accepts connections at its address.

    Meanwhile this process accepts connections at its own address, and frees it afterwards.

    Args:
      cluster: the cluster.
      seconds: how long to wait.

    Raises:
      WorkerLost: a process did not answer in time.
      UsageError: this process cannot listen at its own address.
    """
    deadline = time.monotonic() + seconds
    waiting = {task: where for task, where in cluster.addresses.items() if task != cluster.task}
    own = cluster.addresses[cluster.task]
    try:
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        listener = socket.create_server(
            ("", _endpoint(own)[1]), family=family, dualstack_ipv6=both, backlog=len(waiting) + 1
        )
    except OSError as error:
        problem = f"{cluster.task} cannot listen at {own}: {error.strerror}"
        raise UsageError(
            f"TF_CONFIG: {problem}; stop the program that uses the port, or choose another"
        ) from error
    with listener:
        while waiting:
            reasons = {task: _try_connect(where, deadline) for task, where in waiting.items()}
            waiting = {task: where for task, where in waiting.items() if reasons[task]}
            if waiting and time.monotonic() >= deadline:
                task, where = next(iter(waiting.items()))
                raise WorkerLost(
                    f"TF_CONFIG lists {task} at {where}, which did not answer within {seconds:g} s "
                    f"({reasons[task]}): start it, or correct the address"
                )
            if waiting:
                time.sleep(min(0.2, seconds))


def _try_connect(address: str, deadline: float) -> str:
    """Tries to connect to an address. Returns an empty string, or the reason of a failure."""
    timeout = min(2.0, max(0.1, deadline - time.monotonic()))
    try:
        socket.create_connection(_endpoint(address), timeout=timeout).close()
    except OSError as error:
        return error.strerror or str(error) or type(error).__name__
    return ""


def _endpoint(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _address_problem(address: Any, taken: Any) -> str | None:
    if not isinstance(address, str) or ":" not in address:
        return "must be host:port"
    host, _, port = address.rpartition(":")
    if not host or not (
        port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) < 65536
    ):
        return "must be host:port, the port from 1 to 65535"
    return "is listed twice; give each address once" if address in taken else None


def _mapping(config: Any, key: str) -> dict[str, Any]:
    found = config.get(key) if isinstance(config, dict) else None
    if not isinstance(found, dict):
        raise _wrong(f"has no {key}: it must look like {_EXAMPLE}")
    return found


def _wrong(problem: str) -> UsageError:
    return UsageError(f"TF_CONFIG {problem}")
