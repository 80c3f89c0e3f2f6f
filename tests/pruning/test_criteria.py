"""Every criterion's scores by hand, on a state made of arrays."""

import numpy as np
import pytest

from lotcal_tf.config.registry import CRITERIA
from lotcal_tf.errors import FieldError
from lotcal_tf.pruning.criteria import Criterion, State

WEIGHTS = {"a": np.array([[1.0, -2.0], [0.0, 4.0]]), "b": np.array([-3.0, 0.5])}
REWIND = {"a": np.array([[2.0, -1.0], [7.0, 1.0]]), "b": np.array([3.0, -0.25])}
GRADIENT = {"a": np.array([[-1.0, 0.5], [9.0, 0.25]]), "b": np.array([2.0, -8.0])}
MASKS = {"a": np.array([[True, True], [False, True]]), "b": np.ones(2, bool)}


def state(level=3, round=0, seed=0, asked=None):
    def gradient(of):
        (asked if asked is not None else []).append(of)
        return GRADIENT

    return State(WEIGHTS, MASKS, REWIND, lambda: None, gradient, seed, level, round)


def scores(name, found=None, **given):
    return CRITERIA[name].load()(**given).scores(found or state())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("magnitude", {"a": [[1, 2], [0, 4]], "b": [3, 0.5]}),
        ("magnitude_increase", {"a": [[-1, 1], [-7, 3]], "b": [0, 0.25]}),
        ("gradient", {"a": [[1, 1], [0, 1]], "b": [6, 4]}),
    ],
)
def test_scores_by_hand(name, expected):
    found = scores(name)
    assert found.keys() == expected.keys()
    for path, values in expected.items():
        np.testing.assert_array_equal(found[path], values)


@pytest.mark.parametrize("of", ["loss", "calibration", "validation_nll"])
def test_the_gradient_is_of_what_is_asked_for(of):
    asked = []
    scores("gradient", state(asked=asked), gradient_of=of)
    assert asked == [of]


def test_random_scores_are_a_function_of_seed_level_and_round():
    first = scores("random", state())
    np.testing.assert_array_equal(scores("random", state())["a"], first["a"])
    for other in (state(level=4), state(round=1), state(seed=1)):
        assert not np.array_equal(scores("random", other)["a"], first["a"])
    flat = np.concatenate([value.ravel() for value in first.values()])
    assert ((flat >= 0) & (flat < 1)).all()
    assert len(set(flat)) == flat.size, "tensors draw apart"


@pytest.mark.parametrize("name", CRITERIA)
def test_every_criterion_scores_every_masked_weight(name):
    found = scores(name)
    assert {path: value.shape for path, value in found.items()} == {
        path: mask.shape for path, mask in MASKS.items()
    }
    assert all(np.isfinite(value).all() for value in found.values())


def test_a_hyperparameter_is_checked():
    with pytest.raises(FieldError, match=r"^gradient_of=other: choose one of loss"):
        CRITERIA["gradient"].load()(gradient_of="other")


def test_a_criterion_must_score():
    with pytest.raises(TypeError, match="must override scores"):
        Criterion().scores(state())
