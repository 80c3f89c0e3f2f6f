import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf.compat import keras
from lotcal_tf.config.experiment import Experiment
from lotcal_tf.config.optimizers import OPTIMIZERS
from lotcal_tf.errors import UsageError
from lotcal_tf.pruning import masking
from lotcal_tf.pruning.masked import PrunableLayer
from lotcal_tf.pruning.masking import strip, wrap
from lotcal_tf.pruning.rewind import masked_start
from lotcal_tf.training.optimizer import level_rate, make_optimizer
from tests.cases import quick

layers = keras.layers


@keras.saving.register_keras_serializable("tests")
class Own(layers.Layer, PrunableLayer):
    """One kernel to prune, read by two names, and one to leave alone."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape):
        self.kernel = self.add_weight("kernel", (input_shape[-1], self.units))
        self.alias = self.kernel
        self.gate = self.add_weight("gate", (self.units, input_shape[-1]))
        super().build(input_shape)

    def call(self, inputs):
        return inputs @ self.kernel + tf.tanh(inputs @ self.alias @ self.gate) @ self.kernel

    def get_prunable_weights(self):
        return [self.kernel]

    def get_config(self):
        return super().get_config() | {"units": self.units}


@keras.saving.register_keras_serializable("tests")
class Subclassed(keras.Model, PrunableLayer):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.first, self.second = layers.Dense(units, "relu"), layers.Dense(3)

    def call(self, inputs):
        return self.second(self.first(inputs))

    def get_prunable_weights(self):
        return [self.first.kernel, self.second.kernel]

    def get_config(self):
        return {"name": self.name, "units": self.units}


class Unknown(layers.Layer):
    """Nothing says whether its kernel may be pruned."""

    def build(self, input_shape):
        self.kernel = self.add_weight("kernel", (input_shape[-1], 3))
        super().build(input_shape)

    def call(self, inputs):
        return inputs @ self.kernel


class Weightless(layers.Layer):
    def call(self, inputs):
        return inputs * 2.0


def dense():
    x = keras.Input((4,))
    y = layers.BatchNormalization(name="norm")(layers.Dense(5, "relu", name="a")(x))
    return keras.Model(x, layers.Dense(3, name="b", kernel_regularizer="l2")(y), name="mine")


def sequential():
    """Without an Input: built by its first call."""
    model = keras.Sequential([layers.Dense(5, "relu", name="a"), layers.Dense(3, name="b")])
    model(tf.zeros((1, 4)))
    return model


def convolutions():
    x = keras.Input((5, 5, 2))
    y = layers.Conv2D(3, 2, name="conv", activation="relu")(x)
    y = layers.SeparableConv2D(4, 2, name="separable")(y)
    y = layers.DepthwiseConv2D(2, name="depthwise")(y)
    return keras.Model(x, layers.Dense(3, name="b")(layers.Flatten()(y)))


def recurrent():
    x = keras.Input((4,))
    y = layers.Embedding(6, 8, mask_zero=True, name="embedding")(x)
    return keras.Model(x, layers.Dense(3, name="b")(layers.LSTM(4, name="lstm")(y)))


def attention():
    x = keras.Input((3, 4))
    y = layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    return keras.Model(x, layers.Dense(3, name="b")(layers.Flatten()(y)))


def gates():
    """Recurrent layers with several kernels each; a bias of GRU has two dimensions."""
    x = keras.Input((3, 4))
    y = layers.Bidirectional(layers.GRU(3, return_sequences=True), name="both")(x)
    cells = [layers.SimpleRNNCell(3), layers.LSTMCell(2)]
    return keras.Model(x, layers.Dense(3, name="b")(layers.RNN(cells, name="cells")(y)))


def distributed():
    """A layer and a model over time steps."""
    x = keras.Input((2, 4, 4, 1))
    inner = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            layers.Conv2D(2, 2),
            layers.Flatten(),
            layers.Dense(4, "tanh"),
        ]
    )
    y = layers.TimeDistributed(inner, name="model")(x)
    y = layers.TimeDistributed(layers.Dense(3, "tanh"), name="layer")(y)
    return keras.Model(x, layers.Dense(3, name="b")(layers.Flatten()(y)))


def unusual():
    x = keras.Input((3, 4))
    y = layers.Conv1DTranspose(3, 2, name="transposed")(x)
    y = layers.EinsumDense("abc,cde->abde", (4, 2, 3), bias_axes="de", name="einsum")(y)
    y = layers.ConvLSTM1D(2, 2, name="conv_lstm")(layers.Reshape((2, 4, 3))(y))
    return keras.Model(x, layers.Dense(3, name="b")(layers.Flatten()(y)))


def depthwise():
    x = keras.Input((5, 5, 2))
    y = layers.DepthwiseConv2D(2, name="depthwise")(x)
    y = layers.SeparableConv2D(3, 2, name="separable")(y)
    y = layers.DepthwiseConv1D(2, name="one")(layers.Reshape((9, 3))(y))
    return keras.Model(x, layers.Dense(3, name="b")(layers.Flatten()(y)))


def own():
    x = keras.Input((4,))
    return keras.Model(x, layers.Dense(3, name="b")(Own(5, name="own")(x)))


def subclassed():
    x = keras.Input((4,))
    return keras.Model(x, Subclassed(5, name="subclassed")(x))


def nested():
    """Two levels, one of them used twice, and a layer used twice."""
    a, b, c = keras.Input((4,)), keras.Input((4,)), keras.Input((4,))
    inner = keras.Sequential([a, layers.Dense(4, "tanh", name="deep")], name="inner")
    middle = keras.Model(b, layers.Dense(4, "relu", name="wide")(inner(b)), name="middle")
    shared = layers.Dense(4, "tanh", name="shared")
    outputs = layers.Dense(3, name="b")(shared(middle(c)) + shared(middle(tf.abs(c))))
    return keras.Model(c, outputs, name="outer")


# What makes the model, and the masks it is to have, by hand.
MODELS = {
    "dense": (dense, ["a/kernel", "b/kernel"]),
    "sequential": (sequential, ["a/kernel", "b/kernel"]),
    "convolutions": (convolutions, ["conv/kernel", "separable/pointwise_kernel", "b/kernel"]),
    "recurrent": (
        recurrent,
        ["embedding/embeddings", "lstm/kernel", "lstm/recurrent_kernel", "b/kernel"],
    ),
    # Four kernels with one name, distinguished by their index among the layer's weights.
    "attention": (
        attention,
        [*(f"attention/kernel{place}" for place in ("", "_2", "_4", "_6")), "b/kernel"],
    ),
    "gates": (
        gates,
        [
            *(f"both/{name}" for name in ("kernel", "recurrent_kernel")),
            *(f"both/{name}" for name in ("kernel_3", "recurrent_kernel_4")),
            *(f"cells/{name}" for name in ("kernel", "recurrent_kernel")),
            *(f"cells/{name}" for name in ("kernel_3", "recurrent_kernel_4")),
            "b/kernel",
        ],
    ),
    "distributed": (
        distributed,
        ["model/kernel", "model/kernel_2", "layer/kernel", "b/kernel"],
    ),
    "unusual": (
        unusual,
        [
            "transposed/kernel",
            "einsum/kernel",
            "conv_lstm/kernel",
            "conv_lstm/recurrent_kernel",
            "b/kernel",
        ],
    ),
    "depthwise": (
        depthwise,
        [
            "depthwise/depthwise_kernel",
            "separable/depthwise_kernel",
            "separable/pointwise_kernel",
            "one/depthwise_kernel",
            "b/kernel",
        ],
    ),
    "own": (own, ["own/kernel", "b/kernel"]),
    "subclassed": (subclassed, ["subclassed/kernel", "subclassed/kernel_2"]),
    "nested": (
        nested,
        ["middle/inner/deep/kernel", "middle/wide/kernel", "shared/kernel", "b/kernel"],
    ),
}


def half_masked(network, seed=0):
    """Sets random masks; returns them."""
    rng = np.random.default_rng(seed)
    masks = {n: rng.random(v.shape) < 0.5 for n, v in masking.mask_variables(network).items()}
    masking.assign_masks(network, masks)
    return masks


def inputs_of(model):
    rng = np.random.default_rng(1)
    if any(isinstance(layer, layers.Embedding) for layer in model._flatten_layers()):
        # Id 0 stands for no word: what is masked in time must stay so when wrapped.
        return np.array([[1, 2, 3, 0], [5, 4, 0, 0], [1, 1, 2, 5]], "float32")
    return rng.normal(size=(3, *model.input_shape[1:])).astype("float32")


@dataclasses.dataclass
class Case:
    make: Callable[[], keras.Model]
    expected: list[str]

    def __post_init__(self):
        keras.utils.set_random_seed(0)
        self.model = self.make()
        self.network = wrap(self.model, depthwise=self.make is depthwise)
        self.x = inputs_of(self.model)
        self.whole = outputs(self.network, self.x)
        self.masks = half_masked(self.network)
        self.y = outputs(self.network, self.x)
        self.stripped = strip(self.network)


@pytest.fixture(scope="module", params=MODELS)
def case(request):
    return Case(*MODELS[request.param])


def outputs(model, x):
    return model(x, training=False).numpy()


def test_the_prunable_weights_are_masked_and_no_others(case):
    masks = masking.mask_variables(case.network)
    weights = masking.weight_variables(case.network)
    assert list(masks) == case.expected
    assert all(mask.shape == weights[name].shape for name, mask in masks.items())
    assert not any(mask.trainable for mask in masks.values())
    assert len(case.network.trainable_weights) == len(case.model.trainable_weights)


def test_weights_go_by_the_same_paths_wrapped_plain_and_stripped(case):
    paths = list(masking.weight_variables(case.model))
    assert len(paths) == len(case.model.weights)
    assert list(masking.weight_variables(case.network)) == paths
    assert list(masking.weight_variables(case.stripped)) == paths


def test_wrapped_with_nothing_pruned_it_computes_what_the_model_does(case):
    np.testing.assert_array_equal(case.whole, outputs(case.model, case.x))
    assert case.network.name == case.model.name
    # Regularisation of weights comes along.
    assert len(case.network.losses) == len(case.model.losses)


def test_the_output_is_that_of_the_plain_model_with_weights_times_masks(case):
    plain = case.make()
    values = masking.values(case.model)
    masked = {name: values[name] * mask for name, mask in case.masks.items()}
    masking.assign(plain, values | masked)
    np.testing.assert_array_equal(case.y, outputs(plain, case.x))
    assert not np.allclose(case.y, case.whole)
    training = case.network(case.x, training=True).numpy()
    np.testing.assert_array_equal(training, plain(case.x, training=True).numpy())
    masking.assign(case.network, values)  # Training moved what BatchNorm remembers.


def gradients(model, x):
    variables = masking.weight_variables(model)
    variables = {name: v for name, v in variables.items() if v.trainable}
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(x, training=False) ** 3)
    found = tape.gradient(loss, list(variables.values()))
    return {n: tf.convert_to_tensor(g).numpy() for n, g in zip(variables, found, strict=True)}


def test_gradients_of_masked_weights_are_zero_and_the_others_as_without_a_mask(case):
    found, plain = gradients(case.network, case.x), gradients(case.stripped, case.x)
    for name, gradient in plain.items():
        mask = case.masks.get(name, True)
        np.testing.assert_allclose(found[name], gradient * mask, rtol=1e-4, atol=1e-6)
        assert found[name].any()
    for name, mask in case.masks.items():
        assert not found[name][~mask].any()
    assert any(plain[name][~mask].any() for name, mask in case.masks.items())


@pytest.mark.full
@pytest.mark.parametrize(
    ("name", "jit"),
    [
        pytest.param("recurrent", True, id="recurrent-xla"),
        pytest.param("recurrent", False, id="recurrent-graph"),
        pytest.param("gates", True, id="gates-xla"),
        pytest.param("gates", False, id="gates-graph"),
        pytest.param("attention", True, id="attention-xla"),
        pytest.param("attention", False, id="attention-graph"),
    ],
)
def test_compiled_steps_use_masked_weights(name, jit):
    """Also where TensorFlow chooses among kernels for a layer: pruned values have no effect."""
    case = Case(*MODELS[name])
    values = masking.values(case.network)
    loud = {n: np.where(mask, values[n], 100).astype("float32") for n, mask in case.masks.items()}
    masking.assign(case.network, values | loud)
    pruned = {n: masking.weight_variables(case.network)[n] for n in case.masks}

    @tf.function(jit_compile=jit)
    def step(x):
        with tf.GradientTape() as tape:
            found = case.network(x, training=True)
        return found, tape.gradient(found, list(pruned.values()))

    found, slopes = step(tf.constant(case.x))
    np.testing.assert_allclose(found, case.y, rtol=1e-4, atol=1e-5)
    for slope, mask in zip(slopes, case.masks.values(), strict=True):
        slope = tf.convert_to_tensor(slope).numpy()
        assert slope.any() and not slope[~mask].any()


def test_stripping_leaves_a_plain_keras_model_that_computes_the_same(case):
    stripped = case.stripped
    np.testing.assert_array_equal(outputs(stripped, case.x), case.y)
    assert [type(part) for part in stripped.layers] == [type(part) for part in case.model.layers]
    assert "lotcal_tf" not in stripped.to_json()
    values = masking.values(stripped)
    for name, mask in case.masks.items():
        np.testing.assert_array_equal(values[name] == 0, ~mask)


@pytest.mark.parametrize("file", quick(["m.keras", "saved_model", "m.h5"], "m.keras"))
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_saving_keeps_masks_weights_and_outputs(case, file, tmp_path):
    case.network.save(tmp_path / file)
    loaded = keras.models.load_model(tmp_path / file)
    np.testing.assert_array_equal(outputs(loaded, case.x), case.y)
    found = masking.mask_variables(loaded)
    assert list(found) == list(case.masks)
    for name, mask in case.masks.items():
        np.testing.assert_array_equal(found[name].numpy(), mask.astype("float32"))
    weights = masking.values(loaded)
    for name, value in masking.values(case.network).items():
        np.testing.assert_array_equal(weights[name], value)
    np.testing.assert_array_equal(outputs(strip(loaded), case.x), case.y)


def test_the_user_s_model_is_not_changed():
    model = dense()
    attributes = {layer.name: set(vars(layer)) for layer in model.layers}
    parts, values, text = list(model.layers), masking.values(model), model.to_json()
    network = wrap(model)
    half_masked(network)
    masking.assign(network, {name: value + 1 for name, value in values.items()})
    assert model.to_json() == text
    assert all(a is b for a, b in zip(model.layers, parts, strict=True))
    assert {layer.name: set(vars(layer)) for layer in model.layers} == attributes
    for name, value in masking.values(model).items():
        np.testing.assert_array_equal(value, values[name])


def test_a_frozen_layer_inside_a_wrapper_is_not_masked():
    model = distributed()
    model.get_layer("model").layer.layers[0].trainable = False
    masks = masking.mask_variables(wrap(model))
    # Weights that are trained come first, so that the dense kernel has the first name.
    assert {name: tuple(mask.shape) for name, mask in masks.items()} == {
        "model/kernel": (18, 4),
        "layer/kernel": (4, 3),
        "b/kernel": (6, 3),
    }


def test_frozen_weights_are_found_at_every_depth():
    model = distributed()
    assert masking.frozen_weights(model) == []
    inner = model.get_layer("model").layer.layers[0]
    inner.trainable = False
    weights = masking.weight_variables(model)
    found = {id(weights[name]) for name in masking.frozen_weights(model)}
    assert found == {id(weight) for weight in inner.weights} and found


def test_frozen_layers_stay_frozen():
    model = dense()
    model.get_layer("a").trainable = False
    network = wrap(model)
    frozen = masking.weight_variables(network)["a/kernel"]
    assert all(weight is not frozen for weight in network.trainable_weights)
    assert len(network.trainable_weights) == len(model.trainable_weights) == 4


@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.GroupNormalization(1, name="mine"),
        lambda: layers.PReLU(name="mine"),
        lambda: layers.DepthwiseConv2D(1, name="mine"),
        lambda: layers.BatchNormalization(name="mine"),
        lambda: layers.Rescaling(2.0, name="mine"),
        lambda: layers.UnitNormalization(name="mine"),
        lambda: Weightless(name="mine"),
        lambda: Unknown(name="mine", trainable=False),
    ],
)
def test_layers_without_a_trainable_kernel_to_prune_pass_unwrapped(make):
    layer = make()
    x = keras.Input((3, 3, 3))
    model = keras.Model(x, layers.Dense(3)(layers.Flatten()(layer(x))))
    network = wrap(model)
    assert type(network.get_layer("mine")) is type(layer)
    x = inputs_of(model)
    np.testing.assert_array_equal(outputs(network, x), outputs(model, x))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Unknown(name="mine"),
    ],
)
def test_an_unknown_layer_with_a_kernel_is_refused_by_name_unless_excluded(make):
    layer = make()
    x = keras.Input((3, 3))
    model = keras.Model(x, layers.Dense(3, name="b")(layer(x)))
    message = rf"'mine' \({type(layer).__name__}\) holds .*PrunableLayer.*exclude=mine"
    with pytest.raises(UsageError, match=message):
        wrap(model)
    network = wrap(model, exclude=["mine"])
    assert list(masking.mask_variables(network)) == ["b/kernel"]
    x = inputs_of(model)
    np.testing.assert_array_equal(outputs(network, x), outputs(model, x))


def test_a_prunable_weight_must_be_an_attribute():
    class Listed(Own):
        def build(self, input_shape):
            self.kernels = [self.add_weight("kernel", (input_shape[-1], self.units))]

        def call(self, inputs):
            return inputs @ self.kernels[0]

        def get_prunable_weights(self):
            return list(self.kernels)

    x = keras.Input((4,))
    with pytest.raises(UsageError, match=r"'mine' \(Listed\).*must be an attribute of the layer"):
        wrap(keras.Model(x, Listed(3, name="mine")(x)))


def test_a_bare_subclassed_model_is_refused_with_the_fix():
    model = Subclassed(3)
    model(tf.ones((1, 4)))
    with pytest.raises(
        UsageError, match=r"subclassed model.*PrunableLayer.*keras\.Model\(x, model"
    ):
        wrap(model)


@pytest.mark.parametrize(
    "exclude, left",
    [
        ("b", ["middle/inner/deep", "middle/wide", "shared"]),
        ("middle/wide", ["middle/inner/deep", "shared", "b"]),
        ("deep", ["middle/wide", "shared", "b"]),
        ("middle/inner/*", ["middle/wide", "shared", "b"]),
        ("middle/*", ["shared", "b"]),
        ("dee? sh*", ["middle/wide", "b"]),
    ],
)
def test_exclude_takes_names_paths_and_patterns(exclude, left):
    network = wrap(nested(), exclude.split())
    assert list(masking.mask_variables(network)) == [f"{path}/kernel" for path in left]


def test_an_unknown_name_to_exclude_is_refused_with_similar_names():
    layers = [keras.layers.Dense(2, name=f"dense_{n}") for n in range(20)]
    model = keras.Sequential([keras.Input((2,)), *layers])
    with pytest.raises(
        UsageError, match=r"^exclude=dense13: none of the model's 20 layers"
    ) as error:
        wrap(model, ["dense_1", "dense13"])
    near = str(error.value).rpartition("names: ")[2].split(", ")
    assert near[0] == "dense_13"
    assert len(near) == 5


def test_a_pattern_to_exclude_may_fit_no_layer():
    """As `*_shortcut` of a recipe for residual networks does with another."""
    assert list(masking.mask_variables(wrap(dense(), ["*_shortcut", "c?"]))) == list(
        masking.mask_variables(wrap(dense()))
    )


def shared_between_models():
    """One layer in a nested model and, twice more, beside it."""
    a, c = keras.Input((4,), name="a"), keras.Input((4,), name="c")
    shared = layers.Dense(4, "tanh", name="shared")
    inner = keras.Model(a, shared(a), name="inner")
    outputs = layers.Dense(3, name="b")(shared(shared(inner(c))))
    return keras.Model(c, outputs)


def test_layers_are_walked_in_model_order_each_once():
    paths = [path for path, _ in masking.leaf_layers(shared_between_models())]
    assert paths == ["c", "inner/a", "inner/shared", "b"]


def test_a_layer_that_nested_models_share_has_one_mask():
    model = shared_between_models()
    network = wrap(model)
    masks = half_masked(network)
    assert list(masks) == ["inner/shared/kernel", "b/kernel"]
    assert len(network.trainable_weights) == len(model.trainable_weights) == 4
    values, x = masking.values(model), inputs_of(model)
    masking.assign(model, values | {name: values[name] * mask for name, mask in masks.items()})
    for same in (network, strip(network)):
        np.testing.assert_array_equal(outputs(same, x), outputs(model, x))


def test_the_output_layer_is_the_last_with_a_kernel_to_prune():
    for model in (nested(), dense(), convolutions()):
        assert masking.output_layer(model) == masking.output_layer(wrap(model)) == "b"
    x = keras.Input((4,))
    with pytest.raises(UsageError, match="has no prunable layer"):
        masking.output_layer(keras.Model(x, layers.ReLU()(x)))


def test_assign_lists_every_difference_and_sets_nothing():
    model = dense()
    values = masking.values(model)
    arrays = {name: value + 1 for name, value in values.items()}
    del arrays["a/bias"]
    arrays["b/kernel"] = arrays["b/kernel"].T
    arrays["c/kernel"] = np.ones(3)
    with pytest.raises(UsageError) as raised:
        masking.assign(model, arrays)
    for difference in (
        "a/bias is missing",
        "c/kernel is not in the model",
        "b/kernel is (3, 5), the model's (5, 3)",
    ):
        assert difference in str(raised.value)
    for name, value in masking.values(model).items():
        np.testing.assert_array_equal(value, values[name])


def test_a_layer_s_own_precision_is_kept():
    x = keras.Input((300,))
    embedded = layers.Embedding(1000, 2, dtype="mixed_bfloat16", name="e")(x)  # Ids are not cast.
    y = layers.Dense(8, dtype="mixed_bfloat16", name="a")(layers.Flatten()(embedded))
    y = layers.Dense(8, dtype="float64", name="c")(y)
    model = keras.Model(x, layers.Dense(3, dtype="float64", name="b")(y))
    network = wrap(model)
    x = np.arange(600, dtype="float32").reshape(2, 300)
    np.testing.assert_array_equal(outputs(network, x), outputs(model, x))
    half_masked(network)
    np.testing.assert_array_equal(outputs(strip(network), x), outputs(network, x))


@pytest.mark.parametrize("decay", quick([0.0, 0.1], 0.1))
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_pruned_weights_are_exactly_zero_after_every_step(name, decay):
    keras.utils.set_random_seed(0)
    network = wrap(dense())
    masks = half_masked(network)
    start = masked_start(masking.values(network), masks)
    masking.assign(network, start)
    momentum = {"momentum": 0.9} if name == "sgd" else {}
    settings = Experiment(optimizer=name, lr=0.05, weight_decay=decay, **momentum)
    optimizer = make_optimizer(settings, level_rate(settings, 10))
    x = tf.random.stateless_normal((16, 4), (1, 2))
    y = tf.argmax(x[:, :3], axis=1)
    loss_function = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    variables = network.trainable_variables
    for _ in range(8):
        with tf.GradientTape() as tape:
            loss = loss_function(y, network(x, training=True)) + sum(network.losses)
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        for weight, mask in masks.items():
            value = masking.values(network)[weight]
            assert (value[~mask] == 0).all()
            assert (value[mask] != start[weight][mask]).any()
        for mask in masking.mask_variables(network).values():
            assert set(np.unique(mask)) <= {0.0, 1.0}


def test_a_layer_left_whole_by_its_path_takes_no_namesake_with_it():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(5, name="fc")], name="body")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(3, name="fc")(inner(inputs)))
    assert list(masking.mask_variables(wrap(model, whole=["fc"]))) == ["body/fc/kernel"]
    assert list(masking.mask_variables(wrap(model, exclude=["fc"]))) == []
