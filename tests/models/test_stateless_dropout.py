import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf.compat import keras
from lotcal_tf.errors import UsageError
from lotcal_tf.models.stateless_dropout import (
    Passes,
    StatelessDropout,
    replace_dropout,
)
from lotcal_tf.pruning import masking
from lotcal_tf.seeds import step_seed

layers = keras.layers
SIZE = 40_000


def dropped(rate=0.3, *, seed=(1, 2), name="drop", shape=(SIZE,), shared_axes=()):
    """Where a layer called on ones in a training step gives 0."""
    with step_seed(tf.constant(seed, tf.int32)):
        layer = StatelessDropout(rate, shared_axes, name=name)
        return layer(tf.ones(shape), training=True).numpy() == 0


def binomial_bound(rate, draws=SIZE):
    """Five standard deviations of the share that falls out: passed by chance once in 10⁶."""
    return 5 * np.sqrt(rate * (1 - rate) / draws)


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.3, 0.5, 0.9])
def test_the_share_dropped_is_the_rate_and_the_mean_is_kept(rate):
    with step_seed(tf.constant([5, 6])):
        outputs = StatelessDropout(rate, name="drop")(tf.fill([SIZE], -2.0), training=True).numpy()
    assert np.mean(outputs == 0) == pytest.approx(rate, abs=binomial_bound(rate))
    kept = np.unique(outputs[outputs != 0])
    assert len(kept) == 1
    # Inverted dropout: scaled by 1 / (1 - rate), the rate held to a multiple of 1/65536.
    assert kept[0] * (1 - rate) == pytest.approx(-2.0, rel=1 / 65536 / (1 - rate))
    spread = 2 / (1 - rate) * binomial_bound(rate)
    assert outputs.mean() == pytest.approx(-2.0, abs=spread)


def test_decisions_are_independent():
    """Also of the two that one random number gives: for the first and second half of the places."""
    mask = dropped(0.5).astype(float)
    for lag in (1, 2, SIZE // 2):
        agreement = np.mean(mask[lag:] == mask[:-lag])
        assert agreement == pytest.approx(0.5, abs=binomial_bound(0.5, SIZE - lag)), lag


def test_the_mask_is_a_function_of_step_seed_and_layer_name():
    mask = dropped(0.5)
    np.testing.assert_array_equal(dropped(0.5), mask)
    others = [
        dropped(0.5, seed=(1, 3)),
        dropped(0.5, seed=(2, 2)),
        dropped(0.5, name="drop_1"),
    ]
    for other in others:
        assert np.mean(other == mask) == pytest.approx(0.5, abs=binomial_bound(0.5))


def test_each_call_and_each_layer_of_one_name_has_its_own_mask():
    def masks(*named):
        with step_seed(tf.constant([1, 2])):
            return [layer(tf.ones([SIZE]), training=True).numpy() == 0 for layer in named]

    one, other = (StatelessDropout(0.5, name="drop") for _ in range(2))
    for pair in ((one, one), (one, other)):
        first, second = masks(*pair)
        np.testing.assert_array_equal(first, dropped(0.5))
        assert np.mean(first == second) == pytest.approx(0.5, abs=binomial_bound(0.5))


@pytest.mark.parametrize("shape", [(1,), (3, 5), (2, 3, 1, 7)])
def test_odd_numbers_of_inputs(shape):
    """The last random number then decides once only."""
    mask = dropped(0.5, shape=shape)
    assert mask.shape == shape
    masks = [dropped(0.5, shape=shape, seed=(0, step)) for step in range(40)]
    assert not np.all(masks, axis=0).any() and np.any(masks, axis=0).all()


def test_half_precision_is_kept():
    with step_seed(tf.constant([1, 2])):
        layer = StatelessDropout(0.5, dtype="bfloat16")
        outputs = layer(tf.ones((50,), tf.bfloat16), training=True)
    assert outputs.dtype == tf.bfloat16
    assert set(outputs.numpy().astype("float32")) == {0.0, 2.0}


def test_shared_axes_are_decided_once():
    mask = dropped(0.5, shape=(40, 6, 5, 30), shared_axes=(1, 2))
    assert (mask == mask[:, :1, :1, :]).all()
    decisions = mask[:, 0, 0, :]
    assert decisions.mean() == pytest.approx(0.5, abs=binomial_bound(0.5, decisions.size))


def test_nothing_is_dropped_outside_training_or_at_rate_zero():
    inputs = tf.random.stateless_normal((50,), (1, 2))
    layer = StatelessDropout(0.5)
    for outputs in (layer(inputs), layer(inputs, training=False)):
        np.testing.assert_array_equal(outputs, inputs)
    np.testing.assert_array_equal(StatelessDropout(0.0)(inputs, training=True), inputs)


def test_training_outside_a_step_is_an_error_that_names_the_layer():
    with pytest.raises(
        RuntimeError, match="'drop' draws random numbers only inside a training step"
    ):
        StatelessDropout(0.5, name="drop")(tf.ones((3,)), training=True)


def test_compiled_it_gives_the_same_mask_and_takes_the_seed_as_data():
    layer = StatelessDropout(0.5, name="drop")

    @tf.function(jit_compile=True)
    def compiled(seed):
        with step_seed(seed):
            return layer(tf.ones((SIZE,)), training=True)

    # The last overflows as the layer's own number is added to it.
    for seed in [(1, 2), (1, 3), (2**31 - 1, 2**31 - 1)]:
        outputs = compiled(tf.constant(seed, tf.int32)).numpy()
        np.testing.assert_array_equal(outputs == 0, dropped(0.5, seed=seed))
    assert compiled.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, float("nan")])
