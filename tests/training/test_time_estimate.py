"""The estimate by a clock that counts steps, and that it leaves everything as it was."""

import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf.calibration.strategies import CrossEntropy
from lotcal_tf.compat import keras
from lotcal_tf.config.experiment import Experiment
from lotcal_tf.data.splits import Dataset, ResidentSplit
from lotcal_tf.pruning import masking
from lotcal_tf.training.time_estimate import estimate_step_time
from lotcal_tf.training.trainer import Trainer

STEPS, BATCH = 10, 8
VALIDATION = 12  # examples: half a step, by a third of a step's time for each of 8


class Counting(CrossEntropy):
    """A strategy with a variable of its own, that every step changes."""

    def __init__(self, network, **hyperparameters):
        super().__init__(network, **hyperparameters)
        self.count = tf.Variable(3.0, trainable=False)

    def train_step(self, data):
        self.count.assign_add(1.0)
        return super().train_step(data)


def split(count, bad=False):
    rng = np.random.default_rng(count)
    inputs = rng.normal(size=(count, 4)).astype(np.float32) + (np.inf if bad else 0)
    return ResidentSplit.of(inputs, rng.integers(0, 3, count))


def make_trainer(steps=STEPS, bad=False, **fields):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4,))
    x = keras.layers.BatchNormalization()(keras.layers.Dense(5, name="hidden")(inputs))
    network = masking.wrap(keras.Model(inputs, keras.layers.Dense(3, name="logits")(x)))
    fields = {"optimizer": "sgd", "momentum": 0.9, "lr": 0.1, "plan": "graph"} | fields
    experiment = Experiment(**{"epochs": 2, "batch_size": BATCH} | fields)
    data = Dataset(3, split(BATCH * steps, bad), split(VALIDATION), None)
    return Trainer(experiment, Counting, network, data)


class Clock:
    """Time that steps, measurings and compilation take; the first measuring takes 50 s more."""

    def __init__(self, trainer, step, measuring=0.0):
        self.trainer, self.step, self.measuring = trainer, step, measuring
        self.steps, self.measured, predict = 0, 0, trainer.predict

        def counted(split):
            self.measured += 1
            return predict(split)

        trainer.predict = counted

    def __call__(self):
        self.steps = int(self.trainer.strategy.optimizer.iterations)
        seconds = self.step * self.steps + 20 * self.trainer.loop.compilations
        return seconds + self.measuring * self.measured + 50 * (self.measured > 0)


@pytest.mark.parametrize("plan", ["graph", "xla"])
@pytest.mark.parametrize(("step", "taken"), [(0.25, 8), (5.0, 2)])
def test_as_few_steps_are_timed_as_take_a_second(plan, step, taken):
    """Measured after 1, 2, 4 and 8 steps. The first one, with 20 s of compilation, does not count."""
    trainer = make_trainer(plan=plan)
    clock = Clock(trainer, step)
    assert estimate_step_time(trainer, clock) == pytest.approx(step)
    assert (clock.steps, clock.measured) == (taken, 0)


@pytest.mark.parametrize(
    ("steps", "step", "taken", "measured"),
    [(10, 0.01, 20, 2), (3, 0.4, 6, 1)],
    ids=["to the level's end", "into the second epoch"],
)
def test_short_epochs_are_timed_with_their_measuring_from_the_second_on(
    steps, step, taken, measured
):
    """Validation takes half a step, as assumed. The 50 s of the first one do not count."""
    trainer = make_trainer(steps)
    clock = Clock(trainer, step, measuring=step / 2)
    assert estimate_step_time(trainer, clock) == pytest.approx(step)
    assert (clock.steps, clock.measured) == (taken, measured)


def test_the_only_epoch_is_timed_without_its_measuring():
    trainer = make_trainer(epochs=1)
    clock = Clock(trainer, 0.01, measuring=7.0)
    assert estimate_step_time(trainer, clock) == pytest.approx(0.01)
    assert (clock.steps, clock.measured) == (10, 1)


def bits(trainer):
    variables = [*trainer.strategy.variables, *trainer.strategy.optimizer.variables]
    return [variable.numpy().tobytes() for variable in variables]


@pytest.mark.parametrize("step", [0.01, 5.0])
def test_everything_is_put_back(step):
    """Weights, BatchNorm's averages, the optimizer's, and a variable of the strategy's own."""
    trainer = make_trainer()
    list(trainer.train(3))
    before = bits(trainer)
    clock = Clock(trainer, step)
    estimate_step_time(trainer, clock)
    assert clock.steps >= 2
    assert bits(trainer) == before
    assert trainer.strategy.count == 3 + 2 * STEPS


def test_the_training_that_follows_is_the_same():
    found = []
    for estimated in (False, True):
        trainer = make_trainer()
        if estimated:
            estimate_step_time(trainer, Clock(trainer, 0.25))
        rows = [progress.epoch for progress in trainer.train(1)]
        found.append((rows, bits(trainer), trainer.loop.compilations))
    assert found[0] == found[1]


def test_no_estimate_for_one_step_or_for_losses_that_are_not_finite():
    assert estimate_step_time(make_trainer(steps=1, epochs=1)) is None
    trainer = make_trainer(bad=True)
    before = bits(trainer)
    assert estimate_step_time(trainer) is None
    assert bits(trainer) == before


def test_all_processes_go_by_the_slowest(monkeypatch):
    """Here it takes 4 times as long: a second has fewer steps, each of its time."""
    trainer = make_trainer()
    monkeypatch.setattr(trainer.distribution, "largest", lambda seconds: 4 * seconds)
    clock = Clock(trainer, 0.25)
    assert estimate_step_time(trainer, clock) == pytest.approx(1.0)
    assert clock.steps == 2
