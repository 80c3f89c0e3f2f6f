"""Shares training steps among several devices and machines, with `tf.distribute`.

Each process holds its own rows of every batch. Each of its devices holds a copy of the network and
takes a part of those rows. Gradients and BatchNorm's statistics are means over all devices. All
other work, from the order of the data to the pruning, is repeated identically by every process.

In this package a strategy is a calibration strategy. The object of `tf.distribute` that TensorFlow
calls a strategy is called `tf_distribution` here.
"""

import contextlib
import hashlib
import json
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from lotcal_tf.calibration.strategy import Logs, Strategy, mean_over_replicas
from lotcal_tf.compat import keras
from lotcal_tf.config.experiment import Experiment
from lotcal_tf.errors import FieldError, LotcalError, WorkerLost
from lotcal_tf.models.precision import is_mixed
from lotcal_tf.pruning import masking
from lotcal_tf.training.distributed.batch_norm import synchronise
from lotcal_tf.training.distributed.cluster import Cluster, wait_for_workers

Step = Callable[[Any, "tf.Tensor"], Logs]

# Added to the seed once for every device before this one, so that devices draw differently. The
# first device draws what a single device draws.
REPLICA_SEED = zlib.crc32(b"replica") & 0x3FFFFFFF

# The errors that TensorFlow raises when another worker has stopped.
_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
)


class Distribution:
    """The devices that share every training step.

    Args:
      tf_distribution: the strategy object of `tf.distribute`; None for a single device.
      cluster: the processes, if there are several.

    Attributes:
      gather: a compiled function. It takes a tensor of this process and returns those of all
        processes, concatenated along the first axis. All processes must call it.
    """

    def __init__(
        self,
        tf_distribution: "tf.distribute.Strategy | None" = None,
        cluster: Cluster | None = None,
    ) -> None:
        self._tf_distribution: Any = tf_distribution
        self._cluster = cluster
        self.gather = tf.function(self._gather)

    @property
    def replicas(self) -> int:
        """The number of devices, over all processes."""
        return (
            1 if self._tf_distribution is None else int(self._tf_distribution.num_replicas_in_sync)
        )

    @property
    def workers(self) -> int:
        """The number of processes. All of them have the same number of devices."""
        return 1 if self._cluster is None else len(self._cluster.addresses)

    @property
    def worker(self) -> int:
        """The index of this process, in the order in which processes take rows of a batch."""
        if self._cluster is None:
            return 0
        return list(self._cluster.addresses).index(self._cluster.task)

    @property
    def chief(self) -> bool:
        """Whether this process writes the files."""
        return self._cluster is None or self._cluster.is_chief

    def check(
        self,
        experiment: Experiment,
        strategy: type[Strategy],
        network: "keras.Model | None" = None,
    ) -> None:
        """Checks that the devices can share the steps of an experiment.

        Args:
          experiment: the experiment.
          strategy: the class of its calibration strategy.
          network: the network to train.

        Raises:
          FieldError: the batch size is not divisible by the number of devices, the smaller batch at the
            end of an epoch is kept, the loss of the calibration strategy is not a mean over examples,
            the plan is `xla`, or layers compute in 16 bits.
        """
        if experiment.batch_size % self.replicas:
            problem = f"is shared by {self.replicas} devices: must be a multiple of {self.replicas}"
            raise FieldError("batch_size", experiment.batch_size, problem)
        if self.replicas > 1 and not experiment.drop_remainder:
            problem = (
                f"{self.replicas} devices share whole batches only: train with distribute=none"
            )
            raise FieldError("drop_remainder", False, problem)
        if self.replicas > 1 and strategy.batch_wide:
            problem = (
                f"relates the examples of a batch to each other, and {self.replicas} devices would "
                "share it: train with distribute=none"
            )
            raise FieldError("calib", experiment.calib, problem)
        if self._tf_distribution is not None and experiment.plan == "xla":
            problem = f"distribute={experiment.distribute} runs steps as a graph: leave plan out"
            raise FieldError("plan", experiment.plan, problem)
        if self.replicas > 1 and network is not None and is_mixed(network):
            problem = "layers compute in 16 bits (mixed precision): train with distribute=none"
            raise FieldError("distribute", experiment.distribute, problem)

    def plan(self, plan: str) -> str:
        """Returns the plan of the steps: several devices need `graph`."""
        return plan if self._tf_distribution is None else "graph"

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Returns a context in which variables are created on every device."""
        return (
            contextlib.nullcontext()
            if self._tf_distribution is None
            else self._tf_distribution.scope()
        )

    def replicate(self, network: "keras.Model") -> "keras.Model":
        """Returns a copy of the network on every device, with synchronised BatchNorm.

        On a single device it returns the network itself.
        """
        if self._tf_distribution is None:
            return network
        with self.scope():
            return synchronise(network)

    def copy(self, source: "keras.Model", target: "keras.Model") -> None:
        """Copies weights and masks from a network to its replicas, or back.

        All processes must call this. On a single device both are one network, and nothing happens.

        Raises:
          LotcalError: the processes have different weights or masks.
        """
        if source is target:
            return
        with self.scope():
            weights = masking.values(source)
            masks = {n: v.numpy() > 0 for n, v in masking.mask_variables(source).items()}
            digest = hashlib.sha256()
            for name, value in [*weights.items(), *masks.items()]:
                digest.update(name.encode() + value.tobytes())
            self.agree(**{"weights and masks": digest.hexdigest()})
            masking.assign(target, weights)
            masking.assign_masks(target, masks)

    def run(self, step: Step, data: tuple[Any, ...], seed: "tf.Tensor") -> Logs:
        """Runs a step on every device, each with its rows of the batch.

        Args:
          step: takes `data` and the seed of its random draws.
          data: inputs `(N, …)`, labels `(N,)` and, if there are any, weights `(N,)`: the rows of this
            process. N is a multiple of the number of its devices.
          seed: `(2,)`, int32.

        Returns:
          The means of the step's logs over all devices.
        """
        if self._tf_distribution is None:
            return step(data, seed)
        devices = self.replicas // self.workers
        share = data[1].shape[0] // devices

        def replica(data: tuple[Any, ...], seed: "tf.Tensor") -> Logs:
            # Devices are numbered over all processes, those of the first process first.
            number = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.int32)
            rows = (number - self.worker * devices) * share + tf.range(share)
            draws = tf.stack([number * REPLICA_SEED, 0])
            own = tf.nest.map_structure(lambda part: tf.gather(part, rows), data)
            logs = step(own, seed + draws)
            return mean_over_replicas(logs)

        logs = self._tf_distribution.run(replica, (data, seed))
        # The means are the same on every device.
        return {n: self._tf_distribution.experimental_local_results(v)[0] for n, v in logs.items()}

    def agree(self, **facts: Any) -> None:
        """Checks that values are the same in all processes. All of them must call this.

        Args:
          **facts: the values by their names, which can be written as JSON.

        Raises:
          LotcalError: a value differs between the processes.
        """
        if self._tf_distribution is None:
            return
        for name, value in facts.items():
            text = json.dumps(value, sort_keys=True)
            own = tf.constant([zlib.crc32(text.encode()) >> 1], tf.int32)
            if len(set(self.gather(own).numpy())) > 1:
                raise LotcalError(
                    f"the workers do not agree on the {name}, here {text}: give all of them the same "
                    "flags and data, machines of one kind, and a run directory that they share"
                )

    def largest(self, value: float) -> float:
        """Returns the largest of the processes' values. All of them must call this."""
        if self._cluster is None:
            return value
        return float(max(self.gather(tf.constant([value], tf.float32)).numpy()))

    def _gather(self, own: "tf.Tensor") -> "tf.Tensor":
        def replica(own: "tf.Tensor") -> "tf.Tensor":
            # `all_gather` needs a tensor on the replica's device, which an argument is not.
            return tf.distribute.get_replica_context().all_gather(tf.identity(own), axis=0)

        return self._tf_distribution.experimental_local_results(
            self._tf_distribution.run(replica, (own,))
        )[0]

    def watch(self) -> contextlib.AbstractContextManager[None]:
        """Returns a context that raises `WorkerLost` if another worker stops."""
        return contextlib.nullcontext() if self._cluster is None else _watch(self._cluster)


