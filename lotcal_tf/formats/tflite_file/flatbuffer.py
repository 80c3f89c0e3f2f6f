"""What is inside a `.tflite` file: its tensors and ops, and the few changes made to them there."""

from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

_IDENTIFIER = b"TFL3"
_WEIGHTS = (schema.TensorType.FLOAT32, schema.TensorType.FLOAT16, schema.TensorType.INT8)
_FLOATS = {schema.TensorType.FLOAT32: np.float32, schema.TensorType.FLOAT16: np.float16}
_ELEMENTWISE = {"ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "POW", "SQUARED_DIFFERENCE"}
_LAST_OLD_CODE = schema.BuiltinOperator.PLACEHOLDER_FOR_GREATER_OP_CODES
_OPS = {number: name for name, number in vars(schema.BuiltinOperator).items() if name[0] != "_"}


class _Builder(flatbuffers.Builder):
    """Puts every vector at a multiple of 16 bytes, as readers may expect of a tensor's values."""

    def StartVector(self, size: int, count: int, alignment: int) -> Any:
        return super().StartVector(size, count, max(alignment, 16))


def unpack(written: bytes) -> Any:
    """The contents of a file as a `schema.ModelT`, of one subgraph."""
    return schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(bytearray(written), 0))


def pack(model: Any) -> bytes:
    """The contents of the file that holds a `schema.ModelT`."""
    builder = _Builder(1 << 20)
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


def op_name(model: Any, operator: Any) -> str:
    """What an operator does, e.g. `FULLY_CONNECTED`."""
    code = model.operatorCodes[operator.opcodeIndex]
    # Old codes have a field of one byte of their own.
    return _OPS[max(code.builtinCode, code.deprecatedBuiltinCode)]


def kernels(model: Any) -> list[int]:
    """The numbers of the tensors that hold weights: constants of two or more axes, floats or int8.

    What an elementwise op adds or multiplies by is none, nor is the shape that an op is told.
    """
    graph = model.subgraphs[0]
    elementwise = {
        int(number)
        for operator in graph.operators
        if op_name(model, operator) in _ELEMENTWISE
        for number in operator.inputs
    }
    return [
        number
        for number, tensor in enumerate(graph.tensors)
        if model.buffers[tensor.buffer].data is not None
        and tensor.type in _WEIGHTS
        and tensor.shape is not None
        and len(tensor.shape) >= 2
        and number not in elementwise
    ]


def is_used(graph: Any, number: int) -> bool:
    """Whether a tensor is read or made by an op, or is the graph's own input or output."""
    used = [graph.inputs, graph.outputs]
    used += [numbers for one in graph.operators for numbers in (one.inputs, one.outputs)]
    return any(number == int(other) for numbers in used for other in numbers)


def add_tensor(model: Any, *, like: Any, name: bytes) -> int:
    """Adds a tensor without a value, of another's shape, type and scale; its number."""
    tensors = model.subgraphs[0].tensors
    tensor = schema.TensorT()
    tensor.name, tensor.type, tensor.shape = name, like.type, like.shape
    tensor.shapeSignature, tensor.quantization = like.shapeSignature, like.quantization
    tensor.buffer = len(model.buffers)
    model.buffers.append(schema.BufferT())
    tensors.append(tensor)
    return len(tensors) - 1


def add_code(model: Any, builtin: int, version: int = 1) -> int:
    """Adds an op to those that the file uses; its number."""
    code = schema.OperatorCodeT()
    code.builtinCode, code.version = builtin, version
    code.deprecatedBuiltinCode = min(builtin, _LAST_OLD_CODE)
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def operator(code: int, inputs: list[int], outputs: list[int]) -> Any:
    """An operator of one of the file's codes, not yet in the graph."""
    made = schema.OperatorT()
    made.opcodeIndex, made.inputs, made.outputs = code, inputs, outputs
    return made


def without_idle_buffers(model: Any) -> Any:
    """The model, changed in place: buffers that nothing refers to are emptied."""
    used = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
    used |= {entry.buffer for entry in model.metadata or []}
    for number, buffer in enumerate(model.buffers):
        if number not in used:
            buffer.data = None
    return model


def append_softmax(written: bytes, before: str, after: str) -> bytes:
    """A file with a float softmax behind its only output.

    Args:
      written: the file's contents; its output is float32 `(N, K)`.
      before, after: what the signature calls the output, so far and from now on.
    """
    model = unpack(written)
    graph = model.subgraphs[0]
    (logits,) = graph.outputs
    place = add_tensor(model, like=graph.tensors[logits], name=after.encode())
    softmax = operator(add_code(model, schema.BuiltinOperator.SOFTMAX), [int(logits)], [place])
    softmax.builtinOptionsType = schema.BuiltinOptions.SoftmaxOptions
    softmax.builtinOptions = schema.SoftmaxOptionsT()
    softmax.builtinOptions.beta = 1.0
    graph.operators.append(softmax)
    graph.outputs = [place]
    for signature in model.signatureDefs:
        for output in signature.outputs:
            if output.name.decode() == before:
                output.name, output.tensorIndex = after.encode(), place
    return pack(model)


def divide_logits(written: bytes, temperature: float) -> bytes:
    """A file whose logits are those of another, divided by T.

    The last layer's weights, bias and results stand for so much less: their scales are divided
    where they are whole numbers, which themselves stay as they are; else the numbers are. Nothing is
    quantised anew. What comes of it is to be checked by running it: the file may use these
    weights elsewhere, or have no linear last layer.

    Args:
      written: the file's contents.
      temperature: T > 0.
    """
    contents = bytearray(written)
    model = schema.Model.GetRootAsModel(contents, 0)
    graph = model.Subgraphs(0)
    makers: dict[int, Any] = {}
    for number in range(graph.OperatorsLength()):
        maker = graph.Operators(number)
        makers |= {int(place): maker for place in maker.OutputsAsNumpy()}

    def name_of(maker: Any) -> str:
        code = model.OperatorCodes(maker.OpcodeIndex())
        return _OPS[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]

    def divide(place: int) -> None:
        tensor = graph.Tensors(place)
        quantised = tensor.Quantization()
        if quantised is not None and quantised.ScaleLength():
            quantised.ScaleAsNumpy()[:] /= np.float32(temperature)
        elif tensor.Type() in _FLOATS and model.Buffers(tensor.Buffer()).DataLength():
            model.Buffers(tensor.Buffer()).DataAsNumpy().view(_FLOATS[tensor.Type()])[:] /= (
                temperature
            )
        if place in makers and name_of(makers[place]) in ("DENSIFY", "DEQUANTIZE"):
            divide(makers[place].Inputs(0))

    place = graph.Outputs(0)
    while place in makers and name_of(makers[place]) in ("SOFTMAX", "DEQUANTIZE"):
        place = makers[place].Inputs(0)
    if graph.Tensors(place).Quantization() is not None:
        divide(place)
    if place in makers:
        for source in list(makers[place].InputsAsNumpy())[1:]:
            if source >= 0:
                divide(int(source))
    return bytes(contents)


def logit_step(written: bytes) -> float:
    """What the last digit of a file's logits stands for, where they are whole numbers; else 0."""
    model = unpack(written)
    graph = model.subgraphs[0]
    place = int(graph.outputs[0])
    makers = {int(number): op for op in graph.operators for number in op.outputs}
    while place in makers and op_name(model, makers[place]) in ("SOFTMAX", "DEQUANTIZE"):
        place = int(makers[place].inputs[0])
    quantised = graph.tensors[place].quantization
    scale = None if quantised is None else quantised.scale
    return 0.0 if scale is None or not len(scale) else float(scale[0])
