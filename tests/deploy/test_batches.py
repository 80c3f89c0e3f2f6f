"""Batches: every example once and in its place, and of one size where that is asked for."""

import numpy as np
import pytest

from lotcal_tf.deploy.batches import in_batches


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("size", "sizes"), [(3, [3, 3, 1]), (7, [7]), (10, [7])])
def test_every_example_comes_once_and_in_its_place(size, sizes, full):
    inputs = np.arange(14, dtype="float32").reshape(7, 2)
    seen = []

    def run(batch):
        seen.append(len(batch))
        return batch * 2

    assert np.array_equal(in_batches(run, inputs, size, full=full), inputs * 2)
    assert seen == ([size] * len(sizes) if full else sizes)
