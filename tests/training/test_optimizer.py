"""Optimizers against their papers' updates written out in NumPy, float64; schedules by hand."""

import math

import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf.compat import keras
from lotcal_tf.config.experiment import Experiment
from lotcal_tf.config.optimizers import OPTIMIZERS
from lotcal_tf.errors import FieldError
from lotcal_tf.training.given_optimizer import take_objects
from lotcal_tf.training.optimizer import level_rate, make_optimizer, optimizer_class, restart

STEPS = 7
RNG = np.random.default_rng(0)
START = {"kernel": RNG.normal(size=(3, 2)), "bias": RNG.normal(size=2)}
# Fixed gradients, step by step: what is tested is the update, not where a gradient comes from.
GRADIENTS = [{name: RNG.normal(size=w.shape) for name, w in START.items()} for _ in range(STEPS)]


def adam(rate_of, decay, decoupled=0.0):
    """Kingma & Ba 2015, algorithm 1 in the form that ends its section 2, β .9 and .999, ε 1e-7.

    Decoupled decay is that of Loshchilov & Hutter 2019, algorithm 2, multiplied by the rate.
    """
    w = {name: value.copy() for name, value in START.items()}
    m = {name: np.zeros_like(value) for name, value in w.items()}
    v = {name: np.zeros_like(value) for name, value in w.items()}
    for step, gradients in enumerate(GRADIENTS):
        rate = rate_of(step) * np.sqrt(1 - 0.999 ** (step + 1)) / (1 - 0.9 ** (step + 1))
        for name in w:
            g = gradients[name] + decay * w[name]
            w[name] -= rate_of(step) * decoupled * w[name]
            m[name] = 0.9 * m[name] + 0.1 * g
            v[name] = 0.999 * v[name] + 0.001 * g * g
            w[name] -= rate * m[name] / (np.sqrt(v[name]) + 1e-7)
    return w


def sgd(rate_of, decay, momentum, nesterov=False, clip=lambda gradients: gradients):
    """The velocity is a sum of past steps; decay is part of the gradient, after clipping."""
    w = {name: value.copy() for name, value in START.items()}
    velocity = {name: np.zeros_like(value) for name, value in w.items()}
    for step, gradients in enumerate(map(clip, GRADIENTS)):
        for name in w:
            g = gradients[name] + decay * w[name]
            velocity[name] = momentum * velocity[name] - rate_of(step) * g
            w[name] += momentum * velocity[name] - rate_of(step) * g if nesterov else velocity[name]
    return w


def lion(rate_of, decay):
    """Chen et al. 2023, algorithm 2, β .9 and .99; decay is decoupled."""
    w = {name: value.copy() for name, value in START.items()}
    m = {name: np.zeros_like(value) for name, value in w.items()}
    for step, gradients in enumerate(GRADIENTS):
        for name, g in gradients.items():
            sign = np.sign(0.9 * m[name] + 0.1 * g)
            w[name] -= rate_of(step) * (sign + decay * w[name])
            m[name] = 0.99 * m[name] + 0.01 * g
    return w


def make(name, schedule_steps=2, **fields):
    """The optimizer of fields, and its learning rate."""
    experiment = Experiment(optimizer=name, **{"lr": 0.25, "epochs": 4, **fields})
    rate = level_rate(experiment, schedule_steps)
    return make_optimizer(experiment, rate), rate


class Runner:
    """Runs the steps by our optimizer; in a graph that is traced once, as training runs them.

    In float64 and with numbers that are exact in binary, so that only the formula can differ.
    """

    def __init__(self, name="adam", **fields):
        self.make = lambda: make(name, **fields)[0]
        self.optimizer, self.rate = make(name, **fields)
        self.variables = {name: tf.Variable(w, dtype=tf.float64) for name, w in START.items()}
        self.optimizer.build(list(self.variables.values()))

        @tf.function
        def step(gradients):
            pairs = ((gradients[name], w) for name, w in self.variables.items())
            self.optimizer.apply_gradients(pairs)

        self.step = step

    def __call__(self):
        for gradients in GRADIENTS:
            self.step({name: tf.constant(g) for name, g in gradients.items()})
        return {name: w.numpy() for name, w in self.variables.items()}


def run(name, **fields):
    return Runner(name, **fields)()


# Keras holds Adam's .9 and .999 in float32, where 1 − .999 is off by 1e-5.
ADAM, SGD = 1e-5, 1e-12


def assert_close(found, expected, tolerance):
    for name in START:
        np.testing.assert_allclose(found[name], expected[name], atol=tolerance, err_msg=name)


def constant(step):
    return 0.25


