"""Layers with several kernels, in every kind of file: outputs, zeros, and what is refused."""

import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf.compat import keras
from lotcal_tf.config import registry
from lotcal_tf.errors import ExportMismatch, UsageError
from lotcal_tf.formats import zeros
from lotcal_tf.formats.format import Material
from lotcal_tf.pruning import masking

layers = keras.layers


def attention(x):
    # A square output: its four kernels have the same size.
    return layers.MultiHeadAttention(2, 2, name="attention")(x, x)


def distributed(x):
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3, "tanh"), layers.Dense(4)])
    return layers.TimeDistributed(inner, name="each")(x)


# Layers on inputs (4, 4).
LAYERS = {
    "simple_rnn": layers.SimpleRNN(4, name="rnn"),
    "lstm": layers.LSTM(3, return_sequences=True, name="lstm"),
    "bidirectional": layers.Bidirectional(layers.GRU(2), name="both"),
    "separable": layers.SeparableConv1D(4, 2, name="separable"),
    "transposed": layers.Conv1DTranspose(4, 2, name="transposed"),
    "einsum": layers.EinsumDense("abc,cde->abde", (4, 2, 3), bias_axes="de", name="einsum"),
    "attention": attention,
    "distributed": distributed,
}
# Fine-tuning for a file takes other networks; see test_qat.py.
FORMATS = [name for name, row in registry.FORMATS.items() if "training" not in row.needs]
INPUTS = np.random.default_rng(0).normal(size=(40, 4, 4)).astype("float32")
MATERIAL = Material(INPUTS, np.arange(40, dtype="int32") % 3)


def network(layer):
    """Half of all kernel entries are 0, in the layer of interest and in the last one."""
    given = keras.Input((4, 4))
    x = layers.Flatten(name="flat")(layer(given))
    model = keras.Model(given, layers.Dense(3, name="logits")(x), name="net")
    draw = np.random.default_rng(1)
    values = masking.values(model)
    for name, value in values.items():
        size = draw.uniform(0.5, 1, value.shape) * draw.choice([-1, 1], value.shape)
        kept = draw.random(value.shape) < 0.5 if name in masking.kernels(model) else True
        values[name] = (size * kept).astype("float32")
    masking.assign(model, values)
    return model


@pytest.fixture(scope="module", params=LAYERS)
def model(request):
    return network(LAYERS[request.param])


@pytest.mark.full
@pytest.mark.parametrize("name", FORMATS)
def test_a_file_computes_the_same_and_every_zero_is_compared(model, name, tmp_path):
    row = registry.FORMATS[name]
    path, file_format = tmp_path / row.file, row.load()
    file_format.write(model, path, MATERIAL)
    run = file_format.runner(path)
    wanted, found = model(INPUTS).numpy(), run(INPUTS)
    limit = (0.1 if row.quantised else 1e-5) * np.ptp(wanted)
    assert np.abs(found - wanted).max() < limit
    # A second call gives the same: a file keeps no state.
    np.testing.assert_array_equal(run(INPUTS), found)

    tensors = file_format.stored_tensors(path)
    zeros.check(row.file, tensors, model)
    kernels = masking.kernels(model)
    matched = zeros.match(tensors, model)
    assert matched.keys() == kernels.keys()
    assert len({id(tensor) for tensor in matched.values()}) == len(kernels)
    for path, kernel in kernels.items():
        assert (matched[path].size, matched[path].zeros) == (kernel.size, (kernel == 0).sum())
    # The file is unchanged; the network that it is compared with has one more zero.
    values = masking.values(model)
    for path, kernel in kernels.items():
        fewer = kernel.copy()
        fewer[tuple(index[0] for index in np.nonzero(fewer))] = 0
        masking.assign(model, values | {path: fewer})
        try:
            with pytest.raises(ExportMismatch, match=rf"^{row.file}: \d+ weight"):
                zeros.check(row.file, tensors, model)
        finally:
            masking.assign(model, values)


@pytest.mark.parametrize("name", ["float32", "int8"])
@pytest.mark.parametrize(
    ("shape", "layer"),
    [
        ((None, 4), layers.LSTM(3, name="open")),
        ((300, 4), layers.Bidirectional(layers.GRU(3), name="open")),
        ((3, 4, 2), layers.ConvLSTM1D(3, 2, name="open")),
    ],
)
def test_a_loop_that_cannot_be_unrolled_is_refused_by_name(name, shape, layer, tmp_path):
    given = keras.Input(shape)
    x = layer(given)
    model = keras.Model(given, layers.Dense(3)(x))
    row = registry.FORMATS[name]
    with pytest.raises(UsageError, match=r"'open' .*at most 256.*keras or saved_model"):
        row.load().write(model, tmp_path / row.file, Material(np.zeros((2, 4, 4)), np.zeros(2)))


def test_an_operation_that_tflite_lacks_is_named_with_its_layer(tmp_path):
    given = keras.Input((4,))
    x = layers.Lambda(tf.math.erfinv, name="strange")(given)
    model = keras.Model(given, layers.Dense(3)(x))
    with pytest.raises(UsageError, match="Erfinv of layer 'strange'"):
        registry.FORMATS["float32"].load().write(model, tmp_path / "a.tflite")
