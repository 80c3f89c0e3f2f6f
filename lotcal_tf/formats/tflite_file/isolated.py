"""An interpreter of LiteRT in a child process, for files that others made.

LiteRT reads the offsets of a file without checking all of them. A damaged or changed file can end the
process, or run without end. In a child process with limits, that is an error of one line.
"""

import contextlib
import json
import math
import os
import selectors
import subprocess
import sys
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lotcal_tf.errors import UsageError
from lotcal_tf.formats.tflite_file import interpreter_process

SECONDS = 60.0  # for opening a file, and for each example of a batch
_LARGEST_HEADER = 1 << 20  # bytes
_LARGEST_OUTPUT = 1 << 22  # bytes of one example


class IsolatedInterpreter:
    """Runs a `.tflite` file in a child process; the methods are those of LiteRT's interpreter.

    Args:
      path: the file.
      threads: of LiteRT.

    Raises:
      UsageError: it cannot be read, or reading it ended the child process or exceeded its limits.
    """

    def __init__(self, path: Path, threads: int) -> None:
        self._path = path
        script = interpreter_process.__file__
        # -P: the directory of the script is not searched for modules, nor is the working directory.
        command = [sys.executable, "-P", str(script), str(path), str(threads), str(_memory())]
        self.child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._end = weakref.finalize(self, _end, self.child)
        self._inputs: dict[int, NDArray[Any]] = {}
        self._resized = False
        self._output: NDArray[Any] | None = None
        details = self._reply(SECONDS)
        self._details: dict[str, Any] = {"named": {}, **details}
        for tensor in (*details["inputs"], *details["outputs"]):
            if np.dtype(tensor["dtype"]).kind not in "biuf":
                raise self._refusal(f"{tensor['name']!r} has type {tensor['dtype']}, not numbers")

    def get_input_details(self) -> list[dict[str, Any]]:
        """The inputs: name, index, shape, shape_signature, dtype and quantization."""
        return [_typed(tensor) for tensor in self._details["inputs"]]

    def get_output_details(self) -> list[dict[str, Any]]:
        """The outputs, as for inputs."""
        return [_typed(tensor) for tensor in self._details["outputs"]]

    def get_named_inputs(self) -> dict[str, dict[str, Any]]:
        """The inputs by their names in the only signature."""
        return {name: _typed(tensor) for name, tensor in self._details["named"].items()}

    def get_signature_list(self) -> dict[str, Any]:
        """The names of inputs and outputs, by signature."""
        return dict(self._details["signatures"])

    def resize_tensor_input(self, index: int, shape: Any) -> None:
        """Announces that an input has another shape than in the file."""
        self._resized = True

    def allocate_tensors(self) -> None:
        """Does nothing: `invoke` allocates."""

    def set_tensor(self, index: int, values: NDArray[Any]) -> None:
        """Sets an input."""
        self._inputs[index] = np.ascontiguousarray(values)

    def invoke(self) -> None:
        """Runs the file on the inputs.

        Raises:
          UsageError: it cannot be run, or running it ended the child process or exceeded its limits.
        """
        output = self._details["outputs"][0]["index"]
        inputs = [
            {
                "index": index,
                "shape": values.shape,
                "dtype": str(values.dtype),
                "bytes": values.nbytes,
            }
            for index, values in self._inputs.items()
        ]
        command = {"inputs": inputs, "resize": self._resized, "output": output}
        assert self.child.stdin is not None
        try:
            self.child.stdin.write(json.dumps(command).encode() + b"\n")
            for values in self._inputs.values():
                self.child.stdin.write(values.tobytes())
            self.child.stdin.flush()
        except OSError:
            pass  # The child has ended, which the reply shows.
        examples = max((len(values) for values in self._inputs.values() if values.ndim), default=1)
        deadline = SECONDS * examples
        found = self._reply(deadline)
        shape, dtype = tuple(found["shape"]), np.dtype(found["dtype"])
        size = math.prod(shape) * dtype.itemsize
        if dtype.hasobject or size > _LARGEST_OUTPUT * examples:
            raise self._refusal(f"gives outputs of shape {shape}")
        content = self._read(size, time.monotonic() + deadline)
        self._output = np.frombuffer(content, dtype).reshape(shape)

    def get_tensor(self, index: int) -> NDArray[Any]:
        """The output of the last run."""
        assert self._output is not None
        return self._output

    def _reply(self, seconds: float) -> dict[str, Any]:
        deadline, line = time.monotonic() + seconds, b""
        while not line.endswith(b"\n"):
            if len(line) > _LARGEST_HEADER:
                raise self._refusal("describes too many tensors")
            line += self._read(1, deadline)
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            raise self._refusal(found["error"])
        return found

    def _read(self, size: int, deadline: float) -> bytes:
        assert self.child.stdout is not None
        pieces, missing = [], size
        with selectors.DefaultSelector() as selector:
            selector.register(self.child.stdout, selectors.EVENT_READ)
            while missing:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise self._refusal("takes too long")
                piece = os.read(self.child.stdout.fileno(), missing)
                if not piece:
                    raise self._refusal("ends LiteRT: it is damaged, or needs too much memory")
                pieces.append(piece)
                missing -= len(piece)
        return b"".join(pieces)

    def _refusal(self, problem: str) -> UsageError:
        self._end()
        return UsageError(f"{self._path} cannot be read as a TFLite file: {problem}")


def _typed(tensor: dict[str, Any]) -> dict[str, Any]:
    return {**tensor, "dtype": np.dtype(tensor["dtype"]).type}


def _memory() -> int:
    """Half of the machine's memory, in bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _end(child: "subprocess.Popen[bytes]") -> None:
    child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        with contextlib.suppress(OSError):
            if pipe is not None:
                pipe.close()
