"""Crops and flips against NumPy's slices, and what is drawn against chance."""

import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf.config.experiment import FIELDS
from lotcal_tf.data.augment import AUGMENTATIONS, crop_flip, draw

SEED = tf.constant([3, 4])
WAYS = 9 * 9 * 2


def images(count=1, shape=(5, 7, 3), dtype=np.uint8):
    """Images without any symmetry, and without a 0."""
    rng = np.random.default_rng(0)
    return rng.integers(1, 256, (count, *shape)).astype(dtype)


def all_ways(image):
    """Every crop of the padded image, as it is and mirrored, by slices: in the order of no draw."""
    height, width, _ = image.shape
    padded = np.pad(image, [(4, 4), (4, 4), (0, 0)])
    crops = [
        padded[top : top + height, left : left + width] for top in range(9) for left in range(9)
    ]
    return crops + [crop[:, ::-1] for crop in crops]


def test_every_name_of_the_field_has_its_function():
    assert tuple(AUGMENTATIONS) == FIELDS["augment"].metadata["choices"]
    assert AUGMENTATIONS[FIELDS["augment"].default] is None


@pytest.mark.parametrize("shape", [(5, 7, 3), (8, 8, 1)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_the_draws_reach_every_crop_and_mirror_image_once(shape, dtype):
    image = images(1, shape, dtype)
    found = crop_flip(tf.repeat(image, WAYS, 0), tf.range(WAYS, dtype=tf.int64)).numpy()
    assert (found.shape, found.dtype) == ((WAYS, *shape), dtype)
    expected = {way.tobytes() for way in all_ways(image[0])}
    assert len(expected) == WAYS
    assert image[0].tobytes() in expected  # among them: nothing moves
    assert {way.tobytes() for way in found} == expected


def test_each_image_is_changed_by_its_own_draw():
    batch, draws = images(6), tf.constant([5, -1, 2**62, -(2**63), 81, 5], tf.int64)
    found = crop_flip(tf.constant(batch), draws).numpy()
    for number in range(6):
        ways = {way.tobytes() for way in all_ways(batch[number])}
        assert found[number].tobytes() in ways
        alone = crop_flip(batch[number : number + 1], draws[number : number + 1])
        np.testing.assert_array_equal(found[number : number + 1], alone)


def test_all_ways_are_equally_likely():
    each = 1000
    ways = np.bincount(draw(SEED, WAYS * each).numpy() % WAYS, minlength=WAYS)
    # Binomial with mean 1000, deviation 31.5: five deviations, for 162 of them.
    assert len(ways) == WAYS
    assert np.abs(ways - each).max() < 5 * np.sqrt(each)
    assert np.std(ways) > 0.7 * np.sqrt(each)  # chance, no counting through


def test_draws_are_the_seeds():
    first = draw(SEED, 64).numpy()
    assert (first.shape, first.dtype) == ((64,), np.int64)
    assert len(set(first)) == 64
    np.testing.assert_array_equal(draw(SEED, 64), first)
    for other in ([3, 5], [4, 4]):
        assert not set(draw(tf.constant(other), 64).numpy()) & set(first)


def test_compiled_and_not_it_gives_the_same():
    def changed(batch, seed):
        return crop_flip(batch, draw(seed, 40))

    batch = tf.constant(images(40))
    expected = changed(batch, SEED)
    assert not np.array_equal(expected, batch)
    for compiled in (True, False):
        found = tf.function(changed, jit_compile=compiled)(batch, SEED)
        np.testing.assert_array_equal(found, expected)


def test_workers_change_their_rows_as_one_alone_does():
    batch, draws = tf.constant(images(10)), draw(SEED, 10)
    parts = [crop_flip(batch[rows], draws[rows]) for rows in (slice(0, 5), slice(5, 10))]
    np.testing.assert_array_equal(tf.concat(parts, 0), crop_flip(batch, draws))
