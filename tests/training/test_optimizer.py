"""Optimizers against their papers' updates written out in NumPy, float64; the schedule by hand."""

import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf.training.optimizer import DroppingRate, build_optimizer, restart

STEPS = 7
RNG = np.random.default_rng(0)
START = {"kernel": RNG.normal(size=(3, 2)), "bias": RNG.normal(size=2)}
# Fixed gradients, step by step: what is tested is the update, not where a gradient comes from.
GRADIENTS = [{name: RNG.normal(size=w.shape) for name, w in START.items()} for _ in range(STEPS)]


def adam(rate_of, decay):
    """Kingma & Ba 2015, algorithm 1 in the form that ends its section 2, β .9 and .999, ε 1e-7."""
    w = {name: value.copy() for name, value in START.items()}
    m = {name: np.zeros_like(value) for name, value in w.items()}
    v = {name: np.zeros_like(value) for name, value in w.items()}
    for step, gradients in enumerate(GRADIENTS):
        rate = rate_of(step) * np.sqrt(1 - 0.999 ** (step + 1)) / (1 - 0.9 ** (step + 1))
        for name in w:
            g = gradients[name] + decay * w[name]
            m[name] = 0.9 * m[name] + 0.1 * g
            v[name] = 0.999 * v[name] + 0.001 * g * g
            w[name] -= rate * m[name] / (np.sqrt(v[name]) + 1e-7)
    return w


def sgd(rate_of, decay, momentum):
    """Heavy ball: the velocity is a sum of past steps, the decay part of the gradient."""
    w = {name: value.copy() for name, value in START.items()}
    velocity = {name: np.zeros_like(value) for name, value in w.items()}
    for step, gradients in enumerate(GRADIENTS):
        for name in w:
            g = gradients[name] + decay * w[name]
            velocity[name] = momentum * velocity[name] - rate_of(step) * g
            w[name] += velocity[name]
    return w


def run(optimizer, variables=None):
    """The steps by our optimizer; in a graph, as training runs them.

    In float64 and with figures that are exact in binary, so that only the formula can differ.
    """
    variables = variables or {name: tf.Variable(w, dtype=tf.float64) for name, w in START.items()}
    optimizer.build(list(variables.values()))

    @tf.function
    def step(gradients):
        optimizer.apply_gradients((gradients[name], w) for name, w in variables.items())

    for gradients in GRADIENTS:
        step({name: tf.constant(g) for name, g in gradients.items()})
    return {name: w.numpy() for name, w in variables.items()}


# Keras holds Adam's .9 and .999 in float32, where 1 − .999 is off by 1e-5.
ADAM, SGD = 1e-5, 1e-12


def assert_close(found, expected, tolerance):
    for name in START:
        np.testing.assert_allclose(found[name], expected[name], atol=tolerance, err_msg=name)


def drop_at_four(step):
    """Epochs of two steps, a drop to a quarter after the second: from the fifth step on."""
    return 0.25 if step < 4 else 0.0625


DROPPING = {"lr": 0.25, "steps_per_epoch": 2, "lr_drops": (2,), "lr_drop_factor": 0.25}
CONSTANT = {"lr": 0.25, "steps_per_epoch": 2}


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize(
    ("settings", "rate_of"), [(CONSTANT, lambda _: 0.25), (DROPPING, drop_at_four)]
)
def test_adam(decay, settings, rate_of):
    found = run(build_optimizer("adam", weight_decay=decay, **settings))
    assert_close(found, adam(rate_of, decay), ADAM)


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("momentum", [0.0, 0.875])
@pytest.mark.parametrize(
    ("settings", "rate_of"), [(CONSTANT, lambda _: 0.25), (DROPPING, drop_at_four)]
)
def test_sgd(decay, momentum, settings, rate_of):
    found = run(build_optimizer("sgd", weight_decay=decay, momentum=momentum, **settings))
    assert_close(found, sgd(rate_of, decay, momentum), SGD)


def test_weights_without_a_gradient_are_left_alone():
    optimizer = build_optimizer("sgd", weight_decay=0.5, **CONSTANT)
    used, unused = tf.Variable([1.0]), tf.Variable([1.0])
    optimizer.build([used, unused])
    optimizer.apply_gradients([(tf.constant([1.0]), used), (None, unused)])
    np.testing.assert_allclose(used, [1 - 0.25 * 1.5])
    np.testing.assert_array_equal(unused, [1.0])


@pytest.mark.parametrize(
    ("step", "rate"), [(0, 0.8), (9, 0.8), (10, 0.4), (11, 0.4), (24, 0.4), (25, 0.2), (999, 0.2)]
)
@pytest.mark.parametrize("offset", [0, 7])
def test_the_rate_drops_after_its_steps(step, rate, offset):
    schedule = DroppingRate(0.8, (10, 25), 0.5)
    schedule.offset.assign(offset)
    if step >= offset:
        assert float(schedule(tf.constant(step - offset, tf.int64))) == pytest.approx(rate)


def test_without_drops_the_rate_stays():
    assert float(DroppingRate(0.3, (), 0.1)(10**6)) == pytest.approx(0.3)


def test_the_schedule_gives_its_configuration():
    schedule = DroppingRate(0.8, (10, 25), 0.5)
    assert schedule.get_config() == {"rate": 0.8, "drops": [10, 25], "factor": 0.5}
    again = DroppingRate.from_config(schedule.get_config())
    assert [float(again(step)) for step in (9, 10, 25)] == pytest.approx([0.8, 0.4, 0.2])


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_a_restart_puts_slots_and_step_count_to_zero(name):
    momentum = {"momentum": 0.875} if name == "sgd" else {}
    optimizer = build_optimizer(name, **momentum, **DROPPING)
    variables = {key: tf.Variable(w, dtype=tf.float64) for key, w in START.items()}
    first = run(optimizer, variables)
    assert any(np.any(slot.numpy() != 0) for slot in optimizer.variables)

    restart(optimizer, optimizer._learning_rate, 0)

    assert int(optimizer.iterations) == 0
    assert all(np.all(slot.numpy() == 0) for slot in optimizer.variables)
    for key, w in variables.items():
        w.assign(START[key])
    for key, value in run(optimizer, variables).items():
        np.testing.assert_array_equal(value, first[key])  # nothing is left over of the first run


def test_a_restart_in_the_middle_goes_on_with_the_schedule():
    # From step 3 on: one step before the drop, then six after it; slots and bias correction anew.
    optimizer = build_optimizer("adam", **DROPPING)
    variables = {name: tf.Variable(w, dtype=tf.float64) for name, w in START.items()}
    optimizer.build(list(variables.values()))
    restart(optimizer, optimizer._learning_rate, 3)
    assert_close(run(optimizer, variables), adam(lambda step: drop_at_four(step + 3), 0.0), ADAM)
