"""Optimizers and schedules that are passed as objects: what is taken over, and what is refused."""

import json

import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf.compat import keras
from lotcal_tf.config.experiment import Experiment
from lotcal_tf.errors import FieldError
from lotcal_tf.training.given_optimizer import take_objects
from lotcal_tf.training.optimizer import level_rate, make_optimizer

Kinds = keras.optimizers
Schedules = keras.optimizers.schedules


class Halved(Kinds.SGD):
    """A custom optimizer with an argument."""

    def __init__(self, learning_rate=0.01, factor=0.5, name="Halved", **kwargs):
        super().__init__(learning_rate, name=name, **kwargs)
        self.factor = factor

    def update_step(self, gradient, variable):
        super().update_step(self.factor * gradient, variable)

    def get_config(self):
        return super().get_config() | {"factor": self.factor}


class Forgetful(Halved):
    """Its configuration lacks an argument."""

    def get_config(self):
        config = super().get_config()
        del config["factor"]
        return config | {"beta": 1}


def steps(optimizer):
    """The weights after three steps."""
    variable = tf.Variable([1.0, -2.0, 3.0])
    optimizer.build([variable])
    for number in range(3):
        optimizer.apply_gradients([(tf.constant([0.5, 1.0, -number / 2]), variable)])
    return variable.numpy()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Kinds.AdamW(0.01, weight_decay=0.1, beta_1=0.8),
        lambda: Kinds.SGD(0.1, momentum=0.9, nesterov=True, global_clipnorm=0.5),
        lambda: Kinds.Lion(Schedules.ExponentialDecay(0.1, 1, 0.5), weight_decay=0.1),
        lambda: Kinds.RMSprop(Schedules.CosineDecay(0.1, 3), rho=0.5, clipvalue=0.25),
        lambda: Halved(0.1, factor=0.25),
    ],
)
def test_a_fresh_copy_trains_as_the_object_does(make):
    given_object = make()
    others, given = take_objects({"optimizer": given_object, "epochs": 3})
    assert others == {"epochs": 3}
    steps(given_object)  # Its state is not used.
    experiment = given.describe(Experiment(epochs=3))
    optimizer = make_optimizer(experiment, level_rate(experiment, 1, given), given)
    assert type(optimizer) is type(given_object)
    np.testing.assert_array_equal(steps(optimizer), steps(make()))