def test_rates_outside_the_range_are_refused(rate):
    with pytest.raises(UsageError, match=rf"dropout rate {rate}: must lie in \[0, 1\)"):
        StatelessDropout(rate)


def test_a_rate_next_to_one_is_held_below_it():
    assert 1 - dropped(0.9999999).mean() <= 1 / 65536 + binomial_bound(1 / 65536)


def test_axes_counted_from_the_end_are_refused():
    with pytest.raises(UsageError, match=r"shared_axes \(-1,\): .*counted from 0"):
        StatelessDropout(0.5, shared_axes=(-1,))


def test_the_configuration_holds_every_argument(tmp_path):
    layer = StatelessDropout(0.25, (1, 2), name="drop")
    copy = StatelessDropout.from_config(layer.get_config())
    assert (copy.rate, copy.shared_axes, copy.name) == (0.25, (1, 2), "drop")
    inputs = keras.Input((2, 2, 3))
    keras.Model(inputs, layer(inputs)).save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras").get_layer("drop")
    assert isinstance(loaded, StatelessDropout)
    assert (loaded.rate, loaded.shared_axes) == (0.25, (1, 2))


def with_dropout():
    a, b = keras.Input((4, 4, 2)), keras.Input((4, 4, 2))
    inner = keras.Model(a, layers.SpatialDropout2D(0.2, name="spatial")(a), name="inner")
    x = layers.Dropout(0.3, noise_shape=(None, 1, None, None), name="rows")(inner(b))
    x = layers.Reshape((4, 8))(x)
    x = layers.SpatialDropout1D(0.4, name="spatial_1d")(x)
    x = layers.Dropout(0.5, name="plain")(layers.Flatten()(x))
    return keras.Model(b, layers.Dense(3, name="logits")(x), name="outer")


def dropouts(model):
    """(rate, axes along which one decision counts for all) by layer name, and the layers' types."""
    found, kinds = {}, set()
    for layer in model._flatten_layers():
        if isinstance(layer, StatelessDropout):
            found[layer.name] = (layer.rate, layer.shared_axes)
            kinds.add(StatelessDropout)
        elif isinstance(layer, layers.Dropout):
            shape = layer._get_noise_shape(tf.ones(layer.input_shape[1:])[None])
            shared = () if shape is None else (axis for axis, n in enumerate(shape) if n == 1)
            # The batch here is of one: an axis that no dropout of the model shares.
            found[layer.name] = (layer.rate, tuple(axis for axis in shared if axis))
            kinds.add(type(layer))
    return found, kinds


EXPECTED = {
    "spatial": (0.2, (1, 2)),
    "rows": (0.3, (1,)),
    "spatial_1d": (0.4, (1,)),
    "plain": (0.5, ()),
}


def test_dropout_is_replaced_and_restored(with_keras_dropout):
    model = with_dropout()
    assert dropouts(model)[0] == EXPECTED
    stateless = replace_dropout(model)
    assert dropouts(stateless) == (EXPECTED, {StatelessDropout})
    restored = with_keras_dropout(stateless)
    assert dropouts(restored) == (EXPECTED, {layers.Dropout})
    assert restored.get_layer("rows").noise_shape == (None, 1, None, None)
    assert restored.get_layer("plain").noise_shape is None
    for copy in (stateless, restored):
        assert copy.name == "outer"
        assert [layer.name for layer in copy.layers] == [layer.name for layer in model.layers]
        copy.set_weights(model.get_weights())
        x = np.random.default_rng(0).normal(size=(3, 4, 4, 2)).astype("float32")
        np.testing.assert_array_equal(copy(x, training=False), model(x, training=False))
    assert dropouts(model)[0] == EXPECTED  # The model itself is as it was.


