import hashlib
import itertools
import struct
import threading
import zlib

import numpy as np
import pytest

from lotcal_tf.seeds import draw_seed, generator, in_step, named_seed, next_seed, step_seed

INT32 = 2**31


def by_hand(text):
    """The first two little-endian words of the text's SHA-256, their lowest bits dropped."""
    high, low = struct.unpack("<II", hashlib.sha256(text.encode()).digest()[:8])
    return high // 2, low // 2


@pytest.mark.parametrize(
    ("arguments", "text"),
    [((0, "shuffle", 3, 7), "0/shuffle/3/7"), ((12, "initial"), "12/initial")],
)
def test_named_seed_is_a_function_of_its_name(arguments, text):
    # For ever: another function would leave no stored run that can be continued.
    assert named_seed(*arguments) == named_seed(*arguments) == by_hand(text)


def test_every_use_and_place_has_a_seed_of_its_own():
    places = itertools.product((0, 1, 11), ("shuffle", "steps"), (0, 1, 11), (0, 1, 11))
    found = [named_seed(*place) for place in places]
    assert len(set(found)) == len(found) == 54
    # Both halves take part: each is 31 bits, of which 54 draws should not agree in one.
    for half in zip(*found, strict=True):
        assert len(set(half)) == 54
        assert min(half) >= 0
        assert INT32 // 2 < max(half) < INT32


def test_generators_of_one_name_agree_whatever_else_was_drawn():
    first = generator(5, "validation", 1)
    generator(5, "test", 1).random(100)
    np.random.default_rng().random(100)
    again = generator(5, "validation", 1)
    drawn = first.random(4)
    np.testing.assert_array_equal(drawn, again.random(4))
    philox = np.random.Philox(key=list(named_seed(5, "validation", 1)))
    np.testing.assert_array_equal(drawn, np.random.Generator(philox).random(4))
    assert not np.array_equal(drawn, generator(5, "test", 1).random(4))


def test_draw_seed_shifts_the_steps_seed_by_the_use():
    with step_seed(np.array([3, 4], np.int32)):
        shift = zlib.crc32(b"dropout") % 2**30
        np.testing.assert_array_equal(draw_seed("dropout"), [3 + shift, 4])
        assert draw_seed("dropout")[0] != draw_seed("dropout_1")[0]


def test_step_seeds_nest_and_end_also_by_an_error():
    with step_seed(np.array([0, 1], np.int32)):
        with pytest.raises(ZeroDivisionError), step_seed(np.array([0, 2], np.int32)):
            assert draw_seed("a")[1] == 2
            raise ZeroDivisionError
        assert draw_seed("a")[1] == 1
    with pytest.raises(RuntimeError, match=r"^'mask' draws random numbers only inside"):
        draw_seed("mask")


def test_draws_of_one_name_are_numbered_within_a_step():
    assert not in_step()
    with pytest.raises(RuntimeError, match="draws random numbers only inside"):
        next_seed("a")
    steps = []
    for _ in range(2):
        with step_seed(np.array([0, 1], np.int32)):
            assert in_step()
            steps.append([tuple(next_seed(name)) for name in ("a", "b", "a")])
    assert steps[0] == steps[1]
    assert len(set(steps[0])) == 3


def test_a_step_seed_belongs_to_its_thread():
    found = []

    def draw():
        try:
            found.append(draw_seed("a"))
        except RuntimeError:
            found.append(None)

    with step_seed(np.array([0, 1], np.int32)):
        thread = threading.Thread(target=draw)
        thread.start()
        thread.join()
    assert found == [None]


def test_one_tracing_draws_anew_every_step():
    import tensorflow as tf

    traced = []

    @tf.function
    def draw(seed):
        traced.append(seed)
        with step_seed(seed):
            return tf.random.stateless_uniform([4], draw_seed("dropout"))

    first, second, again = (draw(tf.constant([9, step])).numpy() for step in (0, 1, 0))
    assert len(traced) == 1
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, second)
