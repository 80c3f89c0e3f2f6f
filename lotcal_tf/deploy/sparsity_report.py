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
from lotcal_tf.formats import zeros
from lotcal_tf.formats.format import StoredTensor
from lotcal_tf.formats.tflite_file import operators
from lotcal_tf.pruning import masking
from lotcal_tf.pruning.compaction import Compaction
from lotcal_tf.tables import percent

# Names of the two networks that files are compared with; both are dense float32 `.tflite` files.
DENSE, MASKED = "dense network", "masked network"


@dataclasses.dataclass(frozen=True)
class LayerRow:
    """One kernel in one file.

    Attributes:
      file: the file.
      layer: the layer's name.
      dense_shape, compact_shape: of the kernel before and after compaction.
      weights, zeros: numbers of values and zeros of the kernel in the file.
      stored: dense or sparse, and the share of weights that compaction left out.
      executed: the kind of kernel that executes it.
      why: why its zeros do not make it faster; empty if they do, or if the reason is unknown.
      weight: the kernel's name; a layer may have several.
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
    weight: str = "kernel"


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
      runtime: the library that runs it; empty if that is unknown.
    """

    file: str
    encoding: str
    bytes: int
    gzipped: int
    latency: Mapping[int, Latency]
    runtime: str = registry.LITERT


@dataclasses.dataclass(frozen=True)
class SparsityReport:
    """What the zeros of a ticket save.

    Attributes:
      layers: one row per kernel and file.
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
        network = compaction.model if compacted else masked
        runtime = _runtime(paths[file])
        graph = operators.read(paths[file]) if runtime == registry.LITERT else None
        # A layer of a nested model is `outer_inner` in the flat network of the compaction.
        matched = {_flat(path): one for path, one in zeros.match(tensors, network).items()}
        counts = {
            _flat(path): int((kernel == 0).sum())
            for path, kernel in masking.kernels(network).items()
        }
        layers += [
            _layer_row(
                file,
                path,
                compaction,
                compacted,
                matched.get(path),
                counts.get(path, 0),
                runtime or "an unknown runtime",
                graph,
            )
            for path in compaction.before
        ]
    files = [
        FileRow(
            name,
            encodings.get(name, "dense"),
            size_of(path),
            _gzipped(path),
            dict(latency.get(name, {})),
            _runtime(path),
        )
        for name, path in paths.items()
    ]
    return SparsityReport(layers, files, _machine())


# Layers


def _flat(path: str) -> str:
    """The path of a kernel after flattening: `outer_inner/kernel` for `outer/inner/kernel`."""
    layer, _, weight = path.rpartition("/")
    return f"{layer.replace('/', '_')}/{weight}"


def _layer_row(
    file: str,
    path: str,
    compaction: Compaction,
    compacted: bool,
    tensor: StoredTensor | None,
    zero_count: int,
    runtime: str,
    graph: operators.Graph | None,
) -> LayerRow:
    """A row; `tensor` is None if the file does not show it: then the number of zeros is the network's."""
    dense, compact = compaction.before[path], compaction.after[path]
    layer, _, weight = path.rpartition("/")
    before = int(np.prod(dense))
    weights = int(np.prod(compact)) if compacted else before
    if tensor is None:
        stored = executed = "unknown"
        why = "the file does not show which of its tensors is this kernel"
        return LayerRow(
            file, layer, dense, compact, weights, zero_count, stored, executed, why, weight
        )
    stored = "sparse" if tensor.sparse else "dense"
    if weights < before:
        stored += f", {percent(1 - weights / before)} left out"
    executed, why = execution(tensor, runtime, graph)
    counted = tensor.size, tensor.zeros
    return LayerRow(file, layer, dense, compact, *counted, stored, executed, why, weight)


# Files


def _runtime(path: Path) -> str:
    """The library that runs a file; empty if that is unknown."""
    row = registry.format_of(path)
    return "" if row is None else row.runtime


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
