"""Functions of equal graphs share one program of XLA, and only these."""

import gc
import weakref

import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf.compat import deterministic, keras
from lotcal_tf.config.experiment import Experiment
from lotcal_tf.config.registry import STRATEGIES
from lotcal_tf.data import digits
from lotcal_tf.models.build import build_model
from lotcal_tf.models.keras_graph import with_stable_names
from lotcal_tf.pruning import masking
from lotcal_tf.training import programs
from lotcal_tf.training.optimizer import DroppingRate
from lotcal_tf.training.trainer import Trainer
from tests.cases import quick


class Counter:
    """A compiled function with a loop, which adds to a variable of its own."""

    def __init__(self, start, step=2.0, name="sum", compiled=True):
        self.variable = tf.Variable(start)
        self.traces = 0

        def count(times):
            self.traces += 1
            for _ in tf.range(times):
                self.variable.assign_add(step)
            return {name: self.variable.read_value(), "times": times + 1}

        self.count = tf.function(count, jit_compile=compiled)

    def __call__(self, times):
        found = programs.call(self.count, tf.constant(times))
        return {name: float(value) for name, value in found.items()}


@pytest.fixture
def added(monkeypatch):
    """added() → how many programs were compiled since the test began, or since the last call."""
    # Programs that other tests have compiled do not count.
    monkeypatch.setattr(programs, "_compiled", {})
    seen = [0]

    def count():
        seen.append(programs.compiled())
        return seen[-1] - seen[-2]

    return count


def test_equal_functions_share_a_program_and_keep_their_variables(added):
    one, other = Counter(1.0), Counter(100.0)
    assert one(3) == {"sum": 7.0, "times": 4.0}
    assert added() == 1
    assert other(3) == {"sum": 106.0, "times": 4.0}
    assert one(1) == {"sum": 9.0, "times": 2.0}
    assert (float(one.variable), float(other.variable)) == (9.0, 106.0)
    assert added() == 0
    assert (one.traces, other.traces) == (1, 1)


def test_each_function_names_its_own_results(added):
    assert Counter(1.0)(1) == {"sum": 3.0, "times": 2.0}
    assert Counter(1.0, name="amount")(1) == {"amount": 3.0, "times": 2.0}
    assert added() == 1


@pytest.mark.parametrize("other", [{"step": 3.0}, {"start": np.float64(1.0)}])
def test_other_constants_and_types_need_other_programs(added, other):
    assert Counter(1.0)(2)["sum"] == 5.0
    expected = 1.0 + 2 * other.get("step", 2.0)
    assert Counter(**{"start": 1.0} | other)(2)["sum"] == expected
    assert added() == 2


def test_the_loop_inside_is_part_of_the_program(added):
    def looping(change):
        def run(times):
            return tf.while_loop(lambda _, x: x < times, lambda i, x: (i, change(x)), (times, 1))[1]

        return programs.call(tf.function(run, jit_compile=True), tf.constant(50))

    assert int(looping(lambda x: x * 3)) == 81
    assert int(looping(lambda x: x + 20)) == 61
    assert added() == 2


def test_deterministic_operations_need_a_program_of_their_own(added):
    Counter(1.0)(1)
    with deterministic():
        Counter(1.0)(1)
    assert added() == 2


def test_functions_that_xla_does_not_compile_are_called_as_they_are(added):
    assert Counter(1.0, compiled=False)(3) == {"sum": 7.0, "times": 4.0}
    assert added() == 0


def test_a_program_does_not_keep_the_variables_of_the_first_function(added):
    counter = Counter(1.0)
    counter(1)
    graph = weakref.ref(counter.count.get_concrete_function(tf.constant(1)).graph)
    assert counter.variable.handle is graph().external_captures[0]
    del counter
    gc.collect()
    assert graph() is None
    assert Counter(5.0)(1)["sum"] == 7.0
    assert added() == 1


# Networks


def digest(trainer):
    """The digest of a trainer's steps, which are traced, but not compiled."""
    block = next(trainer.dataset.train.shuffled(trainer.experiment.batch_size, 128, (1, 2), 0, 1))
    bounds, seed = tf.constant([0, 1, 0]), tf.constant([1, 2])
    traced = trainer.loop.run_steps.get_concrete_function(block, bounds, seed)
    return programs.digest_of(traced.inference_fn)


@pytest.fixture(scope="module")
def dataset():
    return digits.load(Experiment(dataset="digits"))


def trainer_of(dataset, model=None, calib="none", **fields):
    experiment = Experiment(calib=calib, plan="xla", **fields)
    settings = experiment.settings
    if model is None:
        name = "resnet8_4" if calib == "slimming" else "lenet_12"
        options = {n: settings[n] for n in ("dropout_rate", "dropout_at") if n in settings}
        model = build_model(
            name, (8, 8, 1), 10, seed=fields.get("seed", 0), input_range=16.0, **options
        )
    return Trainer(experiment, STRATEGIES[calib].load(), masking.wrap(model), dataset)


@pytest.mark.parametrize("calib", quick(STRATEGIES, "none", "vwcc"))
def test_two_searches_of_a_strategy_share_their_program(calib, dataset):
    one, other = (digest(trainer_of(dataset, calib=calib, seed=seed)) for seed in (0, 1))
    assert one == other


@pytest.mark.full
@pytest.mark.parametrize(
    "fields",
    [
        {"optimizer": "nadam"},
        {"optimizer": "adafactor", "schedule": "cosine"},
        {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 1e-4, "warmup_epochs": 1.0},
        {"ema": 0.9, "clip_norm": 1.0, "augment": "crop_flip"},
        {"class_weight": (1, 2) * 5},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_the_optimizer_is_part_of_the_program_and_its_state_is_not(fields, dataset):
    one, other = (digest(trainer_of(dataset, **fields)) for _ in range(2))
    assert one == other != digest(trainer_of(dataset))


@pytest.mark.parametrize("fields", [{"lr": 1e-2}, {"lr_drops": (2,)}, {"batch_size": 30}])
def test_other_settings_need_other_programs(fields, dataset):
    assert digest(trainer_of(dataset)) != digest(trainer_of(dataset, **fields))


def given(activation, factor=2.0):
    """A model with a custom function in it; Keras numbers its layers over the process."""
    x = inputs = keras.Input((8, 8, 1))
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(6, activation=activation)(x)
    x = keras.layers.Lambda(lambda x: factor * x)(x)
    x = keras.layers.BatchNormalization()(x)
    return with_stable_names(keras.Model(inputs, keras.layers.Dense(10)(x)))


def test_what_a_custom_function_does_is_part_of_the_program(dataset):
    one, same, other = (
        digest(trainer_of(dataset, given("gelu", factor))) for factor in (2.0, 2.0, 3.0)
    )
    assert one == same != other


def test_activations_with_a_gradient_of_their_own_are_shared(dataset):
    one, other = (digest(trainer_of(dataset, given("swish"))) for _ in range(2))
    assert one == other


def test_rates_are_part_of_the_program(added):
    def run(rate):
        schedule = DroppingRate(rate, [5], 0.1)
        return float(programs.call(tf.function(schedule, jit_compile=True), tf.constant(9)))

    assert run(1.0) == pytest.approx(0.1) and run(2.0) == pytest.approx(0.2)
    assert added() == 2
