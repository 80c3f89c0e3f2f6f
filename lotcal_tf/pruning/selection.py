"""Which weights a pruning removes: the lowest scores, in exact counts, as pure functions.

Scores and masks are arrays by name, in model order; a mask is boolean, True where a weight
survives. Only survivors are ranked. Ties go by tensor in model order, then by lower flat index, so
a level's density is known before it is run.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from lotcal_tf.errors import UsageError
from lotcal_tf.rounding import half_up

Masks = dict[str, NDArray[np.bool_]]
Scores = Mapping[str, NDArray[np.floating]]


@dataclasses.dataclass(frozen=True)
class Pruned:
    """The outcome of one pruning.

    Attributes:
      masks: the new masks.
      removed: how many weights were removed.
      protected: the tensors whose last survivor was kept although its score was among the lowest.
    """

    masks: Masks
    removed: int
    protected: tuple[str, ...]


def count(masks: Mapping[str, NDArray[np.bool_]]) -> int:
    """The number of survivors."""
    return sum(int(mask.sum()) for mask in masks.values())


def local_counts(masks: Masks, rates: Mapping[str, float]) -> dict[str, int]:
    """How many weights each tensor loses: round(rate × its survivors), halves up.

    Args:
      masks: the survivors.
      rates: the rate of each tensor, in [0, 1).
    """
    return {name: half_up(rates[name] * int(mask.sum())) for name, mask in masks.items()}


def global_count(masks: Masks, rate: float) -> int:
    """How many weights all tensors lose together: round(rate × all survivors), halves up."""
    return half_up(rate * count(masks))


def openlth_count(masks: Masks, rate: float, unprunable: int) -> int:
    """How many weights OpenLTH removes: ceil(rate × all remaining kernel entries) + 1.

    Its threshold test removes one more than it counts. With this count the published sizes of
    arXiv 2306.12190 are reproduced exactly.

    Args:
      masks: the survivors of the prunable tensors.
      rate: in (0, 1).
      unprunable: kernel entries of the tensors that are not pruned.
    """
    return math.ceil(rate * (count(masks) + unprunable)) + 1


def prune(
    scores: Callable[[Masks], Scores],
    masks: Masks,
    amount: int | Mapping[str, int],
    rounds: int = 1,
) -> Pruned:
    """Removes the survivors with the lowest scores.

    Args:
      scores: gives the scores for the masks of a round; larger ones survive.
      masks: the survivors so far.
      amount: how many weights go, ranked all together; or by name how many of each tensor.
      rounds: in how many rounds of nearly equal size they go, each with new scores.

    A tensor is never emptied: its last survivor is passed over, and where tensors are ranked
    together the next lowest score elsewhere goes in its place.

    Raises:
      UsageError: so few weights are left that none goes, or that the number cannot be reached.
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
    """A round's share, so that all rounds add up to the whole."""
    return whole * (number + 1) // rounds - whole * number // rounds


def _remove_local(scores: Scores, masks: Masks, counts: Mapping[str, int]) -> Pruned:
    """Removes from each tensor by itself."""
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
    """Removes from all tensors together.

    Raises:
      UsageError: more are to go than can.
    """
    order = _ascending(scores, masks)
    sizes = [mask.size for mask in masks.values()]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    tensor = np.searchsorted(starts, order, side="right") - 1
    # The last survivor of a tensor is the one of its survivors that the ranking puts last.
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
        "this rate; ask for fewer levels"
    )


def _ascending(scores: Scores, masks: Masks) -> NDArray[np.intp]:
    """The survivors' places in the concatenation of all tensors, lowest score first."""
    flat = np.concatenate([np.asarray(scores[name]).ravel() for name in masks])
    alive = np.flatnonzero(np.concatenate([mask.ravel() for mask in masks.values()]))
    # A stable sort keeps ties in order of place: that is the rule for ties.
    return alive[np.argsort(flat[alive], kind="stable")]


def _without(mask: NDArray[np.bool_], places: NDArray[np.intp]) -> NDArray[np.bool_]:
    kept = mask.copy()
    kept.reshape(-1)[places] = False
    return kept
