"""The optimizer of an experiment, and its learning rate as a function of the step."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import tensorflow as tf

from lotcal_tf.compat import keras
from lotcal_tf.config.custom import load_class
from lotcal_tf.config.experiment import Experiment
from lotcal_tf.config.optimizers import WITH_DECOUPLED_DECAY, WITH_MOMENTUM, is_custom
from lotcal_tf.errors import FieldError
from lotcal_tf.training.given_optimizer import ADAFACTOR_EPSILON, GivenOptimizer

# A learning rate as a function of the step.
Rate = Callable[["tf.Tensor"], "tf.Tensor"]


class DroppingRate(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that drops after given steps.

    Args:
      rate: the first learning rate.
      drops: the steps after which the rate is multiplied by `factor`, in ascending order.
      factor: the factor.
    """

    def __init__(self, rate: float, drops: Sequence[int], factor: float) -> None:
        self.rate, self.drops, self.factor = rate, tuple(drops), factor

    def __call__(self, step: "tf.Tensor") -> "tf.Tensor":
        """Returns the learning rate of step number `step`, counted from 0."""
        passed = tf.reduce_sum([tf.cast(step >= drop, tf.float32) for drop in self.drops] or [0.0])
        return tf.constant(self.rate, tf.float32) * tf.constant(self.factor, tf.float32) ** passed

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {"rate": self.rate, "drops": list(self.drops), "factor": self.factor}


class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that first rises linearly, and then follows another schedule.

    Step s of the first `steps` has the rate `rate` · (s + 1) / `steps`, so that no step has rate 0.

    Args:
      rate: the rate that the last step of the warm-up reaches.
      steps: the number of steps of the warm-up, 1 or more.
      then: the schedule that follows, a function of the step counted from the first one of all.
    """

    def __init__(self, rate: float, steps: int, then: Rate) -> None:
        self.rate, self.steps, self.then = rate, steps, then

    def __call__(self, step: "tf.Tensor") -> "tf.Tensor":
        """Returns the learning rate of step number `step`, counted from 0."""
        share = (tf.cast(step, tf.float32) + 1.0) / self.steps
        return tf.where(step < self.steps, self.rate * share, self.then(step))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {"rate": self.rate, "steps": self.steps, "then": self.then}


class CosineRate(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that falls along half a cosine from `rate` at step `first` to 0 at `last`.

    It is `keras.optimizers.schedules.CosineDecay`, started at a later step.
    """

    def __init__(self, rate: float, first: int, last: int) -> None:
        self.rate, self.first, self.last = rate, first, last
        self._decay = keras.optimizers.schedules.CosineDecay(rate, last - first)

    def __call__(self, step: "tf.Tensor") -> "tf.Tensor":
        """Returns the learning rate of step number `step`, counted from 0."""
        return self._decay(step - self.first)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {"rate": self.rate, "first": self.first, "last": self.last}


