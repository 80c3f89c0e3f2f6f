"""Weights of examples in the strategies' losses, compared with Keras and with repeated examples."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf import losses
from lotcal_tf.calibration.slimming import Slimming
from lotcal_tf.calibration.strategies import CrossEntropy, Mixup
from lotcal_tf.compat import keras
from lotcal_tf.config.registry import STRATEGIES
from lotcal_tf.errors import FieldError
from lotcal_tf.seeds import step_seed

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(12, 5)).astype("float32"), RNG.integers(0, 3, 12)
W = RNG.uniform(0, 3, 12).astype("float32")
STOCHASTIC = {"vwcc", "lwcc_si"}


def step(strategy, *data):
    """Takes a step; returns the logged loss and the weights after it."""
    with step_seed(tf.constant([1, 2])):
        logs = strategy.train_step(tuple(map(tf.constant, data)))
    return float(logs["loss"]), [w.numpy() for w in strategy.network.trainable_weights]


def test_a_weighted_step_is_that_of_keras(make_strategy):
    strategy = make_strategy(CrossEntropy)
    twin = keras.models.clone_model(strategy.network)
    twin.set_weights(strategy.network.get_weights())
    twin.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(True))
    expected = twin.train_on_batch(X, Y, sample_weight=W)
    loss, weights = step(strategy, X, Y, W)
    assert loss == pytest.approx(expected, rel=1e-5)
    for found, wanted in zip(weights, twin.trainable_weights, strict=True):
        np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [n for n in STRATEGIES if n != "slimming"])
def test_weights_of_1_change_nothing(make_strategy, name):
    row = STRATEGIES[name]
    hyper = {"passes": 3} if name in STOCHASTIC else {}
    plain, weighted = (make_strategy(row.load(), **hyper) for _ in range(2))
    loss, weights = step(plain, X, Y)
    same, others = step(weighted, X, Y, np.ones(12, np.float32))
    assert same == pytest.approx(loss, rel=1e-6)
    for a, b in zip(weights, others, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def weighted(loss):
    """Losses `(N,)` of examples, with their weights."""
    return lambda labels, logits: W * loss(labels, logits)


# The weighted loss of each strategy; those of `mixup` and `slimming` have a test of their own.
WEIGHTED = {
    "none": weighted(losses.cross_entropy),
    "vwcc": weighted(losses.vwcc),
    "lwcc": weighted(functools.partial(losses.lwcc, weight=0.5)),
    "lwcc_si": weighted(functools.partial(losses.lwcc_si, weight=0.5)),
    "mda": functools.partial(losses.mda, weight=0.5, example_weights=W),
    "nba": functools.partial(losses.nba, weight=0.5, example_weights=W),
}


def test_every_strategy_with_weights_has_an_oracle():
    taking = {name for name, row in STRATEGIES.items() if row.load().takes_weights}
    assert taking == {*WEIGHTED, "mixup", "slimming"}


@pytest.mark.parametrize("name", WEIGHTED)
def test_a_step_minimises_the_weighted_loss(make_strategy, minimises, name):
    known = vars(STRATEGIES[name].hyperparameters())
    hyper = {n: v for n, v in {"passes": 3, "calib_weight": 0.5}.items() if n in known}
    minimises(make_strategy(STRATEGIES[name].load(), **hyper), WEIGHTED[name], data=(X, Y, W))


def test_slimming_weights_its_cross_entropy_only():
    keras.utils.set_random_seed(3)
    layers = keras.layers
    image = keras.Input((4, 4, 1))
    x = layers.BatchNormalization()(layers.Conv2D(3, 3, use_bias=False)(image))
    strategy = Slimming(keras.Model(image, layers.Dense(3)(layers.Flatten()(x))))
    strategy.compile(optimizer=keras.optimizers.SGD(0.0))
    images = RNG.normal(size=(12, 4, 4, 1)).astype("float32")
    plain, _ = step(strategy, images, Y)
    loss, _ = step(strategy, images, Y, W)
    each = losses.cross_entropy(Y, strategy(images, training=True)).numpy()
    assert loss - plain == pytest.approx(float(np.mean((W - 1) * each)), rel=1e-4)


@pytest.mark.parametrize(("name", "loss"), [("mda", losses.mda), ("nba", losses.nba)])
def test_terms_of_the_batch_are_not_weighted(name, loss):
    logits, w = tf.constant(RNG.normal(size=(12, 3)), tf.float32), tf.constant(W)
    each = losses.cross_entropy(Y, logits).numpy()
    difference = float(loss(Y, logits, example_weights=w) - loss(Y, logits))
    assert difference == pytest.approx(float(np.mean((W - 1) * each)), rel=1e-4)


def test_mixed_examples_have_the_weights_of_both(make_strategy, monkeypatch):
    strategy = make_strategy(Mixup, mixup_a=0.4)
    order, share = np.arange(12)[::-1], np.linspace(0, 1, 12).astype("float32")

    def mix(inputs, labels):
        def mixed(values):
            part = share.reshape([-1] + [1] * (values.shape.rank - 1))
            return part * values + (1 - part) * tf.gather(values, order)

        return tf.nest.map_structure(mixed, (inputs, labels))

    monkeypatch.setattr(strategy, "mix", mix)
    logits = strategy(mix(tf.constant(X), tf.constant(X))[0]).numpy()
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    rows = np.arange(12)
    expected = share * W * log_p[rows, Y] + (1 - share) * W[order] * log_p[rows, Y[order]]
    penalty = float(strategy.penalty())
    assert step(strategy, X, Y, W)[0] - penalty == pytest.approx(-expected.mean(), rel=1e-4)


@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_mixup_refuses_tokens(dtype):
    layers = keras.layers
    given = keras.Input((5,), dtype=dtype, name="tokens")
    x = layers.Flatten()(layers.Embedding(9, 2)(given))
    with pytest.raises(FieldError, match=r"calib=mixup: .*'tokens'"):
        Mixup(keras.Model(given, layers.Dense(3)(x)))
