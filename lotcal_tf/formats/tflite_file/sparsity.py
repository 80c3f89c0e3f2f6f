"""TFLite's sparse encoding of tensors: writing a file without its zeros, and reading such a file.

The converter's own encoder is used for float32 only. It divides other types into blocks that LiteRT 2.3
computes wrongly: float16 becomes NaN, and int8 reads beyond the edge if the width is not a multiple of
16. `encode` writes rows of indices instead, which a DENSIFY operator unpacks once, when the file is
loaded.
"""

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from lotcal_tf.formats.tflite_file import flatbuffer

# The size of the operator, its tensors and the encoding in a file, in addition to the values.
_OVERHEAD = 300
# The largest share of values in nonzero blocks for which LiteRT's sparse kernel is at least as fast as
# its dense one: the kernels break even at 1/8 to 1/4 on x86, for layers of 32,000 to 1,000,000 weights.
_FAST = 1 / 8
_DENSE = schema.DimensionType.DENSE
_VECTORS = (
    (np.uint8, schema.SparseIndexVector.Uint8Vector, schema.Uint8VectorT),
    (np.uint16, schema.SparseIndexVector.Uint16Vector, schema.Uint16VectorT),
    (np.int32, schema.SparseIndexVector.Int32Vector, schema.Int32VectorT),
)
_DTYPES: dict[int, np.dtype] = {
    schema.TensorType.FLOAT32: np.dtype(np.float32),
    schema.TensorType.FLOAT16: np.dtype(np.float16),
    schema.TensorType.INT8: np.dtype(np.int8),
}


def value_type(tensor: Any) -> np.dtype | None:
    """The type of a tensor's values; None for types that weights never have."""
    return _DTYPES.get(tensor.type)


def zero_points(tensor: Any) -> NDArray[np.int64]:
    """The values that represent 0 in a tensor, one or one per channel; 0 for floats."""
    points = None if tensor.quantization is None else tensor.quantization.zeroPoint
    return np.zeros(1, np.int64) if points is None else np.asarray(points, np.int64)


def dense_values(model: Any, tensor: Any) -> NDArray | None:
    """The values of a tensor in its full shape, including zeros that were left out.

    Args:
      model: see `flatbuffer.unpack`.
      tensor: one of its tensors.

    Returns:
      None if it is not a constant, or not of a type that weights can have.
    """
    kind, data = value_type(tensor), model.buffers[tensor.buffer].data
    if kind is None or data is None or tensor.shape is None:
        return None
    values = np.frombuffer(np.asarray(data, np.uint8).tobytes(), kind)
    shape = tuple(int(size) for size in tensor.shape)
    if tensor.sparsity is None:
        return values.reshape(shape)
    return _spread(values, tensor.sparsity, shape)


