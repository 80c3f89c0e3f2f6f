"""Hidden units that are left out: which ones, by hand; and the same gradients and training as without."""

import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf.calibration.strategies import CrossEntropy
from lotcal_tf.compat import keras
from lotcal_tf.config.experiment import Experiment
from lotcal_tf.data.splits import Dataset, ResidentSplit
from lotcal_tf.lottery.run import run_experiment
from lotcal_tf.lottery.store import RunStore
from lotcal_tf.models.build import build_model
from lotcal_tf.pruning import masking
from lotcal_tf.pruning.narrow import Places, Units, layers_of, units_of
from lotcal_tf.training import trainer


def network(name="lenet_8", shape=(5,), **given):
    return masking.wrap(build_model(name, shape, 3, seed=0, **({"use_bias": False} | given)))


def with_masks(model, *masks):
    for variable, mask in zip(masking.mask_variables(model).values(), masks, strict=True):
        variable.assign(mask)
    return model


def masks_of_units(inputs, hidden, outputs, alive, half):
    """Units `alive` have weights on both sides; unit `half[0]` incoming ones only, `half[1]` outgoing ones."""
    first, second = np.zeros((inputs, hidden)), np.zeros((hidden, outputs))
    first[1:3, [*alive, half[0]]] = 1
    second[[*alive, half[1]], 1] = 1
    return first, second


def random_masks(model, density, seed=0):
    draw = np.random.default_rng(seed)
    shapes = [mask.shape for mask in masking.mask_variables(model).values()]
    return with_masks(model, *(draw.random(shape) < density for shape in shapes))


def test_a_unit_without_incoming_or_outgoing_weights_is_left_out():
    model = with_masks(network(), *masks_of_units(5, 8, 3, alive=[2, 6], half=[0, 7]))
    units = units_of(model)
    assert units.widths == (2,)
    assert units.kept[0].tolist() == [2, 6]


def test_what_hangs_on_units_that_are_left_out_is_left_out_too():
    """Unit 1 of the first layer feeds only unit 3 of the second, which has no outgoing weight."""
    first, second, third = np.zeros((5, 4)), np.zeros((4, 4)), np.zeros((4, 3))
    first[0, :2] = 1
    second[0, 0] = second[1, 3] = 1
    third[0, 2] = third[2, 1] = 1
    units = units_of(with_masks(network("lenet_4_4"), first, second, third))
    assert [kept.tolist() for kept in units.kept] == [[0], [0]]


def test_widths_are_few_and_filled_with_other_units():
    """One of 500 · 2^(-k/2), rounded up, not below the units in use."""
    widths = set()
    for alive in range(1, 330):
        model_masks = np.zeros((3, 500)), np.zeros((500, 3))
        model_masks[0][0, :alive], model_masks[1][:alive, 0] = 1, 1
        units = units_of(with_masks(WIDE, *model_masks))
        assert alive <= units.widths[0] == len(set(units.kept[0])) <= 1.5 * alive + 1
        assert set(range(alive)) <= set(units.kept[0])
        assert (np.diff(units.kept[0]) > 0).all()
        widths.add(units.widths[0])
    assert {354, 250, 177, 125} <= widths and len(widths) <= 18


WIDE = network("lenet_500", (3,))


def test_it_does_not_pay_for_dense_networks():
    assert units_of(network()) is None


@pytest.mark.parametrize(
    "model",
    [
        network(use_bias=True),
        network("resnet8_1", (8, 8, 1)),
        network(dropout_rate=0.5),
        masking.wrap(build_model("lenet_8", (5,), 3, seed=0, use_bias=False), ["logits"]),
    ],
    ids=["biases", "convolutions", "dropout", "excluded"],
)
def test_other_networks_are_computed_whole(model):
    assert layers_of(model) == []
    assert units_of(model) is None


def test_activations_that_are_not_zero_at_zero_are_computed_whole():
    x = inputs = keras.Input((5,))
    x = keras.layers.Dense(8, activation="sigmoid", use_bias=False)(x)
    x = keras.layers.Dense(3, use_bias=False)(x)
    assert layers_of(masking.wrap(keras.Model(inputs, x))) == []


