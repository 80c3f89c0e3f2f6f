"""What every strategy of the catalog must do; a new row is tested here by being a row."""

import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf.calibration.strategy import Strategy
from lotcal_tf.catalog import STRATEGIES
from lotcal_tf.compat import keras
from lotcal_tf.data import digits
from lotcal_tf.experiment import Experiment
from lotcal_tf.models.mc_dropout import StatelessDropout
from lotcal_tf.pruning import masking
from lotcal_tf.seeds import step_seed
from lotcal_tf.training.trainer import Trainer

pytestmark = pytest.mark.parametrize("name", STRATEGIES)

EXPERIMENT = Experiment(batch_size=60, epochs=4, lr=2e-2, seed=3)


@pytest.fixture(scope="module")
def dataset():
    return digits.load(EXPERIMENT)


def make_network(pruned=0.5):
    """64 → 12 → 10 with dropout, of which a share of each kernel is pruned; the same every time."""
    keras.utils.set_random_seed(5)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 16)(inputs))
    x = keras.layers.Dense(12, activation="relu", name="hidden")(x)
    x = StatelessDropout(0.1, name="dropout")(x)
    network = masking.wrap(keras.Model(inputs, keras.layers.Dense(10, name="logits")(x)))
    rng = np.random.default_rng(0)
    weights = masking.weight_variables(network)
    masks = {
        path: rng.random(mask.shape) >= pruned
        for path, mask in masking.mask_variables(network).items()
    }
    masking.assign_masks(network, masks)
    for path, mask in masks.items():
        weights[path].assign(np.where(mask, weights[path], 0))
    return network


def make_strategy(name, optimizer=None):
    strategy = STRATEGIES[name].load()(make_network())
    strategy.compile(optimizer=optimizer or keras.optimizers.SGD(1.0))
    return strategy


def step(strategy, dataset):
    """One training step on the first sixty digits."""
    inputs, labels = next(dataset.train.in_order(60))
    with step_seed(tf.constant([1, 2])):
        return strategy.train_step((inputs, labels))


def train(name, dataset):
    network = make_network()
    trainer = Trainer(EXPERIMENT, STRATEGIES[name].load(), network, dataset)
    return network, trainer.train(0)


@pytest.fixture(scope="module")
def trained(dataset):
    return {name: train(name, dataset) for name in STRATEGIES}


def test_it_is_a_strategy_with_a_step_of_its_own(name):
    strategy = STRATEGIES[name].load()
    assert issubclass(strategy, Strategy)
    assert strategy.train_step is not Strategy.train_step


def test_a_step_gives_what_log_names_say(name, dataset):
    strategy = make_strategy(name)
    logs = step(strategy, dataset)
    assert set(logs) == set(strategy.log_names) >= {"loss", "accuracy"}
    for value in logs.values():
        assert (value.shape, value.dtype) == ((), tf.float32)
        assert np.isfinite(value)
    assert 0 <= float(logs["accuracy"]) <= 1


@pytest.mark.parametrize("scale", [1.0, 1e5])
def test_loss_and_gradients_are_finite(name, scale, dataset):
    strategy = make_strategy(name)
    logits = masking.weight_variables(strategy.network)["logits/kernel"]
    logits.assign(logits * scale)
    if scale > 1:
        assert np.abs(strategy(next(dataset.train.in_order(60))[0])).max() > 1e4
    before = masking.values(strategy.network)
    assert np.isfinite(step(strategy, dataset)["loss"])
    # Plain descent with rate 1: the weights' change is the gradient.
    for path, after in masking.values(strategy.network).items():
        assert np.isfinite(after).all(), path
        if scale == 1:
            assert (after != before[path]).any(), path


def test_the_loss_falls_and_the_digits_are_learnt(name, trained):
    _, epochs = trained[name]
    assert epochs[-1].train_loss < epochs[0].train_loss
    assert epochs[-1].val_loss < epochs[0].val_loss
    assert epochs[-1].val_accuracy > 0.7  # a tenth by chance


def test_a_seed_gives_the_same_weights_to_the_bit(name, dataset, trained):
    again, epochs = train(name, dataset)
    network, first_epochs = trained[name]
    assert epochs == first_epochs
    for path, value in masking.values(again).items():
        np.testing.assert_array_equal(value, masking.values(network)[path], err_msg=path)


def test_pruned_weights_stay_exactly_zero(name, trained):
    network, _ = trained[name]
    values = masking.values(network)
    start = masking.mask_variables(make_network())
    for path, mask in masking.mask_variables(network).items():
        np.testing.assert_array_equal(mask, start[path], err_msg=path)
        assert (values[path][mask.numpy() == 0] == 0).all(), path
        assert (values[path][mask.numpy() == 1] != 0).all(), path
