"""The networks of "Quantifying lottery tickets under label noise": numbers of weights and initial values."""

import numpy as np
import pytest

from lotcal_tf.compat import keras
from lotcal_tf.models.build import build_model
from lotcal_tf.models.initial import with_starts
from lotcal_tf.pruning import masking

MNIST, CIFAR, MIXTURE = (28, 28, 1), (32, 32, 3), (100,)


def kernels(model):
    """The number of entries of the kernels that can be pruned."""
    return sum(value.numpy().size for value in masking.mask_variables(masking.wrap(model)).values())


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        # The published sizes.
        ("lenet_50_100", MNIST, 45_200),
        ("lenet_100_100", MNIST, 89_400),
        ("lenet_300_100", MNIST, 266_200),
        ("lenet_500_100", MNIST, 443_000),
        ("lenet_1000_100", MNIST, 885_000),
        pytest.param("lenet_5000_100", MNIST, 4_421_000, marks=pytest.mark.full),
        pytest.param("lenet_10000_100", MNIST, 8_841_000, marks=pytest.mark.full),
        ("lenet_50", MNIST, 39_700),
        ("lenet_100", MNIST, 79_400),
        ("lenet_300", MNIST, 238_200),
        ("lenet_1000", MNIST, 794_000),
        pytest.param("lenet_2000", MNIST, 1_588_000, marks=pytest.mark.full),
        pytest.param("lenet_5000", MNIST, 3_970_000, marks=pytest.mark.full),
        pytest.param("lenet_10000", MNIST, 7_940_000, marks=pytest.mark.full),
        ("resnet8_8", MNIST, 19_464),
        ("resnet8_11", MNIST, 36_597),
        ("resnet8_15", MNIST, 67_785),
        pytest.param("resnet8_20", MNIST, 120_180, marks=pytest.mark.full),
        pytest.param("resnet8_40", MNIST, 478_760, marks=pytest.mark.full),
        pytest.param("resnet8_80", MNIST, 1_911_120, marks=pytest.mark.full),
        pytest.param("resnet8_120", MNIST, 4_297_080, marks=pytest.mark.full),
        pytest.param("resnet20_11", CIFAR, 128_271, marks=pytest.mark.full),
        pytest.param("resnet20_15", CIFAR, 238_155, marks=pytest.mark.full),
        pytest.param("resnet20_40", CIFAR, 1_689_080, marks=pytest.mark.full),
        pytest.param("resnet20_60", CIFAR, 3_798_420, marks=pytest.mark.full),
        pytest.param("resnet20_100", CIFAR, 10_546_700, marks=pytest.mark.full),
        pytest.param("resnet20_150", CIFAR, 23_725_050, marks=pytest.mark.full),
        # By the formulas 298 W² + 49 W and 1054 W² + 67 W.
        ("resnet8_1", MNIST, 347),
        ("resnet8_2", MNIST, 298 * 4 + 49 * 2),
        ("resnet20_2", CIFAR, 1054 * 4 + 67 * 2),
        # 100 · 500 + 500 · 2
        ("lenet_500", MIXTURE, 51_000),
    ],
)
def test_numbers_of_kernel_entries(name, shape, expected):
    classes = 2 if shape == MIXTURE else 10
    assert kernels(build_model(name, shape, classes, seed=0)) == expected


@pytest.mark.parametrize(("name", "shape"), [("lenet_7_5", MNIST), ("resnet8_2", MNIST)])
def test_without_biases_only_the_biases_are_gone(name, shape):
    plain = masking.values(build_model(name, shape, 10, seed=0))
    found = masking.values(build_model(name, shape, 10, seed=0, use_bias=False))
    assert plain.keys() - found.keys() == {p for p in plain if p.endswith("/bias")}
    assert found.keys() <= plain.keys()
    for path, value in found.items():
        np.testing.assert_array_equal(value, plain[path])


def test_biases_start_as_in_pytorch():
    """torch.nn.Linear: uniform in ±1/sqrt(in_features)."""
    plain = masking.values(build_model("lenet_400_300", (25,), 200, seed=0))
    model = build_model("lenet_400_300", (25,), 200, seed=0, bias_initializer="fan_in_uniform")
    found = masking.values(model)
    for layer, inputs in (("hidden_1", 25), ("hidden_2", 400), ("logits", 300)):
        bias, limit = found[f"{layer}/bias"].astype(np.float64), 1 / np.sqrt(inputs)
        assert np.abs(bias).max() <= limit
        # Of a uniform distribution: deviation limit / sqrt(3), fourth moment limit⁴ / 5.
        spread = np.sqrt((1 / 5 - 1 / 9) / bias.size)
        assert np.mean(bias**2) / limit**2 == pytest.approx(1 / 3, abs=5 * spread)
        assert abs(bias.mean()) < 5 * limit / np.sqrt(3 * bias.size)
        np.testing.assert_array_equal(found[f"{layer}/kernel"], plain[f"{layer}/kernel"])
    other = build_model("lenet_400_300", (25,), 200, seed=1, bias_initializer="fan_in_uniform")
    assert (masking.values(other)["logits/bias"] != found["logits/bias"]).all()


def test_a_convolution_counts_the_inputs_of_its_window():
    x = inputs = keras.Input((8, 8, 5), name="inputs")
    x = keras.layers.Conv2D(3000, 3, name="conv")(x)
    found = with_starts(keras.Model(inputs, x), True, "fan_in_uniform", "ones")
    largest = np.abs(found.get_layer("conv").bias.numpy()).max()
    assert 0.99 < largest * np.sqrt(3 * 3 * 5) <= 1


@pytest.mark.full
@pytest.mark.parametrize("name", ["resnet8_40", "vgg16_8"])
def test_scales_of_batch_norm_start_uniform(name):
    plain = masking.values(build_model(name, CIFAR, 10, seed=0))
    found = masking.values(build_model(name, CIFAR, 10, seed=0, norm_initializer="uniform"))
    scales = [v for path, v in found.items() if path.endswith("/gamma")]
    every = np.concatenate(scales).astype(np.float64)
    assert every.min() >= 0 and every.max() < 1
    assert every.mean() == pytest.approx(0.5, abs=5 / np.sqrt(12 * every.size))
    assert every.std() == pytest.approx(1 / np.sqrt(12), rel=5 / np.sqrt(2 * every.size))
    assert len({tuple(scale[:3]) for scale in scales}) == len(scales), "each layer has its own draw"
    for path in plain.keys() - {p for p in plain if p.endswith("/gamma")}:
        np.testing.assert_array_equal(found[path], plain[path])


@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_kaiming_in_a_convolution_is_that_of_pytorch(kind):
    """Gain sqrt(2) and mode fan_in: a deviation of sqrt(2 / fan_in), or a bound of sqrt(6 / fan_in)."""
    model = build_model("resnet8_40", MNIST, 10, seed=0, initializer=f"kaiming_{kind}")
    kernel = model.get_layer("stage_1_block_1_conv_1").kernel.numpy().astype(np.float64)
    fan_in = 3 * 3 * 40
    assert kernel.std() * np.sqrt(fan_in / 2) == pytest.approx(1, rel=5 / np.sqrt(2 * kernel.size))
    if kind == "uniform":
        assert 0.999 < np.abs(kernel).max() * np.sqrt(fan_in / 6) <= 1 + 1e-6