@pytest.mark.parametrize(("name", "shape"), [("lenet_40", (5,)), ("lenet_40_30", (3, 2, 1))])
def test_logits_and_gradients_are_those_of_the_whole_network(name, shape):
    model = random_masks(network(name, shape, input_range=4.0), 0.12)
    units = units_of(model)
    assert units.widths[0] < 30
    x = np.random.default_rng(1).normal(size=(20, *shape)).astype("float32")
    labels = np.arange(20) % 3

    def step():
        with tf.GradientTape() as tape:
            logits = model(x, training=True)
            loss = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
            loss = tf.reduce_mean(loss)
        return logits, tape.gradient(loss, model.trainable_variables)

    logits, gradients = step()
    places = Places(model, units.widths)
    places.set(units)
    before = len(model.weights)
    with places.applied():
        found, narrow = step()
    assert len(model.weights) == before
    np.testing.assert_allclose(found, logits, rtol=1e-5, atol=1e-6)
    assert max(np.abs(gradient).max() for gradient in gradients) > 1e-3
    for gradient, expected in zip(narrow, gradients, strict=True):
        np.testing.assert_allclose(tf.convert_to_tensor(gradient), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(model(x), logits, err_msg="afterwards it is whole again")


@pytest.mark.full
def test_a_whole_run_is_that_of_the_full_computation(tmp_path, monkeypatch):
    seen = []

    def run(name, units):
        monkeypatch.setattr(trainer, "units_of", units)
        return run_experiment(
            Experiment(
                **{"dataset": "mixture_xor", "source": "mixture_xor", "nu": 1.2, "dimensions": 20},
                **{"model": "lenet_60", "use_bias": False, "initializer": "kaiming_uniform"},
                **{"optimizer": "sgd", "lr": 0.1, "momentum": 0.5, "weight_decay": 1e-3},
                **{"epochs": 3, "batch_size": 500, "drop_remainder": False, "plan": "graph"},
                **{"levels": 3, "prune_rate": 0.75, "scope": "global", "count": "openlth"},
                **{"out": str(tmp_path / name)},
            ),
            progress=False,
        )

    def noted(model):
        seen.append(units_of(model))
        return seen[-1]

    run("full", lambda model: None)
    run("narrow", noted)
    assert seen[0] is None and isinstance(seen[-1], Units)
    full, narrow = (RunStore(tmp_path / name) for name in ("full", "narrow"))
    assert (tmp_path / "full").is_dir()
    for level in range(4):
        one, other = full.read(level), narrow.read(level)
        for name, mask in one.masks.items():
            np.testing.assert_array_equal(other.masks[name], mask)
        for name, value in one.trained.items():
            np.testing.assert_allclose(other.trained[name], value, rtol=1e-4, atol=1e-5)
    assert np.abs(one.trained["hidden_1/kernel"] - one.rewind["hidden_1/kernel"]).max() > 0.01


def test_levels_of_the_same_widths_share_a_program():
    """Other places, same widths: nothing is compiled again, and the places count."""

    draw = np.random.default_rng(0)
    pair = draw.normal(size=(32, 5)).astype("float32"), draw.integers(0, 3, 32)
    dataset = Dataset(3, ResidentSplit.of(*pair), ResidentSplit.of(*pair), None)
    experiment = Experiment(
        **{"use_bias": False, "epochs": 1, "batch_size": 8, "plan": "graph"},
        **{"optimizer": "sgd", "lr": 0.5},
    )

    made = trainer.Trainer(experiment, CrossEntropy, network(), dataset)
    for level, alive in enumerate(([2, 6], [1, 3])):
        masks = masks_of_units(5, 8, 3, alive, half=[0, 7])
        with_masks(made.network, *masks)
        before = masking.values(made.network)["hidden_1/kernel"]
        list(made.train(level))
        changed = (masking.values(made.network)["hidden_1/kernel"] != before).any(0)
        assert set(np.flatnonzero(changed)) <= set(alive) and changed.any()
    assert made.loop.compilations == 1
