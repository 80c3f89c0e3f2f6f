import numpy as np
import pytest

from lotcal_tf.pruning.rewind import Rewind, masked_start


@pytest.mark.parametrize(
    "text, expected",
    [
        ("init", Rewind("init", 0)),
        ("random", Rewind("random", 0)),
        ("none", Rewind("none", 0)),
        ("step:500", Rewind("late", 500)),
        ("epoch:3", Rewind("late", 3 * 29)),
    ],
)
def test_parse(text, expected):
    assert Rewind.parse(text, steps_per_epoch=29) == expected


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_survivors_are_bit_equal_and_pruned_weights_plus_zero(dtype):
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(6, 5)).astype(dtype)
    kernel[0, :3] = [-0.0, np.finfo(dtype).smallest_subnormal, np.finfo(dtype).max]
    kernel[1, :2] = [-np.inf, -1.0]
    mask = rng.random((6, 5)) < 0.5
    mask[0, :3], mask[1, :2] = True, False
    started = masked_start({"d/kernel": kernel}, {"d/kernel": mask})["d/kernel"]
    assert started.dtype == kernel.dtype
    bits = f"u{kernel.itemsize}"
    np.testing.assert_array_equal(started.view(bits)[mask], kernel.view(bits)[mask])
    assert not started.view(bits)[~mask].any()  # All bits 0: neither -0 nor inf * 0.


def test_weights_without_a_mask_start_whole():
    start = {"d/kernel": np.ones((2, 2)), "d/bias": np.array([3.0, -4.0])}
    started = masked_start(start, {"d/kernel": np.zeros((2, 2), bool)})
    assert list(started) == ["d/kernel", "d/bias"]
    np.testing.assert_array_equal(started["d/bias"], [3.0, -4.0])


def test_what_is_rewound_to_is_not_changed():
    start = {"d/kernel": np.ones((2, 2))}
    masked_start(start, {"d/kernel": np.zeros((2, 2), bool)})
    np.testing.assert_array_equal(start["d/kernel"], np.ones((2, 2)))
