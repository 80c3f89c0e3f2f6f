"""Models in the background: one after another, and no longer than they are wanted."""

import threading
from concurrent.futures import CancelledError

import numpy as np
import pytest

from lotcal_tf.deploy.background import Background


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

    with Background() as background:
        first, second = background.run(waiting, inputs, 3), background.run(quick, inputs, 5)
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
        with Background() as background:
            started = [background.run(run, np.zeros((9, 1), "float32"), 3) for run in (slow, never)]
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
