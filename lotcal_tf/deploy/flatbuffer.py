"""What is inside a `.tflite` file: its tensors and ops, and the few changes made to them there."""

from typing import Any

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

_IDENTIFIER = b"TFL3"
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


def append_softmax(written: bytes, before: str, after: str) -> bytes:
    """A file with a float softmax behind its only output.

    Args:
      written: the file's contents; its output is float32 `(N, K)`.
      before, after: what the signature calls the output, so far and from now on.
    """
    model = unpack(written)
    graph = model.subgraphs[0]
    (logits,) = graph.outputs
    softmax = schema.OperatorCodeT()
    softmax.builtinCode = softmax.deprecatedBuiltinCode = schema.BuiltinOperator.SOFTMAX
    softmax.version = 1
    model.operatorCodes.append(softmax)
    made = schema.TensorT()
    made.name, made.type = after.encode(), schema.TensorType.FLOAT32
    made.shape = graph.tensors[logits].shape
    made.shapeSignature = graph.tensors[logits].shapeSignature
    made.buffer = len(model.buffers)
    model.buffers.append(schema.BufferT())
    graph.tensors.append(made)
    place = len(graph.tensors) - 1
    operator = schema.OperatorT()
    operator.opcodeIndex = len(model.operatorCodes) - 1
    operator.inputs, operator.outputs = [int(logits)], [place]
    operator.builtinOptionsType = schema.BuiltinOptions.SoftmaxOptions
    operator.builtinOptions = schema.SoftmaxOptionsT()
    operator.builtinOptions.beta = 1.0
    graph.operators.append(operator)
    graph.outputs = [place]
    for signature in model.signatureDefs:
        for output in signature.outputs:
            if output.name.decode() == before:
                output.name, output.tensorIndex = after.encode(), place
    return pack(model)
