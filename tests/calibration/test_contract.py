"""What every strategy of the catalog must do; a new row is tested here by being a row."""

import contextlib
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf.api import find_tickets
from lotcal_tf.calibration.strategy import Strategy
from lotcal_tf.compat import keras
from lotcal_tf.config.experiment import Experiment
from lotcal_tf.config.registry import FORMATS, STRATEGIES
from lotcal_tf.data import digits
from lotcal_tf.errors import UsageError
from lotcal_tf.models.build import build_model
from lotcal_tf.pruning import masking
from lotcal_tf.seeds import step_seed
from lotcal_tf.training.trainer import Trainer
from tests.cases import quick

each_strategy = pytest.mark.parametrize("name", STRATEGIES)


def experiment(name):
    # As a graph: that a step compiles whole too is a test of its own, and compiling takes seconds.
    return Experiment(batch_size=60, epochs=4, lr=2e-2, seed=3, calib=name, plan="graph")


@pytest.fixture(scope="module")
def dataset():
    return digits.load(experiment("none"))


def build(name, **dropout):
    """A built-in network that the strategy takes: 64 → 12 → 10, or one with BatchNorm."""
    for model in ("lenet_12", "resnet8_4"):
        network = build_model(model, (8, 8, 1), 10, seed=5, input_range=16.0, **dropout)
        with contextlib.suppress(UsageError):
            STRATEGIES[name].load()(network)
            return network
    raise AssertionError(f"no network of these tests suits {name}")


def make_network(name, pruned=0.5):
    """A network as the strategy asks for it; a share of each kernel is pruned."""
    hyper = vars(STRATEGIES[name].hyperparameters())
    dropout = {key: hyper[key] for key in ("dropout_rate", "dropout_at") if key in hyper}
    network = masking.wrap(build(name, **dropout))
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


def make_strategy(name):
    strategy = STRATEGIES[name].load()(make_network(name))
    strategy.compile(optimizer=keras.optimizers.SGD(1.0))
    return strategy


def step(strategy, dataset):
    """One training step on the first sixty digits."""
    inputs, labels = next(dataset.train.in_order(60))
    with step_seed(tf.constant([1, 2])):
        return strategy.train_step((inputs, labels))


def train(name, dataset):
    network = make_network(name)
    trainer = Trainer(experiment(name), STRATEGIES[name].load(), network, dataset)
    return network, [progress.epoch for progress in trainer.train(0) if progress.epoch]


@pytest.fixture(scope="module")
def trained(dataset):
    return {name: train(name, dataset) for name in STRATEGIES}


@each_strategy
def test_it_is_a_strategy_with_a_step_of_its_own(name):
    strategy = STRATEGIES[name].load()
    assert issubclass(strategy, Strategy)
    assert strategy.train_step is not Strategy.train_step


@each_strategy
def test_batch_wide_tells_whether_devices_can_share_a_batch(name, dataset):
    """The gradient of a batch is the mean of its halves' unless the loss relates its examples."""
    row = STRATEGIES[name]
    # A rate that drops nothing: the passes are there, and draw nothing that could differ.
    known = vars(row.hyperparameters())
    # The term's nature counts here, however small its default weight.
    hyper = {n: v for n, v in {"dropout_rate": 1e-6, "calib_weight": 1.0}.items() if n in known}
    model = build(name, dropout_rate=1e-6)
    for layer in model.layers:  # BatchNorm relates examples too, whatever the loss.
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
    inputs, labels = next(dataset.train.in_order(60))

    def gradient(rows):
        strategy = row.load()(masking.wrap(model), **hyper)
        strategy.compile(optimizer=keras.optimizers.SGD(1.0))
        with step_seed(tf.constant([1, 2])):
            strategy.train_step((inputs[rows], labels[rows]))
        after, before = masking.values(strategy.network), masking.values(model)
        return np.concatenate([(before[path] - after[path]).ravel() for path in before])

    halves = (gradient(slice(30)) + gradient(slice(30, 60))) / 2
    distance = np.abs(gradient(slice(60)) - halves).max()
    assert distance > 1e-4 if row.load().batch_wide else distance < 1e-6


@each_strategy
@pytest.mark.parametrize("largest", [None, 2e4])
def test_a_step_logs_what_log_names_say_and_its_gradients_are_finite(name, largest, dataset):
    strategy = make_strategy(name)
    if largest:
        logits = masking.weight_variables(strategy.network)["logits/kernel"]
        now = np.abs(strategy(next(dataset.train.in_order(60))[0])).max()
        logits.assign(logits * (largest / now))
    before = masking.values(strategy.network)
    logs = step(strategy, dataset)
    assert set(logs) == set(strategy.log_names) >= {"loss", "accuracy"}
    for value in logs.values():
        assert (value.shape, value.dtype) == ((), tf.float32)
        assert np.isfinite(value)
    assert 0 <= float(logs["accuracy"]) <= 1
    # Plain descent with rate 1: the weights' change is the gradient.
    for path, after in masking.values(strategy.network).items():
        assert np.isfinite(after).all(), path
        if not largest:
            assert (after != before[path]).any(), path


