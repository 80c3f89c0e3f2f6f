"""`mixup`: what is mixed with what, by how much, and that labels follow the inputs."""

import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf.calibration.losses import cross_entropy
from lotcal_tf.calibration.strategies import Mixup
from lotcal_tf.seeds import step_seed

DRAWS = 4000


def mix(strategy, inputs, labels, seed=(1, 2)):
    with step_seed(tf.constant(seed, tf.int32)):
        mixed = strategy.mix(tf.constant(inputs), tf.constant(labels))
    return tuple(value.numpy() for value in mixed)


def taken_apart(strategy, count, seed=(1, 2)):
    """The (N, N) matrix of shares by which examples are mixed, read off one-hot inputs."""
    whole = np.eye(count, dtype=np.float32)
    inputs, labels = mix(strategy, whole, whole, seed)
    # The same share and the same pair for the labels as for the inputs.
    np.testing.assert_array_equal(inputs, labels)
    return inputs


@pytest.mark.full
@pytest.mark.parametrize("a", [0.05, 0.2, 1.0, 8.0])
def test_shares_are_of_beta_a_a(make_strategy, a):
    """Mean 1/2 and variance 1 / (4 (2a + 1)), within five standard errors: once in 10⁶ by chance."""
    # About one example of the 4000 is paired with itself and shows 1: nothing beside the bounds.
    shares = taken_apart(make_strategy(Mixup, mixup_a=a), DRAWS).diagonal().astype(np.float64)
    assert shares.min() >= 0 and shares.max() <= 1
    variance = 1 / (4 * (2 * a + 1))
    assert shares.mean() == pytest.approx(0.5, abs=5 * np.sqrt(variance / len(shares)))
    squares = (shares - 0.5) ** 2
    assert squares.mean() == pytest.approx(variance, abs=5 * squares.std() / np.sqrt(len(shares)))


def test_each_example_is_mixed_with_one_and_each_lends_itself_once(make_strategy):
    strategy = make_strategy(Mixup, mixup_a=8.0)  # Shares of about a half.
    shares = taken_apart(strategy, 50).astype(np.float64)
    np.testing.assert_allclose(shares.sum(1), 1.0, atol=1e-6)
    own = shares.diagonal()
    partners = shares * (1 - np.eye(50))
    itself = own > 0.999
    assert ((partners > 0).sum(1)[~itself] == 1).all()
    assert ((partners > 0).sum(0)[~itself] == 1).all()
    assert itself.sum() < 6
    assert len(np.unique(own)) == 50 - max(0, itself.sum() - 1)  # Each its own share.


def test_any_pair_can_be_drawn(make_strategy):
    strategy = make_strategy(Mixup, mixup_a=8.0)
    seen = sum(taken_apart(strategy, 3, (0, step)) > 0 for step in range(60))
    # Each place of a permutation of three is taken in a third of the draws.
    assert (seen >= 5).all()


def test_inputs_of_any_shape_are_mixed_like_their_labels(make_strategy):
    strategy, rng = make_strategy(Mixup, mixup_a=1.0), np.random.default_rng(0)
    images, labels = rng.normal(size=(6, 2, 3, 4)).astype("float32"), np.eye(6, dtype="float32")
    mixed, shares = mix(strategy, images, labels)
    np.testing.assert_allclose(mixed, np.tensordot(shares, images, 1), atol=1e-6)


def test_the_step_decides_the_draws(make_strategy):
    strategy = make_strategy(Mixup, mixup_a=1.0)
    first, again, other = (taken_apart(strategy, 20, seed) for seed in [(1, 2), (1, 2), (1, 3)])
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_a_step_minimises_the_cross_entropy_of_the_mixture(make_strategy, minimises):
    inputs = np.random.default_rng(1).normal(size=(12, 5)).astype("float32")
    labels = np.arange(12, dtype=np.int32) % 3
    strategy = make_strategy(Mixup, mixup_a=1.0)
    mixed, soft = mix(strategy, inputs, np.eye(3, dtype=np.float32)[labels])
    assert (np.abs(mixed - inputs) > 0.1).any()
    minimises(strategy, cross_entropy, data=(inputs, labels), seen=(mixed, soft))


@pytest.mark.parametrize("a", [1e-4, 0.2])
def test_compiled_it_stays_in_range_also_for_a_tiny_a(make_strategy, a):
    strategy = make_strategy(Mixup, mixup_a=a)
    run = tf.function(lambda: mix_whole(strategy), jit_compile=True)
    mixed = run().numpy()
    assert np.isfinite(mixed).all()
    assert ((mixed >= 0) & (mixed <= 1)).all()


def mix_whole(strategy):
    with step_seed(tf.constant([1, 2], tf.int32)):
        return strategy.mix(tf.eye(64), tf.eye(64))[0]
