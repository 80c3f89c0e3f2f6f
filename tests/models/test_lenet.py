import numpy as np
import pytest

from lotcal_tf.compat import keras
from lotcal_tf.models import lenet


@pytest.fixture
def network(by_hand):
    return lambda *given, **more: by_hand.build(lenet, *given, **more)


@pytest.mark.parametrize(
    "name, shape, expected",
    [
        # 784·300 + 300 + 300·100 + 100 + 100·10 + 10
        ("lenet_300_100", (28, 28, 1), 266_610),
        ("lenet_300_100", (784,), 266_610),
        ("lenet_25_100", (28, 28, 1), 784 * 25 + 25 + 25 * 100 + 100 + 100 * 10 + 10),
        ("lenet_7", (8, 8), 64 * 7 + 7 + 7 * 10 + 10),
        ("lenet_4_3_2_5", (2, 3), 6 * 4 + 4 + 4 * 3 + 3 + 3 * 2 + 2 + 2 * 5 + 5 + 5 * 10 + 10),
    ],
)
def test_parameter_counts_by_hand(network, name, shape, expected):
    assert network(name, shape).count_params() == expected


def test_the_logits_are_those_of_relu_layers_and_a_linear_one(network):
    model = network("lenet_5_4", (2, 3), classes=3)
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=weight.shape).astype("float32") for weight in model.get_weights()]
    model.set_weights(weights)
    w1, b1, w2, b2, w3, b3 = weights
    x = rng.normal(size=(6, 2, 3)).astype("float32")
    hidden = np.maximum(np.maximum(x.reshape(6, 6) @ w1 + b1, 0) @ w2 + b2, 0)
    expected = hidden @ w3 + b3
    assert (hidden == 0).any() and (expected < 0).any()  # ReLU within, none at the end.
    np.testing.assert_allclose(model(x), expected, rtol=1e-5, atol=1e-5)


def test_each_kernel_gets_an_initializer_of_its_own_and_biases_start_at_zero(network):
    made = []

    def initializer():
        made.append(keras.initializers.Constant(len(made) + 1.0))
        return made[-1]

    values = network("lenet_5_4", (6,), initializer=initializer).get_weights()
    assert len(made) == 3
    for number, (kernel, bias) in enumerate(zip(values[::2], values[1::2], strict=True), 1):
        assert (kernel == number).all()
        assert (bias == 0).all()


def test_dropout_is_offered_after_each_hidden_layer_and_before_the_last(network):
    def mark(place, x):
        return keras.layers.Activation("linear", name=f"{place}_after_{x.node.layer.name}")(x)

    names = [layer.name for layer in network("lenet_5_4", (6,), dropout=mark).layers[2:]]
    assert names == [
        "hidden_1",
        "block_after_hidden_1",
        "hidden_2",
        "block_after_hidden_2",
        "head_after_block_after_hidden_2",
        "logits",
    ]
