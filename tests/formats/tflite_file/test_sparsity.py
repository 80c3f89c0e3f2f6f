"""Sparse encoding: what is left out comes back, and LiteRT computes the same to the bit."""

import numpy as np
import pytest

from lotcal_tf.compat import keras
from lotcal_tf.formats.format import Material
from lotcal_tf.formats.tflite import Float16, Int8, TFLiteRunner
from lotcal_tf.formats.tflite_file import flatbuffer, operators, sparsity
from lotcal_tf.formats.tflite_file.converter import convert
from lotcal_tf.pruning import masking

INPUTS = np.random.default_rng(0).normal(size=(9, 8, 8, 4)).astype("float32")


def network(kept, *, convolutional):
    layers = keras.layers
    given = keras.Input((8, 8, 4))
    x = layers.Conv2D(24, 3, activation="relu")(given) if convolutional else given
    x = layers.Dense(40, activation="relu")(layers.Flatten()(x))
    model = keras.Model(given, layers.Dense(7)(x))
    draw = np.random.default_rng(1)
    masking.assign(
        model,
        {
            name: draw.normal(size=v.shape) * (draw.random(v.shape) < (kept if v.ndim > 1 else 1))
            + 0.0  # no −0
            for name, v in masking.values(model).items()
        },
    )
    return model


@pytest.mark.parametrize("file_format", [Float16(), Int8()], ids=["float16", "int8"])
@pytest.mark.parametrize(("kept", "convolutional"), [(0.3, True), (0.05, False), (0.0, False)])
def test_a_sparse_file_is_smaller_and_computes_the_same(file_format, kept, convolutional, tmp_path):
    model, material = network(kept, convolutional=convolutional), Material(INPUTS, np.zeros(9, int))
    file_format.write(model, tmp_path / "dense", material)
    (tmp_path / "sparse").write_bytes(sparsity.encode((tmp_path / "dense").read_bytes()))
    dense, sparse = (TFLiteRunner(tmp_path / name)(INPUTS) for name in ("dense", "sparse"))
    np.testing.assert_array_equal(sparse, dense)
    assert (tmp_path / "sparse").stat().st_size < (tmp_path / "dense").stat().st_size
    kernels = []
    for name in ("dense", "sparse"):
        unpacked = flatbuffer.unpack((tmp_path / name).read_bytes())
        tensors = [unpacked.subgraphs[0].tensors[n] for n in flatbuffer.kernels(unpacked)]
        kernels.append({t.name: sparsity.dense_values(unpacked, t) for t in tensors})
        assert any(t.sparsity is not None for t in tensors) == (name == "sparse")
    for name, value in kernels[0].items():
        np.testing.assert_array_equal(kernels[1][name], value)


def test_the_converters_own_encoding_is_read_too(tmp_path):
    """By the op that LiteRT itself makes it dense with: the float file's kernels are the model's."""
    model = network(0.1, convolutional=True)
    unpacked = flatbuffer.unpack(convert(model, sparse=True))
    tensors = [unpacked.subgraphs[0].tensors[n] for n in flatbuffer.kernels(unpacked)]
    found = {value.tobytes() for value in (sparsity.dense_values(unpacked, t) for t in tensors)}
    kernels = [v for v in masking.values(model).values() if v.ndim > 1]
    assert all(np.moveaxis(kernel, -1, 0).tobytes() in found for kernel in kernels)
    assert any(tensor.sparsity is not None for tensor in tensors)


@pytest.fixture(scope="module")
def blocks():
    """blocks(share) → a network of which only the hidden layer has blocks of zeros.

    `share` of its blocks have values; the other kernels have scattered zeros.
    """

    def made(share):
        layers = keras.layers
        model = keras.Sequential(
            [
                keras.Input((8, 8, 4)),
                layers.Conv2D(8, 3, name="conv"),
                layers.Flatten(),
                layers.Dense(64, name="hidden"),
                layers.Dense(16, name="last"),
            ]
        )
        draw = np.random.default_rng(2)
        values = masking.values(model)
        keep = draw.permutation(72 * 64) < share * 72 * 64
        values["hidden/kernel"] *= np.repeat(keep.reshape(72, 64), 4, axis=0)
        for name in ("conv/kernel", "last/kernel"):
            values[name] *= draw.random(values[name].shape) < 0.3
        masking.assign(model, {name: v + 0.0 for name, v in values.items()})  # no −0
        return model

    return made


def test_only_blocks_that_a_sparse_kernel_skips_stay_sparse(blocks, tmp_path):
    model = blocks(0.1)
    content = sparsity.only_fast_blocks(convert(model, sparse=True))
    (tmp_path / "blocks.tflite").write_bytes(content)
    graph = operators.read(tmp_path / "blocks.tflite")
    assert "DENSIFY" not in graph.operators
    found = {use.shape: (use.sparse, use.densified, use.block) for use in graph.kernels.values()}
    assert found == {
        (8, 3, 3, 4): (False, False, ()),
        (64, 288): (True, False, (1, 4)),
        (16, 64): (False, False, ()),
    }
    outputs = TFLiteRunner(tmp_path / "blocks.tflite")(INPUTS)
    np.testing.assert_allclose(outputs, model(INPUTS), rtol=1e-4, atol=1e-5)
    unpacked = flatbuffer.unpack(content)
    tensors = [unpacked.subgraphs[0].tensors[n] for n in flatbuffer.kernels(unpacked)]
    values = {value.tobytes() for value in (sparsity.dense_values(unpacked, t) for t in tensors)}
    kernels = [v for v in masking.values(model).values() if v.ndim > 1]
    assert all(np.moveaxis(kernel, -1, 0).tobytes() in values for kernel in kernels)


def test_without_a_faster_kernel_there_is_no_file_in_blocks(blocks):
    # More than an eighth of the blocks have values; or no kernel is in blocks at all.
    assert sparsity.only_fast_blocks(convert(blocks(0.2), sparse=True)) is None
    scattered = convert(network(0.1, convolutional=True), sparse=True)
    assert sparsity.only_fast_blocks(scattered) is None
    assert sparsity.only_fast_blocks(convert(blocks(0.1))) is None