def test_restored_dropout_drops_in_plain_keras_training(with_keras_dropout):
    inputs = keras.Input((4, 100))
    model = keras.Model(inputs, StatelessDropout(0.5, (1,))(inputs))
    mask = with_keras_dropout(model)(tf.ones((3, 4, 100)), training=True).numpy() == 0
    assert (mask == mask[:, :1, :]).all()
    assert 0 < mask.mean() < 1


def test_spatial_dropout_knows_where_the_channels_are():
    inputs = keras.Input((2, 4, 4))
    layer = layers.SpatialDropout2D(0.5, data_format="channels_first", name="drop")
    stateless = replace_dropout(keras.Model(inputs, layer(inputs)))
    assert stateless.get_layer("drop").shared_axes == (2, 3)


class Own(layers.Layer):
    def __init__(self, rate, **kwargs):
        super().__init__(**kwargs)
        self.rate, self.inner = rate, layers.Dropout(rate)

    def call(self, inputs, training=None):
        return self.inner(inputs, training=training)

    def get_config(self):
        return super().get_config() | {"rate": self.rate}


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_dropout_inside_other_layers_stays(rate):
    inputs = keras.Input((3, 4))
    attention = layers.MultiHeadAttention(1, 2, dropout=rate, name="attention")
    copy = replace_dropout(keras.Model(inputs, Own(rate, name="mine")(attention(inputs, inputs))))
    assert type(copy.get_layer("mine")) is Own
    assert type(copy.get_layer("mine").inner) is layers.Dropout


def test_masks_of_keras_and_types_pass_through():
    inputs = keras.Input((3,), dtype="int32")
    x = layers.Embedding(4, 2, mask_zero=True)(inputs)
    x = layers.Dropout(0.5, name="drop", dtype="mixed_bfloat16")(x)
    stateless = replace_dropout(keras.Model(inputs, layers.LSTM(2)(x)))
    assert stateless.get_layer("drop").compute_dtype == "bfloat16"
    assert stateless.get_layer("drop").output._keras_mask is not None


# --- passes ---------------------------------------------------------------------------------------

T, N, K = 3, 5, 4
BATCH = np.random.default_rng(1).normal(size=(N, 6)).astype("float32")


