"""Several devices, several machines: which of them train, and how a step is shared out.

Each process holds its own rows of every batch, each of its devices a copy of the network and a
part of those rows; gradients and BatchNorm's statistics are means over all. Everything else, from
the order of the data to the pruning, every process does alike and by itself.
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
from lotcal_tf.pruning import masking
from lotcal_tf.training.distributed.batch_norm import synchronise
from lotcal_tf.training.distributed.cluster import Cluster, meet

Step = Callable[["tf.Tensor", "tf.Tensor", "tf.Tensor"], Logs]

# What sets the draws of one device apart from those of the next; the first one's stay as they are.
_REPLICA_SEED = zlib.crc32(b"replica") & 0x3FFFFFFF

# What TensorFlow says where a worker has gone: at once, when it is noticed, or to those who wait.
_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
)


class Distribution:
    """The devices that share every step; without a strategy, the one device there always is.

    Args:
      strategy: of `tf.distribute`.
      workers: the processes that take part, where there are several.
    """

    def __init__(
        self,
        strategy: "tf.distribute.Strategy | None" = None,
        workers: Cluster | None = None,
    ) -> None:
        """See the class."""
        self._strategy: Any = strategy
        self._workers = workers
        self._gather = tf.function(self._gathered)

    @property
    def replicas(self) -> int:
        """How many devices there are, over all processes."""
        return 1 if self._strategy is None else int(self._strategy.num_replicas_in_sync)

    @property
    def workers(self) -> int:
        """How many processes take part; each has as many devices as the others."""
        return 1 if self._workers is None else len(self._workers.addresses)

    @property
    def worker(self) -> int:
        """Which of them this one is, in the order in which the rows of a batch are dealt."""
        return (
            0 if self._workers is None else list(self._workers.addresses).index(self._workers.task)
        )

    @property
    def chief(self) -> bool:
        """Whether this process is the one that writes."""
        return self._workers is None or self._workers.is_chief

    def check(self, experiment: Experiment, strategy: type[Strategy]) -> None:
        """Refuses what cannot be shared out among the devices.

        Raises:
          FieldError: the batch does not divide, the strategy's loss is more than a mean over
            examples, or the steps are to be one compiled program.
        """
        if experiment.batch_size % self.replicas:
            problem = f"is shared by {self.replicas} devices: must be a multiple of that"
            raise FieldError("batch_size", experiment.batch_size, problem)
        if self.replicas > 1 and strategy.batch_wide:
            problem = (
                f"relates the examples of a batch to each other, and {self.replicas} devices would "
                "share it: train with distribute=none"
            )
            raise FieldError("calib", experiment.calib, problem)
        if self._strategy is not None and experiment.plan == "xla":
            problem = f"distribute={experiment.distribute} runs steps as a graph: leave plan out"
            raise FieldError("plan", experiment.plan, problem)

    def plan(self, plan: str) -> str:
        """The plan of the steps: XLA does not compile what several devices say to each other."""
        return plan if self._strategy is None else "graph"

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Inside it, variables are made on every device."""
        return contextlib.nullcontext() if self._strategy is None else self._strategy.scope()

    def replicate(self, network: "keras.Model") -> "keras.Model":
        """The network on every device, BatchNorm synchronised; on one, the network itself."""
        if self._strategy is None:
            return network
        with self.scope():
            return synchronise(network)

    def copy(self, source: "keras.Model", target: "keras.Model") -> None:
        """Copies weights and masks from a network to its replicas, or back; every process must.

        Raises:
          LotcalError: the processes hold different weights or masks.
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

    def run(self, step: Step, inputs: "tf.Tensor", labels: "tf.Tensor", seed: "tf.Tensor") -> Logs:
        """Runs a step on every device's rows of a batch; gives the means of its logs.

        Args:
          step: takes inputs, labels and the seed of its draws.
          inputs: `(N, …)`, this process's rows, N a multiple of the number of its devices.
          labels: `(N,)`.
          seed: `(2,)`, int32.
        """
        if self._strategy is None:
            return step(inputs, labels, seed)
        devices = self.replicas // self.workers
        share = inputs.shape[0] // devices

        def replica(inputs: "tf.Tensor", labels: "tf.Tensor", seed: "tf.Tensor") -> Logs:
            # Counted over all processes, those of the first process first.
            number = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.int32)
            rows = (number - self.worker * devices) * share + tf.range(share)
            draws = tf.stack([number * _REPLICA_SEED, 0])
            logs = step(tf.gather(inputs, rows), tf.gather(labels, rows), seed + draws)
            return mean_over_replicas(logs)

        logs = self._strategy.run(replica, (inputs, labels, seed))
        # All have the same means by now.
        return {n: self._strategy.experimental_local_results(v)[0] for n, v in logs.items()}

    def agree(self, **facts: Any) -> None:
        """Compares facts with the other processes; all of them must call this, and wait for all.

        Raises:
          LotcalError: a fact differs between them.
        """
        if self._strategy is None:
            return
        for name, value in facts.items():
            text = json.dumps(value, sort_keys=True)
            own = tf.constant([zlib.crc32(text.encode()) >> 1], tf.int32)
            if len(set(self._gather(own).numpy())) > 1:
                raise LotcalError(
                    f"the workers do not agree on the {name}, here {text}: give all of them the same "
                    "flags and data, machines of one kind, and a run directory that they share"
                )

    def largest(self, value: float) -> float:
        """The largest of the processes' values; all of them must call this, and wait for all."""
        if self._workers is None:
            return value
        return float(max(self._gather(tf.constant([value], tf.float32)).numpy()))

    def _gathered(self, own: "tf.Tensor") -> "tf.Tensor":
        """A value of each process, along the first axis."""

        def replica(own: "tf.Tensor") -> "tf.Tensor":
            # It must lie on the replica's device, which an argument does not.
            return tf.distribute.get_replica_context().all_gather(tf.identity(own), axis=0)

        return self._strategy.experimental_local_results(self._strategy.run(replica, (own,)))[0]

    def watch(self) -> contextlib.AbstractContextManager[None]:
        """Inside it, a worker that is lost is told of as `WorkerLost`."""
        return contextlib.nullcontext() if self._workers is None else _watch(self._workers)


ONE_DEVICE = Distribution()


def start(distribute: str, workers: Cluster | None = None) -> Distribution:
    """The distribution of an experiment's field.

    Args:
      distribute: the field; `multi_worker` must be started before TensorFlow is first used.
      workers: those who are to take part.

    Raises:
      UsageError: this process cannot listen at the address that `TF_CONFIG` gives it.
      WorkerLost: a worker did not come within two minutes.
    """
    if workers is not None:
        meet(workers)
        with _watch(workers):
            return Distribution(tf.distribute.MultiWorkerMirroredStrategy(), workers)
    if distribute == "none":
        return ONE_DEVICE
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return Distribution(tf.distribute.MirroredStrategy([device.name for device in devices]))


@contextlib.contextmanager
def _watch(workers: Cluster) -> Iterator[None]:
    try:
        yield
    except _LOST as error:
        named = re.findall(r"/job:(\w+)/(?:replica:0/)?task:(\d+)", str(error))
        others = sorted({f"{job} {index}" for job, index in named} - {workers.task})
        who = ", ".join(others) or "a worker"
        raise WorkerLost(
            f"{who} of TF_CONFIG was lost; finished levels are kept: the same command on all "
            "workers goes on"
        ) from error
