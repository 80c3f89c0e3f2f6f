"""Steps of `lwcc` and `lwcc_si` minimise the pure losses, with the weight they were given."""

import numpy as np
import pytest

from lotcal_tf.calibration import losses
from lotcal_tf.calibration.strategies import LikelihoodWeighted, LikelihoodWeightedStochastic


@pytest.mark.parametrize("weight", [0.0, 0.3, 2.0])
def test_a_step_of_lwcc(make_strategy, step, weight):
    logs, labels, logits, penalty = step(make_strategy(LikelihoodWeighted, calib_weight=weight))
    expected = np.mean(losses.lwcc(labels, logits, weight=weight)) + penalty
    assert float(logs["loss"]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", [LikelihoodWeighted, LikelihoodWeightedStochastic])
def test_a_step_of_the_convex_form(make_strategy, step, kind):
    passes = {"passes": 3} if kind is LikelihoodWeightedStochastic else {}
    strategy = make_strategy(kind, calib_weight=0.8, lwcc_form="convex", **passes)
    logs, labels, logits, penalty = step(strategy)
    loss = losses.lwcc if kind is LikelihoodWeighted else losses.lwcc_si
    expected = np.mean(loss(labels, logits, weight=0.8, form="convex")) + penalty
    assert float(logs["loss"]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("weight", [0.0, 0.3, 2.0])
def test_a_step_of_lwcc_si(make_strategy, step, weight):
    strategy = make_strategy(LikelihoodWeightedStochastic, calib_weight=weight, passes=4)
    logs, labels, logits, penalty = step(strategy)
    assert logits.shape == (4, 12, 3)
    expected = np.mean(losses.lwcc_si(labels, logits, weight=weight)) + penalty
    assert float(logs["loss"]) == pytest.approx(expected, rel=1e-5)
