from fractions import Fraction

import numpy as np
import pytest

from lotcal_tf.errors import UsageError
from lotcal_tf.pruning.selection import (
    count,
    global_count,
    local_counts,
    openlth_count,
    possible_rounds,
    prune,
    survivors,
)


def prune_local(weights, masks, rates, rounds=1):
    """By magnitude, in each tensor."""
    return prune(magnitudes(weights), masks, local_counts(survivors(masks), rates), rounds)


def prune_global(weights, masks, rate, rounds=1):
    """By magnitude, all tensors together."""
    return prune(magnitudes(weights), masks, global_count(survivors(masks), rate), rounds)


def magnitudes(weights):
    return lambda masks: {name: np.abs(weights[name]) for name in masks}


def exact(rate, survivors):
    """round(rate × survivors), halves up, in exact arithmetic: the rate is what its decimals say."""
    return (Fraction(str(rate)) * survivors + Fraction(1, 2)).__floor__()


def ranked(weights, masks):
    """Survivors as (tensor, flat index): magnitude, then tensor in model order, then index."""
    places = [
        (abs(float(weights[name].flat[place])), number, place)
        for number, name in enumerate(masks)
        for place in range(masks[name].size)
        if masks[name].flat[place]
    ]
    return [(list(masks)[number], place) for _, number, place in sorted(places)]


def greedy(weights, masks, number):
    """Takes `number` weights, smallest first, never a tensor's last: (taken, tensors passed over)."""
    left = {name: int(mask.sum()) for name, mask in masks.items()}
    taken, passed = [], set()
    for name, place in ranked(weights, masks):
        if len(taken) == number:
            break
        if left[name] == 1:
            passed.add(name)
        else:
            taken.append((name, place))
            left[name] -= 1
    return taken, passed


def removed_places(before, after):
    assert list(before) == list(after)
    places = [
        (name, place)
        for name in before
        for place in range(before[name].size)
        if before[name].flat[place] and not after[name].flat[place]
    ]
    for name in before:
        assert after[name].dtype == bool
        assert not (after[name] & ~before[name]).any()  # None comes back.
    return places


def random_case(seed):
    """Some tensors of few different magnitudes, so that ties abound, pruned already here and there."""
    rng = np.random.default_rng(seed)
    shapes = [tuple(rng.integers(1, 6, size=rng.integers(1, 4))) for _ in range(rng.integers(1, 5))]
    names = [f"{letter}/kernel" for letter in rng.permutation(list("abcd"))[: len(shapes)]]
    weights = {
        name: rng.integers(-3, 4, size=shape).astype(np.float32)
        for name, shape in zip(names, shapes, strict=True)
    }
    masks = {name: rng.random(weight.shape) < 0.8 for name, weight in weights.items()}
    for mask in masks.values():
        mask.flat[0] = True  # A tensor is never empty.
    return rng, weights, masks


def masks_of(*sizes):
    return {name: np.ones(size, bool) for name, size in zip("abc", sizes, strict=False)}


def test_count():
    assert count({"a": np.array([True, False]), "b": np.ones((2, 3), bool)}) == 7


@pytest.mark.parametrize("scope", ["local", "global"])
def test_by_hand(scope):
    weights = {
        "a": np.array([[0.1, -0.9], [3.0, -0.4], [5.0, 6.0]]),
        "b": np.array([0.2, -0.3, 0.0, 7.0]),
    }
    masks = {"a": np.ones((3, 2), bool), "b": np.array([True, True, False, True])}
    if scope == "local":
        # 0.25 × 6 = 1.5 → 2 of `a`; 0.5 × 3 = 1.5 → 2 of `b`. The dead 0.0 is not ranked.
        pruned = prune_local(weights, masks, {"a": 0.25, "b": 0.5})
        expected = [("a", 0), ("a", 3), ("b", 0), ("b", 1)]
    else:
        pruned = prune_global(weights, masks, 0.3)  # 0.3 × 9 = 2.7 → 3 of .1, .2, .3, .4, .9, …
        expected = [("a", 0), ("b", 0), ("b", 1)]
    assert removed_places(masks, pruned.masks) == expected
    assert pruned.removed == len(expected)
    assert pruned.protected == ()


def test_ties_go_by_tensor_in_model_order_then_by_lower_index():
    weights = {"z": np.array([1.0, -1.0, 1.0]), "a": np.array([1.0, -0.5, -1.0])}
    masks = {"z": np.ones(3, bool), "a": np.ones(3, bool)}
    pruned = prune_global(weights, masks, 0.5)
    assert removed_places(masks, pruned.masks) == [("z", 0), ("z", 1), ("a", 1)]
    pruned = prune_local(weights, masks, {"z": 0.34, "a": 0.67})
    assert removed_places(masks, pruned.masks) == [("z", 0), ("a", 0), ("a", 1)]


