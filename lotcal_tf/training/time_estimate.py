"""A rehearsal: a short stretch of training, timed and undone, which foretells how long a run takes."""

import contextlib
import time
from collections.abc import Callable

from lotcal_tf.errors import TrainingDiverged
from lotcal_tf.training.compiled_loop import VISIT_STEPS
from lotcal_tf.training.trainer import Progress, Trainer

# How long a stretch is watched, in seconds; one step at least, however long that takes.
WATCHED = 1.0


class _Enough(Exception):
    """The stretch was long enough."""


def rehearse(trainer: Trainer, clock: Callable[[], float] = time.perf_counter) -> float | None:
    """Times the beginning of a level's training, then puts everything back.

    It is the training itself that is timed, by the same program, visited more often. What compiles
    is not part of the stretch, and is compiled for the training that follows. An epoch that is
    longer than the stretch is measured without validation and without the filling of a stream's
    shuffle buffer. Where several processes train, all of them must rehearse.

    Args:
      trainer: of a network that has some weights; which ones does not matter.
      clock: gives seconds.

    Returns:
      The seconds that a step takes, see `Trainer.level_steps`; None where a level has only one, or
      where its second step cannot be taken.
    """
    strategy = trainer.strategy
    variables = [
        *trainer.network.variables,
        *strategy.variables,
        *strategy.optimizer.variables,
    ]
    before = [variable.numpy() for variable in variables]
    watch = _Watch(trainer, clock)
    cuts = [1 << power for power in range(VISIT_STEPS[trainer.plan].bit_length())]
    with contextlib.suppress(_Enough, TrainingDiverged):
        trainer.train(0, cuts=cuts, listener=watch)
    with trainer.distribution.scope():
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)
    return watch.seconds / watch.steps if watch.steps else None


class _Watch:
    """A listener that times a stretch which compiles nothing, and ends the training after it.

    It begins after the first visit, and anew after the first epoch where that ends earlier and is
    not the only one: both compile.
    """

    def __init__(self, trainer: Trainer, clock: Callable[[], float]) -> None:
        self.trainer, self.clock = trainer, clock
        self.seconds, self.steps = 0.0, 0.0
        self._begun: tuple[float, float] | None = None
        self._epochs = 0

    def __call__(self, progress: Progress) -> None:
        now, ended = self.clock(), progress.epoch is not None
        self._epochs += ended
        done = progress.step + self._epochs * self.trainer.validation_steps
        if self._begun is None or (ended and self._epochs == 1):
            self._begun = now, done
            return
        # The slowest process's time, so that all end at the same visit.
        self.seconds = self.trainer.distribution.largest(now - self._begun[0])
        self.steps = done - self._begun[1]
        if self.steps and self.seconds >= WATCHED:
            raise _Enough