@pytest.mark.full
@each_strategy
def test_a_step_compiled_whole_gives_the_same(name, dataset):
    inputs, labels = next(dataset.train.in_order(60))
    plain, compiled = make_strategy(name), make_strategy(name)
    compiled.optimizer.build(compiled.network.trainable_variables)
    expected = step(plain, dataset)

    @tf.function(jit_compile=True)
    def whole(seed):
        with step_seed(seed):
            return compiled.train_step((inputs, labels))

    logs = whole(tf.constant([1, 2]))
    assert float(logs["loss"]) == pytest.approx(float(expected["loss"]), rel=1e-4)
    for path, value in masking.values(compiled.network).items():
        other = masking.values(plain.network)[path]
        np.testing.assert_allclose(value, other, atol=1e-4, err_msg=path)


@each_strategy
def test_the_loss_falls_and_the_digits_are_learnt(name, trained):
    _, epochs = trained[name]
    assert epochs[-1].train_loss < epochs[0].train_loss
    assert epochs[-1].val_loss < epochs[0].val_loss
    assert epochs[-1].val_accuracy > 0.7  # a tenth by chance


@pytest.mark.full
@each_strategy
def test_a_seed_gives_the_same_weights_to_the_bit(name, dataset, trained):
    again, epochs = train(name, dataset)
    network, first_epochs = trained[name]
    assert epochs == first_epochs
    for path, value in masking.values(again).items():
        np.testing.assert_array_equal(value, masking.values(network)[path], err_msg=path)


@each_strategy
def test_pruned_weights_stay_exactly_zero(name, trained):
    network, _ = trained[name]
    values = masking.values(network)
    start = masking.mask_variables(make_network(name))
    for path, mask in masking.mask_variables(network).items():
        np.testing.assert_array_equal(mask, start[path], err_msg=path)
        assert (values[path][mask.numpy() == 0] == 0).all(), path
        assert (values[path][mask.numpy() == 1] != 0).all(), path


@each_strategy
def test_the_rows_hyperparameters_arrive(name):
    defaults = STRATEGIES[name].hyperparameters()
    assert experiment(name).settings == vars(defaults)
    assert make_strategy(name).hyper == defaults


def blobs(count, seed):
    """Three classes of eight inputs."""
    rng = np.random.default_rng(seed)
    centres, labels = 2 * np.random.default_rng(9).normal(size=(3, 8)), rng.integers(0, 3, count)
    return (centres[labels] + rng.normal(size=(count, 8))).astype("float32"), labels


def tiny_network():
    """With all that a strategy may need: dropout, and a convolution with BatchNorm behind it."""
    keras.utils.set_random_seed(1)
    layers = keras.layers
    x = given = keras.Input((8,), name="inputs")
    x = layers.Reshape((2, 2, 2), name="image")(x)
    x = layers.Conv2D(8, 2, name="hidden")(x)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(momentum=0.8, name="norm")(x))
    x = layers.Dropout(0.2, name="dropout")(layers.Flatten(name="flatten")(x))
    return keras.Model(given, layers.Dense(3, name="logits")(x), name="tiny")


def find(calib, out):
    """Two levels of a tiny network."""
    model = tiny_network()
    fields = {"epochs": 4, "levels": 1, "lr": 0.03, "batch_size": 10, "plan": "graph"}
    return find_tickets(
        model, blobs(80, 0), blobs(30, 1), calib=calib, out=out, progress=False, **fields
    )


# The plain strategy, and the one with most parts.
@pytest.mark.parametrize("name", quick(STRATEGIES, "none", "lwcc_si"))
def test_from_data_to_a_file(name, tmp_path):
    run = find(name, tmp_path / "run")
    recorded = json.loads((run.directory / "experiment.json").read_text())
    assert recorded["experiment"]["calib"] == name
    defaults = json.loads(json.dumps(vars(STRATEGIES[name].hyperparameters())))
    assert recorded["experiment"]["settings"] == defaults
    ticket, inputs = run.ticket(1), blobs(30, 1)[0]
    assert all(math.isfinite(v) for v in ticket.record.values() if isinstance(v, float))
    assert ticket.density == (64 + 24 - 13 - 2) / (64 + 24)
    plain = ticket.model()
    assert "lotcal_tf" not in plain.to_json()
    # Exporting knows no strategies: that this network can be converted is all that could differ.
    float32, file = FORMATS["float32"].load(), tmp_path / "ticket.tflite"
    float32.write(plain, file)
    np.testing.assert_allclose(float32.runner(file)(inputs), plain(inputs), rtol=1e-4, atol=1e-5)


README = Path(__file__).resolve().parents[2] / "README.md"


def test_the_strategy_that_the_readme_shows_works_as_shown(tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    (code,) = (block for block in blocks if "lotcal_tf.Strategy" in block)
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 15
    (tmp_path / "shown_in_readme.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    run = find("shown_in_readme:LabelSmoothing", tmp_path / "run")
    assert run.ticket(1).record["test_accuracy"] > 0.6

    import shown_in_readme

    inputs = keras.Input((2,))
    strategy = shown_in_readme.LabelSmoothing(keras.Model(inputs, inputs))
    strategy.compile(optimizer=keras.optimizers.SGD(0.0))
    logs = strategy.train_step((tf.constant([[np.log(3.0), 0.0]]), tf.constant([0])))
    # p = (3/4, 1/4) against labels (.95, .05).
    expected = -0.95 * np.log(0.75) - 0.05 * np.log(0.25)
    assert float(logs["loss"]) == pytest.approx(expected, rel=1e-5)