@pytest.mark.parametrize("seed", range(150))
def test_local_agrees_with_brute_force(seed):
    rng, weights, masks = random_case(seed)
    rates = {name: float(rng.choice([0.0, 0.1, 0.2, 0.25, 0.5, 0.75, 0.9])) for name in masks}
    expected, protected = [], []
    for name, mask in masks.items():
        taken, passed = greedy(weights, {name: mask}, exact(rates[name], mask.sum()))
        expected += sorted(taken)
        protected += passed
    if not expected:
        with pytest.raises(UsageError):
            prune_local(weights, masks, rates)
        return
    pruned = prune_local(weights, masks, rates)
    assert removed_places(masks, pruned.masks) == expected
    assert pruned.removed == len(expected)
    assert pruned.protected == tuple(protected)


@pytest.mark.parametrize("seed", range(150))
def test_global_agrees_with_brute_force(seed):
    rng, weights, masks = random_case(1000 + seed)
    rate = float(rng.choice([0.05, 0.2, 0.25, 0.5, 0.75, 0.9]))
    number = exact(rate, count(masks))
    taken, passed = greedy(weights, masks, number)
    if number == 0 or len(taken) < number:
        with pytest.raises(UsageError):
            prune_global(weights, masks, rate)
        return
    pruned = prune_global(weights, masks, rate)
    order = list(masks)
    expected = sorted(taken, key=lambda place: (order.index(place[0]), place[1]))
    assert removed_places(masks, pruned.masks) == expected
    assert pruned.removed == number
    assert pruned.protected == tuple(name for name in order if name in passed)


def test_global_spares_the_last_survivor_and_takes_the_next_smallest_elsewhere():
    weights = {"a": np.array([0.1, 0.2]), "b": np.array([1.0, 2.0, 3.0]), "c": np.array([9.0])}
    masks = masks_of(2, 3, 1)
    pruned = prune_global(weights, masks, 0.5)  # Three: .1, then 1.0 and 2.0 in place of .2.
    assert removed_places(masks, pruned.masks) == [("a", 0), ("b", 0), ("b", 1)]
    assert pruned.protected == ("a",)  # The turn of `c` did not come.
    pruned = prune_global(weights, masks, 0.3)  # Two: .1 and, in place of .2, 1.0.
    assert removed_places(masks, pruned.masks) == [("a", 0), ("b", 0)]
    assert pruned.protected == ("a",)
    assert prune_global(weights, masks, 0.1).protected == ()  # One: it is not .2's turn.


def test_local_spares_the_last_survivor():
    weights = {"a": np.array([1.0, 2.0]), "b": np.array([5.0, 4.0, 3.0, 2.0])}
    masks = masks_of(2, 4)
    pruned = prune_local(weights, masks, {"a": 0.75, "b": 0.75})  # 1.5 → 2 of 2; 3 of 4.
    assert removed_places(masks, pruned.masks) == [("a", 0), ("b", 1), ("b", 2), ("b", 3)]
    assert pruned.protected == ("a",)


def test_nothing_left_to_prune_is_an_error():
    weights = {"a": np.array([1.0, 2.0]), "b": np.array([3.0])}
    for masks, rate in [
        (masks_of(1, 1), 0.9),  # Two are asked for, both are last survivors.
        (masks_of(2, 1), 0.5),  # Two are asked for, one can go.
        (masks_of(2), 0.2),  # 0.4 → 0: every level from here on would be this one again.
    ]:
        with pytest.raises(
            UsageError, match=rf"only {count(masks)} weights are left.*fewer levels"
        ):
            prune_global(weights, masks, rate)
    with pytest.raises(UsageError, match="only 3 weights are left in 2 tensor"):
        prune_local(weights, masks_of(2, 1), {"a": 0.2, "b": 0.2})
    with pytest.raises(UsageError, match="only 2 weights are left in 2 tensor"):
        prune_local(weights, masks_of(1, 1), {"a": 0.9, "b": 0.9})


@pytest.mark.parametrize("scope", ["local", "global"])
def test_a_chain_has_the_densities_known_before_it_is_run(scope):
    rng = np.random.default_rng(0)
    masks = {"a": np.ones((20, 15), bool), "b": np.ones((15, 5), bool)}
    rates = {"a": 0.2, "b": 0.1}
    left = {"a": 300, "b": 75} if scope == "local" else {"all": 375}
    for _ in range(12):
        weights = {name: rng.normal(size=mask.shape) for name, mask in masks.items()}
        if scope == "local":
            masks = prune_local(weights, masks, rates).masks
        else:
            masks = prune_global(weights, masks, 0.2).masks
        left = {name: n - exact(rates.get(name, 0.2), n) for name, n in left.items()}
        assert count(masks) == sum(left.values())


