"""Steps of `lwcc` and `lwcc_si` minimise the pure losses, with the weight and the form they were given."""

import functools

import pytest

from lotcal_tf.calibration import losses
from lotcal_tf.calibration.strategies import LikelihoodWeighted, LikelihoodWeightedStochastic


@pytest.mark.parametrize(
    ("weight", "form"), [(0.0, "additive"), (0.3, "additive"), (2.0, "additive"), (0.8, "convex")]
)
def test_a_step_of_lwcc(make_strategy, minimises, weight, form):
    strategy = make_strategy(LikelihoodWeighted, calib_weight=weight, lwcc_form=form)
    minimises(strategy, functools.partial(losses.lwcc, weight=weight, form=form))


@pytest.mark.parametrize(
    ("weight", "form"), [(0.0, "additive"), (0.3, "additive"), (2.0, "additive"), (0.8, "convex")]
)
def test_a_step_of_lwcc_si(make_strategy, minimises, weight, form):
    given = {"calib_weight": weight, "lwcc_form": form, "passes": 4}
    strategy = make_strategy(LikelihoodWeightedStochastic, **given)
    _, logits = minimises(strategy, functools.partial(losses.lwcc_si, weight=weight, form=form))
    assert logits.shape == (4, 12, 3)
