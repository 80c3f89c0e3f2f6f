"""TFLite's sparse encoding of a tensor: leaving zeros out of a file, and reading such a tensor.

The converter's own encoder serves for float32 alone. It cuts other types into blocks that LiteRT 2.3
computes wrongly: NaN of float16, and of int8 what lies beyond the edge where the width is no multiple
of 16. `encode` writes plain rows of indices instead, which a DENSIFY op makes dense once, when the file
is loaded.
"""

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from lotcal_tf.formats.tflite_file import flatbuffer

# What the op, its tensors and the encoding take in a file beside their numbers.
_OVERHEAD = 300
_DENSE = schema.DimensionType.DENSE
_VECTORS = (
    (np.uint8, schema.SparseIndexVector.Uint8Vector, schema.Uint8VectorT),
    (np.uint16, schema.SparseIndexVector.Uint16Vector, schema.Uint16VectorT),
    (np.int32, schema.SparseIndexVector.Int32Vector, schema.Int32VectorT),
)
_NUMBERS: dict[int, np.dtype] = {
    schema.TensorType.FLOAT32: np.dtype(np.float32),
    schema.TensorType.FLOAT16: np.dtype(np.float16),
    schema.TensorType.INT8: np.dtype(np.int8),
}


def number_type(tensor: Any) -> np.dtype | None:
    """The type of a tensor's numbers; None of what weights never are."""
    return _NUMBERS.get(tensor.type)


def zero_points(tensor: Any) -> NDArray[np.int64]:
    """The numbers that stand for 0 in a tensor, one or one a channel; 0 of floats."""
    points = None if tensor.quantization is None else tensor.quantization.zeroPoint
    return np.zeros(1, np.int64) if points is None else np.asarray(points, np.int64)


def index_bytes(tensor: Any) -> int:
    """What a tensor takes in a file to say where its values belong; 0 of a dense one."""
    return 0 if tensor.sparsity is None else _bytes(tensor.sparsity)


def dense_values(model: Any, tensor: Any) -> NDArray | None:
    """What a tensor of a file holds, in its own shape, with the zeros that were left out.

    Args:
      model: of `flatbuffer.unpack`.
      tensor: one of its tensors.

    Returns:
      None where it is no constant, or not of a type that weights have.
    """
    kind, data = number_type(tensor), model.buffers[tensor.buffer].data
    if kind is None or data is None or tensor.shape is None:
        return None
    values = np.frombuffer(np.asarray(data, np.uint8).tobytes(), kind)
    shape = tuple(int(size) for size in tensor.shape)
    if tensor.sparsity is None:
        return values.reshape(shape)
    return _spread(values, tensor.sparsity, shape)


def _spread(values: NDArray, sparsity: Any, shape: tuple[int, ...]) -> NDArray:
    """Puts stored values in their places.

    Every level of the encoding is an axis of the tensor or, after those, a block within one. All
    the nodes of a level are held at once: `places` has their coordinates, a row each.
    """
    order = [int(axis) for axis in sparsity.traversalOrder]
    places = np.zeros((1, 0), np.int64)
    for level in sparsity.dimMetadata:
        if level.format == _DENSE:
            count = len(places)
            coordinates = np.tile(np.arange(level.denseSize), count)
            places = np.repeat(places, level.denseSize, axis=0)
        else:
            segments = np.asarray(level.arraySegments.values, np.int64)
            coordinates = np.asarray(level.arrayIndices.values, np.int64)
            places = np.repeat(places, np.diff(segments), axis=0)
        places = np.column_stack([places, coordinates])
    axes = [np.zeros(len(places), np.int64)] * len(shape)
    for level, axis in enumerate(order):
        if axis < len(shape):
            axes[axis] = places[:, level]
    for level, axis in enumerate(order):
        if axis >= len(shape):
            whole = int(sparsity.blockMap[axis - len(shape)])
            axes[whole] = axes[whole] * sparsity.dimMetadata[level].denseSize + places[:, level]
    # Blocks may stick out beyond the edge.
    inside = np.all([axis < size for axis, size in zip(axes, shape, strict=True)], axis=0)
    dense = np.zeros(shape, values.dtype)
    dense[tuple(axis[inside] for axis in axes)] = values[: len(places)][inside]
    return dense


