"""The verdict: what the zeros of a ticket turned into, layer by layer and file by file, and what they did not.

A zero is worth something only where it is left out or skipped. What a file leaves out is seen in its
shapes; whether a kernel skips anything is seen in the operators that the `.tflite` file names.
"""

import dataclasses
import gzip
import importlib.metadata
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lotcal_tf.compat import keras
from lotcal_tf.deploy.latency import Latency
from lotcal_tf.files import parts, size_of
from lotcal_tf.formats.tflite_file import operators
from lotcal_tf.formats.zeros import StoredTensor
from lotcal_tf.lottery.progress import percent
from lotcal_tf.models.keras_graph import flatten
from lotcal_tf.pruning.compaction import Compaction

# Names of the two networks that files are held against; both as dense float32 `.tflite` files.
DENSE, MASKED = "dense network", "masked network"

# XNNPACK takes a 1×1 convolution for sparse where so much of its kernel is zero.
_SPARSE_SHARE = 2 / 3


@dataclasses.dataclass(frozen=True)
class LayerRow:
    """What became of one layer in one file.

    Attributes:
      file: the file.
      layer: the layer's name.
      dense_shape, compact_shape: of its kernel, before and after compaction, whichever is in the file.
      weights, zeros: of the kernel in the file.
      stored: dense or sparse, and which share was left out.
      executed: by what kind of kernel.
      why: why its zeros make it no faster, or no faster still; empty where that cannot be said.
    """

    file: str
    layer: str
    dense_shape: tuple[int, ...]
    compact_shape: tuple[int, ...]
    weights: int
    zeros: int
    stored: str
    executed: str
    why: str


