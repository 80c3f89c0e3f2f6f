"""Contract of every registered format: a new row in the registry is tested because it is there."""

import numpy as np
import pytest

from lotcal_tf.compat import keras
from lotcal_tf.config import registry
from lotcal_tf.data.splits import ResidentSplit
from lotcal_tf.errors import ExportMismatch, UsageError
from lotcal_tf.evaluation.open_model import open_model
from lotcal_tf.formats import zeros
from lotcal_tf.formats.format import Format, Material
from lotcal_tf.formats.outputs import LOGITS, PROBABILITIES, with_softmax
from lotcal_tf.pruning import masking

ENCODED = [
    pytest.param(name, sparse, id=f"{name}-{'sparse' if sparse else 'dense'}")
    for name, row in registry.FORMATS.items()
    for sparse in ([False, True] if row.sparse else [False])
]
INPUTS = np.random.default_rng(0).normal(size=(8, 8, 8, 4)).astype("float32")
LABELS = np.arange(len(INPUTS), dtype="int32") % 5


@pytest.fixture(scope="module")
def network():
    """Kernels of all kinds, square ones too; a quarter of the weights is left."""
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
    """written(name, sparse, softmax) → the file, which is written once."""
    material = Material(INPUTS, LABELS, ResidentSplit.of(INPUTS, LABELS), seed=3, examples=INPUTS)
    paths = {}

    def write(name, sparse=False, softmax=False):
        key = (name, sparse, softmax)
        if key not in paths:
            row = registry.FORMATS[name]
            path = tmp_path_factory.mktemp("format") / row.file
            if sparse:
                path.write_bytes(row.load().encode(network, write(name).read_bytes(), material))
            else:
                # Few steps of fine-tuning: test_qat tests its result.
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr("lotcal_tf.formats.qat.STEPS", 3)
                    model = with_softmax(network) if softmax else network
                    row.load().write(model, path, material)
            paths[key] = path
        return paths[key]

    return write


@pytest.fixture(scope="module")
def outputs(written):
    """outputs(name, sparse, softmax) → name and values of what the file gives for INPUTS."""
    done = {}

    def run(*key, **flags):
        path = written(*key, **flags)
        if path not in done:
            runner = open_model(path, trust_saved_model=True).runner
            (spec,) = runner.inputs.values()
            assert (spec.shape[1:], spec.dtype, runner.classes) == ((8, 8, 4), "float32", 5)
            done[path] = runner.output, runner(INPUTS)
        return done[path]

    return run


# The row


@pytest.mark.parametrize("name", registry.FORMATS)
def test_a_row_names_a_documented_format(name):
    row = registry.FORMATS[name]
    file_format = row.load()
    assert isinstance(file_format, Format) and type(file_format).__doc__
    assert row.summary.strip() and "\n" not in row.summary
    assert set(row.needs) <= {"validation", "training"}
    assert [other.file for other in registry.FORMATS.values()].count(row.file) == 1
    assert (type(file_format).encode is not Format.encode) or not row.sparse
    assert (type(file_format).encode_blocks is not Format.encode_blocks) or not row.blocks


@pytest.mark.parametrize("name", registry.FORMATS)
def test_a_file_is_recognised(name, written):
    row, path = registry.FORMATS[name], written(name)
    opened = open_model(path, trust_saved_model=True)
    assert opened.kind == row.kind
    # Formats of one kind share the code that runs and reads them.
    first = registry.format_of(path)
    for method in ("runner", "stored_tensors"):
        assert getattr(type(first.load()), method) is getattr(type(row.load()), method)
    assert row.recognised_by in registry.accepted_files()


@pytest.mark.parametrize("name", registry.FORMATS)
def test_missing_data_is_named(network, name, tmp_path):
    row = registry.FORMATS[name]
    given = {"validation": Material(), "training": Material(INPUTS, LABELS)}
    for missing in row.needs:
        with pytest.raises(UsageError, match=f"^{name} needs {missing} data"):
            row.load().write(network, tmp_path / row.file, given[missing])
    if not row.needs:
        row.load().write(network, tmp_path / row.file)
        assert (tmp_path / row.file).exists()


# The outputs


