"""Finding the kernels of a network in a written file, and verifying that their zeros are zeros there."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from lotcal_tf.compat import keras
from lotcal_tf.errors import ExportMismatch
from lotcal_tf.formats.format import StoredTensor
from lotcal_tf.pruning import masking

_Pattern = NDArray[np.bool_]  # where a kernel is not 0


def check(file: str, tensors: Sequence[StoredTensor], model: "keras.Model") -> None:
    """Compares the zeros of a written file with those of the network it was written from.

    Kernels are compared value by value with the tensors that `match` finds, the others by the number of
    nonzero values. Quantisation may add zeros, and a converter may drop a kernel that it does not
    need; neither is an error.

    Args:
      file: the file's name, for the message.
      tensors: the kernels in the file, see `Format.stored_tensors`.
      model: plain: masked, or compact.

    Raises:
      ExportMismatch: a weight is 0 in the network but not in the file.
    """
    patterns = _patterns(model)
    found = _matched(tensors, patterns)
    for path, tensor in found.items():
        if lost := _lost(patterns[path], tensor):
            raise _lost_zeros(file, lost, f" of {path}")
    # A converter may split a kernel. Where every kernel is found, the rest are other constants.
    expected = sum(int(p.sum()) for path, p in patterns.items() if path not in found)
    seen = {id(tensor) for tensor in found.values()}
    nonzero = sum(tensor.size - tensor.zeros for tensor in tensors if id(tensor) not in seen)
    if len(found) < len(patterns) and nonzero > expected:
        raise _lost_zeros(file, nonzero - expected, "")


def match(tensors: Sequence[StoredTensor], model: "keras.Model") -> dict[str, StoredTensor]:
    """The tensor of a file that holds each kernel of a network, by the kernel's path.

    Tensors of a known layer are assigned to that layer's kernels so that as few zeros as possible are
    lost. Any other tensor is assigned to a kernel if that has its size and all of its zeros.

    Args:
      tensors: the kernels in the file, see `Format.stored_tensors`.
      model: plain; the network in the file.

    Returns:
      One tensor per path; kernels that the file does not show are missing.
    """
    return _matched(tensors, _patterns(model))


def _patterns(model: "keras.Model") -> dict[str, _Pattern]:
    return {path: value != 0 for path, value in masking.kernels(model).items()}


def _matched(
    tensors: Sequence[StoredTensor], patterns: Mapping[str, _Pattern]
) -> dict[str, StoredTensor]:
    by_layer: dict[str, dict[str, _Pattern]] = {}
    for path, pattern in patterns.items():
        by_layer.setdefault(path.rpartition("/")[0], {})[path] = pattern
    owned: dict[str, list[StoredTensor]] = {}
    for tensor in tensors:
        owned.setdefault(owner(tensor.layer, by_layer), []).append(tensor)
    found: dict[str, StoredTensor] = {}
    for layer, kernels in by_layer.items():
        found |= _assigned(owned.get(layer, []), kernels)
    seen = {id(tensor) for tensor in found.values()}
    left = [tensor for tensor in tensors if id(tensor) not in seen]
    unknown = {path: pattern for path, pattern in patterns.items() if path not in found}
    others = _assigned(left, unknown)
    return found | {p: tensor for p, tensor in others.items() if not _lost(patterns[p], tensor)}


def owner(scope: str, layers: Iterable[str]) -> str:
    """The path of the layer that a name in a file belongs to; empty if there is none.

    Args:
      scope: the name without the network's, e.g. `attention/query/einsum`.
      layers: the paths of the network's layers.
    """
    # A layer of a nested model is `outer/inner`, and `outer_inner` after flattening.
    fitting = [
        layer
        for layer in layers
        if f"{scope}/".startswith((f"{layer}/", f"{layer.replace('/', '_')}/"))
    ]
    return max(fitting, key=len, default="")


def _assigned(
    tensors: Sequence[StoredTensor], patterns: Mapping[str, _Pattern]
) -> dict[str, StoredTensor]:
    """Pairs tensors and kernels of equal size so that the fewest values differ in being 0."""
    if not tensors or not patterns:
        return {}
    impossible = np.inf
    costs = np.full((len(tensors), len(patterns)), impossible)
    for row, tensor in enumerate(tensors):
        for column, pattern in enumerate(patterns.values()):
            if tensor.size == pattern.size:
                # A zero that is lost is worse than any number of zeros that are added.
                lost = _lost(pattern, tensor)
                added = pattern.sum() - (tensor.nonzero.sum() - lost)
                costs[row, column] = lost * (tensor.size + 1.0) + added
    possible = np.isfinite(costs)
    limit = 2 * costs[possible].sum() + 1 if possible.any() else 1.0
    rows, columns = linear_sum_assignment(np.where(possible, costs, limit))
    paths = list(patterns)
    return {
        paths[column]: tensors[row]
        for row, column in zip(rows, columns, strict=True)
        if possible[row, column]
    }


def _lost(pattern: _Pattern, tensor: StoredTensor) -> int:
    """The number of zeros of a kernel that are not 0 in a tensor of the same size.

    Formats order axes in different ways. Of all orders, the one with the fewest such values counts.
    """
    orders = (
        pattern,
        np.swapaxes(pattern, -1, -2),  # transposed convolutions
        np.moveaxis(pattern, 0, -1),  # tables of embeddings
    )
    fewest = tensor.size
    for order in orders:
        fewest = min(fewest, int((tensor.nonzero & ~order.reshape(tensor.nonzero.shape)).sum()))
        if not fewest:
            break
    return fewest


def _lost_zeros(file: str, count: int, where: str) -> ExportMismatch:
    return ExportMismatch(
        f"{file}: {count} weight(s){where} are 0 in the ticket but not in the file: "
        "nothing was exported"
    )