@pytest.mark.parametrize("scope", ["local", "global"])
def test_what_is_given_is_not_changed(scope):
    weights, masks = {"a": np.array([1.0, -2.0, 3.0, 4.0])}, masks_of(4)
    if scope == "local":
        prune_local(weights, masks, {"a": 0.5})
    else:
        prune_global(weights, masks, 0.5)
    assert masks["a"].all()
    np.testing.assert_array_equal(weights["a"], [1.0, -2.0, 3.0, 4.0])


@pytest.mark.parametrize("rounds", [2, 3, 7])
@pytest.mark.parametrize("scope", ["local", "global"])
def test_rounds_remove_the_same_number_and_with_fixed_scores_the_same_weights(scope, rounds):
    rng = np.random.default_rng(1)
    masks = {"a": np.ones((6, 7), bool), "b": np.ones(11, bool)}
    weights = {name: rng.normal(size=mask.shape) for name, mask in masks.items()}
    call, rates = (prune_local, {"a": 0.5, "b": 0.3}) if scope == "local" else (prune_global, 0.4)
    once, several = (call(weights, masks, rates, n) for n in (1, rounds))
    assert several.removed == once.removed
    for name in masks:
        np.testing.assert_array_equal(several.masks[name], once.masks[name])


def test_each_round_scores_what_the_round_before_left():
    seen = []

    def scores(masks):
        seen.append(count(masks))
        # What is lowest changes from round to round: first the left end, then the right one.
        return {"a": np.arange(10.0) if len(seen) == 1 else -np.arange(10.0)}

    pruned = prune(scores, masks_of(10), 5, rounds=2)
    assert seen == [10, 8]
    assert np.flatnonzero(~pruned.masks["a"]).tolist() == [0, 1, 7, 8, 9]


# The published sizes of arXiv 2306.12190 (its code counts as OpenLTH does): kernel entries of the
# dense network, entries of tensors that are not pruned, prunings, entries left.
@pytest.mark.parametrize(
    ("dense", "levels", "left"),
    [
        (266_200, 17, 5_987),
        (45_200, 9, 6_061),
        (89_400, 13, 4_908),
        (8_841_000, 28, 17_094),
        (39_700, 7, 8_320),
        (7_940_000, 25, 29_990),
        (128_271, 9, 17_211),
        (23_725_050, 27, 57_356),
    ],
)
def test_openlth_counts_give_the_published_sizes(dense, levels, left):
    # The count depends on sums alone, so some entries stand for what is not pruned.
    fixed = 500
    pruned = dense - fixed
    for _ in range(levels):
        pruned -= openlth_count({"a": pruned}, 0.2, fixed)
    assert pruned + fixed == left


def pruned_in_fact(sizes, amount, rounds, seed):
    """How many times `prune` succeeds, with random weights."""
    draw = np.random.default_rng(seed)
    weights = {name: draw.normal(size=size) for name, size in sizes.items()}
    masks = {name: np.ones(size, bool) for name, size in sizes.items()}
    for done in range(100):
        try:
            masks = prune(magnitudes(weights), masks, amount(survivors(masks)), rounds).masks
        except UsageError:
            return done
    raise AssertionError("never ends")


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("scope", ["local", "global", "openlth"])
@pytest.mark.parametrize("rounds", [1, 3])
def test_possible_rounds_are_those_that_pruning_does(scope, rounds, seed):
    draw = np.random.default_rng(seed)
    sizes = {name: int(draw.integers(1, 60)) for name in "abc"}
    rates = dict(zip("abc", draw.uniform(0.1, 0.9, 3), strict=True))
    amount = {
        "local": lambda left: local_counts(left, rates),
        "global": lambda left: global_count(left, rates["a"]),
        "openlth": lambda left: openlth_count(left, rates["a"], 7),
    }[scope]
    possible = pruned_in_fact(sizes, amount, rounds, seed)
    assert possible_rounds(sizes, amount, 100) == possible
    assert possible_rounds(sizes, amount, possible + 1) == possible
    assert possible_rounds(sizes, amount, possible) == possible


def test_possible_rounds_by_hand():
    # 10 -> 5 -> 2 (5/2 = 2.5 goes up to 3) -> 1; the last weight stays.
    assert possible_rounds({"a": 10}, lambda left: local_counts(left, {"a": 0.5}), 9) == 3
    # 4 of 4 + 1 -> 2 or 3 (halves up) go, one of each tensor stays: 5 -> 2, and none can go.
    assert possible_rounds({"a": 4, "b": 1}, lambda left: global_count(left, 0.5), 9) == 1
    # An empty tensor does not count.
    assert possible_rounds({"a": 2, "b": 0}, lambda left: global_count(left, 0.5), 9) == 1
