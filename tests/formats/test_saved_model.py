"""A SavedModel gives the ticket's logits, with nothing of this package needed to run it."""

import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf.errors import UsageError
from lotcal_tf.formats.saved_model import SavedModel, SavedModelRunner


@pytest.fixture(scope="module")
def path(ticket, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "model"
    SavedModel().write(ticket.model(), path)
    return path


def test_logits_are_the_tickets_for_any_batch_size(path, inputs, logits):
    runner = SavedModelRunner(path)
    for batch_size in (1, 10, 23, 1000):
        found = runner(inputs, batch_size)
        assert found.dtype == np.float32 and found.shape == (23, 3)
        np.testing.assert_allclose(found, logits, rtol=1e-5, atol=1e-5)


def test_the_signature_is_what_servers_look_for(path):
    loaded = tf.saved_model.load(str(path))
    assert list(loaded.signatures) == ["serving_default"]
    serve = loaded.signatures["serving_default"]
    (given,) = serve.structured_input_signature[1].values()
    assert (given.name, given.shape.as_list(), given.dtype) == ("inputs", [None, 4, 2], tf.float32)
    assert list(serve.structured_outputs) == ["logits"]
    assert serve.structured_outputs["logits"].shape.as_list() == [None, 3]


def save(path, function, *specs, name="serving_default"):
    module = tf.Module()
    module.serve = tf.function(function, input_signature=specs)
    tf.saved_model.save(module, str(path), signatures={name: module.serve})
    return path


def test_a_models_own_names_types_and_batch_are_kept_to(tmp_path):
    spec = tf.TensorSpec([4, 3], tf.uint8, "pixels")
    path = save(tmp_path / "m", lambda pixels: {"scores": 2 * tf.cast(pixels, tf.float64)}, spec)
    runner = SavedModelRunner(path)
    assert runner.inputs == {"pixels": tf.TensorSpec([4, 3], tf.uint8, "pixels")}
    assert (runner.classes, runner.output, runner.step) == (3, "scores", 0)
    inputs = np.arange(27, dtype=np.float32).reshape(9, 3)
    found = runner(inputs)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, 2 * inputs)


def test_what_cannot_be_run_is_refused(tmp_path):
    spec = tf.TensorSpec([None, 3], tf.float32)
    a = tf.TensorSpec([None, 3], tf.float32, "a")
    wrong = {
        "has no signature serving_default, only: other": save(
            tmp_path / "other", lambda x: {"y": x}, spec, name="other"
        ),
        "inputs a and the outputs y, z: inputs and one output": save(
            tmp_path / "two", lambda a: {"y": a, "z": a}, a
        ),
        "unknown rank": save(tmp_path / "any", lambda x: {"y": x}, tf.TensorSpec(None)),
    }
    for message, path in wrong.items():
        with pytest.raises(UsageError, match=message):
            SavedModelRunner(path)
    with pytest.raises(UsageError, match="not a SavedModel written by export"):
        SavedModel().stored_tensors(wrong["unknown rank"])
