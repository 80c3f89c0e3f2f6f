"""What every model of the catalog keeps to; a new row is found by itself."""

import numpy as np
import pytest

from lotcal_tf.compat import keras
from lotcal_tf.config import registry
from lotcal_tf.models.build import build_model
from lotcal_tf.models.checks import check_outputs, classes_of
from lotcal_tf.models.stateless_dropout import (
    StatelessDropout,
    replace_dropout,
)
from lotcal_tf.pruning import masking

SHAPE, CLASSES = (32, 32, 3), 7
INPUTS = np.random.default_rng(0).integers(0, 256, size=(4, *SHAPE)).astype("float32")


# The deep networks take long, and are made of the same parts as `resnet8_4`.
DEEP = {"resnet18", "vgg"}
FAMILIES = [
    pytest.param(family, marks=[pytest.mark.full] if family in DEEP else [])
    for family in registry.MODELS
]


@pytest.fixture(scope="module", params=FAMILIES)
def name(request):
    return registry.MODELS[request.param].example


@pytest.fixture(scope="module")
def model(name):
    return build_model(name, SHAPE, CLASSES, seed=0, input_range=255.0)


@pytest.fixture(scope="module")
def wrapped(model):
    """With half of each mask 0."""
    network = masking.wrap(model)
    rng = np.random.default_rng(0)
    masks = {n: rng.random(v.shape) < 0.5 for n, v in masking.mask_variables(network).items()}
    masking.assign_masks(network, masks)
    return network


def test_it_is_named_as_asked_for(name, model):
    assert model.name == name


def test_it_gives_a_logit_a_class(model):
    assert classes_of(model) == CLASSES
    check_outputs(model, INPUTS, CLASSES)
    logits = model(INPUTS, training=False).numpy()
    assert logits.shape == (len(INPUTS), CLASSES)
    assert np.isfinite(logits).all()
    assert logits.std() > 0


def test_the_seed_decides_its_weights(name, model):
    again = masking.values(build_model(name, SHAPE, CLASSES, seed=0, input_range=255.0))
    other = masking.values(build_model(name, SHAPE, CLASSES, seed=1, input_range=255.0))
    for path, value in masking.values(model).items():
        np.testing.assert_array_equal(again[path], value)
        if value.ndim >= 2:
            assert (other[path] != value).mean() > 0.99, path


def test_its_kernels_can_be_pruned_and_its_output_layer_is_found(model, wrapped):
    kernels = [path for path, value in masking.values(model).items() if value.ndim >= 2]
    assert list(masking.mask_variables(wrapped)) == kernels
    output = masking.output_layer(model)
    assert masking.values(model)[f"{output}/kernel"].shape[-1] == CLASSES


def test_wrapping_and_stripping_keep_what_it_computes(model, wrapped):
    whole = masking.wrap(model)
    np.testing.assert_array_equal(whole(INPUTS, training=False), model(INPUTS, training=False))
    outputs = wrapped(INPUTS, training=False).numpy()
    assert not np.array_equal(outputs, model(INPUTS, training=False))
    stripped = masking.strip(wrapped)
    np.testing.assert_array_equal(stripped(INPUTS, training=False), outputs)
    assert "lotcal_tf" not in stripped.to_json()


@pytest.mark.parametrize("masked", [False, True])
def test_it_serialises(masked, model, wrapped, tmp_path):
    network = wrapped if masked else model
    network.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded(INPUTS, training=False), network(INPUTS, training=False))
    from_text = keras.models.model_from_json(network.to_json())
    from_text.set_weights(network.get_weights())
    np.testing.assert_array_equal(
        from_text(INPUTS, training=False), network(INPUTS, training=False)
    )


def test_its_dropout_can_be_exchanged_for_that_of_keras_and_back(name, with_keras_dropout):
    model = build_model(
        name, SHAPE, CLASSES, seed=0, input_range=255.0, dropout_rate=0.2, dropout_at="blocks"
    )

    def rates(network, kind):
        return [layer.rate for layer in network.layers if isinstance(layer, kind)]

    assert rates(model, StatelessDropout)
    plain = with_keras_dropout(model)
    assert rates(plain, keras.layers.Dropout) == rates(model, StatelessDropout)
    assert not rates(plain, StatelessDropout)
    back = replace_dropout(plain)
    assert rates(back, StatelessDropout) == rates(model, StatelessDropout)
    assert not rates(back, keras.layers.Dropout)
    for one in (plain, back):
        one.set_weights(model.get_weights())
        np.testing.assert_array_equal(one(INPUTS, training=False), model(INPUTS, training=False))
