"""A ticket: what identifies it, the models made from it, which one is named best."""

import dataclasses
import json

import numpy as np
import pytest

from lotcal_tf.compat import keras, tfmot
from lotcal_tf.errors import UsageError
from lotcal_tf.lottery.run_tables import selected_level
from lotcal_tf.lottery.store import RunStore
from lotcal_tf.lottery.ticket import Ticket, architecture_of, wrap_for_training
from lotcal_tf.models.stateless_dropout import StatelessDropout
from lotcal_tf.pruning import masking
from lotcal_tf.pruning.masked import Masked
from lotcal_tf.pruning.rewind import masked_start

INPUTS = np.random.default_rng(3).normal(size=(5, 8)).astype("float32")


@pytest.fixture
def ticket(network):
    """The hidden layer masked, the output layer left whole; trained is twice what was rewound to."""
    rewind = masking.values(network)
    mask = np.arange(48).reshape(8, 6) % 3 > 0
    trained = {name: value * 2 for name, value in rewind.items()}
    # Not zeroed here on purpose: whoever builds a ticket, its models hold no pruned weight.
    return Ticket(1, architecture_of(network), {"hidden/kernel": mask}, rewind, trained, {})


def test_density_is_remaining_over_prunable(ticket):
    assert ticket.density == 32 / 48
    both = ticket.masks | {"logits/kernel": np.ones((6, 3), bool)}
    assert dataclasses.replace(ticket, masks=both).density == (32 + 18) / 66


@pytest.mark.parametrize("part", ["masks", "rewind", "trained"])
def test_digest_sees_any_changed_weight(ticket, part):
    arrays = {name: value.copy() for name, value in getattr(ticket, part).items()}
    kernel = arrays["hidden/kernel"]
    kernel[7, 5] = ~kernel[7, 5] if part == "masks" else np.nextafter(kernel[7, 5], np.float32(9))
    changed = dataclasses.replace(ticket, **{part: arrays})
    assert changed.digest != ticket.digest


def test_digest_sees_the_architecture_and_nothing_of_place_or_order(ticket):
    backwards = dict(reversed(ticket.trained.items()))
    moved = dataclasses.replace(ticket, level=4, record={"level": 4}, trained=backwards)
    assert moved.digest == ticket.digest
    other = ticket.architecture.replace('"relu"', '"tanh"')
    assert dataclasses.replace(ticket, architecture=other).digest != ticket.digest