def _spread(values: NDArray, sparsity: Any, shape: tuple[int, ...]) -> NDArray:
    """Puts stored values into a dense array.

    Each level of the encoding is an axis of the tensor or, after those, a block within an axis. The
    levels are expanded one by one: `places` has one row of coordinates per node.
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
    # Blocks may reach beyond the edge.
    inside = np.all([axis < size for axis, size in zip(axes, shape, strict=True)], axis=0)
    dense = np.zeros(shape, values.dtype)
    dense[tuple(axis[inside] for axis in axes)] = values[: len(places)][inside]
    return dense


def encode(content: bytes) -> bytes:
    """The content of a `.tflite` file without the zeros of its kernels.

    A kernel is encoded if that makes it smaller: along its last axis, only the indices and values of
    nonzero weights are kept. The values do not change.
    """
    model = flatbuffer.unpack(content)
    graph = model.subgraphs[0]
    dense_copies = {}
    for number in flatbuffer.kernels(model):
        tensor = graph.tensors[number]
        values = dense_values(model, tensor)
        assert values is not None
        # Only kernels in which 0 is stored as 0 can be encoded.
        if tensor.sparsity is not None or zero_points(tensor).any():
            continue
        sparsity, kept = _rows(values)
        if _bytes(sparsity) + kept.nbytes + _OVERHEAD >= values.nbytes:
            continue
        tensor.sparsity = sparsity
        _store(model, tensor, kept)
        dense_copies[number] = flatbuffer.add_tensor(
            model, like=tensor, name=tensor.name + b"/dense"
        )
    for operator in graph.operators:
        if dense_copies.keys() & set(map(int, operator.inputs)):
            _keep_from_delegate(model, operator)
        operator.inputs = [dense_copies.get(int(number), int(number)) for number in operator.inputs]
    code = flatbuffer.add_code(model, schema.BuiltinOperator.DENSIFY) if dense_copies else 0
    densify = []
    for number, dense in dense_copies.items():
        operator = flatbuffer.operator(code, [number], [dense])
        operator.builtinOptionsType = schema.BuiltinOptions.DensifyOptions
        operator.builtinOptions = schema.DensifyOptionsT()
        densify.append(operator)
    graph.operators = densify + graph.operators
    for number, tensor in enumerate(graph.tensors):
        # E.g. a bias that was replaced.
        if not flatbuffer.is_used(graph, number):
            tensor.buffer = 0
    return flatbuffer.pack(flatbuffer.without_idle_buffers(model))


def only_fast_blocks(content: bytes) -> bytes | None:
    """The content of a sparse file in which kernels are sparse only if that makes them faster.

    LiteRT has a sparse kernel for fully connected layers stored in blocks of floats. Such a kernel
    stays sparse if few enough of its blocks have values; every other kernel becomes dense, and nothing
    is left to unpack when the file is loaded.

    Returns:
      None if no kernel would stay sparse.
    """
    model = flatbuffer.unpack(content)
    graph = model.subgraphs[0]
    unpacked, kept, operators = {}, set(), []
    for operator in graph.operators:
        name = flatbuffer.op_name(model, operator)
        if name == "DENSIFY":
            unpacked[int(operator.outputs[0])] = int(operator.inputs[0])
            continue
        operators.append(operator)
        if name == "FULLY_CONNECTED" and _fast(model, graph.tensors[operator.inputs[1]]):
            kept.add(int(operator.inputs[1]))
    if not kept:
        return None
    for number in set(flatbuffer.kernels(model)) - kept:
        tensor = graph.tensors[number]
        if tensor.sparsity is not None:
            values = dense_values(model, tensor)
            assert values is not None
            _store(model, tensor, values)
            tensor.sparsity = None
    for operator in operators:
        operator.inputs = [unpacked.get(int(number), int(number)) for number in operator.inputs]
    graph.operators = operators
    return flatbuffer.pack(flatbuffer.without_idle_buffers(model))


def _fast(model: Any, tensor: Any) -> bool:
    """Whether a kernel is stored in blocks of floats of which few enough have values."""
    sparsity = tensor.sparsity
    if sparsity is None or tensor.type != schema.TensorType.FLOAT32:
        return False
    blocks = sparsity.blockMap is not None and len(sparsity.blockMap) > 0
    stored = len(model.buffers[tensor.buffer].data) / np.dtype(np.float32).itemsize
    return blocks and stored <= _FAST * np.prod(tensor.shape)


def _store(model: Any, tensor: Any, values: NDArray) -> None:
    """Gives a tensor values in a buffer of its own."""
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    tensor.buffer = len(model.buffers)
    model.buffers.append(buffer)


def _keep_from_delegate(model: Any, operator: Any) -> None:
    """Keeps XNNPACK from running an int8 FULLY_CONNECTED operator with sparse weights.

    The XNNPACK delegate would take the operator and then fail, as its weights are no longer a
    constant but the output of DENSIFY. It does not take an operator whose bias has no scale. LiteRT
    does not need that scale, since it follows from those of inputs and weights.
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
    """The encoding of an array that is sparse along its last axis, and the values that are kept."""
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
    """Nonnegative integers as a vector of the smallest type that can hold them."""
    highest = int(numbers.max(initial=0))
    kind, name, make = next(row for row in _VECTORS if highest <= np.iinfo(row[0]).max)
    vector = make()
    vector.values = numbers.astype(kind)
    return name, vector


def _bytes(sparsity: Any) -> int:
    """The size of the indices in bytes."""
    vectors = [
        v for level in sparsity.dimMetadata for v in (level.arraySegments, level.arrayIndices)
    ]
    return sum(np.asarray(vector.values).nbytes for vector in vectors if vector is not None)
