"""Estimates how long a run takes, by training and predicting for about a second and undoing it."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lotcal_tf.errors import TrainingDiverged
from lotcal_tf.training.compiled_loop import MAX_STEPS_PER_CALL
from lotcal_tf.training.trainer import Trainer

Measure: TypeAlias = Callable[[Mapping[str, tuple[NDArray, NDArray]]], Any]

# How long the training is measured, in seconds. It takes one step at least.
MEASURED_SECONDS = 1.0
# How long predictions are measured, in seconds, and at most how many batches.
PREDICTED_SECONDS, PREDICTED_BATCHES = 0.1, 10


@dataclasses.dataclass(frozen=True)
class TimeEstimate:
    """What a level's parts take, in seconds.

    Attributes:
      step: a training step.
      example: the prediction of an example.
      metrics: an example's part in the metrics at the end of a level.
    """

    step: float
    example: float
    metrics: float

    def level(self, trainer: Trainer, first_step: int = 0) -> float:
        """The seconds of a level: training, validation after each epoch, all splits at the end.

        Pruning, storing and the log are not part of it. Their time depends little on the level's
        length.

        Args:
          trainer: trains the level.
          first_step: the step of the schedule that the level begins with.
        """
        experiment = trainer.experiment
        steps = trainer.total_steps - first_step
        epochs = experiment.epochs - first_step // trainer.steps_per_epoch
        counts = {name: s.count for name, s in trainer.dataset.measured_splits.items()}
        examples = sum(counts.values())
        # The validation after the last epoch is that of the level, unless its weights are left.
        validations = epochs if experiment.early_stopping else epochs - 1
        predicted = examples + validations * counts["val"]
        return steps * self.step + predicted * self.example + examples * self.metrics


def estimate_time(
    trainer: Trainer, measure: Measure, clock: Callable[[], float] = time.perf_counter
) -> TimeEstimate | None:
    """Measures the time of training steps and predictions, and leaves every variable as it was.

    It times a batch of predictions and the beginning of a level's training. Compilation is not part
    of the measured time, and the training that follows need not compile again. If an epoch is longer
    than the measurement, the filling of a stream's shuffle buffer is not part of it either. If several
    processes train, all of them must call this.

    Args:
      trainer: the trainer of a network. The values of its weights do not matter.
      measure: computes the metrics at the end of a level, from labels and logits of each split.
      clock: returns seconds.

    Returns:
      The estimate. None if a level has only one step, or if the loss is not finite before a
      step that needs no compilation.
    """
    strategy = trainer.strategy
    variables = [
        *trainer.network.variables,
        *strategy.variables,
        *strategy.optimizer.variables,
    ]
    before = [variable.numpy() for variable in variables]
    example, measuring = _time_predictions(trainer, measure, clock)
    step = _time_steps(trainer, clock)
    with trainer.distribution.scope():
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)
    return None if step is None else TimeEstimate(step, example, measuring)


def _time_predictions(
    trainer: Trainer, measure: Measure, clock: Callable[[], float]
) -> tuple[float, float]:
    """The seconds that predictions and metrics of an example take, after compilation."""
    split = trainer.dataset.train
    labels, logits = trainer.predict_batch(split)
    # The network is not trained, and can have predicted what is not finite.
    logits = np.nan_to_num(logits)
    begun = predicted = clock()
    batches = 0
    while batches < PREDICTED_BATCHES and predicted - begun < PREDICTED_SECONDS:
        trainer.predict_batch(split)
        predicted, batches = clock(), batches + 1
    measure({"val": (labels, logits)})
    measured = clock() - predicted
    return (predicted - begun) / (batches * labels.size), measured / labels.size


def _time_steps(trainer: Trainer, clock: Callable[[], float]) -> float | None:
    """Trains for about `MEASURED_SECONDS` after compilation; returns the seconds of a step.

    Validations take a part of that time, but do not count: the first one may compile.
    """
    pause_at = [1 << power for power in range(MAX_STEPS_PER_CALL[trainer.plan].bit_length())]
    compiled, begun, step = trainer.loop.compilations, clock(), 0
    spent, seconds, steps = 0.0, 0.0, 0
    with contextlib.suppress(TrainingDiverged):
        for progress in trainer.train(0, pause_at=pause_at):
            now, compilations = clock(), trainer.loop.compilations
            # A smaller batch at the end of the first epoch is compiled, too.
            if compilations == compiled:
                spent += now - begun
            if compilations == compiled and progress.step > step:
                seconds += now - begun
                steps += progress.step - step
            compiled, begun, step = compilations, now, progress.step
            # The time of the slowest process, so that all of them stop at the same step.
            if trainer.distribution.largest(spent) >= MEASURED_SECONDS and steps:
                break
    return trainer.distribution.largest(seconds) / steps if steps else None
