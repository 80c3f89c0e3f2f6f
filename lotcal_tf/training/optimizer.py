"""The optimizer of an experiment, and its learning rate as a function of the step."""

from collections.abc import Iterable, Sequence
from typing import Any

import tensorflow as tf

from lotcal_tf.compat import keras


class DroppingRate(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that drops after given steps, and can start in the middle.

    After late rewinding to step K the optimizer starts again, with its step count and slots at 0,
    but the schedule of the rate continues from step K: `offset` is K.

    Args:
      rate: the first learning rate.
      drops: the steps after which the rate is multiplied by `factor`, in ascending order.
      factor: the factor.
    """

    def __init__(self, rate: float, drops: Sequence[int], factor: float) -> None:
        self.rate, self.drops, self.factor = rate, tuple(drops), factor
        self.offset = tf.Variable(0, trainable=False, dtype=tf.int64, name="schedule_offset")

    def __call__(self, step: "tf.Tensor") -> "tf.Tensor":
        """Returns the learning rate of step number `step` of the optimizer, counted from 0."""
        reached = tf.cast(step, tf.int64) + self.offset
        passed = tf.reduce_sum(
            [tf.cast(reached >= drop, tf.float32) for drop in self.drops] or [0.0]
        )
        return tf.constant(self.rate, tf.float32) * tf.constant(self.factor, tf.float32) ** passed

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {"rate": self.rate, "drops": list(self.drops), "factor": self.factor}


def _coupled(optimizer: type, decay: float) -> type:
    """Returns the optimizer class with L2 decay: it adds decay × weight to every gradient.

    Keras's own `weight_decay` is another method, decoupled from the gradient (Loshchilov & Hutter
    2019). The papers' recipes use coupled decay.
    """

    class Decaying(optimizer):
        def apply_gradients(self, grads_and_vars: Iterable[tuple[Any, Any]], **kwargs: Any) -> Any:
            decayed = [(g if g is None else g + decay * v, v) for g, v in grads_and_vars]
            return super().apply_gradients(decayed, **kwargs)

    Decaying.__name__ = optimizer.__name__
    return Decaying


def build_optimizer(
    name: str,
    *,
    lr: float,
    steps_per_epoch: int,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    lr_drops: Sequence[int] = (),
    lr_drop_factor: float = 0.1,
) -> "keras.optimizers.Optimizer":
    """Builds `adam` or `sgd` with a `DroppingRate`.

    Args:
      name: `adam` or `sgd`.
      lr: the first learning rate.
      steps_per_epoch: converts `lr_drops` from epochs to steps.
      momentum: momentum of SGD.
      weight_decay: coefficient of the L2 decay.
      lr_drops: epochs after which the rate is multiplied by `lr_drop_factor`.
      lr_drop_factor: the factor.

    Returns:
      The optimizer, not built yet.
    """
    kinds = {
        "adam": (keras.optimizers.Adam, {}),
        "sgd": (keras.optimizers.SGD, {"momentum": momentum}),
    }
    kind, settings = kinds[name]
    rate = DroppingRate(lr, [epoch * steps_per_epoch for epoch in lr_drops], lr_drop_factor)
    return (_coupled(kind, weight_decay) if weight_decay else kind)(rate, **settings)


def restart(optimizer: "keras.optimizers.Optimizer", schedule: DroppingRate, step: int) -> None:
    """Resets a built optimizer, and sets its learning rate to that of `step` of the schedule."""
    for variable in optimizer.variables:
        if variable is not schedule.offset:
            variable.assign(tf.zeros_like(variable))
    schedule.offset.assign(step)
