"""The zeros of written files: counted as they stand there, and held against the model's."""

import numpy as np
import pytest

from lotcal_tf.compat import keras
from lotcal_tf.config import registry
from lotcal_tf.errors import ExportMismatch, UsageError
from lotcal_tf.formats import zeros
from lotcal_tf.formats.format import Material
from lotcal_tf.pruning import masking

ROWS = [
    (name, sparse)
    for name, row in registry.FORMATS.items()
    for sparse in ([False, True][: 1 + bool(row.encoder)])
]
INPUTS = np.random.default_rng(0).normal(size=(8, 8, 8, 4)).astype("float32")


@pytest.fixture(scope="module", autouse=True)
def short():
    """Few steps of fine-tuning: its own test sees to what it learns."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lotcal_tf.formats.qat._STEPS", 3)
        yield


@pytest.fixture(scope="module")
def network():
    """Kernels of all kinds, square ones too; a quarter of the weights kept."""
    layers = keras.layers
    given = keras.Input((8, 8, 4))
    x = layers.Conv2D(16, 3, padding="same", use_bias=False, name="conv")(given)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(x))
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = layers.Conv2D(16, 1, activation="relu", name="square")(x)
    x = layers.Flatten(name="flatten")(layers.MaxPooling2D(4, name="pool")(x))
    x = layers.Dense(64, activation="relu", name="hidden")(x)
    model = keras.Model(given, layers.Dense(5, name="logits")(x), name="net")
    draw = np.random.default_rng(1)
    values = masking.values(model)
    for name, value in values.items():
        # Well above what int8 rounds to 0.
        size = draw.uniform(0.5, 1, value.shape) * draw.choice([-1, 1], value.shape)
        keep = draw.random(value.shape) < (0.25 if value.ndim > 1 else 1)
        if "norm" not in name:
            values[name] = (size * keep).astype("float32")
    masking.assign(model, values)
    return model


@pytest.fixture(scope="module")
def written(network, tmp_path_factory):
    done = {}

    def write(name, sparse):
        if (name, sparse) not in done:
            from lotcal_tf.data.splits import ResidentSplit

            labels = np.arange(len(INPUTS)) % 5
            material = Material(INPUTS, labels, ResidentSplit.of(INPUTS, labels))
            row = registry.FORMATS[name]
            path = tmp_path_factory.mktemp("zeros") / row.file
            row.load()(network, path, material=material)
            if sparse:
                path.write_bytes(row.load_encoder()(network, path.read_bytes()))
            done[name, sparse] = path
        return done[name, sparse]

    return write


@pytest.mark.parametrize(("name", "sparse"), ROWS)
def test_every_zero_of_every_kernel_is_found(network, written, name, sparse):
    if "training" in registry.FORMATS[name].needs:
        pytest.skip("fine-tuning may bring more zeros")
    found = zeros.check(written(name, sparse), network)
    kernels = {n[: n.rindex("/")]: v for n, v in masking.values(network).items() if v.ndim > 1}
    assert len(found) == len(kernels)
    for tensor in found:
        # TFLite calls the last layer's kernel by the output's name.
        kernel = kernels.pop(tensor.layer or "logits")
        assert tensor.size == kernel.size
        assert tensor.zeros == (kernel == 0).sum() == (~tensor.nonzero).sum()
        np.testing.assert_array_equal(tensor.nonzero.ravel(), kernel.ravel() != 0)
    assert not kernels
    assert any(tensor.sparse for tensor in found) == sparse
    for tensor in found:
        whole = tensor.size * np.dtype(tensor.dtype).itemsize
        assert tensor.bytes < whole if tensor.sparse else tensor.bytes == whole


@pytest.mark.parametrize(("name", "sparse"), ROWS)
@pytest.mark.parametrize("layer", ["conv", "hidden", "square", "logits"])
def test_a_zero_that_the_file_does_not_have_is_noticed(network, written, name, sparse, layer):
    """The file is as it was; the model it is held against has one weight less."""
    path, values = written(name, sparse), masking.values(network)
    kernel = values[f"{layer}/kernel"].copy()
    stored = next(t for t in zeros.tensors(path) if t.layer == layer or not t.layer)
    kernel[np.unravel_index(stored.nonzero.ravel().argmax(), kernel.shape)] = 0
    fewer = keras.models.clone_model(network)
    masking.assign(fewer, values | {f"{layer}/kernel": kernel})
    with pytest.raises(ExportMismatch, match=r"1 weight\(s\) .*that are 0 in the ticket are not 0"):
        zeros.check(path, fewer)


def test_what_cannot_be_read_is_refused(tmp_path, written):
    whole = written("float32", True).read_bytes()
    for number, contents in enumerate([b"", b"no file at all", whole[: len(whole) // 3]]):
        path = tmp_path / f"{number}.tflite"
        path.write_bytes(contents)
        with pytest.raises(UsageError, match=f"{number}.tflite is no TFLite file that can be read"):
            zeros.tensors(path)
