"""A `.tflite` file gives the ticket's logits by LiteRT alone."""

import logging

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from lotcal_tf.deploy import saved_model, tflite


@pytest.fixture(scope="module")
def path(ticket, tmp_path_factory):
    directory = tmp_path_factory.mktemp("tflite")
    saved_model.write(ticket.model(), directory / "saved_model")
    tflite.write(directory / "saved_model", directory / "ticket.tflite")
    return directory / "ticket.tflite"


@pytest.mark.parametrize("batch_size", [1, 10, 23, 1000])
def test_logits_are_the_tickets_whatever_the_batch(path, inputs, logits, batch_size):
    found = tflite.logits(path, inputs, batch_size)
    assert found.dtype == np.float32 and found.shape == (23, 3)
    np.testing.assert_allclose(found, logits, rtol=1e-5, atol=1e-5)


def test_input_and_output_are_plain_float32(path):
    interpreter = Interpreter(str(path))
    (given,), (found,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert (list(given["shape_signature"]), given["dtype"]) == ([-1, 4, 2], np.float32)
    assert (list(found["shape_signature"]), found["dtype"]) == ([-1, 3], np.float32)


def test_the_converters_silence_does_not_outlast_it(tmp_path, monkeypatch):
    logger = logging.getLogger("absl")
    monkeypatch.setattr(logger, "level", logging.DEBUG)
    with pytest.raises(OSError):
        tflite.write(tmp_path / "nothing here", tmp_path / "ticket.tflite")
    assert logger.level == logging.DEBUG
    assert not (tmp_path / "ticket.tflite").exists()
