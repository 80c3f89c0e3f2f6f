"""A `.keras` file gives the ticket's logits; a model that cannot be saved is refused."""

import numpy as np
import pytest

from lotcal_tf.compat import keras
from lotcal_tf.errors import UsageError
from lotcal_tf.formats import keras as keras_file
from lotcal_tf.formats.keras import KerasFile, KerasRunner


def test_it_comes_back_as_it_was(ticket, inputs, logits, tmp_path):
    KerasFile().write(ticket.model(), tmp_path / "a.keras")
    found = keras_file.read(tmp_path / "a.keras")(inputs, training=False)
    np.testing.assert_allclose(found, logits, rtol=1e-5, atol=1e-5)


def test_a_model_in_memory_runs_in_batches(ticket, inputs, logits):
    runner = KerasRunner(ticket.model())
    (spec,) = runner.inputs.values()
    assert (spec.shape[1:], spec.dtype) == ((4, 2), "float32")
    assert (runner.classes, runner.output, runner.step) == (3, "logits", 0)
    np.testing.assert_allclose(runner(inputs, 10), logits, rtol=1e-5, atol=1e-5)


def test_a_layer_without_configuration_is_refused(ticket, tmp_path):
    class Odd(keras.layers.Layer):
        def get_config(self):
            raise NotImplementedError("no configuration")

    given = keras.Input((3,))
    with pytest.raises(UsageError, match=r"cannot be saved as a \.keras file"):
        KerasFile().write(keras.Model(given, Odd()(given)), tmp_path / "a.keras")
