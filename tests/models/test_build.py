import numpy as np
import pytest

from lotcal_tf.config import registry
from lotcal_tf.config.experiment import FIELDS
from lotcal_tf.errors import FieldError
from lotcal_tf.models.build import INITIALIZERS, build_model
from lotcal_tf.models.stateless_dropout import StatelessDropout


def kernels(model):
    return [weight.numpy() for weight in model.weights if weight.shape.rank >= 2]


def linear_part(model, x):
    """Logits of `lenet_4` for inputs that are scaled already."""
    w1, b1, w2, b2 = model.get_weights()
    return np.maximum(x.reshape(len(x), -1) @ w1 + b1, 0) @ w2 + b2


@pytest.mark.parametrize(
    "shape, mean, std",
    [
        ((5,), (), ()),
        ((2, 2, 1), (0.3,), (0.2,)),
        ((2, 2, 3), (0.3,), (0.2,)),
        ((2, 2, 3), (0.1, 0.5, 0.9), (0.2, 0.3, 4.0)),
    ],
)
def test_inputs_are_scaled_within_the_model(shape, mean, std):
    model = build_model(
        "lenet_4", shape, 3, seed=0, input_range=255.0, input_mean=mean, input_std=std
    )
    raw = np.random.default_rng(0).integers(0, 256, size=(8, *shape)).astype("float32")
    scaled = (raw / 255.0 - np.array(mean or (0.0,))) / np.array(std or (1.0,))
    np.testing.assert_allclose(model(raw), linear_part(model, scaled), rtol=1e-4, atol=1e-5)


def test_inputs_that_need_no_scaling_meet_the_network_directly():
    model = build_model("lenet_4", (5,), 3, seed=0)
    assert [layer.name for layer in model.layers] == ["inputs", "flatten", "hidden_1", "logits"]
    assert model.name == "lenet_4"


def test_means_that_do_not_fit_the_channels_are_refused():
    with pytest.raises(FieldError, match=r"input_mean=\(0.1, 0.2\): the inputs have 3 channel"):
        build_model("lenet_4", (2, 2, 3), 3, seed=0, input_mean=(0.1, 0.2), input_std=(1.0, 1.0))
    with pytest.raises(FieldError, match="the inputs have 1 channel"):
        build_model("lenet_4", (2, 2), 3, seed=0, input_mean=(0.1, 0.2), input_std=(1.0, 1.0))


def test_an_unknown_model_is_refused():
    with pytest.raises(FieldError, match="^model=alexnet: choose one of"):
        build_model("alexnet", (5,), 3, seed=0)


def test_the_seed_decides_the_weights():
    first, again, other = (build_model("lenet_9_9_9", (9,), 9, seed=seed) for seed in (1, 1, 2))
    for a, b, c in zip(kernels(first), kernels(again), kernels(other), strict=True):
        np.testing.assert_array_equal(a, b)
        assert (a != c).all()
    hidden = kernels(first)
    assert all((hidden[0] != kernel).all() for kernel in hidden[1:])  # All of them 9×9.


def test_every_initializer_can_be_asked_for_and_no_other():
    assert set(FIELDS["initializer"].metadata["choices"]) == set(INITIALIZERS)


@pytest.mark.parametrize("name", INITIALIZERS)
def test_initializers_draw_as_the_papers_define_them(name):
    """Glorot & Bengio 2010: variance 2 / (in + out); He et al. 2015: 2 / in."""
    fan_in, fan_out = 150, 250
    model = build_model(f"lenet_{fan_out}", (fan_in,), 2, seed=0, initializer=name)
    kernel = kernels(model)[0].astype(np.float64)
    variance = 2 / fan_in if name.startswith("kaiming") else 2 / (fan_in + fan_out)
    # The deviation of n draws strays from the true one by about 1/√(2n) of it; five times that
    # (for the lighter tails of a uniform or truncated one the true figure is smaller still).
    assert kernel.std() == pytest.approx(np.sqrt(variance), rel=5 / np.sqrt(2 * kernel.size))
    assert abs(kernel.mean()) < 5 * np.sqrt(variance / kernel.size)
    beyond = np.mean(np.abs(kernel) > 2 * np.sqrt(variance))
    if name == "kaiming_normal":
        share = 0.0455  # Of a normal distribution beyond two deviations, and past three, .0027.
        spread = np.sqrt(share * (1 - share) / kernel.size)
        assert beyond == pytest.approx(share, abs=5 * spread)
        assert np.abs(kernel).max() > 3.5 * np.sqrt(variance)
    elif name.endswith("uniform"):
        assert np.abs(kernel).max() <= np.sqrt(3 * variance)
    else:  # Cut at two deviations of the normal it is drawn from, which is .8796 wider.
        assert np.abs(kernel).max() <= 2 * np.sqrt(variance) / 0.8796
        assert beyond > 0


def test_the_catalog_is_where_models_come_from(monkeypatch):
    row = registry.Family("lotcal_tf.models.lenet:build", "", r"mine(?P<widths>_\d+)", "mine_6")
    monkeypatch.setattr(registry, "MODELS", {"mine": row})
    assert build_model("mine_6", (5,), 3, seed=0).get_layer("hidden_1").units == 6


@pytest.mark.parametrize(
    ("rate", "at", "before"),
    [
        (0.25, "blocks", ["hidden_2", "logits"]),
        (0.25, "head", ["logits"]),
        (0.0, "blocks", []),
        (0.0, "head", []),
    ],
)
def test_dropout_is_put_where_it_is_asked_for(rate, at, before):
    model = build_model("lenet_5_4", (6,), 3, seed=0, dropout_rate=rate, dropout_at=at)
    layers = model.layers
    places = [place for place, layer in enumerate(layers) if isinstance(layer, StatelessDropout)]
    assert [layers[place + 1].name for place in places] == before
    assert {layers[place].rate for place in places} <= {rate}
    assert len({layers[place].name for place in places}) == len(places)  # A name seeds the masks.
    plain = build_model("lenet_5_4", (6,), 3, seed=0)
    for weight, other in zip(kernels(model), kernels(plain), strict=True):
        np.testing.assert_array_equal(weight, other)  # Dropout moves no other draw.


def test_dropout_goes_by_the_same_name_in_every_model():
    """Or a second model in one process would draw other masks than the same one in a new process."""
    names = [
        [layer.name for layer in build_model("lenet_4", (6,), 3, seed=0, dropout_rate=0.5).layers]
        for _ in range(2)
    ]
    assert names[0] == names[1]