def encode(written: bytes) -> bytes:
    """The contents of a `.tflite` file with the zeros of its kernels left out.

    A kernel is encoded where that makes it smaller: along its last axis only the places and values
    that are not 0 are kept. What it stands for does not change by a bit.
    """
    model = flatbuffer.unpack(written)
    graph = model.subgraphs[0]
    made = {}
    for number in flatbuffer.kernels(model):
        tensor = graph.tensors[number]
        values = dense_values(model, tensor)
        assert values is not None
        # Where 0 is stood for by another number there is nothing to leave out.
        if tensor.sparsity is not None or zero_points(tensor).any():
            continue
        sparsity, kept = _rows(values)
        if _bytes(sparsity) + kept.nbytes + _OVERHEAD >= values.nbytes:
            continue
        tensor.sparsity = sparsity
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(kept.tobytes(), np.uint8)
        tensor.buffer = len(model.buffers)
        model.buffers.append(buffer)
        made[number] = flatbuffer.add_tensor(model, like=tensor, name=tensor.name + b"/dense")
    for operator in graph.operators:
        if made.keys() & set(map(int, operator.inputs)):
            _keep_from_delegate(model, operator)
        operator.inputs = [made.get(int(number), int(number)) for number in operator.inputs]
    code = flatbuffer.add_code(model, schema.BuiltinOperator.DENSIFY) if made else 0
    densify = []
    for number, dense in made.items():
        operator = flatbuffer.operator(code, [number], [dense])
        operator.builtinOptionsType = schema.BuiltinOptions.DensifyOptions
        operator.builtinOptions = schema.DensifyOptionsT()
        densify.append(operator)
    graph.operators = densify + graph.operators
    for number, tensor in enumerate(graph.tensors):
        # A bias that has been replaced.
        if not flatbuffer.is_used(graph, number):
            tensor.buffer = 0
    return flatbuffer.pack(flatbuffer.without_idle_buffers(model))


def _keep_from_delegate(model: Any, operator: Any) -> None:
    """Leaves an int8 FULLY_CONNECTED op, whose weights become an op's output, to LiteRT itself.

    Its XNNPACK delegate would take the op and then fail, as such weights are none of its constants.
    It does not take an op whose bias has no scale; LiteRT does without: a bias's scale follows
    from those of inputs and weights.
    """
    if flatbuffer.op_name(model, operator) != "FULLY_CONNECTED":
        return
    graph = model.subgraphs[0]
    weights = graph.tensors[operator.inputs[1]]
    if weights.type != schema.TensorType.INT8:
        return
    inputs = [int(number) for number in operator.inputs]
    bias = schema.TensorT()
    bias.name, bias.type = weights.name + b"/bias", schema.TensorType.INT32
    bias.shape, bias.buffer = [int(weights.shape[0])], len(model.buffers)
    buffer = schema.BufferT()
    if len(inputs) > 2 and inputs[2] >= 0:
        buffer.data = model.buffers[graph.tensors[inputs[2]].buffer].data
    else:
        buffer.data = np.zeros(4 * int(weights.shape[0]), np.uint8)
    model.buffers.append(buffer)
    graph.tensors.append(bias)
    operator.inputs = [*inputs[:2], len(graph.tensors) - 1]


def _rows(values: NDArray) -> tuple[Any, NDArray]:
    """The encoding of an array, dense but for its last axis, and the values that it keeps."""
    rows = values.reshape(-1, values.shape[-1])
    used = rows != 0
    levels = []
    for size in values.shape[:-1]:
        level = schema.DimensionMetadataT()
        level.format, level.denseSize = _DENSE, size
        levels.append(level)
    last = schema.DimensionMetadataT()
    last.format = schema.DimensionType.SPARSE_CSR
    last.arraySegmentsType, last.arraySegments = _vector(np.cumsum([0, *used.sum(1)]))
    last.arrayIndicesType, last.arrayIndices = _vector(np.nonzero(used)[1])
    sparsity = schema.SparsityParametersT()
    sparsity.traversalOrder = np.arange(values.ndim, dtype=np.int32)
    sparsity.dimMetadata = [*levels, last]
    return sparsity, rows[used]


def _vector(numbers: NDArray) -> tuple[int, Any]:
    """Numbers from 0 on as the smallest vector that holds them."""
    highest = int(numbers.max(initial=0))
    kind, name, make = next(row for row in _VECTORS if highest <= np.iinfo(row[0]).max)
    vector = make()
    vector.values = numbers.astype(kind)
    return name, vector


def _bytes(sparsity: Any) -> int:
    """What the encoding's own numbers take."""
    vectors = [
        v for level in sparsity.dimMetadata for v in (level.arraySegments, level.arrayIndices)
    ]
    return sum(np.asarray(vector.values).nbytes for vector in vectors if vector is not None)
