"""Trains one network level after level: the same strategy, optimizer and compiled program for all."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lotcal_tf import metrics, seeds
from lotcal_tf.calibration.strategy import Strategy
from lotcal_tf.compat import keras
from lotcal_tf.config.experiment import Experiment
from lotcal_tf.data.augment import AUGMENTATIONS
from lotcal_tf.data.splits import Dataset, Split, shuffle_seed
from lotcal_tf.errors import FieldError, TrainingDiverged
from lotcal_tf.training.compiled_loop import TrainingProgram, choose_plan
from lotcal_tf.training.distributed.distribution import ONE_DEVICE, Distribution
from lotcal_tf.training.optimizer import build_optimizer, restart
from lotcal_tf.training.predictor import Predictor


@dataclasses.dataclass(frozen=True)
class Epoch:
    """One epoch's figures.

    Attributes:
      level, epoch: their numbers.
      train_loss, train_accuracy: means over its steps, as the strategy gives them.
      val_loss, val_accuracy: NLL and accuracy at its end.
      logged: means of what else the strategy logs, by its `log_names`.
    """

    level: int
    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    logged: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def figures(self) -> dict[str, float]:
        """What was measured, by the names of `history.csv`."""
        return {
            "train_loss": self.train_loss,
            "train_accuracy": self.train_accuracy,
            **{f"train_{name}": value for name, value in self.logged.items()},
            "val_loss": self.val_loss,
            "val_accuracy": self.val_accuracy,
        }

    @property
    def row(self) -> dict[str, float]:
        """Its row of `history.csv`."""
        return {"level": self.level, "epoch": self.epoch, **self.figures}


@dataclasses.dataclass(frozen=True)
class Progress:
    """Told to a listener after every visit of the program: where the level's training stands.

    Attributes:
      level: its number.
      first_step: the step of the schedule that the level began with.
      step: the step it has come to.
      epoch: the epoch that has just ended, where one has.
    """

    level: int
    first_step: int
    step: int
    epoch: Epoch | None


Listener = Callable[[Progress], None]

# A step goes forward and back, and back takes about twice as long; to measure is to go forward.
_FORWARD_SHARE = 1 / 3


class Trainer:
    """Trains a wrapped network in place by an experiment's schedule.

    Args:
      experiment: the schedule, the seed, the plan.
      strategy: the strategy class.
      network: wrapped; its weights and masks are what `train` starts from and leaves.
      dataset: what it trains on.
      distribution: the devices that share every step.

    Raises:
      FieldError: a batch is larger than the training split or cannot be shared by the devices, or
        what should be augmented is no image.
    """

    def __init__(
        self,
        experiment: Experiment,
        strategy: type[Strategy],
        network: "keras.Model",
        dataset: Dataset,
        distribution: Distribution = ONE_DEVICE,
    ) -> None:
        """See the class."""
        self.experiment, self.network, self.dataset = experiment, network, dataset
        self.distribution = distribution
        distribution.check(experiment, strategy)
        count = dataset.train.count
        if experiment.batch_size > count:
            problem = f"the training split has {count} examples: a batch cannot be larger"
            raise FieldError("batch_size", experiment.batch_size, problem)
        augmentation, shape = AUGMENTATIONS[experiment.augment], dataset.train.shape
        if augmentation is not None and len(shape) != 3:
            problem = f"needs images, (height, width, channels): the inputs have shape {shape}"
            raise FieldError("augment", experiment.augment, problem)
        # A step takes a whole batch; what is left over differs from epoch to epoch.
        self.steps_per_epoch = count // experiment.batch_size
        self.plan = distribution.plan(choose_plan(experiment.plan, network))
        # What the steps train: on several devices a copy, whose weights come and go.
        self.replicas = distribution.replicate(network)
        self.strategy = strategy(self.replicas, **experiment.settings_of(strategy.Hyperparameters))
        with distribution.scope():
            optimizer = build_optimizer(
                experiment.optimizer,
                lr=experiment.lr,
                steps_per_epoch=self.steps_per_epoch,
                momentum=experiment.momentum,
                weight_decay=experiment.weight_decay,
                lr_drops=experiment.lr_drops,
                lr_drop_factor=experiment.lr_drop_factor,
            )
            optimizer.build(self.replicas.trainable_variables)
        self.strategy.compile(optimizer=optimizer)
        self.program = TrainingProgram(
            self.strategy, experiment.batch_size, self.plan, augmentation, distribution
        )
        self.strategy.train_function = self.program
        self._predict = Predictor(network, self.plan, experiment.mc_eval, experiment.seed)

    @property
    def total_steps(self) -> int:
        """Steps of a whole level."""
        return self.steps_per_epoch * self.experiment.epochs

    @property
    def validation_steps(self) -> float:
        """What measuring on validation data takes, in steps of training, roughly."""
        return self._measuring_steps(self.dataset.validation)

    def level_steps(self, first_step: int = 0) -> float:
        """What a level takes, in steps: its own, and what is measured after epochs and at its end.

        Args:
          first_step: after late rewinding, the step rewound to.
        """
        steps = self.total_steps - first_step
        epochs = self.experiment.epochs - first_step // self.steps_per_epoch
        at_end = sum(map(self._measuring_steps, self.dataset.named_splits().values()))
        return steps + epochs * self.validation_steps + at_end

    def _measuring_steps(self, split: Split) -> float:
        passes = max(1, self.experiment.mc_eval)
        return _FORWARD_SHARE * passes * split.count / self.experiment.batch_size

    def train(
        self,
        level: int,
        *,
        first_step: int = 0,
        snapshot_step: int | None = None,
        snapshot: Callable[[], Any] = lambda: None,
        cuts: Sequence[int] = (),
        listener: Listener = lambda _: None,
    ) -> list[Epoch]:
        """Trains the level from `first_step` of the schedule to its end.

        Args:
          level: names the level's random draws.
          first_step: after late rewinding, the step rewound to.
          snapshot_step: the step after which `snapshot` is called, once.
          cuts: steps after which the program is visited, besides its own visits.
          listener: hears of every visit and every epoch's end.

        Returns:
          The epochs trained, the first maybe in part.

        Raises:
          TrainingDiverged: a loss was not finite.
        """
        self.distribution.copy(self.network, self.replicas)
        restart(self.strategy.optimizer, self.strategy.optimizer._learning_rate, first_step)
        cuts = [*cuts, *(() if snapshot_step is None else (snapshot_step,))]
        places = [cut % self.steps_per_epoch for cut in cuts]
        callback = _LevelCallback(self, level, first_step, cuts, snapshot_step, snapshot, listener)
        self.strategy.fit(
            tf.data.Dataset.range(1).repeat(),
            steps_per_epoch=self.program.visits(self.dataset.train, places),
            initial_epoch=first_step // self.steps_per_epoch,
            epochs=self.experiment.epochs,
            callbacks=[callback],
            verbose=0,
        )
        return callback.epochs

    def fetch(self) -> None:
        """Brings the network to where its training stands, if that runs on a copy."""
        self.distribution.copy(self.replicas, self.network)

    def predict(self, split: Split) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Labels and logits of a split, with the network as it stands."""
        return self._predict(split)


