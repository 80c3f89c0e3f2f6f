"""Verifying that the zeros of a network are zeros in a written file."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lotcal_tf.compat import keras
from lotcal_tf.errors import ExportMismatch
from lotcal_tf.formats.format import StoredTensor
from lotcal_tf.pruning import masking


def check(file: str, tensors: Sequence[StoredTensor], model: "keras.Model") -> None:
    """Compares the zeros of a written file with those of the network it was written from.

    A kernel whose layer is known by name is compared value by value, all others by the number of
    nonzero values. Quantisation may add zeros, and a converter may drop a kernel that it does not
    need; neither is an error.

    Args:
      file: the file's name, for the message.
      tensors: the kernels in the file, see `Format.stored_tensors`.
      model: plain: masked, or compact.

    Raises:
      ExportMismatch: a weight is 0 in the network but not in the file.
    """
    kernels = {
        name.rpartition("/")[0]: value != 0
        for name, value in masking.values(model).items()
        if value.ndim >= 2
    }
    matched: set[str] = set()
    nonzero_elsewhere = 0
    for tensor in tensors:
        kernel = kernels.get(tensor.layer) if tensor.layer not in matched else None
        expected = None if kernel is None else _reshaped(kernel, tensor)
        if expected is None:
            nonzero_elsewhere += tensor.size - tensor.zeros
            continue
        matched.add(tensor.layer)
        lost = int((tensor.nonzero & ~expected).sum())
        if lost:
            raise _lost_zeros(file, lost, f" of layer {tensor.layer!r}")
    expected_elsewhere = sum(int(k.sum()) for layer, k in kernels.items() if layer not in matched)
    if nonzero_elsewhere > expected_elsewhere:
        raise _lost_zeros(file, nonzero_elsewhere - expected_elsewhere, "")


def _lost_zeros(file: str, count: int, where: str) -> ExportMismatch:
    return ExportMismatch(
        f"{file}: {count} weight(s){where} are 0 in the ticket but not in the file: "
        "nothing was exported"
    )


def _reshaped(kernel: NDArray[np.bool_], tensor: StoredTensor) -> NDArray[np.bool_] | None:
    """A model's kernel in the shape of `tensor.nonzero`; None if the two do not match."""
    shapes = [
        [size for size in shape if size > 1] for shape in (kernel.shape, tensor.nonzero.shape)
    ]
    return kernel.reshape(tensor.nonzero.shape) if shapes[0] == shapes[1] else None
