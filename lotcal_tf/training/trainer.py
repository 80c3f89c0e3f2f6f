"""Trains one network, level after level, with one strategy, optimizer and compiled loop."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lotcal_tf import metrics, seeds
from lotcal_tf.calibration.strategy import Strategy
from lotcal_tf.compat import keras
from lotcal_tf.config.custom import calling, is_own
from lotcal_tf.config.experiment import Experiment
from lotcal_tf.data.augment import AUGMENTATIONS
from lotcal_tf.data.splits import Dataset, Split, shuffle_seed
from lotcal_tf.errors import FieldError, TrainingDiverged
from lotcal_tf.inputs import image_shape
from lotcal_tf.models import random_layers
from lotcal_tf.models.precision import uses_float16
from lotcal_tf.pruning import masking
from lotcal_tf.pruning.narrow import units_of
from lotcal_tf.training import callbacks as user_callbacks
from lotcal_tf.training import state as training_state
from lotcal_tf.training.compiled_loop import CompiledLoop, LoopProgress, choose_plan
from lotcal_tf.training.distributed.distribution import ONE_DEVICE, Distribution
from lotcal_tf.training.given_optimizer import GivenOptimizer
from lotcal_tf.training.optimizer import level_rate, make_optimizer, restart
from lotcal_tf.training.predictor import Predictor
from lotcal_tf.training.state import TrainingState


@dataclasses.dataclass(frozen=True)
class Epoch:
    """The results of one epoch.

    Attributes:
      level: number of the level.
      epoch: number of the epoch within the level.
      train_loss: mean loss of its steps, as the strategy reports it.
      train_accuracy: mean accuracy of its steps.
      val_loss: NLL of the validation split at its end.
      val_accuracy: accuracy of the validation split at its end.
      logged: means of the other values that the strategy logs, by the names in `log_names`.
    """

    level: int
    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    logged: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Epoch":
        """An epoch from its row of `history.csv`."""
        names = {field.name for field in dataclasses.fields(cls)}
        own = {name: value for name, value in row.items() if name in names}
        logged = {n.removeprefix("train_"): v for n, v in row.items() if n not in names}
        return cls(**own, logged=logged)

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics, by their names in `history.csv`."""
        return {
            "train_loss": self.train_loss,
            "train_accuracy": self.train_accuracy,
            **{f"train_{name}": value for name, value in self.logged.items()},
            "val_loss": self.val_loss,
            "val_accuracy": self.val_accuracy,
        }

    @property
    def row(self) -> dict[str, float]:
        """The row of `history.csv`."""
        return {"level": self.level, "epoch": self.epoch, **self.metrics}

    @property
    def logs(self) -> dict[str, float]:
        """The metrics, by the names that Keras passes to callbacks."""
        return {name.removeprefix("train_"): value for name, value in self.metrics.items()}


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far the training of a level is.

    Attributes:
      level: number of the level.
      first_step: the step of the schedule that the training began with, or went on with.
      step: how many steps of the schedule are done.
      last_step: how many steps the schedule has; a level that stops early does fewer.
      epoch: the results of the epoch that has just ended; None within an epoch.
      take_state: copies the state from which the training goes on after the epoch that has just ended;
        None elsewhere, and after the last epoch. It can be called until the iteration goes on.
    """

    level: int
    first_step: int
    step: int
    last_step: int
    epoch: Epoch | None = None
    take_state: Callable[[], TrainingState] | None = None


class Trainer:
    """Trains a wrapped network in place by an experiment's schedule.

    Args:
      experiment: has the schedule, the seed and the plan.
      strategy: the class of the calibration strategy.
      network: a wrapped network. `train` starts from its weights and masks, and changes its
        weights.
      dataset: the examples.
      distribution: the devices that share every step.
      given: the optimizer or schedule, if the caller passed one as an object.

    Attributes:
      steps_per_epoch: steps of an epoch. A step takes a whole batch; the examples that are left
        over differ from epoch to epoch. Without `drop_remainder` they are a last, smaller batch.
      plan: how the steps are executed, see `choose_plan`.
      replicas: the network that the steps train. On several devices it is a copy of `network`.
      strategy: the calibration strategy, around `replicas`.
      rate: the learning rate as a function of the step.
      loop: the compiled loop.

    Raises:
      FieldError: a batch is larger than the training split or cannot be shared by the devices, the
        examples to augment are not images, weights of examples or classes cannot be used, or the
        `train_step` of a custom strategy fails.
    """

    def __init__(
        self,
        experiment: Experiment,
        strategy: type[Strategy],
        network: "keras.Model",
        dataset: Dataset,
        distribution: Distribution = ONE_DEVICE,
        given: GivenOptimizer | None = None,
    ) -> None:
        self.experiment, self.network, self.dataset = experiment, network, dataset
        self.distribution = distribution
        distribution.check(experiment, strategy, network)
        count = dataset.train.count
        if experiment.batch_size > count:
            problem = f"the training split has {count} examples: a batch cannot be larger"
            raise FieldError("batch_size", experiment.batch_size, problem)
        augmentation, shape = AUGMENTATIONS[experiment.augment], dataset.train.shape
        if augmentation is not None and not image_shape(shape):
            problem = f"needs images, (height, width, channels): the inputs have shape {shape}"
            raise FieldError("augment", experiment.augment, problem)
        _check_weights(experiment, strategy, dataset)
        self.steps_per_epoch, remainder = divmod(count, experiment.batch_size)
        if remainder and not experiment.drop_remainder:
            self.steps_per_epoch += 1
        self.plan = distribution.plan(choose_plan(experiment.plan, network))
        random_layers.seed_layers(masking.leaf_layers(network))
        random_layers.check_draws(network, masking.leaf_layers(network))
        self.replicas = distribution.replicate(network)
        random_layers.seed_layers(masking.leaf_layers(self.replicas))
        self.strategy = strategy(self.replicas, **experiment.settings_of(strategy.Hyperparameters))
        with distribution.scope():
            self.rate = level_rate(experiment, self.steps_per_epoch, given)
            self._new_optimizer = functools.partial(
                make_optimizer, experiment, self.rate, given, scale_loss=uses_float16(network)
            )
            optimizer = self._new_optimizer()
            optimizer.build(self.replicas.trainable_variables)
        self.strategy.compile(optimizer=optimizer)
        self.loop = CompiledLoop(
            self.strategy,
            experiment.batch_size,
            self.plan,
            augmentation,
            distribution,
            experiment.class_weight,
            experiment.drop_remainder,
        )
        if is_own(strategy):
            _check_step(strategy, experiment.calib, self.loop, dataset.train)
        own = {id(variable) for variable in self.replicas.variables}
        # A level must not depend on whether the levels before it ran in the same process.
        self._initial = [(v, v.numpy()) for v in self.strategy.variables if id(v) not in own]
        self.predictor = Predictor(network, self.plan, experiment.mc_eval, experiment.seed)
        self._plain = Predictor(network, self.plan) if experiment.mc_eval else self.predictor
        # The weights with which the validation split was predicted last, and labels and logits.
        self._validated: tuple[list[NDArray], tuple[NDArray, NDArray]] | None = None

    @property
    def total_steps(self) -> int:
        """Steps of a whole level."""
        return self.steps_per_epoch * self.experiment.epochs

    def train(
        self,
        level: int,
        *,
        first_step: int = 0,
        pause_at: Sequence[int] = (),
        callbacks: Sequence["keras.callbacks.Callback"] = (),
        state: TrainingState | None = None,
    ) -> Iterator[Progress]:
        """Trains the level from `first_step` of the schedule to its end.

        This is a generator: it trains while the caller iterates. A caller that stops iterating
        leaves the network as it is then; the next call of `train` is not affected.

        Args:
          level: number of the level, part of the seed of its random draws.
          first_step: after late rewinding, the step rewound to.
          pause_at: steps of the schedule after which a `Progress` is yielded in any case.
          callbacks: Keras callbacks, see `check_callbacks`. Their methods are called as by
            `fit`, with the strategy as their model. If one sets `stop_training` of the model, the
            level ends after the epoch. If one sets the optimizer's learning rate, that replaces the
            schedule until the level ends. With moving averages, `on_epoch_end` finds these as the
            weights; weights that it sets are kept only if the level ends with that epoch.
          state: of the same level after some epochs, see `accepts`. The training goes on from there,
            with the results of one that was not interrupted.

        Yields:
          The progress after some steps, and at the end of each epoch first with its results, and then
          with `take_state`. On several devices `network` has the current weights at the end of each
          epoch, and after `fetch`. With moving averages, the weights at the end of an epoch are these.

        Raises:
          TrainingDiverged: a loss was not finite.
        """
        stopping = self._early_stopping()
        hooks = self._hooks([*([stopping] if stopping else []), *callbacks])
        self._begin(first_step)
        with self._rate_may_be_set(hooks, at_start=True):
            hooks.on_train_begin()
        if state is not None:
            self._restore(state, stopping, callbacks)
        done = first_step if state is None else state.epochs * self.steps_per_epoch
        progress = functools.partial(Progress, level, done, last_step=self.total_steps)
        for epoch in range(done // self.steps_per_epoch, self.experiment.epochs):
            start = epoch * self.steps_per_epoch
            with self._rate_may_be_set(hooks, at_start=True):
                hooks.on_epoch_begin(epoch)
            for part in self._run_epoch(level, epoch, max(0, done - start), pause_at):
                yield progress(step=start + part.step)
            with self._averaged() as keep:
                ended = self._measure_epoch(level, epoch, part.means)
                with self._rate_may_be_set(hooks):
                    hooks.on_epoch_end(epoch, ended.logs)
                yield progress(step=start + self.steps_per_epoch, epoch=ended)
                if self.strategy.stop_training or epoch + 1 == self.experiment.epochs:
                    keep()
                    break
            take = functools.partial(self._state, epoch + 1, stopping, callbacks)
            yield progress(step=start + self.steps_per_epoch, take_state=take)
        hooks.on_train_end(ended.logs)
        self.fetch()  # A callback may have changed the weights.

    def _state(
        self,
        epochs: int,
        stopping: "keras.callbacks.EarlyStopping | None",
        callbacks: Sequence["keras.callbacks.Callback"],
    ) -> TrainingState:
        states = user_callbacks.states(callbacks)
        return training_state.take(epochs, self.strategy, self.rate, stopping, states)

    def _restore(
        self,
        state: TrainingState,
        stopping: "keras.callbacks.EarlyStopping | None",
        callbacks: Sequence["keras.callbacks.Callback"],
    ) -> None:
        with self.distribution.scope():
            training_state.give(state, self.strategy, self.rate, stopping)
        user_callbacks.restore(callbacks, state.callbacks)

    def _begin(self, first_step: int) -> None:
        """Prepares replicas and optimizer for a level that begins at a step of the schedule."""
        self.distribution.copy(self.network, self.replicas)
        with self.distribution.scope():
            for variable, value in self._initial:
                variable.assign(value)
            self.rate.begin(first_step)
            variables = self.replicas.trainable_variables
            restart(self.strategy.optimizer, self._new_optimizer(), variables)
        # With biases, networks keep the computation, and so the bits, that they always had.
        if not self.experiment.use_bias and self.distribution.replicas == 1:
            self.loop.use_units(units_of(self.replicas))
        self.strategy.stop_training = False

    def _hooks(
        self, callbacks: Sequence["keras.callbacks.Callback"]
    ) -> "keras.callbacks.CallbackList":
        """Keras's list, which calls callbacks as `fit` does."""
        return keras.callbacks.CallbackList(
            callbacks,
            model=self.strategy,
            epochs=self.experiment.epochs,
            steps=self.steps_per_epoch,
            verbose=0,
        )

    def _early_stopping(self) -> "keras.callbacks.EarlyStopping | None":
        """Keras's callback, before those of the user, which then see the weights that are kept."""
        patience = self.experiment.early_stopping
        kind = keras.callbacks.EarlyStopping
        settings = {"monitor": "val_loss", "mode": "min", "restore_best_weights": True}
        return kind(patience=patience, **settings) if patience else None

    def accepts(self, state: TrainingState) -> bool:
        """Whether `train` can go on from a state: it has the variables of this trainer."""
        stopping = bool(self.experiment.early_stopping)
        return training_state.fits(state, self.strategy, self.rate, stopping)

    @contextlib.contextmanager
    def _rate_may_be_set(
        self, hooks: "keras.callbacks.CallbackList", *, at_start: bool = False
    ) -> Iterator[None]:
        """Inside it, a callback may set the learning rate; the rate then stays until the level ends.

        At the start of a level or an epoch, callbacks find the rate of the next step. So one that sets the
        same rate at every epoch is noticed where the schedule changes it.
        """
        if not hooks.callbacks:  # The rate of a million short epochs need not be read.
            yield
            return
        optimizer = self.strategy.optimizer
        if at_start:
            with self.distribution.scope():
                optimizer.learning_rate.assign(self.rate(optimizer.iterations))
        before = float(optimizer.learning_rate.numpy())
        yield
        after = float(optimizer.learning_rate.numpy())
        if after != before:
            self.rate.fixed.assign(after)

    @contextlib.contextmanager
    def _averaged(self) -> Iterator[Callable[[], None]]:
        """Inside it, the weights are their moving averages, if the experiment has these.

        Yields:
          A function that makes the averages stay.
        """
        variables = self.replicas.trainable_variables if self.experiment.ema else []
        trained = [variable.numpy() for variable in variables]
        with self.distribution.scope():
            self.strategy.optimizer.finalize_variable_values(variables)
        yield trained.clear
        if trained:
            with self.distribution.scope():
                for variable, value in zip(variables, trained, strict=True):
                    variable.assign(value)

    def _run_epoch(
        self, level: int, epoch: int, first: int, pause_at: Sequence[int]
    ) -> Iterator[LoopProgress]:
        """Runs the steps of an epoch from its step `first`; `pause_at` are steps of the schedule."""
        seed, start = self.experiment.seed, epoch * self.steps_per_epoch
        self._validated = None  # The weights change, and need not be kept.
        shuffle = shuffle_seed(seed, level, epoch)
        draws = seeds.named_seed(seed, "steps", level, epoch)
        pauses = [step - start for step in pause_at]
        for part in self.loop.epoch(self.dataset.train, shuffle, draws, first, pauses):
            if not part.finite:
                raise TrainingDiverged(level, epoch, start + part.step - 1)
            yield part

    def _measure_epoch(self, level: int, epoch: int, means: Mapping[str, float]) -> Epoch:
        """Measures the validation split, and puts the results of an epoch together."""
        self.fetch()
        labels, logits = self.predict(self.dataset.validation)
        # The weights too: an activation can hide them. The ReLU of oneDNN turns NaN into 0.
        values = {f"weight {name}": v for name, v in masking.values(self.network).items()}
        values |= {"an output on validation data": logits, "the gradient": self._gradient_scale()}
        for name, value in values.items():
            if not np.isfinite(value).all():
                raise TrainingDiverged(level, epoch, (epoch + 1) * self.steps_per_epoch, name)
        logged = {name: mean for name, mean in means.items() if name not in Strategy.log_names}
        return Epoch(
            level,
            epoch,
            train_loss=means["loss"],
            train_accuracy=means["accuracy"],
            val_loss=metrics.nll(labels, logits),
            val_accuracy=metrics.accuracy(labels, logits),
            logged=logged,
        )

    def _gradient_scale(self) -> float:
        """The scale of the loss in float16; infinite if gradients overflow even at the least scale.

        Steps whose gradient is not finite are skipped then, and neither loss nor weights show it.
        """
        optimizer = self.strategy.optimizer
        if not isinstance(optimizer, keras.mixed_precision.LossScaleOptimizer):
            return 1.0
        scale = float(optimizer.loss_scale)
        return np.inf if optimizer.dynamic and scale <= 1.0 else scale

    def fetch(self) -> None:
        """Copies the current weights to `network`, if the training runs on a copy of it."""
        self.distribution.copy(self.replicas, self.network)

    def predict(self, split: Split) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Returns labels and logits of a split, with the current weights of `network`.

        Those of the validation split are not computed again if the weights are those of the end of the
        last epoch.
        """
        if split is not self.dataset.validation:
            return self.predictor(split)
        weights = [variable.numpy() for variable in self.network.variables]
        if self._validated is None or not _equal(weights, self._validated[0]):
            self._validated = weights, self.predictor(split)
        return self._validated[1]

    def predict_without_dropout(
        self, split: Split
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Returns labels and logits of a split with dropout off, also where `mc_eval` averages passes."""
        return self._plain(split)

    def predict_batch(self, split: Split) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Returns labels and logits of the first batch of a split, see `predict`."""
        return next(self.predictor.batches(split))


def _equal(some: Sequence[NDArray], others: Sequence[NDArray]) -> bool:
    """Whether arrays have the same values; those that hold NaN have not."""
    return all(map(np.array_equal, some, others))


def _check_step(strategy: type, name: str, loop: CompiledLoop, train: Split) -> None:
    """Traces a step of a custom strategy before the first one is taken.

    Raises:
      FieldError: its `train_step` raises an error, or does not return what it must.
    """
    with calling(strategy, "calib", name, "train_step"):
        logs = loop.traced(train)
    for value in loop.strategy.log_names:
        found = logs.get(value) if isinstance(logs, Mapping) else None
        if found is None or tuple(getattr(found, "shape", ())) != ():
            problem = f"its train_step must return a dictionary with a scalar for {value!r}, one of its log_names"
            raise FieldError("calib", name, problem)


def _check_weights(experiment: Experiment, strategy: type[Strategy], dataset: Dataset) -> None:
    """Checks `class_weight`, and that the strategy takes weights where there are any.

    Raises:
      FieldError: they do not fit.
    """
    given = experiment.class_weight
    if given and len(given) != dataset.classes:
        problem = f"has {len(given)} weights, and the data has {dataset.classes} classes: give one per class"
        raise FieldError("class_weight", given, problem)
    if (given or dataset.train.weighted) and not strategy.takes_weights:
        what = "class_weight" if given else "the sample weights of train"
        problem = (
            f"its train_step takes (inputs, labels) only, and {what} would not count: leave them out, or take "
            "(inputs, labels, weights) in train_step and set takes_weights = True"
        )
        raise FieldError("calib", experiment.calib, problem)
