"""Batches: every example once, in its place, of one size where asked; some of them; beside other work."""

import threading
from concurrent.futures import CancelledError

import numpy as np
import pytest

from lotcal_tf.deploy.batches import Beside, in_batches, spread


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


def test_models_run_one_after_another_while_the_caller_goes_on():
    inputs = np.arange(7.0, dtype="float32")[:, None]
    free, seen = threading.Event(), []

    def waiting(batch):
        assert free.wait(30)
        seen.append(len(batch))
        return batch * 2

    def quick(batch):
        seen.append(-len(batch))
        return batch * 3

    with Beside() as beside:
        first, second = beside.run(waiting, inputs, 3), beside.run(quick, inputs, 5)
        assert not first.done()
        free.set()
        assert np.array_equal(first.result(30), inputs * 2)
        assert np.array_equal(second.result(30), inputs * 3)
    assert seen == [3, 3, 1, -5, -2]


def test_an_error_ends_what_runs_within_a_batch_and_leaves_out_the_rest():
    begun, free, seen = threading.Event(), threading.Event(), []

    def slow(batch):
        seen.append("slow")
        begun.set()
        assert free.wait(30)
        return batch

    def never(batch):
        seen.append("never")
        return batch

    def failing():
        with Beside() as beside:
            started = [beside.run(run, np.zeros((9, 1), "float32"), 3) for run in (slow, never)]
            runs.extend(started)
            begun.wait(30)
            threading.Timer(0.2, free.set).start()
            raise KeyboardInterrupt

    runs = []
    with pytest.raises(KeyboardInterrupt):
        failing()
    assert seen == ["slow"]
    for run in runs:
        with pytest.raises(CancelledError):
            run.result(0)
