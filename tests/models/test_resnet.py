"""Residual networks: parameters by hand, the logits by a reference in NumPy, names, dropout."""

import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf.compat import keras
from lotcal_tf.config import registry
from lotcal_tf.errors import FieldError
from lotcal_tf.models import resnet
from lotcal_tf.models.build import build_model
from lotcal_tf.models.stateless_dropout import Passes
from lotcal_tf.pruning import masking
from lotcal_tf.seeds import step_seed

IMAGE = (32, 32, 3)

# A kernel is 9·in·out, a shortcut's in·out; BatchNorm trains two weights a channel and keeps two
# more. In each stage after the first, one convolution in and the shortcut widen.
# resnet20: 16 32 64, three blocks a stage, six convolutions of which one widens.
RESNET20 = {
    "kernels": 9 * 3 * 16
    + 6 * 9 * 16 * 16
    + (9 * 16 * 32 + 5 * 9 * 32 * 32)
    + (9 * 32 * 64 + 5 * 9 * 64 * 64),
    "shortcuts": 16 * 32 + 32 * 64,
    "channels": (1 + 6) * 16 + (6 + 1) * 32 + (6 + 1) * 64,
    "logits": 64 * 10 + 10,
}
# resnet18: 64 128 256 512, two blocks a stage, four convolutions of which one widens.
#   kernels    1 728 + 147 456 + 516 096 + 2 064 384 + 8 257 536 = 10 987 200
#   shortcuts  8 192 + 32 768 + 131 072                          =    172 032
#   BatchNorm  2 · (5·64 + 5·128 + 5·256 + 5·512) = 2 · 4 800    =      9 600
#   logits     5 120 + 10                                        =      5 130
#   trainable                                                      11 173 962
RESNET18 = {
    "kernels": 9 * 3 * 64
    + 4 * 9 * 64 * 64
    + (9 * 64 * 128 + 3 * 9 * 128 * 128)
    + (9 * 128 * 256 + 3 * 9 * 256 * 256)
    + (9 * 256 * 512 + 3 * 9 * 512 * 512),
    "shortcuts": 64 * 128 + 128 * 256 + 256 * 512,
    "channels": (1 + 4) * 64 + (4 + 1) * 128 + (4 + 1) * 256 + (4 + 1) * 512,
    "logits": 512 * 10 + 10,
}
# resnet8_4: 4 8 16, one block a stage.
RESNET8_4 = {
    "kernels": 9 * 3 * 4 + 2 * 9 * 4 * 4 + (9 * 4 * 8 + 9 * 8 * 8) + (9 * 8 * 16 + 9 * 16 * 16),
    "shortcuts": 4 * 8 + 8 * 16,
    "channels": (1 + 2) * 4 + (2 + 1) * 8 + (2 + 1) * 16,
    "logits": 16 * 10 + 10,
}


@pytest.mark.parametrize(
    ("name", "parts", "published"),
    [
        ("resnet20", RESNET20, 272_474),
        ("resnet18", RESNET18, 11_173_962),
        ("resnet8_4", RESNET8_4, None),
    ],
)
def test_parameter_counts_by_hand(by_hand, name, parts, published):
    network = by_hand.build(resnet, name, IMAGE)
    expected = parts["kernels"] + parts["shortcuts"] + 2 * parts["channels"] + parts["logits"]
    assert by_hand.trainable(network) == expected == (published or expected)
    assert network.count_params() == expected + 2 * parts["channels"]


def test_resnet20_has_the_published_count_with_batchnorms_statistics(by_hand):
    assert by_hand.build(resnet, "resnet20", IMAGE).count_params() == 274_042


@pytest.mark.parametrize("depth", [8, 20, 32, 56])
def test_the_depth_counts_convolutions_on_the_longest_way_and_the_linear_layer(by_hand, depth):
    layers = by_hand.build(resnet, f"resnet{depth}_2", (8, 8, 1)).layers
    kernels = [layer.name for layer in layers if isinstance(layer, keras.layers.Conv2D)]
    shortcuts = [name for name in kernels if name.endswith("_shortcut")]
    assert len(kernels) - len(shortcuts) + 1 == depth
    assert shortcuts == ["stage_2_block_1_shortcut", "stage_3_block_1_shortcut"]


@pytest.mark.full
def test_a_width_of_its_own_scales_every_stage(by_hand):
    for name, widths in [("resnet18_6", [6, 12, 24, 48]), ("resnet14_5", [5, 10, 20])]:
        kernels = masking.values(by_hand.build(resnet, name, IMAGE))
        assert kernels["stem/kernel"].shape == (3, 3, 3, widths[0])
        for stage, width in enumerate(widths, 1):
            for block in (1, 2):
                kernel = kernels[f"stage_{stage}_block_{block}_conv_2/kernel"]
                assert kernel.shape == (3, 3, width, width)
        assert kernels["logits/kernel"].shape == (widths[-1], 10)
    named, plain = (by_hand.build(resnet, n, IMAGE) for n in ("resnet18_64", "resnet18"))
    assert [w.shape for w in named.weights] == [w.shape for w in plain.weights]


def block(by_hand, x, weights, name, stride):
    y = by_hand.convolve(x, weights[f"{name}_conv_1/kernel"], stride)
    y = by_hand.relu(by_hand.normalise(y, weights, f"{name}_norm_1"))
    y = by_hand.convolve(y, weights[f"{name}_conv_2/kernel"])
    y = by_hand.normalise(y, weights, f"{name}_norm_2")
    if stride == 2:
        x = by_hand.convolve(x, weights[f"{name}_shortcut/kernel"], stride)
        x = by_hand.normalise(x, weights, f"{name}_shortcut_norm")
    return by_hand.relu(x + y)