def drop_at_four(step):
    """Epochs of two steps, a drop to a quarter after the second: from the fifth step on."""
    return 0.25 if step < 4 else 0.0625


DROPPING = {"lr_drops": (2,), "lr_drop_factor": 0.25}


def test_the_names_are_those_of_keras():
    base = keras.optimizers.Optimizer
    kinds = [kind for kind in vars(keras.optimizers).values() if isinstance(kind, type)]
    found = {kind.__name__.lower() for kind in kinds if issubclass(kind, base)} - {"optimizer"}
    assert set(OPTIMIZERS) == found
    for name in OPTIMIZERS:
        assert optimizer_class(name).__name__.lower() == name


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize(("settings", "rate_of"), [({}, constant), (DROPPING, drop_at_four)])
def test_adam(decay, settings, rate_of):
    assert_close(run("adam", weight_decay=decay, **settings), adam(rate_of, decay), ADAM)


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("momentum", [0.0, 0.875])
@pytest.mark.parametrize(("settings", "rate_of"), [({}, constant), (DROPPING, drop_at_four)])
def test_sgd(decay, momentum, settings, rate_of):
    found = run("sgd", weight_decay=decay, momentum=momentum, **settings)
    assert_close(found, sgd(rate_of, decay, momentum), SGD)


def test_nesterov_momentum():
    found = run("sgd", momentum=0.875, nesterov=True, weight_decay=0.25)
    assert_close(found, sgd(constant, 0.25, 0.875, nesterov=True), SGD)


def test_the_decay_of_adamw_and_lion_is_decoupled():
    assert_close(run("adamw", weight_decay=0.25), adam(constant, 0.0, 0.25), ADAM)
    assert_close(run("lion", weight_decay=0.25), lion(constant, 0.25), ADAM)


def test_gradients_are_clipped_before_the_decay_is_added():
    def by_norm(gradients):
        norm = math.sqrt(sum((g**2).sum() for g in gradients.values()))
        return {name: g * min(1.0, 0.5 / norm) for name, g in gradients.items()}

    def by_value(gradients):
        return {name: g.clip(-0.25, 0.25) for name, g in gradients.items()}

    for settings, clip in (({"clip_norm": 0.5}, by_norm), ({"clip_value": 0.25}, by_value)):
        for decay in (0.0, 0.25):
            found = run("sgd", weight_decay=decay, **settings)
            assert_close(found, sgd(constant, decay, 0.0, clip=clip), SGD)


def test_the_moving_average_begins_with_the_first_weights():
    runner, average = Runner("sgd", ema=0.75), dict(START)
    for step in range(len(GRADIENTS)):
        weights = after(step + 1)
        average = {name: 0.75 * average[name] + 0.25 * w for name, w in weights.items()}
    assert_close(runner(), after(len(GRADIENTS)), SGD)
    runner.optimizer.finalize_variable_values(list(runner.variables.values()))
    assert_close({name: w.numpy() for name, w in runner.variables.items()}, average, SGD)


def after(steps):
    """The weights after some steps of plain SGD."""
    sums = {name: sum(g[name] for g in GRADIENTS[:steps]) for name in START}
    return {name: START[name] - 0.25 * total for name, total in sums.items()}


def test_weights_without_a_gradient_are_left_alone():
    for settings in ({}, {"clip_norm": 10.0}):
        optimizer, _ = make("sgd", weight_decay=0.5, **settings)
        used, unused = tf.Variable([1.0]), tf.Variable([1.0])
        optimizer.build([used, unused])
        optimizer.apply_gradients([(tf.constant([1.0]), used), (None, unused)])
        np.testing.assert_allclose(used, [1 - 0.25 * 1.5])
        np.testing.assert_array_equal(unused, [1.0])


# Schedules: 4 epochs of 10 steps


def rates(steps=range(40), offset=0, given=None, **fields):
    experiment = Experiment(**{"lr": 0.8, "epochs": 4, **fields})
    rate = level_rate(experiment, 10, given)
    rate.begin(offset)
    return [float(rate(tf.constant(step, tf.int64))) for step in steps]


@pytest.mark.parametrize("offset", [0, 7])
def test_the_rate_drops_after_its_epochs(offset):
    expected = [0.8] * 10 + [0.4] * 20 + [0.2] * 10
    fields = {"lr_drops": (1, 3), "lr_drop_factor": 0.5}
    assert rates(range(40 - offset), offset, **fields) == pytest.approx(expected[offset:])


def test_the_rate_stays():
    assert rates() == pytest.approx([0.8] * 40)
    # A recipe may have drops that the schedule does not use.
    assert rates(schedule="constant", lr_drops=(1,)) == pytest.approx([0.8] * 40)


