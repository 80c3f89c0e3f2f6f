"""A step of `vwcc` minimises the pure loss of T passes."""

import numpy as np
import pytest

from lotcal_tf.calibration import losses
from lotcal_tf.calibration.strategies import VarianceWeighted
from tests.calibration.conftest import LABELS


@pytest.mark.parametrize("passes", [2, 5])
def test_a_step_minimises_the_loss_of_its_passes(make_strategy, minimises, passes):
    logs, logits = minimises(make_strategy(VarianceWeighted, passes=passes), losses.vwcc)
    assert logits.shape == (passes, 12, 3)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    assert float(logs["accuracy"]) == pytest.approx(np.mean(p.mean(0).argmax(-1) == LABELS))


def test_every_step_has_masks_of_its_own(make_strategy, minimises):
    same, again, other = (
        float(minimises(make_strategy(VarianceWeighted, passes=3), losses.vwcc, seed)[0]["loss"])
        for seed in [(1, 2), (1, 2), (1, 3)]
    )
    assert same == again != other