def test_fields_describe_the_object():
    decay = Schedules.CosineDecay(0.1, 3)
    cases = [
        (
            Kinds.SGD(3e-4, momentum=0.9, nesterov=True, global_clipnorm=2.0),
            {"optimizer": "sgd", "lr": 3e-4, "momentum": 0.9, "nesterov": True, "clip_norm": 2.0},
        ),
        (
            Kinds.AdamW(0.01, use_ema=True, ema_momentum=0.9, clipvalue=1.0),
            {"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.004, "ema": 0.9, "clip_value": 1},
        ),
        (Kinds.Adam(decay, weight_decay=0.1), {"optimizer": "adam", "schedule": "custom"}),
        (Halved(0.1), {"optimizer": f"{Halved.__module__}:Halved", "lr": 0.1}),
    ]
    # What a recipe sets is replaced.
    recipe = {"optimizer": "sgd", "momentum": 0.5, "weight_decay": 0.2, "lr": 0.3, "ema": 0.1}
    for given_object, fields in cases:
        _, given = take_objects({"optimizer": given_object})
        assert given.describe(Experiment(**recipe)) == Experiment(**fields)


def test_a_schedule_replaces_that_of_the_recipe():
    recipe = Experiment(lr=0.3, lr_drops=(2,), lr_drop_factor=0.5, warmup_epochs=1)
    for values in (
        {"lr": Schedules.CosineDecay(0.1, 3)},
        {"optimizer": Kinds.Adam(Schedules.CosineDecay(0.1, 3))},
    ):
        _, given = take_objects(values)
        assert given.describe(recipe).schedule == "custom"
        assert given.describe(recipe).identity(**given.content).keys() == {
            "schedule",
            *given.content.keys() - {"lr_source", "optimizer_source"},
        }


def test_a_rate_that_is_a_number_keeps_the_schedule_by_name():
    _, given = take_objects({"optimizer": Kinds.Adam(0.1), "schedule": "cosine"})
    found = given.describe(Experiment(schedule="cosine", warmup_epochs=2))
    assert (found.schedule, found.warmup_epochs, found.lr) == ("cosine", 2.0, 0.1)


def test_the_identity_holds_the_configuration_and_the_source():
    def content(given_object):
        return take_objects({"optimizer": given_object})[1].content

    plain = content(Kinds.Adam(0.1))
    assert json.loads(plain["optimizer_config"])["config"]["beta_2"] == 0.999
    assert plain["optimizer_source"] == ""
    assert content(Kinds.Adam(0.1, name="mine", jit_compile=False)) == plain
    assert content(Kinds.Adam(0.1, beta_2=0.99)) != plain
    custom = content(Halved(0.1))
    assert len(custom["optimizer_source"]) == 10
    assert content(Halved(0.1, factor=0.25)) != custom
    undecayed = Kinds.AdamW(0.1)
    undecayed.exclude_from_weight_decay(var_names=["bias"])
    assert content(undecayed) != content(Kinds.AdamW(0.1))


def test_weights_left_out_of_the_decay_stay_left_out():
    given_object = Kinds.AdamW(0.1, weight_decay=0.5)
    given_object.exclude_from_weight_decay(var_names=["bias"])
    _, given = take_objects({"optimizer": given_object})
    optimizer = given.make(0.1)
    kernel, bias = tf.Variable([1.0], name="kernel"), tf.Variable([1.0], name="bias")
    optimizer.build([kernel, bias])
    optimizer.apply_gradients([(tf.zeros(1), kernel), (tf.zeros(1), bias)])
    np.testing.assert_allclose([kernel.numpy()[0], bias.numpy()[0]], [0.95, 1.0])


def test_a_serialised_optimizer_is_taken_as_the_object():
    expected = take_objects({"optimizer": Kinds.AdamW(0.01, beta_1=0.8)})[1]
    short = {"class_name": "AdamW", "config": {"learning_rate": 0.01, "beta_1": 0.8}}
    for config in (Kinds.serialize(Kinds.AdamW(0.01, beta_1=0.8)), short):
        found = take_objects({"optimizer": config})[1]
        assert found.content == expected.content
        assert found.fields == expected.fields


def test_without_objects_nothing_changes():
    values = {"optimizer": "lion", "lr": "0.1", "epochs": 2}
    assert take_objects(values) == (values, None)
    assert take_objects({"lr": np.float32(0.5)}) == ({"lr": 0.5}, None)


class Theirs:
    __module__ = "keras.src.optimizers.adam"


@pytest.mark.parametrize(
    ("values", "field", "words"),
    [
        ({"optimizer": Kinds.Adam}, "optimizer", "instance"),
        ({"optimizer": 3}, "optimizer", "adamw"),
        ({"optimizer": Theirs()}, "optimizer", "Keras 3"),
        ({"optimizer": Kinds.legacy.Adam(0.1)}, "optimizer", "legacy"),
        (
            {"optimizer": keras.mixed_precision.LossScaleOptimizer(Kinds.Adam(0.1))},
            "optimizer",
            "inner optimizer",
        ),
        ({"optimizer": Forgetful(0.1, factor=0.25)}, "optimizer", "get_config"),
        ({"optimizer": Kinds.Adafactor(0.1)}, "optimizer", "epsilon_1"),
        ({"optimizer": {"class_name": "Adem", "config": {}}}, "optimizer", "serialize"),
        ({"optimizer": Kinds.SGD(0.1), "lr": 0.2}, "lr", "set it there"),
        ({"optimizer": Kinds.SGD(0.1), "momentum": 0.9}, "momentum", "set it there"),
        ({"optimizer": Kinds.SGD(0.1), "ema": 0.9}, "ema", "set it there"),
        ({"lr": Schedules.CosineDecay(0.1, 3), "schedule": "cosine"}, "schedule", "passed"),
        ({"lr": Schedules.CosineDecay(0.1, 3), "lr_drops": (1,)}, "lr_drops", "passed"),
        ({"lr": lambda: 0.1}, "lr", "LearningRateSchedule"),
    ],
)
def test_what_cannot_be_used_is_refused(values, field, words):
    with pytest.raises(FieldError) as caught:
        take_objects(values)
    assert caught.value.field == field
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
