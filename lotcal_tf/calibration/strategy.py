"""The base class of calibration strategies: a Keras model that trains a network by its `train_step`.

A custom strategy only overrides `train_step`: it computes logits and a loss, and passes both to
`descend`. Strategies do not handle masks or levels; masks are part of the network.
"""

from typing import Any

import tensorflow as tf

from lotcal_tf.compat import keras
from lotcal_tf.config.fields import checked
from lotcal_tf.config.hyperparameters import NoHyperparameters
from lotcal_tf.errors import UsageError, shown
from lotcal_tf.models.stateless_dropout import Passes

Logs = dict[str, "tf.Tensor"]


class Strategy(keras.Model):
    """Trains a network.

    Args:
      network: takes a batch of inputs and returns logits `(N, K)`.
      **given: hyperparameters, by the field names of `Hyperparameters`.

    Attributes:
      hyper: the hyperparameters, an instance of `Hyperparameters`.
      Hyperparameters: a dataclass whose fields all have defaults.
      log_names: names of the scalars that `train_step` returns; they are averaged over the steps of an
        epoch. A strategy that logs more extends the tuple. In `history.csv` and TensorBoard, `NAME`
        is called `train_NAME`.
      takes_weights: True if `train_step` takes `(inputs, labels, weights)`, too. Otherwise data with
        weights of examples or classes is refused.
      batch_wide: True if the loss is not a mean over examples, so that several devices cannot share
        a batch.

    Raises:
      FieldError: a hyperparameter is unknown or invalid.
    """

    Hyperparameters: type = NoHyperparameters
    log_names: tuple[str, ...] = ("loss", "accuracy")
    takes_weights: bool = False
    batch_wide: bool = False

    def __init__(self, network: "keras.Model", **given: Any) -> None:
        if not isinstance(network, keras.Model):
            raise UsageError(f"network={shown(network)}: must be a tf_keras model")
        # Not Keras's global policy: the layers of the network have their own.
        super().__init__(name=type(self).__name__.lower(), dtype="float32")
        self.network = network
        self.hyper: Any = checked(self.Hyperparameters, given)
        passes = getattr(self.hyper, "passes", None)
        self._passes = None if passes is None else Passes(network, passes)

    def call(self, inputs: Any, training: bool | None = None) -> "tf.Tensor":
        """Returns the network's logits as float32."""
        return tf.cast(self.network(inputs, training=training), tf.float32)

    def train_step(self, data: Any) -> Logs:
        """Trains on a batch; every strategy overrides it.

        Args:
          data: `(inputs, labels)`, or `(inputs, labels, weights)` if examples or classes have
            weights; `keras.utils.unpack_x_y_sample_weight` takes both. Inputs are `(N, …)`; of a
            model with several inputs, a dictionary or tuple of tensors as in the data.

        Returns:
          A scalar for each of `log_names`.

        Raises:
          TypeError: the strategy does not override this method.
        """
        raise TypeError(f"{type(self).__name__} must override train_step")

    def stochastic(self, inputs: Any) -> "tf.Tensor":
        """Returns the logits `(T, N, K)` of T passes, each with its own dropout masks.

        Raises:
          TypeError: the strategy's hyperparameters have no `passes`.
        """
        if self._passes is None:
            raise TypeError(
                f"{type(self).__name__}: its Hyperparameters must have a field `passes`"
            )
        return tf.cast(self._passes(inputs), tf.float32)

    def penalty(self) -> "tf.Tensor":
        """Returns the sum of the losses that the network's layers add, e.g. by regularisers."""
        return tf.add_n(
            [tf.cast(loss, tf.float32) for loss in self.network.losses] or [tf.constant(0.0)]
        )

    def descend(
        self, tape: "tf.GradientTape", loss: "tf.Tensor", labels: "tf.Tensor", logits: "tf.Tensor"
    ) -> Logs:
        """Applies the gradient of the loss, averaged over devices, by the optimizer.

        Args:
          tape: the tape that recorded the loss.
          loss: a scalar.
          labels: `(N,)` classes, or `(N, K)` distributions over them.
          logits: `(N, K)`, or `(T, N, K)` whose mean prediction counts; for the logged accuracy.

        Returns:
          `loss` and `accuracy` of this batch before the step.
        """
        variables = self.network.trainable_variables
        gradients = mean_over_replicas(self._gradients(tape, loss, variables))
        # The optimizer would sum the gradients of all devices, and apply weight decay on each.
        self.optimizer.apply_gradients(
            zip(gradients, variables, strict=True), skip_gradients_aggregation=True
        )
        if logits.shape.rank == 3:
            logits = tf.reduce_mean(tf.nn.softmax(logits), 0)
        truth = labels if labels.shape.rank == 1 else tf.argmax(labels, -1, tf.int32)
        correct = tf.equal(tf.argmax(logits, -1, tf.int32), tf.cast(truth, tf.int32))
        return {"loss": loss, "accuracy": tf.reduce_mean(tf.cast(correct, tf.float32))}

    def _gradients(self, tape: "tf.GradientTape", loss: "tf.Tensor", variables: Any) -> Any:
        """The gradients of the loss; with loss scaling, small ones do not vanish in float16."""
        optimizer = self.optimizer
        if not isinstance(optimizer, keras.mixed_precision.LossScaleOptimizer):
            return tape.gradient(loss, variables)
        scale = optimizer.get_scaled_loss(tf.ones_like(loss))
        return optimizer.get_unscaled_gradients(tape.gradient(loss, variables, scale))


def mean_over_replicas(values: Any) -> Any:
    """Averages values over the devices that share a step; on one device, returns them unchanged.

    Args:
      values: a tensor, or nested lists and dictionaries of tensors and None.
    """
    replica = tf.distribute.get_replica_context()
    if replica.num_replicas_in_sync == 1:
        return values
    flat = tf.nest.flatten(values)
    means = iter(
        replica.all_reduce(tf.distribute.ReduceOp.MEAN, [v for v in flat if v is not None])
    )
    return tf.nest.pack_sequence_as(values, [None if v is None else next(means) for v in flat])
