"""The zeros that a written file holds, counted in the file, and held against the network's."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lotcal_tf.compat import keras
from lotcal_tf.errors import ExportMismatch, UsageError
from lotcal_tf.formats import keras as keras_file
from lotcal_tf.formats import saved_model
from lotcal_tf.formats.tflite_file import flatbuffer, sparsity
from lotcal_tf.pruning import masking


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """A kernel as a file holds it.

    Attributes:
      name: what the file calls it.
      layer: the layer it belongs to, where its name tells; else empty.
      shape: of the whole kernel; TFLite has the outputs first.
      dtype: of its numbers.
      zeros: how many of its values are 0; of a quantised one, how many equal its zero point.
      size: how many values it has.
      sparse: whether zeros are left out.
      bytes: what its numbers take, with the places that sparse encoding adds.
      nonzero: where it is not 0, boolean, the outputs last, as Keras has them.
    """

    name: str
    layer: str
    shape: tuple[int, ...]
    dtype: str
    zeros: int
    size: int
    sparse: bool
    bytes: int
    nonzero: NDArray[np.bool_] = dataclasses.field(repr=False, compare=False)


def tensors(path: Path) -> list[StoredTensor]:
    """The kernels, of two or more axes, in a `.keras` file, a SavedModel or a `.tflite` file.

    Raises:
      UsageError: it is none of them, or damaged.
    """
    if path.suffix == ".keras":
        values = list(masking.values(keras_file.read(path)).items())
        return [_plain(name, value) for name, value in values if value.ndim >= 2]
    if path.is_dir():
        values = saved_model.weights(path)
        return [_plain(name, value) for name, value in values if value.ndim >= 2]
    try:
        model = flatbuffer.unpack(path.read_bytes())
        return [_of_tflite(model, number) for number in flatbuffer.kernels(model)]
    except Exception as error:
        # Whatever reading a damaged file meets: its numbers point anywhere.
        raise UsageError(f"{path} is no TFLite file that can be read") from error


def check(path: Path, model: "keras.Model") -> list[StoredTensor]:
    """Compares the zeros of a written file with those of the model that was written.

    A kernel whose layer is known by its name is compared place by place, the others by how many
    values are not 0. Quantisation may add zeros, and a converter may leave out a kernel that it
    has no need of; neither fails.

    Args:
      path: the file.
      model: plain: masked, or compact.

    Returns:
      What the file holds, as `tensors`.

    Raises:
      ExportMismatch: a weight that is 0 in the model is not 0 in the file.
    """
    found = tensors(path)
    kernels = {
        name.rpartition("/")[0]: value != 0
        for name, value in masking.values(model).items()
        if value.ndim >= 2
    }
    rest_of_file = 0
    known: set[str] = set()
    for tensor in found:
        kernel = kernels.get(tensor.layer) if tensor.layer not in known else None
        wanted = None if kernel is None else _in_order(kernel, tensor)
        if wanted is None:
            rest_of_file += tensor.size - tensor.zeros
            continue
        known.add(tensor.layer)
        grown = int((tensor.nonzero & ~wanted).sum())
        if grown:
            raise ExportMismatch(
                f"{path.name}: {grown} weight(s) of layer {tensor.layer!r} that are 0 in the ticket are "
                "not 0 in the file: nothing was exported"
            )
    rest = sum(int(kernel.sum()) for layer, kernel in kernels.items() if layer not in known)
    if rest_of_file > rest:
        raise ExportMismatch(
            f"{path.name}: {rest_of_file - rest} weight(s) that are 0 in the ticket are not 0 in the "
            "file: nothing was exported"
        )
    return found


def _plain(name: str, value: NDArray) -> StoredTensor:
    return StoredTensor(
        name=name,
        layer=name.rpartition("/")[0],
        shape=value.shape,
        dtype=str(value.dtype),
        zeros=int((value == 0).sum()),
        size=value.size,
        sparse=False,
        bytes=value.nbytes,
        nonzero=value != 0,
    )


def _of_tflite(model: Any, number: int) -> StoredTensor:
    tensor = model.subgraphs[0].tensors[number]
    values = sparsity.dense_values(model, tensor)
    assert values is not None
    points = sparsity.zero_points(tensor)
    if points.size > 1:
        axis = tensor.quantization.quantizedDimension
        points = points.reshape([-1 if i == axis else 1 for i in range(values.ndim)])
    nonzero = values != points
    name = tensor.name.decode()
    return StoredTensor(
        name=name,
        layer=_layer_in(name),
        shape=values.shape,
        dtype=str(values.dtype),
        zeros=int((~nonzero).sum()),
        size=values.size,
        sparse=tensor.sparsity is not None,
        bytes=len(model.buffers[tensor.buffer].data) + sparsity.index_bytes(tensor),
        nonzero=np.moveaxis(nonzero, 0, -1),
    )


def _layer_in(name: str) -> str:
    """The layer that a tensor of TFLite is of: its name lists the ops merged into it.

    `net/relu/Relu;net/conv/Conv2D1` holds the weights of `conv`.
    """
    for op in name.split(";"):
        path, _, kind = op.rpartition("/")
        if kind.startswith(("MatMul", "Conv2D", "Conv1D", "Conv3D", "depthwise", "Tensordot")):
            layer = path.partition("/")[2] or path
            # What quantisation-aware training has wrapped.
            return layer.removeprefix("quant_")
    return ""


def _in_order(kernel: NDArray[np.bool_], tensor: StoredTensor) -> NDArray[np.bool_] | None:
    """A model's kernel in the axes of `tensor.nonzero`; None where the two do not fit."""
    shapes = [
        [size for size in shape if size > 1] for shape in (kernel.shape, tensor.nonzero.shape)
    ]
    return kernel.reshape(tensor.nonzero.shape) if shapes[0] == shapes[1] else None
