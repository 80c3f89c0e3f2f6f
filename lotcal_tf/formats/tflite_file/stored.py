"""The kernels in a `.tflite` file, dense or sparse, float or integer."""

from pathlib import Path
from typing import Any

import numpy as np

from lotcal_tf.errors import UsageError
from lotcal_tf.formats.format import StoredTensor
from lotcal_tf.formats.tflite_file import flatbuffer, sparsity

# How the names of operations begin that multiply by a kernel.
_MULTIPLYING = (
    *("MatMul", "Conv2D", "Conv1D", "Conv3D", "depthwise", "Tensordot", "Einsum"),
    *("separable_conv", "conv1d_transpose", "conv2d_transpose", "conv3d_transpose"),
    "embedding_lookup",
)


def stored_tensors(path: Path) -> list[StoredTensor]:
    """The kernels in a `.tflite` file.

    Raises:
      UsageError: it cannot be read.
    """
    try:
        model = flatbuffer.unpack(path.read_bytes())
        return [_stored(model, number) for number in flatbuffer.kernels(model)]
    except Exception as error:
        # The offsets in a damaged file point anywhere, so reading it can raise any exception.
        raise UsageError(f"{path} cannot be read as a TFLite file") from error


def _stored(model: Any, number: int) -> StoredTensor:
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
        zeros=int((~nonzero).sum()),
        size=values.size,
        sparse=tensor.sparsity is not None,
        nonzero=np.moveaxis(nonzero, 0, -1),
    )


def _layer_in(name: str) -> str:
    """The layer that a tensor belongs to, by its name, which lists the operations merged into it.

    `net/relu/Relu;net/conv/Conv2D1` holds the weights of `conv`, `net/attention/query/einsum/Einsum`
    those of a part of `attention`.
    """
    for op in name.split(";"):
        path, _, kind = op.rpartition("/")
        if kind.startswith(_MULTIPLYING):
            layer = path.partition("/")[2] or path
            # The prefix of layers wrapped by quantisation-aware training.
            return layer.removeprefix("quant_")
    return ""
