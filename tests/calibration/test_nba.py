"""A step of `nba` minimises the pure loss, with the weight, the bins and the width it was given."""

import functools

import pytest

from lotcal_tf.calibration import losses
from lotcal_tf.calibration.strategies import NormalisedBinAssignment


@pytest.mark.parametrize(
    ("weight", "bins", "width"), [(0.0, 10, 0.02), (2.0, 10, 0.02), (2.0, 4, 0.3)]
)
def test_a_step_minimises_the_loss_of_its_logits(make_strategy, minimises, weight, bins, width):
    given = {"calib_weight": weight, "nba_bins": bins, "nba_width": width}
    oracle = functools.partial(losses.nba, weight=weight, bins=bins, width=width)
    minimises(make_strategy(NormalisedBinAssignment, **given), oracle)
