"""Estimates how long a run takes, by training for about a second and undoing it."""

import contextlib
import time
from collections.abc import Callable

from lotcal_tf.errors import TrainingDiverged
from lotcal_tf.training.compiled_loop import MAX_STEPS_PER_CALL
from lotcal_tf.training.trainer import Trainer

# How long the measurement lasts, in seconds. It takes one step at least.
MEASURED_SECONDS = 1.0


def estimate_step_time(
    trainer: Trainer, clock: Callable[[], float] = time.perf_counter
) -> float | None:
    """Measures the time of a training step, and leaves every variable as it was.

    It times the beginning of a level's training. Compilation is not part of the measured time, and
    the training that follows need not compile again. If an epoch is longer than the measurement,
    validation and the filling of a stream's shuffle buffer are not part of it either. If several
    processes train, all of them must call this.

    Args:
      trainer: the trainer of a network. The values of its weights do not matter.
      clock: returns seconds.

    Returns:
      The seconds that a step takes, as counted by `Trainer.level_steps`. None if a level has only
      one step, or if the loss is not finite before a second step was timed.
    """
    strategy = trainer.strategy
    variables = [
        *trainer.network.variables,
        *strategy.variables,
        *strategy.optimizer.variables,
    ]
    before = [variable.numpy() for variable in variables]
    step_time = _time_steps(trainer, clock)
    with trainer.distribution.scope():
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)
    return step_time


def _time_steps(trainer: Trainer, clock: Callable[[], float]) -> float | None:
    """Trains for about `MEASURED_SECONDS` after compilation; returns the seconds of a step."""
    pause_at = [1 << power for power in range(MAX_STEPS_PER_CALL[trainer.plan].bit_length())]
    begun: tuple[float, float] | None = None
    seconds, steps, epochs = 0.0, 0.0, 0
    with contextlib.suppress(TrainingDiverged):
        for progress in trainer.train(0, pause_at=pause_at):
            now, ended = clock(), progress.epoch is not None
            epochs += ended
            done = progress.step + epochs * trainer.validation_steps
            # The first steps are compiled, and so is the validation after the first epoch.
            if begun is None or (ended and epochs == 1):
                begun = now, done
                continue
            # The time of the slowest process, so that all of them stop at the same step.
            seconds, steps = trainer.distribution.largest(now - begun[0]), done - begun[1]
            if steps and seconds >= MEASURED_SECONDS:
                break
    return seconds / steps if steps else None