@pytest.mark.parametrize("offset", [0, 13])
def test_the_cosine_falls_from_the_end_of_the_warm_up_to_the_end_of_the_level(offset):
    fields = {"schedule": "cosine", "warmup_epochs": 0.5}
    rising = [0.8 * (step + 1) / 5 for step in range(5)]
    falling = [0.4 * (1 + math.cos(math.pi * (step - 5) / 35)) for step in range(5, 40)]
    found = rates(range(40 - offset), offset, **fields)
    assert found == pytest.approx((rising + falling)[offset:], abs=1e-6)


def test_a_warm_up_of_parts_of_an_epoch_before_drops():
    expected = [0.8 * (step + 1) / 12 for step in range(12)] + [0.8] * 8 + [0.08] * 20
    assert rates(warmup_epochs=1.25, lr_drops=(2,)) == pytest.approx(expected, rel=1e-5)


def test_a_rate_that_is_set_replaces_the_schedule_until_the_next_level():
    rate = level_rate(Experiment(lr=0.8, schedule="cosine", epochs=4), 10)
    rate.fixed.assign(0.3)
    assert [float(rate(step)) for step in (0, 20)] == pytest.approx([0.3, 0.3])
    rate.begin(20)
    assert float(rate(0)) == pytest.approx(0.4)


def test_a_schedule_of_keras_begins_with_each_level():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([9, 29], [0.5, 0.25, 0.125])
    _, given = take_objects({"lr": schedule})
    fields = {"given": given, **given.fields}
    assert rates(**fields) == [0.5] * 10 + [0.25] * 20 + [0.125] * 10
    assert rates([0, 20], 9, **fields) == [0.5, 0.25]
    with pytest.raises(FieldError, match="schedule=custom"):
        rates(schedule="custom")


def test_a_schedule_that_gives_no_rate_is_refused_before_the_first_step():
    _, given = take_objects({"lr": keras.optimizers.schedules.PolynomialDecay(0.1, 10, -1.0)})
    with pytest.raises(FieldError, match="lr=PolynomialDecay"):
        rates(given=given, **given.fields)


# Restarts


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("fields", [{}, {"ema": 0.5, "clip_norm": 1.0, "weight_decay": 0.1}])
def test_after_a_restart_nothing_is_left_of_the_first_run(name, fields):
    momentum = {"momentum": 0.875} if name in ("sgd", "rmsprop") else {}
    runner = Runner(name, **momentum, **fields)
    found = []
    for _ in range(2):
        for key, w in runner.variables.items():
            w.assign(START[key])
        restart(runner.optimizer, runner.make(), list(runner.variables.values()))
        assert int(runner.optimizer.iterations) == 0
        assert float(runner.optimizer.learning_rate) == 0.25
        weights = runner()
        runner.optimizer.finalize_variable_values(list(runner.variables.values()))
        found.append((weights, {key: w.numpy() for key, w in runner.variables.items()}))
    for key in START:
        assert not np.array_equal(found[0][0][key], START[key])
        for before, again in zip(*found, strict=True):
            np.testing.assert_array_equal(before[key], again[key])


def test_a_restart_begins_with_the_current_weights():
    """The moving averages are those of the weights of this level."""
    runner = Runner("sgd", ema=0.75)
    variables = list(runner.variables.values())
    for variable in variables:
        variable.assign(tf.ones_like(variable))
    restart(runner.optimizer, runner.make(), variables)
    runner.optimizer.finalize_variable_values(variables)
    assert all(np.all(variable.numpy() == 1) for variable in variables)


def test_a_restart_resets_the_loss_scale():
    experiment = Experiment(optimizer="sgd")
    optimizer, fresh = (
        make_optimizer(experiment, level_rate(experiment, 2), scale_loss=True) for _ in range(2)
    )
    variable = tf.Variable([1.0])
    optimizer.build([variable])
    optimizer.get_scaled_loss(tf.constant(1.0))
    optimizer.get_unscaled_gradients([])
    first = float(optimizer.loss_scale)
    optimizer.apply_gradients([(tf.constant([np.inf]), variable)])
    assert float(optimizer.loss_scale) == first / 2
    assert variable.numpy() == [1.0]  # A gradient that is not finite is skipped.
    restart(optimizer, fresh, [variable])
    assert float(optimizer.loss_scale) == first


def test_a_restart_in_the_middle_goes_on_with_the_schedule():
    # From step 3 on: one step before the drop, then six after it; slots and bias correction anew.
    runner = Runner("adam", **DROPPING)
    runner.rate.begin(3)
    restart(runner.optimizer, runner.make(), list(runner.variables.values()))
    assert_close(runner(), adam(lambda step: drop_at_four(step + 3), 0.0), ADAM)
