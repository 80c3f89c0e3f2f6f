"""Outputs: a softmax is added and removed; logits and probabilities are distinguished."""

import numpy as np
import pytest

from lotcal_tf.compat import keras
from lotcal_tf.formats.outputs import (
    LOGITS,
    PROBABILITIES,
    gives_probabilities,
    logits_of,
    output_name,
    with_softmax,
    without_softmax,
)


@pytest.mark.parametrize("nested", [False, True])
def test_a_softmax_is_added_and_removed_again(ticket, inputs, nested):
    model = ticket.model()
    if nested:
        given = keras.Input((4, 2))
        model = keras.Model(given, model(given))
    logits = model(inputs).numpy()
    extended = with_softmax(model)
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    expected = odds / odds.sum(-1, keepdims=True)
    np.testing.assert_allclose(extended(inputs), expected, rtol=1e-5, atol=1e-7)
    assert (output_name(extended), output_name(model)) == (PROBABILITIES, LOGITS)
    np.testing.assert_array_equal(without_softmax(extended)(inputs), logits)
    assert without_softmax(model) is model


class Named:
    def __init__(self, output="", step=0.0):
        self.output, self.step = output, step


SIMPLEX = np.array([[0.25, 0.75], [1.0, 0.0]], np.float32)


@pytest.mark.parametrize(
    ("runner", "outputs", "probable"),
    [
        (Named(), SIMPLEX, True),
        (Named("dense_1"), SIMPLEX, True),
        (Named("logits"), SIMPLEX, False),
        (Named("probabilities"), SIMPLEX * 0.9, True),
        (Named(), SIMPLEX * 0.99, False),
        (Named(), SIMPLEX + np.array([[0.0, 0.0], [0.0001, -0.0001]]), False),
        (Named(), SIMPLEX + np.array([[0.2, -0.2], [0.0, 0.0]]), True),
        # Two integers in steps of 1/256, each off by half a step at most.
        (Named(step=1 / 256), SIMPLEX + 1 / 512, True),
        (Named(step=1 / 256), SIMPLEX + 1 / 128, False),
    ],
)
def test_the_name_decides_else_the_values(runner, outputs, probable):
    assert gives_probabilities(runner, np.asarray(outputs, np.float32)) is probable


def test_the_softmax_of_their_logarithm_is_the_probabilities():
    odds = np.exp(logits_of(SIMPLEX, 0.0))
    np.testing.assert_allclose(odds / odds.sum(1, keepdims=True), SIMPLEX, atol=1e-7)
    assert np.isfinite(logits_of(SIMPLEX, 0.0)).all()
    assert logits_of(SIMPLEX, 1 / 256)[1, 1] == pytest.approx(np.log(1 / 512))