@pytest.mark.parametrize(("name", "sparse"), ENCODED)
def test_a_file_gives_the_logits_of_the_network(network, outputs, name, sparse):
    output, found = outputs(name, sparse)
    logits = network(INPUTS, training=False).numpy()
    assert output == LOGITS and found.dtype == np.float32
    if registry.FORMATS[name].quantised:
        # Eight bits per layer: some hundredths of the range.
        assert np.abs(found - logits).max() < 0.05 * np.ptp(logits)
        assert np.array_equal(found, outputs(name)[1]), "sparse encoding changes nothing"
    else:
        np.testing.assert_allclose(found, logits, rtol=1e-5, atol=1e-5 * np.ptp(logits))


@pytest.mark.parametrize("name", registry.FORMATS)
def test_a_softmax_is_computed_in_float32(outputs, name):
    output, found = outputs(name, softmax=True)
    assert output == PROBABILITIES
    logits = outputs(name)[1]
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    np.testing.assert_allclose(found, odds / odds.sum(-1, keepdims=True), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("name", "sparse"), ENCODED)
def test_logits_can_be_divided_in_the_file(written, outputs, name, sparse, tmp_path):
    row, path = registry.FORMATS[name], written(name, sparse)
    file_format = row.load()
    content = file_format.divide_logits(path, 2.0)
    if content is None:
        assert not row.quantised, "its temperature could not be fitted"
        return
    divided = tmp_path / row.file
    divided.write_bytes(content)
    # A power of 2 changes no digit.
    np.testing.assert_array_equal(file_format.runner(divided)(INPUTS), outputs(name, sparse)[1] / 2)
    assert file_format.logit_step(divided) == file_format.logit_step(path) / 2


# The zeros


@pytest.mark.parametrize(("name", "sparse"), ENCODED)
def test_every_zero_of_every_kernel_is_found(network, written, name, sparse):
    row = registry.FORMATS[name]
    tensors = row.load().stored_tensors(written(name, sparse))
    zeros.check(row.file, tensors, network)
    kernels = {n[: n.rindex("/")]: v for n, v in masking.kernels(network).items()}
    assert len(tensors) == len(kernels)
    for tensor in tensors:
        # TFLite calls the last layer's kernel by the output's name.
        kernel = kernels.pop(tensor.layer or "logits")
        assert tensor.size == kernel.size
        assert tensor.zeros == (~tensor.nonzero).sum()
        if "training" in row.needs:  # Fine-tuning may add zeros.
            assert not (tensor.nonzero.ravel() & (kernel.ravel() == 0)).any()
        else:
            np.testing.assert_array_equal(tensor.nonzero.ravel(), kernel.ravel() != 0)
    assert any(tensor.sparse for tensor in tensors) == sparse


@pytest.mark.parametrize(("name", "sparse"), ENCODED)
def test_a_lost_zero_is_found(network, written, name, sparse):
    """The file is unchanged; the network that it is compared with has one more zero."""
    row, values = registry.FORMATS[name], masking.values(network)
    tensors = row.load().stored_tensors(written(name, sparse))
    fewer = keras.models.clone_model(network)
    for layer in ("conv", "hidden", "square", "logits"):
        kernel = values[f"{layer}/kernel"].copy()
        stored = next(tensor for tensor in tensors if tensor.layer in (layer, ""))
        kernel[np.unravel_index(stored.nonzero.ravel().argmax(), kernel.shape)] = 0
        masking.assign(fewer, values | {f"{layer}/kernel": kernel})
        with pytest.raises(ExportMismatch, match=rf"^{row.file}: 1 weight.* 0 in the ticket"):
            zeros.check(row.file, tensors, fewer)


@pytest.mark.parametrize("name", registry.FORMATS)
def test_a_damaged_file_is_refused(written, name, tmp_path):
    """Cut short, empty, or of another kind altogether."""
    row, path = registry.FORMATS[name], written(name)
    place = tmp_path / row.file / row.marker
    place.parent.mkdir(exist_ok=True)
    whole = (path / row.marker).read_bytes()
    for content in (b"", b"not a model at all", whole[: len(whole) // 3]):
        place.write_bytes(content)
        for read in (open_model, row.load().stored_tensors):
            with pytest.raises(UsageError, match=row.file) as caught:
                read(tmp_path / row.file)
            assert "\n" not in str(caught.value)
