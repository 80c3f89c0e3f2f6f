"""How a runtime executes a kernel: whether it skips zeros, and if not, why."""

from lotcal_tf.formats.format import StoredTensor
from lotcal_tf.formats.tflite_file import operators

# The share of zeros in a kernel from which XNNPACK runs a 1×1 convolution as sparse.
_SPARSE_SHARE = 2 / 3


def execution(tensor: StoredTensor, runtime: str, graph: operators.Graph | None) -> tuple[str, str]:
    """How a kernel is executed, and why its zeros do not make it faster (empty if they do).

    Args:
      tensor: the kernel in a file.
      runtime: the library that runs the file.
      graph: the operators of the file; None if it is not a `.tflite` file.
    """
    if graph is None:
        executed, why = f"dense kernel ({runtime})", f"{runtime} multiplies zeros like other values"
        if tensor.sparse:
            executed, why = f"unknown ({runtime})", f"the file does not show how {runtime} runs it"
    elif tensor.name not in graph.kernels:
        executed, why = "not found", "no operator of the file reads a constant of this name"
    else:
        executed, why = litert_execution(
            graph.kernels[tensor.name], tensor.zeros, tensor.size, graph
        )
    return executed, why if tensor.zeros else "it has no zeros"


def litert_execution(
    use: operators.KernelUse, zeros: int, size: int, graph: operators.Graph
) -> tuple[str, str]:
    """How LiteRT executes a kernel, and why its zeros do not make it faster; see `execution`.

    Args:
      use: how the file uses the kernel.
      zeros, size: numbers of its zeros and of its values.
      graph: the operators of the file.
    """
    if not use.sparse:
        return "dense kernel", "stored dense: a dense kernel multiplies zeros like other values"
    if not use.densified:
        if not use.block:
            return "sparse kernel", ""
        block = "×".join(str(edge) for edge in use.block)
        return (
            f"sparse kernel, blocks {block}",
            f"a {block} block is skipped only if all its values are zero",
        )
    unpacked = "DENSIFY, then dense kernel"
    if use.operator == "FULLY_CONNECTED":
        return (
            unpacked,
            "not stored in blocks, which the sparse kernel needs: unpacked on loading",
        )
    if use.operator == "CONV_2D" and use.shape[1:3] == (1, 1):
        missing = _missing(use, zeros, size, graph)
        if missing:
            return unpacked, f"XNNPACK's sparse 1×1 kernel needs {', '.join(missing)}"
        return (
            "DENSIFY, then dense kernel or XNNPACK's sparse one",
            "XNNPACK chooses on loading; the file does not show its choice",
        )
    kind = "depthwise convolutions" if use.operator.startswith("DEPTH") else "this operator"
    if use.operator == "CONV_2D":
        kind = f"{use.shape[1]}×{use.shape[2]} convolutions"
    return unpacked, f"LiteRT has no sparse kernel for {kind}: unpacked on loading"


def _missing(use: operators.KernelUse, zeros: int, size: int, graph: operators.Graph) -> list[str]:
    """What is missing for XNNPACK's sparse inference."""
    needed = {
        "floats": use.floating,
        "2/3 zeros": zeros >= _SPARSE_SHARE * size,
        "a 3×3 stride-2 convolution of 3 channels before it": graph.stem,
        "a spatial mean after it": "MEAN" in graph.operators,
    }
    return [what for what, there in needed.items() if not there]