class Probe(layers.Layer):
    """Passes its inputs on and notes how many examples it was shown."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seen = []

    def call(self, inputs):
        self.seen.append(inputs.shape[0])
        return inputs


def drop(name="drop", rate=0.5):
    return StatelessDropout(rate, name=name)


def in_line(x):
    x = layers.Dense(8, name="below")(Probe(name="probe_below")(x))
    x = Probe(name="probe_above")(drop()(x))
    x = drop("second")(layers.Dense(8, activation="relu", name="above")(x))
    return layers.Dense(K, name="logits")(x)


def in_branch(x):
    """The first dropout sits beside a shortcut."""
    x = layers.Dense(8, name="below")(Probe(name="probe_below")(x))
    branch = drop()(Probe(name="probe_above")(layers.Dense(8, name="branch")(x)))
    return layers.Dense(K, name="logits")(layers.Add()([x, branch]))


def in_two_branches(x):
    x = Probe(name="probe_below")(x)
    parts = [drop("left")(x), drop("right")(Probe(name="probe_above")(x))]
    return layers.Dense(K, name="logits")(layers.Concatenate()(parts))


def nested(x):
    a = keras.Input((6,))
    b = layers.Dense(8, name="below")(Probe(name="probe_below")(a))
    inner = keras.Model(a, Probe(name="probe_above")(drop()(b)), name="inner")
    return layers.Dense(K, name="logits")(drop("second")(inner(x)))


def nested_sequential(x):
    parts = [layers.Dense(8), Probe(name="probe_below"), drop(), Probe(name="probe_above")]
    return layers.Dense(K, name="logits")(keras.Sequential(parts, name="inner")(x))


def called_twice(x):
    """A model within, called twice: what its dropout repeated would be repeated again."""
    a = keras.Input((6,))
    inner = keras.Model(a, drop()(layers.Dense(6)(Probe(name="probe_below")(a))), name="inner")
    return layers.Dense(K, name="logits")(Probe(name="probe_above")(inner(inner(x))))


def around_the_nested(x):
    a = keras.Input((6,))
    inner = keras.Model(a, drop()(Probe(name="probe_below")(a)), name="inner")
    return layers.Dense(K, name="logits")(Probe(name="probe_above")(inner(x) + x))


# How many examples the layers below the first dropout see.
NETWORKS = {
    in_line: N,
    nested: N,
    nested_sequential: N,
    in_branch: T * N,
    in_two_branches: T * N,
    called_twice: T * N,
    around_the_nested: T * N,
}
each_network = pytest.mark.parametrize("kind", NETWORKS, ids=lambda kind: kind.__name__)


def network_of(kind):
    keras.utils.set_random_seed(2)
    inputs = keras.Input((6,), name="inputs")
    return keras.Model(inputs, kind(inputs), name=kind.__name__)


def run(model, batch, seed=(4, 5), **settings):
    with step_seed(tf.constant(seed, tf.int32)):
        return model(batch, **settings).numpy()


@each_network
def test_passes_are_the_network_on_the_repeated_batch_with_the_same_masks(kind):
    network = network_of(kind)
    logits = run(Passes(network, T), tf.constant(BATCH))
    assert logits.shape == (T, N, K)
    repeated = run(network, tf.constant(np.concatenate([BATCH] * T)), training=True)
    np.testing.assert_allclose(logits.reshape(T * N, K), repeated, rtol=1e-5, atol=1e-6)
    for one, other in [(0, 1), (0, 2), (1, 2)]:
        assert (logits[one] != logits[other]).any(-1).all()
    again, moved = (run(Passes(network, T), tf.constant(BATCH), seed) for seed in [(4, 5), (4, 6)])
    np.testing.assert_array_equal(logits, again)
    assert (logits != moved).any()


@each_network
def test_what_lies_below_the_first_dropout_sees_the_batch_once(kind):
    network = network_of(kind)
    probes = {part.name: part for part in network._flatten_layers() if isinstance(part, Probe)}
    for probe in probes.values():
        probe.seen.clear()
    run(Passes(network, T), tf.constant(BATCH))
    assert set(probes["probe_below"].seen) == {NETWORKS[kind]}
    assert set(probes["probe_above"].seen) == {T * N}


def test_passes_leave_the_network_as_it_was():
    """Once they are done, a call repeats nothing and drops nothing, also after an error."""
    network = network_of(in_line)
    before = network(BATCH, training=False)
    passes = Passes(network, T)
    run(passes, tf.constant(BATCH))
    with pytest.raises(RuntimeError, match="only inside a training step"):
        passes(tf.constant(BATCH))
    np.testing.assert_array_equal(network(BATCH, training=False), before)


@pytest.mark.parametrize("jit", [False, True])
def test_compiled_passes_take_batches_of_any_size(jit):
    passes = Passes(network_of(in_line), T)

    @tf.function(jit_compile=jit, input_signature=[tf.TensorSpec([None, 6])])
    def compiled(batch):
        with step_seed(tf.constant([4, 5])):
            return passes(batch)

    for batch in (BATCH, BATCH[:2]):
        found = compiled(tf.constant(batch)).numpy()
        np.testing.assert_allclose(found, run(passes, tf.constant(batch)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_follows_training_and_dropout_drops_either_way(training):
    inputs = keras.Input((6,))
    norm = layers.BatchNormalization(momentum=0.0)
    network = keras.Model(inputs, layers.Dense(K)(drop()(norm(inputs))))
    logits = run(Passes(network, T), tf.constant(BATCH), training=training)
    assert (logits[0] != logits[1]).any()
    expected = BATCH.mean(0) if training else np.zeros(6)
    np.testing.assert_allclose(norm.moving_mean, expected, atol=1e-6)


@each_network
def test_a_masked_weight_stays_masked_in_every_pass(kind):
    network = masking.wrap(network_of(kind))
    draw = np.random.default_rng(0)
    masks = {n: draw.random(v.shape) < 0.6 for n, v in masking.mask_variables(network).items()}
    masking.assign_masks(network, masks)
    logits = run(Passes(network, T), tf.constant(BATCH))
    for name, weight in masking.weight_variables(network).items():
        weight.assign(np.where(masks.get(name, True), weight, 1e6))
    np.testing.assert_array_equal(run(Passes(network, T), tf.constant(BATCH)), logits)


def test_dropout_that_all_examples_share_is_refused_since_all_passes_would_be_equal():
    inputs = keras.Input((6,))
    shared = replace_dropout(
        keras.Model(inputs, layers.Dropout(0.5, noise_shape=(1, None), name="same")(inputs))
    )
    with pytest.raises(UsageError, match="^layer 'same' drops the same for all examples"):
        Passes(shared, T)


@pytest.mark.parametrize("rate", [None, 0.0])
def test_a_network_without_dropout_is_refused(rate):
    inputs = keras.Input((6,))
    x = inputs if rate is None else drop(rate=rate)(inputs)
    with pytest.raises(UsageError, match=r"^model 'plain' has no dropout, and passes without it"):
        Passes(keras.Model(inputs, layers.Dense(K)(x), name="plain"), T)
