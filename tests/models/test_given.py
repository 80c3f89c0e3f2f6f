"""A model of the caller becomes a tf_keras model that gives logits, from an object or a file."""

import keras as keras3
import numpy as np
import pytest

from lotcal_tf.compat import keras
from lotcal_tf.errors import UsageError
from lotcal_tf.models.given import GivenModel

ROWS = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")


def classifier(found):
    return found.Sequential([found.Input((4,)), found.layers.Dense(3, "softmax")], name="mine")


@pytest.mark.parametrize("found", [keras, keras3])
@pytest.mark.parametrize("in_file", [True, False])
def test_every_way_gives_the_same_logits(found, in_file, tmp_path):
    model = classifier(found)
    model.save(tmp_path / "a.keras")
    given = GivenModel.of(tmp_path / "a.keras" if in_file else model)
    logits = given.model(ROWS).numpy()
    odds = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(odds, np.asarray(model(ROWS)), atol=1e-6)
    assert given.name == "mine" and len(given.notes) == 1 and "'mine'" in given.notes[0]
    assert GivenModel.of(given) is given
    given.check(ROWS)


def test_a_twin_with_other_outputs_is_refused():
    model = classifier(keras3)
    given = GivenModel.of(model)
    model.layers[-1].kernel.assign(model.layers[-1].kernel * 1.01)
    with pytest.raises(UsageError, match="'mine'.*differ by"):
        given.check(ROWS)


def test_logits_stay_as_they_are():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    given = GivenModel.of(model)
    assert given.model is model and not given.notes
    given.check(ROWS)
