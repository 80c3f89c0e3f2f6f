"""A `.keras` file gives the ticket's logits."""

import numpy as np
import pytest

from lotcal_tf.errors import UsageError
from lotcal_tf.formats import keras as keras_file


def test_it_comes_back_as_it_was(ticket, inputs, logits, tmp_path):
    keras_file.write(ticket.model(), tmp_path / "a.keras")
    found = keras_file.read(tmp_path / "a.keras")(inputs, training=False)
    np.testing.assert_allclose(found, logits, rtol=1e-5, atol=1e-5)


def test_what_is_no_such_file_is_refused(tmp_path):
    (tmp_path / "a.keras").write_bytes(b"nothing")
    with pytest.raises(UsageError, match=r"a\.keras is no Keras file that can be loaded"):
        keras_file.read(tmp_path / "a.keras")