@pytest.mark.parametrize(
    ("name", "stages", "blocks"), [("resnet14_3", 3, 2), ("resnet18_2", 4, 2), ("resnet8_2", 3, 1)]
)
@pytest.mark.parametrize("shape", [(8, 8, 3), (7, 5, 1)])
def test_the_logits_are_those_of_he_et_al(by_hand, name, stages, blocks, shape):
    """Basic blocks, ReLU after the sum; strided where a stage begins, as PyTorch pads."""
    network = by_hand.build(resnet, name, shape, classes=4)
    weights = by_hand.randomise(network)
    inputs = np.random.default_rng(1).normal(size=(3, *shape))
    x = by_hand.convolve(inputs, weights["stem/kernel"])
    x = by_hand.relu(by_hand.normalise(x, weights, "stem_norm"))
    for stage in range(1, stages + 1):
        for number in range(1, blocks + 1):
            stride = 2 if stage > 1 and number == 1 else 1
            x = block(by_hand, x, weights, f"stage_{stage}_block_{number}", stride)
    expected = x.mean((1, 2)) @ weights["logits/kernel"] + weights["logits/bias"]
    found = network(inputs.astype("float32"), training=False)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_each_kernel_gets_an_initializer_of_its_own(by_hand):
    made = []

    def initializer():
        made.append(keras.initializers.Constant(len(made) + 1.0))
        return made[-1]

    values = masking.values(by_hand.build(resnet, "resnet8_2", (8, 8, 1), initializer=initializer))
    kernels = [value for path, value in values.items() if path.endswith("/kernel")]
    assert len(kernels) == len(made) == 7 + 2 + 1
    assert sorted(float(kernel.max()) for kernel in kernels) == list(range(1, 11))
    assert all((kernel == kernel.flat[0]).all() for kernel in kernels)
    assert not values["logits/bias"].any()


def test_dropout_is_offered_after_each_stage_and_before_the_last_layer(by_hand):
    def mark(place, x):
        return keras.layers.Activation("linear", name=f"{place}_after_{x.node.layer.name}")(x)

    layers = by_hand.build(resnet, "resnet14_2", (8, 8, 1), dropout=mark).layers
    assert [layer.name for layer in layers if "_after_" in layer.name] == [
        "block_after_stage_1_block_2_relu_2",
        "block_after_stage_2_block_2_relu_2",
        "block_after_stage_3_block_2_relu_2",
        "head_after_pool",
    ]
    assert [layer.name for layer in layers[-2:]] == ["head_after_pool", "logits"]


@pytest.mark.full
@pytest.mark.parametrize(
    ("name", "at", "before"),
    [
        ("resnet8_2", "blocks", "stage_1_block_1_relu_2"),
        ("resnet18_2", "blocks", "stage_1_block_2_relu_2"),
        ("resnet8_2", "head", "pool"),
    ],
)
def test_passes_repeat_the_batch_at_the_first_dropout_only(name, at, before):
    """Below it, stage 1 or the whole network, all passes share one computation."""
    model = build_model(name, (8, 8, 1), 3, seed=0, dropout_rate=0.5, dropout_at=at)
    network = masking.wrap(model)
    passes = Passes(network, 3)
    assert passes.first is network.get_layer("dropout_1")
    assert passes.first.input is network.get_layer(before).output
    inputs = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype("float32")
    with step_seed(tf.constant([1, 2])):
        logits = passes(inputs).numpy()
    assert logits.shape == (3, 4, 3)
    assert not np.array_equal(logits[0], logits[1])


def test_shortcuts_can_be_left_whole_by_a_pattern(by_hand):
    network = by_hand.build(resnet, "resnet8_2", (8, 8, 1))
    masks = masking.mask_variables(masking.wrap(network, ["*_shortcut"]))
    kernels = [path for path in masking.values(network) if path.endswith("/kernel")]
    assert set(kernels) - set(masks) == {
        "stage_2_block_1_shortcut/kernel",
        "stage_3_block_1_shortcut/kernel",
    }


@pytest.mark.parametrize("shape", [(784,), (8, 8), (4, 8, 8, 3)])
def test_what_is_no_image_is_refused_by_name(shape):
    with pytest.raises(FieldError, match=r"^model=resnet20: takes images .* of shape \d[\dx]*: "):
        build_model("resnet20", shape, 10, seed=0)


def test_any_image_will_do(by_hand):
    network = by_hand.build(resnet, "resnet18_2", (1, 1, 1))
    assert np.isfinite(network(np.ones((2, 1, 1, 1), "float32"))).all()


@pytest.mark.parametrize(
    "name", ["resnet8", "resnet14", "resnet20_1", "resnet44", "resnet110_16", "resnet1202"]
)
def test_depths_of_six_n_plus_two_are_the_catalogs(name):
    assert registry.model(name)[0] is registry.MODELS["resnet"]


@pytest.mark.parametrize(
    "name",
    ["resnet", "resnet2", "resnet19", "resnet21", "resnet34", "resnet50", "resnet101", "resnet152",
     "resnet20_0", "resnet20_", "resnet20_8_8", "resnet020", "resnet18_08", "resnet-8"],
)  # fmt: skip
def test_other_depths_are_refused(name):
    """50 and 152 too, though 6n + 2: who asks for those means the networks of bottlenecks."""
    with pytest.raises(FieldError, match=f"^model={name}: choose one of "):
        registry.model(name)
