"""Every format of the catalog: what is written gives what the model gives; rows are found."""

import numpy as np
import pytest

from lotcal_tf.compat import keras
from lotcal_tf.config import registry
from lotcal_tf.errors import UsageError
from lotcal_tf.formats import keras as keras_file
from lotcal_tf.formats import saved_model, tflite
from lotcal_tf.formats.format import (
    LOGITS,
    PROBABILITIES,
    Material,
    output_name,
    with_softmax,
    without_softmax,
)


def softmax(logits):
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def run(path, inputs):
    """What a written file gives, and what it calls it."""
    if path.suffix == ".keras":
        model = keras_file.read(path)
        return model(inputs, training=False).numpy(), output_name(model)
    runner = tflite.Runner(path) if path.suffix == ".tflite" else saved_model.Runner(path)
    return runner(inputs), runner.output


@pytest.fixture(scope="module", autouse=True)
def short():
    """Few steps of fine-tuning: its own test sees to what it learns."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lotcal_tf.formats.qat._STEPS", 3)
        yield


@pytest.fixture(scope="module")
def material(inputs):
    from lotcal_tf.data.splits import ResidentSplit

    labels = np.arange(len(inputs)) % 3
    return Material(inputs, labels, ResidentSplit.of(inputs, labels), seed=3)


@pytest.fixture(scope="module")
def written(ticket, material, tmp_path_factory):
    """written(format, sparse, softmax) → the file, each made once."""
    done = {}

    def write(name, sparse=False, softmax=False):
        key = (name, sparse, softmax)
        if key not in done:
            row = registry.FORMATS[name]
            path = tmp_path_factory.mktemp("format") / row.file
            model = with_softmax(ticket.model()) if softmax else ticket.model()
            row.load()(model, path, material=material)
            if sparse:
                path.write_bytes(row.load_encoder()(model, path.read_bytes()))
            done[key] = path
        return done[key]

    return write


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize("name", registry.FORMATS)
def test_a_file_gives_the_models_logits(written, name, sparse, inputs, logits):
    row = registry.FORMATS[name]
    if sparse and not row.encoder:
        pytest.skip("has no sparse encoding")
    found, output = run(written(name, sparse), inputs)
    assert output == LOGITS
    if row.tolerance == "float":
        np.testing.assert_allclose(found, logits, rtol=1e-5, atol=1e-5)
    else:
        # Eight bits a layer: some hundredths of the range.
        assert np.abs(found - logits).max() < 0.05 * np.ptp(logits)


@pytest.mark.parametrize("name", registry.FORMATS)
def test_a_file_gives_the_softmax_of_the_same_logits(written, name, inputs):
    found, output = run(written(name, softmax=True), inputs)
    assert output == PROBABILITIES
    # Of the file's own logits: the softmax is float32 in every format, and in none a new source
    # of error.
    own, _ = run(written(name), inputs)
    np.testing.assert_allclose(found, softmax(own), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", registry.FORMATS)
def test_what_a_format_needs_it_says(ticket, name, tmp_path, inputs):
    row = registry.FORMATS[name]
    write = row.load()
    for missing in row.needs:
        given = {"validation": Material(), "training": Material(inputs, np.zeros(len(inputs), int))}
        with pytest.raises(UsageError, match=f"^{name} needs {missing} data: "):
            write(ticket.model(), tmp_path / row.file, material=given[missing])
    if not row.needs:
        write(ticket.model(), tmp_path / row.file, material=Material())
        assert (tmp_path / row.file).exists()


@pytest.mark.parametrize("nested", [False, True])
def test_a_softmax_is_put_behind_and_taken_off_again(ticket, inputs, nested):
    model = ticket.model()
    if nested:
        given = keras.Input((4, 2))
        model = keras.Model(given, model(given))
    logits = model(inputs).numpy()
    extended = with_softmax(model)
    np.testing.assert_allclose(extended(inputs), softmax(logits), rtol=1e-5, atol=1e-7)
    assert (output_name(extended), output_name(model)) == (PROBABILITIES, LOGITS)
    np.testing.assert_array_equal(without_softmax(extended)(inputs), logits)
    assert without_softmax(model) is model