ONE_DEVICE = Distribution()


def start(distribute: str, cluster: Cluster | None = None) -> Distribution:
    """Starts the devices of an experiment.

    Args:
      distribute: the field of the experiment.
      cluster: the processes of `multi_worker`, which must be started before TensorFlow is first
        used.

    Raises:
      UsageError: this process cannot listen at its address in `TF_CONFIG`.
      WorkerLost: a worker did not start within two minutes.
    """
    if cluster is not None:
        wait_for_workers(cluster)
        with _watch(cluster):
            return Distribution(tf.distribute.MultiWorkerMirroredStrategy(), cluster)
    if distribute == "none":
        return ONE_DEVICE
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return Distribution(tf.distribute.MirroredStrategy([device.name for device in devices]))


@contextlib.contextmanager
def _watch(cluster: Cluster) -> Iterator[None]:
    """Turns TensorFlow's errors about another worker into `WorkerLost`."""
    try:
        yield
    except _LOST as error:
        named = re.findall(r"/job:(\w+)/(?:replica:0/)?task:(\d+)", str(error))
        others = sorted({f"{job} {index}" for job, index in named} - {cluster.task})
        who = ", ".join(others) or "a worker"
        raise WorkerLost(
            f"{who} of TF_CONFIG was lost; finished levels are kept: the same command on all "
            "workers goes on"
        ) from error
