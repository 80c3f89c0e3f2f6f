"""The estimate by a clock that counts steps, and that it leaves everything as it was."""

import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf.calibration.strategies import CrossEntropy
from lotcal_tf.compat import keras
from lotcal_tf.config.experiment import Experiment
from lotcal_tf.data import splits
from lotcal_tf.data.splits import Dataset, ResidentSplit
from lotcal_tf.pruning import masking
from lotcal_tf.training.time_estimate import TimeEstimate, estimate_time
from lotcal_tf.training.trainer import Trainer

STEPS, BATCH = 10, 8
VALIDATION = 12  # examples


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


def make_trainer(steps=STEPS, bad=False, more=0, **fields):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4,))
    x = keras.layers.BatchNormalization()(keras.layers.Dense(5, name="hidden")(inputs))
    network = masking.wrap(keras.Model(inputs, keras.layers.Dense(3, name="logits")(x)))
    fields = {"optimizer": "sgd", "momentum": 0.9, "lr": 0.1, "plan": "graph"} | fields
    experiment = Experiment(**{"epochs": 2, "batch_size": BATCH} | fields)
    data = Dataset(3, split(BATCH * steps + more, bad), split(VALIDATION), None)
    return Trainer(experiment, Counting, network, data)


class Clock:
    """Time that steps, predictions of an example and compilation take.

    The first predictions, of a batch each, take 50 s more, and so does the first step; the first validation
    takes `first_validation` more.
    """

    def __init__(self, trainer, step, example=0.0, first_validation=0.0):
        self.trainer, self.step, self.example = trainer, step, example
        self.first_validation = first_validation
        self.steps, self.examples, self.measured = 0, 0, 0
        predict, predict_batch = trainer.predict, trainer.predict_batch

        def counted(split):
            self.measured += 1
            self.examples += split.count
            return predict(split)

        def counted_batch(split):
            labels, logits = predict_batch(split)
            self.examples += labels.size
            return labels, logits

        trainer.predict, trainer.predict_batch = counted, counted_batch

    def __call__(self):
        self.steps = int(self.trainer.strategy.optimizer.iterations)
        compilations = self.trainer.loop.compilations + (self.examples > 0)
        once = 50 * compilations + self.first_validation * (self.measured > 0)
        return self.step * self.steps + self.example * self.examples + once


@pytest.mark.full
@pytest.mark.parametrize("plan", ["graph", "xla"])
@pytest.mark.parametrize(("step", "taken"), [(0.25, 8), (5.0, 2)])
def test_as_few_steps_are_timed_as_take_a_second(plan, step, taken):
    """Measured after 1, 2, 4 and 8 steps. The first one, with 50 s of compilation, does not count."""
    trainer = make_trainer(plan=plan)
    clock = Clock(trainer, step, example=0.5)
    assert estimate_time(trainer, len, clock) == approx(step, 0.5)
    assert (clock.steps, clock.measured) == (taken, 0)


@pytest.mark.parametrize(
    ("steps", "step", "taken", "measured"),
    [(10, 0.01, 20, 2), (3, 0.3, 6, 1)],
    ids=["to the level's end", "into the second epoch"],
)
def test_validation_is_not_part_of_the_time_of_a_step(steps, step, taken, measured):
    trainer = make_trainer(steps)
    clock = Clock(trainer, step, example=0.002)
    assert estimate_time(trainer, len, clock) == approx(step, 0.002)
    assert (clock.steps, clock.measured) == (taken, measured)


def test_a_validation_that_compiles_is_not_part_of_it_and_ends_the_measurement():
    trainer = make_trainer(10)
    clock = Clock(trainer, 0.01, first_validation=2.0)
    assert estimate_time(trainer, len, clock) == approx(0.01, 0.0)
    assert (clock.steps, clock.measured) == (10, 1)


@pytest.mark.full
@pytest.mark.parametrize("plan", ["graph", "xla"])
def test_the_compilation_for_a_smaller_batch_is_not_part_of_it(plan):
    """The fourth step of an epoch has 5 examples, and the first of these takes 50 s more."""
    trainer = make_trainer(steps=3, more=5, plan=plan, drop_remainder=False)
    clock = Clock(trainer, 0.2)
    assert estimate_time(trainer, len, clock) == approx(0.2, 0.0)
    assert trainer.loop.compilations == 2


def approx(step, example):
    """An estimate; metrics take no time by this clock."""
    return TimeEstimate(pytest.approx(step), pytest.approx(example), 0.0)


@pytest.mark.parametrize(
    ("fields", "first", "steps", "examples"),
    [
        # 2 epochs of 10 steps; 80 training and 12 validation examples. The second validation is that
        # of the level's end.
        ({}, 0, 20, 80 + 2 * 12),
        ({}, 10, 10, 80 + 12),
        ({}, 13, 7, 80 + 12),
        ({"early_stopping": 1}, 0, 20, 80 + 3 * 12),
    ],
)
def test_a_level_has_steps_predictions_and_metrics(fields, first, steps, examples):
    found = TimeEstimate(step=100.0, example=0.5, metrics=0.01).level(make_trainer(**fields), first)
    assert found == pytest.approx(100 * steps + 0.5 * examples + 0.01 * 92)


@pytest.mark.full
@pytest.mark.parametrize("sample", [50, 1000])
@pytest.mark.parametrize("fields", [{}, {"early_stopping": 1}], ids=["plain", "early stopping"])
def test_a_level_predicts_as_many_examples_as_is_assumed(fields, sample, monkeypatch):
    monkeypatch.setattr(splits, "TRAIN_SAMPLE", sample)
    trainer = make_trainer(**fields)
    examples, batches = [], trainer.predictor.batches

    def counted(split):
        for labels, logits in batches(split):
            examples.append(labels.size)
            yield labels, logits

    monkeypatch.setattr(trainer.predictor, "batches", counted)
    for _ in trainer.train(0):
        pass
    if fields:  # Other weights than those of the last epoch are kept.
        masking.assign(
            trainer.network, {n: v + 1 for n, v in masking.values(trainer.network).items()}
        )
    for split in trainer.dataset.measured_splits.values():
        trainer.predict(split)
    estimate = TimeEstimate(step=0.0, example=1.0, metrics=0.0)
    assert sum(examples) == estimate.level(trainer)


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
    estimate_time(trainer, len, clock)
    assert clock.steps >= 2
    assert bits(trainer) == before
    assert trainer.strategy.count == 3 + 2 * STEPS


def test_the_training_that_follows_is_the_same():
    found = []
    for estimated in (False, True):
        trainer = make_trainer()
        if estimated:
            estimate_time(trainer, len, Clock(trainer, 0.25))
        rows = [progress.epoch for progress in trainer.train(1)]
        found.append((rows, bits(trainer), trainer.loop.compilations))
    assert found[0] == found[1]


def test_no_estimate_for_one_step_or_for_losses_that_are_not_finite():
    assert estimate_time(make_trainer(steps=1, epochs=1), len) is None
    trainer = make_trainer(bad=True)
    before = bits(trainer)
    assert estimate_time(trainer, len) is None
    assert bits(trainer) == before


def test_all_processes_go_by_the_slowest(monkeypatch):
    """Here it takes 4 times as long: a second has fewer steps, each of its time."""
    trainer = make_trainer()
    monkeypatch.setattr(trainer.distribution, "largest", lambda seconds: 4 * seconds)
    clock = Clock(trainer, 0.25)
    assert estimate_time(trainer, len, clock).step == pytest.approx(1.0)
    assert clock.steps == 2