class LevelRate(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate of a level: a schedule that may begin in the middle.

    After late rewinding to step K the optimizer starts again, with its step count and slots as new,
    but the schedule continues from step K.

    Args:
      schedule: the learning rate as a function of the step of the level.

    Attributes:
      offset: K, the step of the schedule that the optimizer's first step has.
      fixed: the rate that a callback has set, which replaces the schedule until the level ends;
        below 0: none.
    """

    def __init__(self, schedule: Rate) -> None:
        self.schedule = schedule
        self.offset = tf.Variable(0, trainable=False, dtype=tf.int64, name="schedule_offset")
        self.fixed = tf.Variable(-1.0, trainable=False, name="fixed_rate")

    def __call__(self, step: "tf.Tensor") -> "tf.Tensor":
        """Returns the learning rate of step number `step` of the optimizer, counted from 0."""
        planned = self.schedule(tf.cast(step, tf.int64) + self.offset)
        return tf.where(self.fixed >= 0.0, self.fixed, planned)

    def begin(self, step: int) -> None:
        """Starts a level at a step of the schedule, without a rate set by a callback."""
        self.offset.assign(step)
        self.fixed.assign(-1.0)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {"schedule": self.schedule}


def level_rate(
    experiment: Experiment, steps_per_epoch: int, given: GivenOptimizer | None = None
) -> LevelRate:
    """The learning rate of an experiment's levels.

    Args:
      experiment: its fields `lr`, `schedule`, `warmup_epochs`, `lr_drops` and `lr_drop_factor`.
      steps_per_epoch: converts epochs to steps.
      given: its schedule, if there is one, takes the place of the fields.

    Raises:
      FieldError: a given schedule is missing, or its rates are not numbers of 0 or more.
    """
    last, warmup = (
        round(n * steps_per_epoch) for n in (experiment.epochs, experiment.warmup_epochs)
    )
    if experiment.schedule == "custom":
        if given is None or given.schedule is None:
            problem = "pass the Keras schedule that the run began with as lr"
            raise FieldError("schedule", "custom", problem)
        _check_rates(given.schedule, last)
        return LevelRate(given.schedule)
    lr = experiment.lr
    schedule: Rate
    if experiment.schedule == "cosine":
        schedule = CosineRate(lr, warmup, last)
    else:
        drops = experiment.lr_drops if experiment.schedule == "step" else ()
        steps = [epoch * steps_per_epoch for epoch in drops]
        schedule = DroppingRate(lr, steps, experiment.lr_drop_factor)
    return LevelRate(WarmUp(lr, warmup, schedule) if warmup else schedule)


def _check_rates(schedule: Rate, steps: int) -> None:
    for step in sorted({0, steps // 2, steps - 1}):
        rate = float(schedule(tf.constant(step, tf.int64)))
        if not 0 <= rate < float("inf"):
            problem = f"gives {rate} for step {step} of {steps}: must be finite, 0 or more"
            raise FieldError("lr", type(schedule).__name__, problem)


def _coupled(optimizer: type, decay: float) -> type:
    """Returns the optimizer class with L2 decay: it adds decay × weight to every gradient.

    Keras's own `weight_decay` is another method, decoupled from the gradient (Loshchilov & Hutter
    2019). The papers' recipes use coupled decay. As in PyTorch, gradients are clipped before.
    """

    class Decaying(optimizer):
        def apply_gradients(self, grads_and_vars: Iterable[tuple[Any, Any]], **kwargs: Any) -> Any:
            gradients, variables = zip(*grads_and_vars, strict=True)
            clipped = super()._clip_gradients(gradients)
            decayed = [
                (g if g is None else g + decay * v, v)
                for g, v in zip(clipped, variables, strict=True)
            ]
            return super().apply_gradients(decayed, **kwargs)

        def _clip_gradients(self, grads: Any) -> Any:
            return grads  # Clipped above.

    Decaying.__name__ = optimizer.__name__
    return Decaying


def optimizer_class(name: str) -> type:
    """The class of an optimizer by the field's value.

    Raises:
      FieldError: it is a custom class that cannot be imported, or not an optimizer of Keras.
    """
    base = keras.optimizers.Optimizer
    if not is_custom(name):
        kinds = [k for k in vars(keras.optimizers).values() if isinstance(k, type)]
        return {k.__name__.lower(): k for k in kinds if issubclass(k, base)}[name]
    found = load_class("optimizer", name)
    if not (isinstance(found, type) and issubclass(found, base)):
        raise FieldError("optimizer", name, "must be a subclass of tf_keras.optimizers.Optimizer")
    return found


def make_optimizer(
    experiment: Experiment,
    rate: LevelRate,
    given: GivenOptimizer | None = None,
    scale_loss: bool = False,
) -> "keras.optimizers.Optimizer":
    """A new optimizer, not built yet.

    Args:
      experiment: its fields of the optimizer.
      rate: the learning rate.
      given: its optimizer, if there is one, takes the place of the fields.
      scale_loss: whether to scale the loss, as gradients in float16 need it.
    """
    made = None if given is None else given.make(rate)
    optimizer = _by_fields(experiment, rate) if made is None else made
    return keras.mixed_precision.LossScaleOptimizer(optimizer) if scale_loss else optimizer


def _by_fields(experiment: Experiment, rate: LevelRate) -> "keras.optimizers.Optimizer":
    name, decay = experiment.optimizer, experiment.weight_decay
    kind, settings = optimizer_class(name), dict[str, Any]()
    if name in WITH_DECOUPLED_DECAY:
        settings["weight_decay"] = decay
    elif decay:
        kind = _coupled(kind, decay)
    if name in WITH_MOMENTUM:
        settings["momentum"] = experiment.momentum
    if name == "sgd":
        settings["nesterov"] = experiment.nesterov
    if name == "adafactor":
        settings["epsilon_1"] = ADAFACTOR_EPSILON
    optimizer = kind(rate, **settings)
    # Attributes, since the constructor of a custom class may not have these arguments.
    optimizer.global_clipnorm, optimizer.clipvalue = experiment.clip_norm, experiment.clip_value
    if experiment.ema:
        optimizer.use_ema, optimizer.ema_momentum = True, experiment.ema
        optimizer.ema_overwrite_frequency = None
    return optimizer


def restart(
    optimizer: "keras.optimizers.Optimizer",
    fresh: "keras.optimizers.Optimizer",
    variables: Sequence["tf.Variable"],
) -> None:
    """Gives a built optimizer the state that a fresh one has on the current weights.

    That is right for every optimizer, whatever its slots, averages, step count and loss scale
    begin with.

    Args:
      optimizer: the optimizer that the compiled step uses.
      fresh: a new one of the same kind, not built yet.
      variables: the trainable variables.
    """
    fresh.build(variables)
    for own, new in zip(state_of(optimizer), state_of(fresh), strict=True):
        own.assign(new.numpy())


def state_of(optimizer: "keras.optimizers.Optimizer") -> list["tf.Variable"]:
    """All variables of an optimizer; `optimizer.variables` lacks some, e.g. of Nadam."""
    parts = tf.train.TrackableView(optimizer).descendants()
    return [part for part in parts if isinstance(part, tf.Variable)]