def test_model_is_plain_keras_and_computes_with_the_survivors_only(ticket):
    model = ticket.model()
    assert not any(isinstance(layer, Masked) for layer in model.layers)
    assert type(model.get_layer("dropout")) is keras.layers.Dropout
    t, mask = ticket.trained, ticket.masks["hidden/kernel"]
    hidden = np.maximum(INPUTS @ (t["hidden/kernel"] * mask) + t["hidden/bias"], 0)
    scale = t["norm/gamma"] / np.sqrt(t["norm/moving_variance"] + 1e-3)
    normed = (hidden - t["norm/moving_mean"]) * scale + t["norm/beta"]
    expected = normed @ t["logits/kernel"] + t["logits/bias"]
    np.testing.assert_allclose(model(INPUTS).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_network_is_wrapped_at_its_start_and_ready_to_train(ticket):
    network = ticket.network()
    masks = masking.mask_variables(network)
    assert list(masks) == ["hidden/kernel"]  # the output layer stays whole
    np.testing.assert_array_equal(masks["hidden/kernel"], ticket.masks["hidden/kernel"])
    assert type(network.get_layer("dropout")) is StatelessDropout
    values, mask = masking.values(network), ticket.masks["hidden/kernel"]
    assert not values["hidden/kernel"][~mask].any()
    for name, start in ticket.rewind.items():
        kept = mask if name in ticket.masks else np.ones(start.shape, bool)
        assert values[name][kept].tobytes() == start[kept].tobytes()


def test_tensors_that_do_not_fit_the_architecture_are_all_listed(ticket):
    smaller = dataclasses.replace(
        ticket,
        architecture=ticket.architecture.replace('"units": 6', '"units": 5'),
        rewind={n: v for n, v in ticket.rewind.items() if not n.startswith("norm/")},
        masks=ticket.masks | {"gone/kernel": np.ones((2, 2), bool)},
    )
    with pytest.raises(UsageError, match="the ticket's tensors do not fit its model: ") as caught:
        smaller.network()
    told = str(caught.value)
    assert "\n" not in told
    for part in (
        "norm/gamma is missing",
        "norm/moving_variance is missing",
        "hidden/kernel is (8, 6), the model's (8, 5)",
        "hidden/bias is (6,), the model's (5,)",
        "logits/kernel is (6, 3), the model's (5, 3)",
        "the mask of hidden/kernel is (8, 6), the model's (8, 5)",
        "the mask of gone/kernel is not in the model",
    ):
        assert part in told, told


def test_wrapping_for_training_keeps_weights_and_leaves_the_model_alone(network):
    before = masking.values(network)
    wrapped = wrap_for_training(network, ["logits"])
    assert list(masking.mask_variables(wrapped)) == ["hidden/kernel"]
    for name, value in masking.values(wrapped).items():
        np.testing.assert_array_equal(value, before[name])
    wrapped.get_layer("masked_hidden").layer.kernel.assign_add(np.ones((8, 6)))
    np.testing.assert_array_equal(masking.values(network)["hidden/kernel"], before["hidden/kernel"])


@pytest.mark.full
@pytest.mark.parametrize("depthwise", [False, True])
def test_masks_of_all_kernels_come_back(depthwise, tmp_path):
    layers = keras.layers
    given = keras.Input((4, 4, 2))
    x = layers.SeparableConv2D(3, 2, name="separable")(layers.DepthwiseConv2D(2, name="one")(given))
    x = layers.Bidirectional(layers.LSTM(2), name="both")(layers.Reshape((2, 6))(x))
    model = keras.Model(given, layers.Dense(3, name="logits")(x))
    wrapped = wrap_for_training(model, ["logits"], depthwise=depthwise)
    draw = np.random.default_rng(0)
    masks = {n: draw.random(m.shape) < 0.5 for n, m in masking.mask_variables(wrapped).items()}
    assert ("one/depthwise_kernel" in masks) == ("separable/depthwise_kernel" in masks) == depthwise
    assert "separable/pointwise_kernel" in masks and len([n for n in masks if "both" in n]) == 4
    values = masking.values(model)
    store = RunStore(tmp_path)
    store.begin({})
    store.save(Ticket(0, architecture_of(model), masks, values, masked_start(values, masks), {}))
    ticket = store.read(0)
    network = ticket.network()
    found = {name: mask.numpy() > 0 for name, mask in masking.mask_variables(network).items()}
    assert found.keys() == masks.keys()
    inputs = draw.normal(size=(3, 4, 4, 2)).astype("float32")
    np.testing.assert_allclose(network(inputs), ticket.model()(inputs), rtol=1e-6, atol=1e-7)
    for name, mask in masks.items():
        np.testing.assert_array_equal(found[name], mask)


class Own(keras.layers.Dense, tfmot.sparsity.keras.PrunableLayer):
    """A user's layer that is not registered with Keras."""

    def get_prunable_weights(self):
        return [self.kernel]


def test_a_layer_of_ones_own_needs_its_class(ticket):
    inputs = keras.Input((8,))
    model = keras.Model(inputs, Own(3, name="own")(inputs))
    values = masking.values(model)
    masks = {"own/kernel": np.ones((8, 3), bool)}
    own = Ticket(0, architecture_of(model), masks, values, values, {})
    with pytest.raises(UsageError, match=r"'Own' is not registered.*custom_objects"):
        own.model()
    classes = {"Own": Own}
    np.testing.assert_array_equal(own.model(classes)(INPUTS), model(INPUTS))
    assert list(masking.mask_variables(own.network(classes))) == ["own/kernel"]
    brought = dataclasses.replace(own, custom_objects=classes)
    np.testing.assert_array_equal(brought.model()(INPUTS), model(INPUTS))


def test_architecture_is_canonical_json(network):
    text = architecture_of(network)
    assert json.dumps(json.loads(text), sort_keys=True) == text
    assert architecture_of(keras.models.model_from_json(text)) == text


def test_a_layer_without_a_configuration_is_named(network):
    class Silent(keras.layers.Layer):
        def __init__(self, function):
            super().__init__()
            self.function = function

        def call(self, inputs):
            return self.function(inputs)

    inputs = keras.Input((8,))
    model = keras.Model(inputs, Silent(lambda x: 2 * x)(inputs))
    with pytest.raises(UsageError, match=r"configuration cannot be written: .*Silent"):
        architecture_of(model)


def rows(*figures):
    return [
        {"level": level, "val_nll": nll, "val_nll_se": error}
        for level, (nll, error) in enumerate(figures)
    ]


@pytest.mark.parametrize(
    ("figures", "best"),
    [
        pytest.param([(0.5, 0.1)], 0, id="the dense network alone"),
        pytest.param([(0.1, 0.0), (0.9, 0.0)], 1, id="level 0 never competes"),
        pytest.param([(0.1, 0.0), (0.9, 0.0), (0.5, 0.0), (0.7, 0.0)], 2, id="lowest"),
        pytest.param([(9, 0), (0.5, 0.25), (0.75, 0.0), (0.76, 0.0)], 2, id="on the limit counts"),
        pytest.param([(9, 0), (0.5, 0.1), (0.7, 0.0), (0.55, 0.0)], 3, id="after a worse one"),
        pytest.param([(9, 0), (0.5, 0.0), (0.6, 0.2)], 1, id="the lowest one's error, not its own"),
        pytest.param([(9, 9), (0.5, 0.0), (0.5, 0.0)], 2, id="a tie goes to the sparser"),
    ],
)
def test_best_is_the_sparsest_within_one_standard_error_of_the_lowest(figures, best):
    assert selected_level(rows(*figures)) == best
