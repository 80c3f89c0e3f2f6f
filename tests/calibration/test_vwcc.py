"""A step of `vwcc` minimises the pure loss of T passes."""

import numpy as np
import pytest

from lotcal_tf.calibration import losses
from lotcal_tf.calibration.strategies import VarianceWeighted


@pytest.mark.parametrize("passes", [2, 5])
def test_a_step_reports_the_loss_of_its_passes(make_strategy, step, passes):
    logs, labels, logits, penalty = step(make_strategy(VarianceWeighted, passes=passes))
    assert logits.shape == (passes, 12, 3)
    expected = np.mean(losses.vwcc(labels, logits)) + penalty
    assert float(logs["loss"]) == pytest.approx(expected, rel=1e-5)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    assert float(logs["accuracy"]) == pytest.approx(np.mean(p.mean(0).argmax(-1) == labels))


def test_every_step_has_masks_of_its_own(make_strategy, step):
    same, again, other = (
        float(step(make_strategy(VarianceWeighted, passes=3), seed)[0]["loss"])
        for seed in [(1, 2), (1, 2), (1, 3)]
    )
    assert same == again != other
