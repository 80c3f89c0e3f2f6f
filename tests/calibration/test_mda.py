"""A step of `mda` minimises the pure loss, with the weight and the prior it was given."""

import functools

import pytest

from lotcal_tf.calibration import losses
from lotcal_tf.calibration.strategies import MarginalDistributionAlignment


@pytest.mark.parametrize("weight", [0.0, 2.0])
@pytest.mark.parametrize("prior", [(), (0.7, 0.1, 0.2)])
def test_a_step_minimises_the_loss_of_its_logits(make_strategy, minimises, weight, prior):
    strategy = make_strategy(MarginalDistributionAlignment, calib_weight=weight, prior=prior)
    minimises(strategy, functools.partial(losses.mda, weight=weight, prior=prior))
