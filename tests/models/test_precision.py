"""Mixed precision: what is trained in 16 bits, and the same network in float32."""

import numpy as np
import pytest
import tensorflow as tf

import lotcal_tf
from lotcal_tf.compat import keras
from lotcal_tf.models.build import build_model
from lotcal_tf.models.precision import in_float32, is_mixed, policy, uses_float16
from lotcal_tf.pruning import masking

MIXED = ("mixed_float16", "mixed_bfloat16")


def nested(name):
    with policy(name):
        inner = keras.Sequential(
            [keras.Input((8,)), keras.layers.Dense(6, activation="relu", name="a")], name="inner"
        )
        x = inputs = keras.Input((8,))
        x = keras.layers.BatchNormalization(name="norm")(inner(x))
        return keras.Model(inputs, keras.layers.Dense(3, name="logits")(x), name="outer")


def test_the_policy_of_the_caller_is_put_back():
    before = keras.mixed_precision.global_policy().name
    with policy("mixed_bfloat16"):
        assert keras.layers.Dense(1).compute_dtype == "bfloat16"
    assert keras.mixed_precision.global_policy().name == before


@pytest.mark.parametrize("name", MIXED)
def test_the_copy_in_float32_has_the_same_weights_and_nearly_the_same_logits(name):
    model = nested(name)
    assert is_mixed(model)
    assert uses_float16(model) == (name == "mixed_float16")
    copy = in_float32(model)
    assert not is_mixed(copy)
    inputs = tf.random.stateless_normal((5, 8), (1, 2))
    for own, other in zip(model.get_weights(), copy.get_weights(), strict=True):
        np.testing.assert_array_equal(own, other)
    logits = copy(inputs)
    assert logits.dtype == tf.float32
    # 8 bits of a bfloat16 are a relative error of 1/256 in each operation.
    np.testing.assert_allclose(tf.cast(model(inputs), tf.float32), logits, rtol=0.05, atol=0.05)
    assert [layer.name for layer in copy.layers] == [layer.name for layer in model.layers]


def test_a_model_in_float32_stays_itself():
    model = nested("float32")
    assert in_float32(model) is model


@pytest.mark.parametrize("name", MIXED)
def test_built_in_networks_have_the_policy_of_the_experiment_only(name):
    with policy("mixed_bfloat16"):  # The caller's own policy does not count.
        model = build_model("lenet_5", (8,), 3, seed=0)
    assert not is_mixed(model)
    mixed = build_model("lenet_5", (8,), 3, seed=0, precision=name)
    assert mixed.get_layer("hidden_1").dtype_policy.name == name
    for own, other in zip(model.get_weights(), mixed.get_weights(), strict=True):
        np.testing.assert_array_equal(own, other)


@pytest.mark.parametrize("name", MIXED)
def test_masked_layers_keep_float32_weights_and_zero_gradients(name):
    network = masking.wrap(nested(name))
    masks = {n: np.arange(m.shape[0])[:, None] % 2 < np.ones(m.shape) for n, m in
             masking.mask_variables(network).items()}  # fmt: skip
    masking.assign_masks(network, masks)
    inputs = tf.random.stateless_normal((4, 8), (1, 2))
    with tf.GradientTape() as tape:
        logits = tf.cast(network(inputs, training=True), tf.float32)
        loss = tf.reduce_sum(logits[:, 0] ** 3)
    variables = masking.weight_variables(network)
    kernel, mask = variables["inner/a/kernel"], masks["inner/a/kernel"]
    gradient = tape.gradient(loss, kernel)
    assert kernel.dtype == gradient.dtype == tf.float32
    assert not gradient.numpy()[~mask].any()
    assert gradient.numpy()[mask].any()


@pytest.mark.full
@pytest.mark.parametrize("name", MIXED)
def test_a_run_in_mixed_precision_is_measured_and_exported(tmp_path, name):
    run = lotcal_tf.find_tickets(
        "lenet_10", dataset="digits", precision=name, epochs=4, levels=1, lr=0.01,
        out=tmp_path / "run", progress=False,
    )  # fmt: skip
    ticket = run.ticket(1)
    assert ticket.model().get_layer("hidden_1").dtype_policy.name == name
    assert all(value.dtype == np.float32 for value in ticket.trained.values())
    assert run.records[1]["val_accuracy"] > 0.6  # Of ten classes.
    ticket_path = run.directory / "tickets" / "level_01"
    found = lotcal_tf.measure_model(ticket_path, split="val", ece_bins=5, progress=False)
    assert found.metrics["accuracy"] == run.records[1]["val_accuracy"]
    exported = lotcal_tf.export_ticket(
        run, tmp_path / "files", level=1, formats=("float32", "int8", "keras"), seconds=0
    )
    assert set(exported.files) == {"float32", "int8", "keras"}
    assert not is_mixed(keras.models.load_model(exported.files["keras"], compile=False))