@dataclasses.dataclass(frozen=True)
class FileRow:
    """What one file weighs and how fast it is.

    Attributes:
      file: the file, or one of the two networks that files are held against.
      encoding: dense, sparse, compact or compact_sparse.
      bytes: its size; of a directory all files in it.
      gzipped: by gzip at its usual level, 6.
      sparse_bytes: of the same format in sparse encoding; None where there is none.
      latency: by number of threads; empty where LiteRT cannot run it.
    """

    file: str
    encoding: str
    bytes: int
    gzipped: int
    sparse_bytes: int | None
    latency: Mapping[int, Latency]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the sparsity turned into.

    Attributes:
      layers: one row a layer and file.
      files: the dense network, the masked one, and each file.
      machine: where the latency was measured.
    """

    layers: Sequence[LayerRow]
    files: Sequence[FileRow]
    machine: str

    def as_dict(self) -> dict[str, Any]:
        """As JSON can hold it: shapes are lists, numbers of threads are text."""
        files = [dataclasses.asdict(row) for row in self.files]
        for row in files:
            row["latency"] = {str(threads): value for threads, value in row["latency"].items()}
        layers = [dataclasses.asdict(row) for row in self.layers]
        for row in layers:
            row |= {key: list(row[key]) for key in ("dense_shape", "compact_shape")}
        return {"layers": layers, "files": files, "machine": self.machine}


def verdict(
    masked: "keras.Model",
    compaction: Compaction,
    tensors_by_file: Mapping[str, Sequence[StoredTensor]],
    *,
    paths: Mapping[str, Path],
    encodings: Mapping[str, str],
    latency: Mapping[str, Mapping[int, Latency]],
    sparse_bytes: Mapping[str, int] | None = None,
) -> Verdict:
    """Gathers what is known of the files.

    Args:
      masked: the ticket's plain network with its zeros.
      compaction: of that network.
      tensors_by_file: `zeros.tensors` of each file whose layers are to be told.
      paths: every file, and `DENSE` and `MASKED` as files, in the order of the table.
      encodings: how each is encoded; `dense` where nothing is said.
      latency: `latency.measure` of those that LiteRT runs.
      sparse_bytes: the size that a file's format has in sparse encoding, where that was tried.
    """
    layers = []
    for file, tensors in tensors_by_file.items():
        compacted = encodings.get(file, "dense").startswith("compact")
        network = compaction.model if compacted else flatten(masked)
        graph = operators.read(paths[file]) if paths[file].suffix == ".tflite" else None
        matched = _matched(tensors, compaction.after if compacted else compaction.before)
        counts = _zeros(network)
        layers += [
            _layer_row(file, layer, compaction, compacted, matched.get(layer), counts[layer], graph)
            for layer in compaction.before
        ]
    files = []
    for name, path in paths.items():
        encoding, size = encodings.get(name, "dense"), size_of(path)
        sparse = size if "sparse" in encoding else (sparse_bytes or {}).get(name)
        files.append(
            FileRow(name, encoding, size, _gzipped(path), sparse, dict(latency.get(name, {})))
        )
    return Verdict(layers, files, _machine())


# Layers


def _matched(
    tensors: Sequence[StoredTensor], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, StoredTensor]:
    """The file's tensor of each layer: by the layer's name, else where only one pair has that size."""
    sizes = {layer: int(np.prod(shape)) for layer, shape in shapes.items()}
    found: dict[str, StoredTensor] = {}
    loose = []
    for tensor in tensors:
        # A layer of a nested model is `outer/inner` in a file, `outer_inner` in a flat network.
        layer = tensor.layer.replace("/", "_")
        if layer not in found and sizes.get(layer) == tensor.size:
            found[layer] = tensor
        else:
            loose.append(tensor)
    left = {layer: size for layer, size in sizes.items() if layer not in found}
    for layer, size in left.items():
        fitting = [tensor for tensor in loose if tensor.size == size]
        if len(fitting) == 1 and list(left.values()).count(size) == 1:
            found[layer] = fitting[0]
    return found


def _zeros(network: "keras.Model") -> dict[str, int]:
    return {
        layer.name: int((layer.get_weights()[0] == 0).sum())
        for layer in network.layers
        if layer.weights and layer.weights[0].shape.rank > 1
    }


def _layer_row(
    file: str,
    layer: str,
    compaction: Compaction,
    compacted: bool,
    tensor: StoredTensor | None,
    zeros: int,
    graph: operators.Graph | None,
) -> LayerRow:
    """`tensor` is None where the file does not tell which one it is; `zeros` then stands for its."""
    dense, compact = compaction.before[layer], compaction.after[layer]
    before = int(np.prod(dense))
    weights = int(np.prod(compact)) if compacted else before
    if tensor is None:
        stored = executed = "not told apart"
        why = "the names in the file do not tell which kernel is this layer's"
        return LayerRow(file, layer, dense, compact, weights, zeros, stored, executed, why)
    stored = "sparse" if tensor.sparse else "dense"
    if weights < before:
        stored += f", {percent(1 - weights / before)} left out"
    executed, why = _execution(tensor.name, tensor.zeros, tensor.size, graph)
    return LayerRow(file, layer, dense, compact, tensor.size, tensor.zeros, stored, executed, why)


def _execution(name: str, zeros: int, size: int, graph: operators.Graph | None) -> tuple[str, str]:
    """How the kernel of that name is executed, and why its zeros do not make it faster."""
    if graph is None:
        executed, why = "dense kernel (TensorFlow)", "TensorFlow multiplies zeros like any number"
    elif name not in graph.kernels:
        executed, why = "not found", "no operator of the file reads a constant of this name"
    else:
        executed, why = _litert(graph.kernels[name], zeros, size, graph)
    return executed, why if zeros else "it has no zeros"


def _litert(
    use: operators.KernelUse, zeros: int, size: int, graph: operators.Graph
) -> tuple[str, str]:
    if not use.sparse:
        return "dense kernel", "stored dense: a dense kernel multiplies zeros like any number"
    if not use.densified:
        if not use.block:
            return "sparse kernel", ""
        block = "×".join(str(edge) for edge in use.block)
        return (
            f"sparse kernel, blocks {block}",
            f"a {block} block is skipped only where all of it is zero",
        )
    unpacked = "DENSIFY, then dense kernel"
    if use.operator == "FULLY_CONNECTED":
        return (
            unpacked,
            "not stored in blocks, which its sparse kernel wants: unpacked on loading",
        )
    if use.operator == "CONV_2D" and use.shape[1:3] == (1, 1):
        lacking = _lacking(use, zeros, size, graph)
        if lacking:
            return unpacked, f"XNNPACK's sparse 1×1 kernel wants {', '.join(lacking)}"
        return (
            "DENSIFY, then dense kernel or XNNPACK's sparse one",
            "XNNPACK chooses when it loads the file, which the file does not show",
        )
    kind = "depthwise convolutions" if use.operator.startswith("DEPTH") else "such a layer"
    if use.operator == "CONV_2D":
        kind = f"{use.shape[1]}×{use.shape[2]} convolutions"
    return unpacked, f"LiteRT has no sparse kernel for {kind}: unpacked on loading"


def _lacking(use: operators.KernelUse, zeros: int, size: int, graph: operators.Graph) -> list[str]:
    """What is missing for XNNPACK's sparse inference."""
    wanted = {
        "floats": use.floating,
        "2/3 zeros": zeros >= _SPARSE_SHARE * size,
        "a 3×3 stride-2 convolution of 3 channels before it": graph.stem,
        "a spatial mean after it": "MEAN" in graph.operators,
    }
    return [what for what, there in wanted.items() if not there]


# Files


def _gzipped(path: Path) -> int:
    """Of all files together, as an archive would be."""
    return len(gzip.compress(b"".join(part.read_bytes() for part in parts(path)), 6, mtime=0))


def _machine() -> str:
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text().splitlines() if cpus.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    model = models[0] if models else platform.machine()
    version = importlib.metadata.version("ai-edge-litert")
    return f"{model}, {os.cpu_count()} processors, {platform.system()}, LiteRT {version}"
