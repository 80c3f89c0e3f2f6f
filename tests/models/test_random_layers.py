import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from lotcal_tf.compat import RandomGenerator, deterministic, keras
from lotcal_tf.errors import UsageError
from lotcal_tf.models.random_layers import StepGenerator, check_draws, seed_layers
from lotcal_tf.pruning.masking import leaf_layers
from lotcal_tf.seeds import draw_seed, step_seed

L = keras.layers
COUNT = 40_000
DRAWS = {
    "normal": lambda g: g.random_normal((COUNT,), 1.0, 2.0),
    "truncated": lambda g: g.truncated_normal((COUNT,), 1.0, 2.0),
    "uniform": lambda g: g.random_uniform((COUNT,), -1.0, 3.0),
    "unit": lambda g: g.random_uniform([COUNT // 2, 2]),
    "integers": lambda g: g.random_uniform((COUNT,), 2, 7, tf.int32),
    "dropout": lambda g: g.dropout(tf.ones((COUNT,)), 0.25),
}
LAWS = {
    "normal": scipy.stats.norm(1, 2),
    "truncated": scipy.stats.truncnorm(-2, 2, 1, 2),
    "uniform": scipy.stats.uniform(-1, 4),
    "unit": scipy.stats.uniform(0, 1),
}


def generator(name="noise/0"):
    return StepGenerator(RandomGenerator(), name)


def drawn(kind, seed=(1, 2), name="noise/0", **options):
    def draw(seed):
        with step_seed(seed):
            return DRAWS[kind](generator(name))

    return tf.function(draw, **options)(tf.constant(seed)).numpy()


@pytest.mark.parametrize("kind", LAWS)
def test_draws_follow_their_law(kind):
    # Passed by chance in all but one of 10⁵ seeds.
    assert scipy.stats.kstest(drawn(kind).ravel(), LAWS[kind].cdf).pvalue > 1e-5


def test_integers_and_dropout_follow_their_law():
    assert scipy.stats.chisquare(np.bincount(drawn("integers"))[2:]).pvalue > 1e-5
    values, counts = np.unique(drawn("dropout"), return_counts=True)
    np.testing.assert_allclose(values, [0, 4 / 3])
    assert scipy.stats.binomtest(int(counts[0]), COUNT, 0.25).pvalue > 1e-5


def test_all_integers_of_the_type_are_drawn():
    with step_seed(tf.constant([1, 2])):
        values = generator().random_uniform([COUNT], 0, tf.int32.max, tf.int32).numpy()
    # RandomCrop takes the remainder of a division, to which the low bits belong.
    assert scipy.stats.chisquare(np.bincount(values % 8)).pvalue > 1e-5


@pytest.mark.full
@pytest.mark.parametrize("kind", DRAWS)
def test_draws_are_functions_of_seed_name_and_number_and_the_same_if_compiled(kind):
    draws = drawn(kind)
    np.testing.assert_array_equal(drawn(kind), draws)
    np.testing.assert_allclose(drawn(kind, jit_compile=True), draws, atol=1e-4)
    for other in (drawn(kind, seed=(1, 3)), drawn(kind, name="noise/1")):
        assert np.mean(other != draws) > 0.3
    with step_seed(tf.constant([1, 2])):
        one = generator()
        first, second = (DRAWS[kind](one).numpy() for _ in range(2))
    assert np.mean(first != second) > 0.3


def test_half_precision():
    with step_seed(tf.constant([1, 2])):
        for draw in (generator().random_normal, generator().random_uniform):
            assert draw([3], dtype="float16").dtype == tf.float16


def test_what_needs_a_seed_with_state_is_refused():
    with pytest.raises(UsageError, match="'noise/0'.*make_seed_for_stateless_op"):
        generator().make_legacy_seed()


def sequential(shape, *layers):
    return keras.Sequential([keras.Input(shape), *layers])


def attention():
    inputs = keras.Input((5, 4))
    outputs = L.MultiHeadAttention(2, 3, dropout=0.3)(inputs, inputs)
    return keras.Model(inputs, L.Attention(dropout=0.3)([outputs, inputs]))


class Jitter(keras.__internal__.layers.BaseRandomLayer):
    """A user's layer that draws as Keras's do."""

    def call(self, inputs, training=None):
        noise = self._random_generator.random_normal(tf.shape(inputs)) if training else 0.0
        return inputs + noise


IMAGE, SEQUENCE = (6, 6, 3), (5, 4)
MODELS = {
    "GaussianNoise": lambda: sequential((8,), L.GaussianNoise(0.5)),
    "GaussianDropout": lambda: sequential((8,), L.GaussianDropout(0.5)),
    "AlphaDropout": lambda: sequential((8,), L.AlphaDropout(0.5)),
    "twice": lambda: sequential((8,), *[L.GaussianNoise(0.5)] * 2),
    "TimeDistributed": lambda: sequential(SEQUENCE, L.TimeDistributed(L.Dropout(0.5))),
    "attention": attention,
    "LSTM": lambda: sequential(SEQUENCE, L.LSTM(3, dropout=0.3, recurrent_dropout=0.3)),
    "GRU": lambda: sequential(SEQUENCE, L.Bidirectional(L.GRU(3, dropout=0.3))),
    "SimpleRNN": lambda: sequential(SEQUENCE, L.SimpleRNN(3, recurrent_dropout=0.5)),
    "cell": lambda: sequential(SEQUENCE, L.RNN(L.LSTMCell(3, dropout=0.5), unroll=True)),
    "ConvLSTM": lambda: sequential((3, *IMAGE), L.ConvLSTM2D(2, 3, dropout=0.5)),
    "Jitter": lambda: sequential((8,), Jitter()),
    "RandomFlip": lambda: sequential(IMAGE, L.RandomFlip()),
    "RandomRotation": lambda: sequential(IMAGE, L.RandomRotation(0.3)),
    "RandomZoom": lambda: sequential(IMAGE, L.RandomZoom(0.3, 0.3)),
    "RandomTranslation": lambda: sequential(IMAGE, L.RandomTranslation(0.3, 0.3)),
    "RandomCrop": lambda: sequential(IMAGE, L.RandomCrop(3, 3)),
    "RandomContrast": lambda: sequential(IMAGE, L.RandomContrast(0.9)),
    "RandomBrightness": lambda: sequential(IMAGE, L.RandomBrightness(0.5, (0, 1))),
    "RandomHeight": lambda: sequential(IMAGE, L.RandomHeight(0.5), L.GlobalMaxPooling2D()),
    "RandomWidth": lambda: sequential(IMAGE, L.RandomWidth(0.5), L.GlobalMaxPooling2D()),
}


@pytest.mark.full
@pytest.mark.parametrize("name", MODELS)
def test_the_steps_seed_determines_what_a_random_layer_does(name):
    model = MODELS[name]()
    inputs = tf.random.stateless_uniform([8, *model.input_shape[1:]], [1, 2])
    plain = model(inputs, training=False).numpy()
    seed_layers(leaf_layers(model))
    check_draws(model, leaf_layers(model))

    @tf.function
    def train(seed):
        with step_seed(seed):
            return model(inputs, training=True)

    with deterministic():
        first, again, other = (train(tf.constant([7, step])).numpy() for step in (1, 1, 2))
        keras.utils.set_random_seed(3)  # What is global must not count.
        np.testing.assert_array_equal(train(tf.constant([7, 1])).numpy(), first)
    np.testing.assert_array_equal(again, first)
    assert other.shape != first.shape or (other != first).any()
    np.testing.assert_array_equal(model(inputs, training=False).numpy(), plain)


def test_layers_of_one_kind_draw_different_numbers_and_keep_their_configuration():
    model = sequential(IMAGE, L.GaussianNoise(0.5), L.GaussianNoise(0.5), L.RandomCrop(3, 3))
    configs = [layer.get_config() for layer in model.layers]
    seed_layers(leaf_layers(model))
    assert [layer.get_config() for layer in model.layers] == configs
    assert model.variables == []
    with step_seed(tf.constant([1, 2])):
        first, second = (layer(tf.zeros((2, *IMAGE)), training=True) for layer in model.layers[:2])
    assert (first.numpy() != second.numpy()).all()


class Draws(L.Layer):
    def __init__(self, how, **kwargs):
        super().__init__(**kwargs)
        self.how, self.generator = how, tf.random.Generator.from_seed(1)

    def call(self, inputs, training=None):
        shape = tf.shape(inputs)
        if not training:
            return inputs
        if self.how == "generator":
            return inputs + self.generator.normal(shape)
        if self.how == "function":
            return tf.function(lambda x: tf.nn.dropout(x, 0.5))(inputs)
        if self.how == "loop":
            return tf.while_loop(
                lambda i, x: i < 3, lambda i, x: (i + 1, x + tf.random.normal(shape)), (0, inputs)
            )[1]
        return inputs + tf.random.stateless_normal(shape, draw_seed(self.name))


@pytest.mark.parametrize("how", ["generator", "function", "loop"])
def test_other_random_layers_are_refused_by_name(how):
    inner = sequential((4,), Draws(how, name="mine"))
    inner._name = "inner"
    model = sequential((4,), L.Dense(4), inner)
    seed_layers(leaf_layers(model))
    with pytest.raises(UsageError, match=r"layer 'inner/mine' \(Draws\).*draw_seed"):
        check_draws(model, leaf_layers(model))


def test_bare_operations_are_refused():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, inputs + tf.random.normal(tf.shape(inputs)))
    with pytest.raises(UsageError, match=r"tf.random.normal.*RandomStandardNormal"):
        check_draws(model, leaf_layers(model))


def test_stateless_draws_and_operations_that_draw_nothing_pass():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, Draws("stateless", name="mine")(tf.nn.relu(inputs) * 2))
    check_draws(model, leaf_layers(model))


class Broken(L.Layer):
    def call(self, inputs, training=None):
        return inputs / "two" if training else inputs


def test_a_layer_that_fails_in_training_is_found_before():
    model = sequential((4,), Broken())
    with pytest.raises(UsageError, match="cannot be called in training"):
        check_draws(model, leaf_layers(model))
