"""Which weights go: magnitude pruning of the survivors, with exact counts, as pure functions.

`weights` and `masks` are arrays by name, in model order; a mask is boolean, True where a weight
survives. Only survivors are ranked. Ties go by tensor in model order, then by flat index, so a
level's density is known before it is run.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from lotcal_tf.errors import UsageError
from lotcal_tf.rounding import half_up

Masks = dict[str, NDArray[np.bool_]]


@dataclasses.dataclass(frozen=True)
class Pruned:
    """The outcome of one pruning.

    Attributes:
      masks: the new masks.
      removed: how many weights went.
      protected: the tensors whose last survivor was kept though its turn had come.
    """

    masks: Masks
    removed: int
    protected: tuple[str, ...]


def count(masks: Mapping[str, NDArray[np.bool_]]) -> int:
    """How many weights survive."""
    return sum(int(mask.sum()) for mask in masks.values())


def prune_local(
    weights: Mapping[str, NDArray[np.floating]], masks: Masks, rates: Mapping[str, float]
) -> Pruned:
    """Prunes each tensor by itself: round(rate × its survivors) of its smallest weights.

    Args:
      weights: the trained weights.
      masks: what survived so far.
      rates: the rate of each tensor, in [0, 1).

    A tensor is never emptied: it keeps its last survivor.

    Raises:
      UsageError: so few weights are left that none goes.
    """
    kept, protected, removed = {}, [], 0
    for name, mask in masks.items():
        survivors = int(mask.sum())
        number = half_up(rates[name] * survivors)
        if number and number >= survivors:
            protected.append(name)
            number = survivors - 1
        order = _ascending({name: weights[name]}, {name: mask})
        kept[name] = _without(mask, order[:number])
        removed += number
    if not removed:
        raise _nothing_left(masks)
    return Pruned(kept, removed, tuple(protected))


def prune_global(weights: Mapping[str, NDArray[np.floating]], masks: Masks, rate: float) -> Pruned:
    """Prunes all tensors together: round(rate × all survivors) of the smallest weights.

    Args:
      weights: the trained weights.
      masks: what survived so far.
      rate: in (0, 1).

    A tensor is never emptied: its last survivor is passed over, the next smallest elsewhere goes
    in its place.

    Raises:
      UsageError: so few weights are left that none goes, or that the number cannot be reached.
    """
    number = half_up(rate * count(masks))
    order = _ascending(weights, masks)
    sizes = [mask.size for mask in masks.values()]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    tensor = np.searchsorted(starts, order, side="right") - 1
    # The last survivor of a tensor is the one of its survivors that the ranking puts last.
    last_first, where = np.unique(tensor[::-1], return_index=True)
    last = len(order) - 1 - where
    may_go = np.ones(len(order), bool)
    may_go[last] = False
    if not 0 < number <= may_go.sum():
        raise _nothing_left(masks)
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


def _ascending(
    weights: Mapping[str, NDArray[np.floating]], masks: Mapping[str, NDArray[np.bool_]]
) -> NDArray[np.intp]:
    """The survivors' places in the concatenation of all tensors, smallest magnitude first."""
    flat = np.concatenate([np.abs(weights[name]).ravel() for name in masks])
    alive = np.flatnonzero(np.concatenate([mask.ravel() for mask in masks.values()]))
    # A stable sort keeps ties in order of place: that is the rule for ties.
    return alive[np.argsort(flat[alive], kind="stable")]


def _without(mask: NDArray[np.bool_], places: NDArray[np.intp]) -> NDArray[np.bool_]:
    kept = mask.copy()
    kept.reshape(-1)[places] = False
    return kept
