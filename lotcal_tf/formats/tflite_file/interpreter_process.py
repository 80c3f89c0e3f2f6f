"""The program of a child process that runs one `.tflite` file, see `isolated`.

It is started as a script, and imports nothing of this package and no TensorFlow. It reads commands from
standard input and answers on standard output, each as a line of JSON, with the bytes of arrays after it.
"""

import json
import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np


def main(path: str, threads: int, memory: int) -> None:
    """Opens a file and answers commands until standard input is closed.

    Args:
      path: the file.
      threads: of LiteRT.
      memory: the address space that the process may use beside its libraries, in bytes.
    """
    from ai_edge_litert.interpreter import Interpreter

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _limit(resource.RLIMIT_AS, used + memory)
    _limit(resource.RLIMIT_CORE, 0)
    interpreter = Interpreter(path, num_threads=threads)
    details = {
        "inputs": _plain(interpreter.get_input_details()),
        "outputs": _plain(interpreter.get_output_details()),
        "signatures": interpreter.get_signature_list(),
    }
    if len(details["inputs"]) > 1 and len(details["signatures"]) == 1:
        named = interpreter.get_signature_runner().get_input_details()
        details["named"] = dict(zip(named, _plain(list(named.values())), strict=True))
    _answer(details)
    while line := sys.stdin.buffer.readline():
        _answer(*_run(interpreter, json.loads(line)))


def _run(interpreter: Any, command: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    arrays = []
    for tensor in command["inputs"]:
        content = sys.stdin.buffer.read(tensor["bytes"])
        values = np.frombuffer(content, tensor["dtype"]).reshape(tensor["shape"])
        arrays.append(values)
        if command["resize"]:
            interpreter.resize_tensor_input(tensor["index"], values.shape)
    interpreter.allocate_tensors()
    for tensor, values in zip(command["inputs"], arrays, strict=True):
        interpreter.set_tensor(tensor["index"], values)
    interpreter.invoke()
    found = np.ascontiguousarray(interpreter.get_tensor(command["output"]))
    return {"shape": found.shape, "dtype": str(found.dtype)}, found.tobytes()


def _plain(details: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The details of tensors that are used, as JSON holds them."""
    return [
        {
            "name": tensor["name"],
            "index": int(tensor["index"]),
            "shape": [int(size) for size in tensor["shape"]],
            "shape_signature": [int(size) for size in tensor["shape_signature"]],
            "dtype": np.dtype(tensor["dtype"]).name,
            "quantization": [float(tensor["quantization"][0]), int(tensor["quantization"][1])],
        }
        for tensor in details
    ]


def _limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    limit = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (limit, limit))


def _answer(header: dict[str, Any], content: bytes = b"") -> None:
    sys.stdout.buffer.write(json.dumps(header).encode() + b"\n" + content)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    try:
        main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    except Exception as error:
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        _answer({"error": text})
