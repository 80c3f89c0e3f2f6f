"""Selects the weights to prune, those with the lowest scores, in exact numbers; pure functions.

Scores and masks are arrays by name, in model order. Masks are boolean, True for survivors. Only
survivors are ranked. Of equal scores, the weight of the earlier tensor is pruned first, then the one
with the lower flat index. So the density of each level is known in advance.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from lotcal_tf.config.rounding import half_up
from lotcal_tf.errors import UsageError

Masks = dict[str, NDArray[np.bool_]]
Scores = Mapping[str, NDArray[np.floating]]


@dataclasses.dataclass(frozen=True)
class Pruned:
    """The result of pruning.

    Attributes:
      masks: the new masks.
      removed: number of pruned weights.
      protected: names of the tensors whose last survivor was kept although its score was among the
        lowest.
    """

    masks: Masks
    removed: int
    protected: tuple[str, ...]


def count(masks: Mapping[str, NDArray[np.bool_]]) -> int:
    """The number of survivors."""
    return sum(int(mask.sum()) for mask in masks.values())


def survivors(masks: Masks) -> dict[str, int]:
    """The number of survivors in each tensor."""
    return {name: int(mask.sum()) for name, mask in masks.items()}


def local_counts(survivors: Mapping[str, int], rates: Mapping[str, float]) -> dict[str, int]:
    """Number of weights to prune in each tensor: round(rate × its survivors), halves up.

    Args:
      survivors: the number of survivors in each tensor before pruning.
      rates: the rate of each tensor, in [0, 1).
    """
    return {name: half_up(rates[name] * number) for name, number in survivors.items()}


def global_count(survivors: Mapping[str, int], rate: float) -> int:
    """Number of weights to prune in all tensors together: round(rate × all survivors), halves up."""
    return half_up(rate * sum(survivors.values()))


def openlth_count(survivors: Mapping[str, int], rate: float, unprunable: int) -> int:
    """Number of weights that OpenLTH prunes: ceil(rate × all remaining kernel entries) + 1.

    OpenLTH compares with a threshold and so prunes one more than it computes. This count reproduces
    the published sizes of arXiv 2306.12190 exactly.

    Args:
      survivors: the number of survivors in each prunable tensor before pruning.
      rate: in (0, 1).
      unprunable: number of kernel entries in the tensors that are not pruned.
    """
    return math.ceil(rate * (sum(survivors.values()) + unprunable)) + 1


def possible_rounds(
    survivors: Mapping[str, int],
    amount: Callable[[Mapping[str, int]], int | Mapping[str, int]],
    most: int,
) -> int:
    """How many times in a row weights can be pruned; known without weights, since counts are exact.

    Args:
      survivors: the number of survivors in each tensor at the beginning.
      amount: returns the number of weights to prune, see `prune`.
      most: where to stop counting.
    """
    left = dict(survivors)
    for done in range(most):
        wanted = amount(left)
        prunable = {name: max(number - 1, 0) for name, number in left.items()}
        if isinstance(wanted, int):
            if not 0 < wanted <= sum(prunable.values()):
                return done
            # Which tensors lose them is not known. Only the sum counts, so any tensors will do.
            wanted = _spread(wanted, prunable)
        removed = {name: min(wanted[name], number) for name, number in prunable.items()}
        if not any(removed.values()):
            return done
        left = {name: number - removed[name] for name, number in left.items()}
    return most


def _spread(number: int, prunable: Mapping[str, int]) -> dict[str, int]:
    """Distributes a number over tensors, as far as each can lose weights."""
    parts = {}
    for name, most in prunable.items():
        parts[name] = min(number, most)
        number -= parts[name]
    return parts


def prune(
    scores: Callable[[Masks], Scores],
    masks: Masks,
    amount: int | Mapping[str, int],
    rounds: int = 1,
) -> Pruned:
    """Prunes the survivors with the lowest scores.

    The last survivor of a tensor is never pruned. If all tensors are ranked together, the next lowest
    score of another tensor is pruned instead.

    Args:
      scores: returns the scores for the masks of a round; larger scores survive.
      masks: the masks before pruning.
      amount: number of weights to prune, ranked over all tensors; or the number for each tensor, by
        name.
      rounds: number of rounds of nearly equal size, each with new scores.

    Raises:
      UsageError: too few weights are left to prune that number, or any.
    """
    protected: tuple[str, ...] = ()
    removed, kept = 0, masks
    for number in range(rounds):
        ranked = scores(kept)
        if isinstance(amount, int):
            done = _remove_global(ranked, kept, _part(amount, number, rounds))
        else:
            parts = {name: _part(whole, number, rounds) for name, whole in amount.items()}
            done = _remove_local(ranked, kept, parts)
        kept, removed = done.masks, removed + done.removed
        protected += tuple(name for name in done.protected if name not in protected)
    if not removed:
        raise _nothing_left(masks)
    return Pruned(kept, removed, protected)


def _part(whole: int, number: int, rounds: int) -> int:
    """The share of one round; the shares of all rounds add up to the whole."""
    return whole * (number + 1) // rounds - whole * number // rounds


def _remove_local(scores: Scores, masks: Masks, counts: Mapping[str, int]) -> Pruned:
    """Prunes each tensor separately."""
    kept, protected, removed = {}, [], 0
    for name, mask in masks.items():
        survivors, number = int(mask.sum()), counts[name]
        if number and number >= survivors:
            protected.append(name)
            number = survivors - 1
        order = _ascending({name: scores[name]}, {name: mask})
        kept[name] = _without(mask, order[:number])
        removed += number
    return Pruned(kept, removed, tuple(protected))


def _remove_global(scores: Scores, masks: Masks, number: int) -> Pruned:
    """Prunes over all tensors together.

    Raises:
      UsageError: `number` exceeds the number of weights that can be pruned.
    """
    order = _ascending(scores, masks)
    sizes = [mask.size for mask in masks.values()]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    tensor = np.searchsorted(starts, order, side="right") - 1
    # Each tensor's highest-ranked survivor is its last one.
    last_first, where = np.unique(tensor[::-1], return_index=True)
    last = len(order) - 1 - where
    may_go = np.ones(len(order), bool)
    may_go[last] = False
    if number > may_go.sum():
        raise _nothing_left(masks)
    if not number:
        return Pruned(masks, 0, ())
    gone = order[may_go][:number]
    reached = np.flatnonzero(may_go)[number - 1]
    names = list(masks)
    protected = tuple(names[t] for t, i in zip(last_first, last, strict=True) if i < reached)
    kept = {
        name: _without(mask, gone[(gone >= start) & (gone < start + mask.size)] - start)
        for (name, mask), start in zip(masks.items(), starts, strict=False)
    }
    return Pruned(kept, number, protected)


def _nothing_left(masks: Masks) -> UsageError:
    return UsageError(
        f"only {count(masks)} weights are left in {len(masks)} tensor(s): no more can be pruned at "
        "this rate; choose fewer levels"
    )


def _ascending(scores: Scores, masks: Masks) -> NDArray[np.intp]:
    """The indices of the survivors in the concatenation of all tensors, lowest score first."""
    flat = np.concatenate([np.asarray(scores[name]).ravel() for name in masks])
    alive = np.flatnonzero(np.concatenate([mask.ravel() for mask in masks.values()]))
    # A stable sort orders equal scores by index.
    return alive[np.argsort(flat[alive], kind="stable")]


def _without(mask: NDArray[np.bool_], places: NDArray[np.intp]) -> NDArray[np.bool_]:
    kept = mask.copy()
    kept.reshape(-1)[places] = False
    return kept
