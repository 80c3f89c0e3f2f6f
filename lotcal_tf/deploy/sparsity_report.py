"""The sparsity report: what the zeros of a ticket save, in each layer of each file, and why not more.

A zero saves something only if a file leaves it out or a kernel skips it. The shapes in a file show what
it leaves out; the operators in a `.tflite` file show whether a kernel skips zeros.
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
from lotcal_tf.config import registry
from lotcal_tf.deploy.execution import execution
from lotcal_tf.deploy.latency import Latency
from lotcal_tf.files import parts, size_of
from lotcal_tf.formats.format import StoredTensor
from lotcal_tf.formats.tflite_file import operators
from lotcal_tf.models.keras_graph import flatten
from lotcal_tf.pruning.compaction import Compaction
from lotcal_tf.tables import percent

# Names of the two networks that files are compared with; both are dense float32 `.tflite` files.
DENSE, MASKED = "dense network", "masked network"


@dataclasses.dataclass(frozen=True)
class LayerRow:
    """One layer in one file.

    Attributes:
      file: the file.
      layer: the layer's name.
      dense_shape, compact_shape: of its kernel before and after compaction.
      weights, zeros: numbers of values and zeros of the kernel in the file.
      stored: dense or sparse, and the share of weights that compaction left out.
      executed: the kind of kernel that executes it.
      why: why its zeros do not make it faster; empty if they do, or if the reason is unknown.
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
    """The size and latency of one file.

    Attributes:
      file: the file, or `DENSE` or `MASKED`, or the same file in the encoding that the other
        preference selects.
      encoding: a name in `registry.ENCODINGS`.
      bytes: its size; of a directory, the size of all files in it.
      gzipped: its size after gzip at level 6.
      latency: by number of threads; empty if LiteRT cannot run it.
    """

    file: str
    encoding: str
    bytes: int
    gzipped: int
    latency: Mapping[int, Latency]


@dataclasses.dataclass(frozen=True)
class SparsityReport:
    """What the zeros of a ticket save.

    Attributes:
      layers: one row per layer and file.
      files: the dense network, the masked network, and each file.
      machine: the machine on which latency was measured.
    """

    layers: Sequence[LayerRow]
    files: Sequence[FileRow]
    machine: str

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON: shapes are lists, numbers of threads are strings."""
        files = [dataclasses.asdict(row) for row in self.files]
        for row in files:
            row["latency"] = {str(threads): value for threads, value in row["latency"].items()}
        layers = [dataclasses.asdict(row) for row in self.layers]
        for row in layers:
            row |= {key: list(row[key]) for key in ("dense_shape", "compact_shape")}
        return {"layers": layers, "files": files, "machine": self.machine}


def sparsity_report(
    masked: "keras.Model",
    compaction: Compaction,
    tensors_by_file: Mapping[str, Sequence[StoredTensor]],
    *,
    paths: Mapping[str, Path],
    encodings: Mapping[str, str],
    latency: Mapping[str, Mapping[int, Latency]],
) -> SparsityReport:
    """Reports on files.

    Args:
      masked: the ticket's plain network with its zeros.
      compaction: of that network.
      tensors_by_file: the kernels in each file whose layers are reported.
      paths: every file, with `DENSE` and `MASKED`, in the order of the table.
      encodings: of the files that are not `dense`.
      latency: `latency.measure` of the files that LiteRT can run.
    """
    layers = []
    for file, tensors in tensors_by_file.items():
        compacted = encodings.get(file, "dense").startswith("compact")
        network = compaction.model if compacted else flatten(masked)
        row = registry.format_of(paths[file])
        runtime = "an unknown runtime" if row is None else row.runtime
        graph = operators.read(paths[file]) if runtime == registry.LITERT else None
        matched = match_layers(tensors, compaction.after if compacted else compaction.before)
        counts = _zeros(network)
        layers += [
            _layer_row(
                file,
                layer,
                compaction,
                compacted,
                matched.get(layer),
                counts[layer],
                runtime,
                graph,
            )
            for layer in compaction.before
        ]
    files = [
        FileRow(
            name,
            encodings.get(name, "dense"),
            size_of(path),
            _gzipped(path),
            dict(latency.get(name, {})),
        )
        for name, path in paths.items()
    ]
    return SparsityReport(layers, files, _machine())


# Layers


def match_layers(
    tensors: Sequence[StoredTensor], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, StoredTensor]:
    """The tensor of each layer: by the layer's name, else by size if that is unambiguous.

    Args:
      tensors: the kernels in a file.
      shapes: of the kernels by layer.
    """
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
    runtime: str,
    graph: operators.Graph | None,
) -> LayerRow:
    """A row; `tensor` is None if the file does not show it, and `zeros` is then the network's number."""
    dense, compact = compaction.before[layer], compaction.after[layer]
    before = int(np.prod(dense))
    weights = int(np.prod(compact)) if compacted else before
    if tensor is None:
        stored = executed = "unknown"
        why = "the names in the file do not show which kernel belongs to this layer"
        return LayerRow(file, layer, dense, compact, weights, zeros, stored, executed, why)
    stored = "sparse" if tensor.sparse else "dense"
    if weights < before:
        stored += f", {percent(1 - weights / before)} left out"
    executed, why = execution(tensor, runtime, graph)
    return LayerRow(file, layer, dense, compact, tensor.size, tensor.zeros, stored, executed, why)


# Files


def _gzipped(path: Path) -> int:
    """The size of all files together after gzip, as of an archive."""
    return len(gzip.compress(b"".join(part.read_bytes() for part in parts(path)), 6, mtime=0))


def _machine() -> str:
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text().splitlines() if cpus.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    model = models[0] if models else platform.machine()
    version = importlib.metadata.version("ai-edge-litert")
    return f"{model}, {os.cpu_count()} processors, {platform.system()}, LiteRT {version}"
