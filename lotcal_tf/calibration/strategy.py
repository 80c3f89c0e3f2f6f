"""What every calibration strategy is: a Keras model around a network, with a `train_step`.

A strategy of one's own overrides `train_step` alone: compute the logits, a loss, and hand both to
`descend`. It knows nothing of masks, pruning or levels; the network brings the masks.
"""

from typing import Any

import tensorflow as tf

from lotcal_tf.compat import keras
from lotcal_tf.config.fields import checked
from lotcal_tf.config.hyperparameters import NoHyperparameters
from lotcal_tf.models.stateless_dropout import Passes

Logs = dict[str, "tf.Tensor"]


class Strategy(keras.Model):
    """Trains a network that gives logits.

    Args:
      network: takes a batch of inputs, gives logits `(N, K)`.
      **given: hyperparameters, by the names of the fields of `Hyperparameters`.

    Attributes:
      hyper: the hyperparameters, a record of `Hyperparameters`.
      Hyperparameters: a dataclass whose fields all have defaults.
      log_names: the names of the scalars that `train_step` returns; they are averaged over the
        steps of an epoch. A strategy that logs more extends the tuple; `NAME` stands in
        `history.csv` and TensorBoard as `train_NAME`.
      batch_wide: whether the loss is more than a mean over examples: a batch cannot then be shared
        out among several devices. A strategy of that kind sets it to True.

    Raises:
      FieldError: a hyperparameter is not valid.
    """

    Hyperparameters: type = NoHyperparameters
    log_names: tuple[str, ...] = ("loss", "accuracy")
    batch_wide: bool = False

    def __init__(self, network: "keras.Model", **given: Any) -> None:
        super().__init__(name=type(self).__name__.lower())
        self.network = network
        self.hyper: Any = checked(self.Hyperparameters, given)
        passes = getattr(self.hyper, "passes", None)
        self._passes = None if passes is None else Passes(network, passes)

    def call(self, inputs: "tf.Tensor", training: bool | None = None) -> "tf.Tensor":
        """The network's logits, float32."""
        return tf.cast(self.network(inputs, training=training), tf.float32)

    def train_step(self, data: Any) -> Logs:
        """One step on a batch `(inputs, labels)`; to be overridden.

        Returns:
          A scalar for each of `log_names`.

        Raises:
          TypeError: a strategy does not override this.
        """
        raise TypeError(f"{type(self).__name__} must override train_step")

    def stochastic(self, inputs: "tf.Tensor") -> "tf.Tensor":
        """The logits `(T, N, K)` of T passes, each with dropout masks of its own.

        Raises:
          TypeError: the strategy's hyperparameters have no `passes`.
        """
        if self._passes is None:
            raise TypeError(f"{type(self).__name__} was given no `passes`: it is not stochastic")
        return tf.cast(self._passes(inputs), tf.float32)

    def penalty(self) -> "tf.Tensor":
        """The sum of the losses that the network's own layers add (regularisers); 0 without any."""
        return tf.add_n(
            [tf.cast(loss, tf.float32) for loss in self.network.losses] or [tf.constant(0.0)]
        )

    def descend(
        self, tape: "tf.GradientTape", loss: "tf.Tensor", labels: "tf.Tensor", logits: "tf.Tensor"
    ) -> Logs:
        """Takes the optimizer's step down the loss, the mean of all devices' where there are several.

        Args:
          tape: what recorded the loss.
          loss: a scalar.
          labels: `(N,)` classes, or `(N, K)` distributions over them.
          logits: `(N, K)`, for the accuracy that is logged; of `(T, N, K)` the mean prediction.

        Returns:
          `loss` and `accuracy` of this batch, before the step.
        """
        variables = self.network.trainable_variables
        gradients = mean_over_replicas(tape.gradient(loss, variables))
        # The optimizer would add up what the devices give it, weight decay too.
        self.optimizer.apply_gradients(
            zip(gradients, variables, strict=True), skip_gradients_aggregation=True
        )
        if logits.shape.rank == 3:
            logits = tf.reduce_mean(tf.nn.softmax(logits), 0)
        truth = labels if labels.shape.rank == 1 else tf.argmax(labels, -1, tf.int32)
        correct = tf.equal(tf.argmax(logits, -1, tf.int32), tf.cast(truth, tf.int32))
        return {"loss": loss, "accuracy": tf.reduce_mean(tf.cast(correct, tf.float32))}


def mean_over_replicas(values: Any) -> Any:
    """The mean of each value over the devices that share a step; the values themselves on one.

    Args:
      values: tensors, alone or nested in lists and dictionaries; None where there is none.
    """
    replica = tf.distribute.get_replica_context()
    if replica.num_replicas_in_sync == 1:
        return values
    flat = tf.nest.flatten(values)
    means = iter(
        replica.all_reduce(tf.distribute.ReduceOp.MEAN, [v for v in flat if v is not None])
    )
    return tf.nest.pack_sequence_as(values, [None if v is None else next(means) for v in flat])
