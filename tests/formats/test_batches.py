"""Batches: every example once, in its place, of one size where asked; and some of them."""

import numpy as np
import pytest

from lotcal_tf.formats.batches import in_batches, spread


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


@pytest.mark.parametrize(
    ("count", "wanted", "places"), [(10, 4, [0, 3, 6, 9]), (3, 500, [0, 1, 2]), (9, 2, [0, 8])]
)
def test_some_examples_lie_all_over_them(count, wanted, places):
    assert spread(count, wanted).tolist() == places
