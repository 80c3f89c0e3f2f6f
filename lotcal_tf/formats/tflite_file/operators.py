"""How a `.tflite` file uses each kernel: which operator reads it, and whether it is unpacked first."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from lotcal_tf.formats.tflite_file import flatbuffer

_RELAYS = ("DENSIFY", "DEQUANTIZE")  # They pass a constant on in another form.


@dataclass(frozen=True)
class KernelUse:
    """How one kernel is used.

    Attributes:
      operator: the name of the operator that computes with it: `CONV_2D`, `FULLY_CONNECTED`, …
      shape: of the kernel, output channels first.
      sparse: whether it is stored in sparse encoding.
      densified: whether a DENSIFY operator unpacks it first, so that the operator reads a dense kernel.
      block: the shape of the blocks of a sparse encoding; `()` if single weights are stored.
      floating: whether its values are floats, of 32 or 16 bits.
    """

    operator: str
    shape: tuple[int, ...]
    sparse: bool
    densified: bool
    block: tuple[int, ...]
    floating: bool


@dataclass(frozen=True)
class Graph:
    """The operators of a file.

    Attributes:
      operators: their names, in order.
      kernels: how each kernel is used, by the name of its tensor.
      stem: whether there is a 3×3 convolution with stride 2 over 3 channels.
    """

    operators: tuple[str, ...]
    kernels: dict[str, KernelUse]
    stem: bool


def read(path: Path) -> Graph:
    """Reads the operators of a `.tflite` file."""
    model = flatbuffer.unpack(path.read_bytes())
    graph = model.subgraphs[0]
    kernels: dict[str, KernelUse] = {}
    passed_on: dict[int, tuple[int, bool]] = {}  # tensor → its constant, whether densified
    stem = False
    for operator in graph.operators:
        name = flatbuffer.op_name(model, operator)
        inputs = [int(number) for number in operator.inputs if number >= 0]
        if name in _RELAYS:
            source, densified = passed_on.get(inputs[0], (inputs[0], False))
            passed_on[int(operator.outputs[0])] = (source, densified or name == "DENSIFY")
            continue
        # The first input is the activations, the second the kernel, the third the bias. Only a table
        # of embeddings is a constant first input.
        for index in inputs[:2]:
            source, densified = passed_on.get(index, (index, False))
            tensor = graph.tensors[source]
            shape = tuple(int(size) for size in tensor.shape)
            if len(shape) < 2 or not _constant(model, tensor):
                continue
            use = KernelUse(
                operator=name,
                shape=shape,
                sparse=tensor.sparsity is not None,
                densified=densified,
                block=_block(tensor.sparsity),
                floating=tensor.type in (schema.TensorType.FLOAT32, schema.TensorType.FLOAT16),
            )
            kernels.setdefault(tensor.name.decode(), use)
            options = operator.builtinOptions
            stem |= (
                name == "CONV_2D"
                and shape[1:] == (3, 3, 3)
                and (options.strideH, options.strideW) == (2, 2)
            )
    names = tuple(flatbuffer.op_name(model, operator) for operator in graph.operators)
    return Graph(names, kernels, stem)


def _constant(model: Any, tensor: Any) -> bool:
    data = model.buffers[tensor.buffer].data
    return data is not None and len(data) > 0


def _block(sparsity: Any) -> tuple[int, ...]:
    """The shape of the blocks: the sizes of the levels after those of the tensor's dimensions."""
    if sparsity is None or sparsity.blockMap is None:
        return ()
    rank = len(sparsity.traversalOrder) - len(sparsity.blockMap)
    sizes = [1] * rank
    for position, dimension in enumerate(sparsity.blockMap):
        sizes[int(dimension)] = int(sparsity.dimMetadata[rank + position].denseSize)
    return tuple(sizes) if len(sparsity.blockMap) else ()
