"""The flatbuffer of a `.tflite` file: reading its tensors and operators, and changing a few of them."""

from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

_IDENTIFIER = b"TFL3"
_WEIGHTS = (schema.TensorType.FLOAT32, schema.TensorType.FLOAT16, schema.TensorType.INT8)
_FLOATS = {schema.TensorType.FLOAT32: np.float32, schema.TensorType.FLOAT16: np.float16}
_ELEMENTWISE = {"ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "POW", "SQUARED_DIFFERENCE"}
# Operators that may follow the last layer.
_AFTER_LOGITS = ("SOFTMAX", "DEQUANTIZE")
_LAST_OLD_CODE = schema.BuiltinOperator.PLACEHOLDER_FOR_GREATER_OP_CODES
_OPS = {number: name for name, number in vars(schema.BuiltinOperator).items() if name[0] != "_"}


class _Builder(flatbuffers.Builder):
    """Aligns every vector to 16 bytes, which readers may expect of the values of a tensor."""

    def StartVector(self, size: int, count: int, alignment: int) -> Any:
        return super().StartVector(size, count, max(alignment, 16))


def unpack(content: bytes) -> Any:
    """The content of a file as a `schema.ModelT` with one subgraph."""
    return schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(bytearray(content), 0))


def pack(model: Any) -> bytes:
    """The content of a file for a `schema.ModelT`."""
    builder = _Builder(1 << 20)
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


def op_name(model: Any, operator: Any) -> str:
    """The name of an operator, e.g. `FULLY_CONNECTED`."""
    code = model.operatorCodes[operator.opcodeIndex]
    # Old codes are stored in a separate field of one byte.
    return _OPS[max(code.builtinCode, code.deprecatedBuiltinCode)]


def kernels(model: Any) -> list[int]:
    """The indices of the kernels: constants of two or more dimensions, floats or int8.

    Constants of elementwise operators do not count, nor does a shape that an operator reads.
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
    """Whether an operator reads or writes a tensor, or it is an input or output of the graph."""
    used = [graph.inputs, graph.outputs]
    used += [numbers for one in graph.operators for numbers in (one.inputs, one.outputs)]
    return any(number == int(other) for numbers in used for other in numbers)


def add_tensor(model: Any, *, like: Any, name: bytes) -> int:
    """Adds a tensor without values, with the shape, type and scale of another; returns its index."""
    tensors = model.subgraphs[0].tensors
    tensor = schema.TensorT()
    tensor.name, tensor.type, tensor.shape = name, like.type, like.shape
    tensor.shapeSignature, tensor.quantization = like.shapeSignature, like.quantization
    tensor.buffer = len(model.buffers)
    model.buffers.append(schema.BufferT())
    tensors.append(tensor)
    return len(tensors) - 1


def add_code(model: Any, builtin: int) -> int:
    """Adds an operator code to the file; returns its index."""
    code = schema.OperatorCodeT()
    code.builtinCode, code.version = builtin, 1
    code.deprecatedBuiltinCode = min(builtin, _LAST_OLD_CODE)
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def operator(code: int, inputs: list[int], outputs: list[int]) -> Any:
    """An operator with one of the file's codes, which is not yet in the graph."""
    made = schema.OperatorT()
    made.opcodeIndex, made.inputs, made.outputs = code, inputs, outputs
    return made


def without_idle_buffers(model: Any) -> Any:
    """The same model after emptying, in place, all buffers that nothing refers to."""
    used = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
    used |= {entry.buffer for entry in model.metadata or []}
    for number, buffer in enumerate(model.buffers):
        if number not in used:
            buffer.data = None
    return model


def append_softmax(content: bytes, before: str, after: str) -> bytes:
    """The content of a file with a float softmax added after its only output.

    Args:
      content: the file; its output is float32 `(N, K)`.
      before, after: the name of the output in the signature, old and new.
    """
    model = unpack(content)
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


def divide_logits(content: bytes, temperature: float) -> bytes:
    """The content of a file whose logits are divided by T.

    The weights, bias and outputs of the last layer are divided: if they are integers, by dividing
    their scales, so that nothing is quantised again; else by dividing the values. The caller must
    verify the outputs of the result, as the file may use these weights elsewhere, or may not have a
    linear last layer.

    Args:
      content: the file.
      temperature: T > 0.
    """
    buffer = bytearray(content)
    model = schema.Model.GetRootAsModel(buffer, 0)
    graph = model.Subgraphs(0)
    makers: dict[int, Any] = {}
    for number in range(graph.OperatorsLength()):
        maker = graph.Operators(number)
        makers |= {int(place): maker for place in maker.OutputsAsNumpy()}

    def made_by(place: int, *names: str) -> bool:
        if place not in makers:
            return False
        code = model.OperatorCodes(makers[place].OpcodeIndex())
        return _OPS[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())] in names

    def divide(place: int) -> None:
        tensor = graph.Tensors(place)
        quantised = tensor.Quantization()
        if quantised is not None and quantised.ScaleLength():
            quantised.ScaleAsNumpy()[:] /= np.float32(temperature)
        elif tensor.Type() in _FLOATS and model.Buffers(tensor.Buffer()).DataLength():
            values = model.Buffers(tensor.Buffer()).DataAsNumpy().view(_FLOATS[tensor.Type()])
            values[:] /= temperature
        if made_by(place, "DENSIFY", "DEQUANTIZE"):
            divide(makers[place].Inputs(0))

    place = graph.Outputs(0)
    while made_by(place, *_AFTER_LOGITS, "QUANTIZE"):
        if made_by(place, "QUANTIZE"):  # Logits of a float layer that are then quantised.
            divide(place)
        place = makers[place].Inputs(0)
    if graph.Tensors(place).Quantization() is not None:
        divide(place)
    if place in makers:
        for source in list(makers[place].InputsAsNumpy())[1:]:
            if source >= 0:
                divide(int(source))
    return bytes(buffer)


def logit_step(content: bytes) -> float:
    """The scale of a file's logits if they are integers, else 0."""
    model = unpack(content)
    graph = model.subgraphs[0]
    place = int(graph.outputs[0])
    makers = {int(number): op for op in graph.operators for number in op.outputs}
    while place in makers and op_name(model, makers[place]) in _AFTER_LOGITS:
        place = int(makers[place].inputs[0])
    quantised = graph.tensors[place].quantization
    scale = None if quantised is None else quantised.scale
    return 0.0 if scale is None or not len(scale) else float(scale[0])
