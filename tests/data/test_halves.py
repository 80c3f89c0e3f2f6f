"""The halves against hashes that `sha256sum` gave, and against what makes them halves."""

import hashlib

import numpy as np
import pytest

from lotcal_tf.data.halves import half_members

# First digits of `printf '\x00' | sha256sum` and so on.
BYTES = {0: "6e34", 1: "4bf5", 2: "dbc1", 3: "084f", 4: "e52d", 5: "e77b", 6: "6758", 7: "ca35"}


def both(inputs, labels):
    return [half_members([(inputs, labels)], half) for half in ("a", "b")]


def images(count, classes, dtype=np.uint8):
    rng = np.random.default_rng(count)
    return rng.integers(0, 256, (count, 3, 4, 2)).astype(dtype), rng.integers(0, classes, count)


def test_the_lower_hashes_of_a_class_are_half_a():
    inputs = np.arange(8, dtype=np.uint8).reshape(8, 1)
    assert all(
        hashlib.sha256(inputs[n].tobytes()).hexdigest().startswith(BYTES[n]) for n in range(8)
    )
    a, b = both(inputs, np.zeros(8, np.int32))
    assert np.flatnonzero(a).tolist() == [0, 1, 3, 6]
    assert np.flatnonzero(b).tolist() == [2, 4, 5, 7]
    # Even and odd numbers as classes: 6e 67 | db e5, and 08 4b | ca e7.
    a, _ = both(inputs, np.arange(8) % 2)
    assert np.flatnonzero(a).tolist() == [0, 1, 3, 6]
    # Classes {0, 1, 3}, of which the lower two, and {2, 4, 5, 6, 7}, of which the lower three.
    a, _ = both(inputs, np.array([0, 0, 1, 0, 1, 1, 1, 1]))
    assert np.flatnonzero(a).tolist() == [1, 2, 3, 6, 7]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_halves_share_nothing_and_every_class_is_cut_in_the_middle(dtype):
    inputs, labels = images(101, 3, dtype)
    a, b = both(inputs, labels)
    assert (a ^ b).all()
    for label in range(3):
        of_a, of_b = (int((labels[half] == label).sum()) for half in (a, b))
        assert of_a - of_b == (of_a + of_b) % 2


def test_an_example_stays_in_its_half_wherever_it_lies():
    inputs, labels = images(60, 4)
    expected = {example.tobytes() for example in inputs[both(inputs, labels)[0]]}
    order = np.random.default_rng(1).permutation(60)
    moved, _ = both(inputs[order], labels[order])
    assert {example.tobytes() for example in inputs[order][moved]} == expected
    pieces = [(inputs[:7], labels[:7]), (inputs[7:50], labels[7:50]), (inputs[50:], labels[50:])]
    np.testing.assert_array_equal(half_members(pieces, "a"), both(inputs, labels)[0])


def test_examples_that_are_equal_are_counted_each():
    inputs, labels = np.zeros((6, 2), np.uint8), np.array([0, 0, 0, 0, 1, 1])
    a, b = both(inputs, labels)
    assert np.bincount(labels[a]).tolist() == np.bincount(labels[b]).tolist() == [2, 1]