class _LevelCallback(keras.callbacks.Callback):
    """Readies the program's epochs, watches for a loss that is not finite, measures each epoch."""

    def __init__(
        self,
        trainer: Trainer,
        level: int,
        first_step: int,
        cuts: Sequence[int],
        snapshot_step: int | None,
        snapshot: Callable[[], Any],
        listener: Listener,
    ) -> None:
        super().__init__()
        self.trainer, self.level, self.first_step, self.cuts = trainer, level, first_step, cuts
        self.snapshot_step, self.snapshot, self.listener = snapshot_step, snapshot, listener
        self.epochs: list[Epoch] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        trainer, seed = self.trainer, self.trainer.experiment.seed
        start = epoch * trainer.steps_per_epoch
        self.before = max(self.first_step, start)
        trainer.program.feed(
            trainer.dataset.train,
            shuffle_seed(seed, self.level, epoch),
            seeds.named_seed(seed, "steps", self.level, epoch),
            self.before - start,
            [cut - start for cut in self.cuts],
        )
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        failed = self.trainer.program.failed_step
        if failed is not None:
            step = self.epoch * self.trainer.steps_per_epoch + failed
            raise TrainingDiverged(self.level, self.epoch, step)
        step = self.before + logs["steps"]
        if step == self.snapshot_step:
            self.trainer.fetch()
            self.snapshot()
            self.snapshot_step = None
        self.listener(Progress(self.level, self.first_step, step, None))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.trainer.fetch()
        labels, logits = self.trainer.predict(self.trainer.dataset.validation)
        # The weights too: an activation can hide them, oneDNN's fused ReLU makes 0 of NaN.
        finite = all(np.isfinite(v).all() for v in (logits, *self.trainer.network.get_weights()))
        row = Epoch(
            self.level,
            epoch,
            logs["loss"],
            logs["accuracy"],
            metrics.nll(labels, logits) if finite else math.nan,
            metrics.accuracy(labels, logits) if finite else math.nan,
            {
                name: logs[name]
                for name in self.trainer.strategy.log_names
                if name not in Strategy.log_names
            },
        )
        if not finite:
            raise TrainingDiverged(self.level, epoch, (epoch + 1) * self.trainer.steps_per_epoch)
        self.epochs.append(row)
        step = (epoch + 1) * self.trainer.steps_per_epoch
        self.listener(Progress(self.level, self.first_step, step, row))
