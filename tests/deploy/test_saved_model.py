"""A SavedModel gives the ticket's logits, with nothing of this package needed to run it."""

import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf.deploy import saved_model


@pytest.fixture(scope="module")
def path(ticket, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "model"
    saved_model.write(ticket.model(), path)
    return path


@pytest.mark.parametrize("batch_size", [1, 10, 23, 1000])
def test_logits_are_the_tickets_whatever_the_batch(path, inputs, logits, batch_size):
    found = saved_model.logits(path, inputs, batch_size)
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
