"""VGG-16 and VGG-19: parameters by hand, the logits by a reference in NumPy, dropout, what it cannot take."""

import numpy as np
import pytest

from lotcal_tf.compat import keras
from lotcal_tf.errors import FieldError
from lotcal_tf.models import vgg
from lotcal_tf.models.build import build_model
from lotcal_tf.models.stateless_dropout import Passes
from lotcal_tf.pruning import masking

# The published lists, as Simonyan & Zisserman's table 1, columns D and E, gives them.
CHANNELS = {
    "vgg16": [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6,
    "vgg19": [64] * 2 + [128] * 2 + [256] * 4 + [512] * 8,
}


@pytest.mark.parametrize(("name", "total"), [("vgg16", 14_724_042), ("vgg19", 20_035_018)])
def test_parameter_counts_by_hand(by_hand, name, total):
    """A kernel is 9·in·out, BatchNorm trains two weights a channel and keeps two more."""
    channels = CHANNELS[name]
    kernels = sum(9 * a * b for a, b in zip([3, *channels], channels, strict=False))
    network = by_hand.build(vgg, name, (32, 32, 3))
    trainable = kernels + 2 * sum(channels) + 512 * 10 + 10
    assert by_hand.trainable(network) == trainable == total
    assert network.count_params() == trainable + 2 * sum(channels)


@pytest.mark.full
def test_a_width_of_its_own_scales_every_stage(by_hand):
    values = masking.values(by_hand.build(vgg, "vgg19_3", (32, 32, 3)))
    widths = [value.shape[-1] for path, value in values.items() if "_conv_" in path]
    assert widths == [3] * 2 + [6] * 2 + [12] * 4 + [24] * 8
    assert values["logits/kernel"].shape == (24, 10)
    named, plain = (by_hand.build(vgg, n, (32, 32, 3)) for n in ("vgg19_64", "vgg19"))
    assert [w.shape for w in named.weights] == [w.shape for w in plain.weights]


@pytest.mark.parametrize(
    ("name", "shape", "stages"),
    [
        ("vgg19_2", (16, 16, 1), [2, 2, 4, 4, 4]),
        ("vgg19_2", (35, 33, 3), [2, 2, 4, 4, 4]),
        ("vgg16_2", (16, 16, 1), [2, 2, 3, 3, 3]),
    ],
)
def test_the_logits_are_those_of_a_vgg(by_hand, name, shape, stages):
    network = by_hand.build(vgg, name, shape, classes=4)
    weights = by_hand.randomise(network)
    inputs = np.random.default_rng(1).normal(size=(3, *shape))
    x = inputs
    for stage, convolutions in enumerate(stages, 1):
        for number in range(1, convolutions + 1):
            x = by_hand.convolve(x, weights[f"stage_{stage}_conv_{number}/kernel"])
            x = by_hand.relu(by_hand.normalise(x, weights, f"stage_{stage}_norm_{number}"))
        if stage < 5:
            height, width = x.shape[1] // 2, x.shape[2] // 2
            pieces = x[:, : 2 * height, : 2 * width].reshape(3, height, 2, width, 2, -1)
            x = pieces.max((2, 4))
    expected = x.mean((1, 2)) @ weights["logits/kernel"] + weights["logits/bias"]
    assert np.ptp(expected, 0).max() > 0
    found = network(inputs.astype("float32"), training=False)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_dropout_is_offered_after_each_stage_and_before_the_last_layer(by_hand):
    def mark(place, x):
        return keras.layers.Activation("linear", name=f"{place}_after_{x.node.layer.name}")(x)

    layers = by_hand.build(vgg, "vgg19_2", (16, 16, 1), dropout=mark).layers
    assert [layer.name for layer in layers if "_after_" in layer.name] == [
        *(f"block_after_stage_{stage}_pool" for stage in range(1, 6)),
        "head_after_block_after_stage_5_pool",
    ]


@pytest.mark.parametrize(("at", "stage"), [("blocks", 1), ("head", 5)])
def test_passes_repeat_the_batch_at_the_first_dropout_only(at, stage):
    model = build_model("vgg19_2", (16, 16, 1), 3, seed=0, dropout_rate=0.5, dropout_at=at)
    first = Passes(model, 3).first
    assert first is model.get_layer("dropout_1")
    assert first.input is model.get_layer(f"stage_{stage}_pool").output


def test_each_kernel_gets_an_initializer_of_its_own(by_hand):
    made = []

    def initializer():
        made.append(keras.initializers.Constant(len(made) + 1.0))
        return made[-1]

    values = masking.values(by_hand.build(vgg, "vgg19_2", (16, 16, 1), initializer=initializer))
    kernels = [float(value.max()) for path, value in values.items() if path.endswith("/kernel")]
    assert kernels == list(range(1, 18))


@pytest.mark.parametrize("shape", [(8, 8, 1), (15, 32, 3), (32, 15, 3)])
def test_an_image_that_four_pools_would_empty_is_refused(shape):
    given = "x".join(map(str, shape))
    with pytest.raises(FieldError, match=f"^model=vgg19: needs .* 16x16 or more.* {given}: "):
        build_model("vgg19", shape, 10, seed=0)


def test_what_is_no_image_is_refused_by_name():
    with pytest.raises(FieldError, match=r"^model=vgg19_8: takes images .* of shape 1024: "):
        build_model("vgg19_8", (1024,), 10, seed=0)
