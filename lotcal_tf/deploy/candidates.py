"""Making one file: in the smallest of its encodings, its temperature fitted anew, its zeros counted."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from lotcal_tf.compat import keras
from lotcal_tf.config.registry import ENCODINGS, FORMATS, Format
from lotcal_tf.deploy.scaling import refit
from lotcal_tf.files import size_of
from lotcal_tf.formats import zeros
from lotcal_tf.formats.format import LOGITS, NOTHING, PROBABILITIES, Material, with_softmax
from lotcal_tf.formats.zeros import StoredTensor
from lotcal_tf.pruning.compaction import Compaction

# The encoding that leaves no zeros out, by whether dead units are.
_DENSE = {how.compact: name for name, how in ENCODINGS.items() if not how.sparse}


@dataclasses.dataclass(frozen=True)
class Made:
    """A file that was written.

    Attributes:
      path: where it is.
      encoding: its encoding's name.
      sizes: bytes in each of the encodings that were tried, by name.
      temperature: what its logits are divided by besides what the network was given.
      tensors: the kernels that it holds.
    """

    path: Path
    encoding: str
    sizes: Mapping[str, int]
    temperature: float
    tensors: Sequence[StoredTensor]


class Maker:
    """Makes files of one network.

    Args:
      model: plain; gives logits.
      compaction: of that network.
      output: `logits` or `probabilities`, what files give.
      material: what quantising draws on.
      scratch: a directory to write to.
    """

    def __init__(
        self,
        model: "keras.Model",
        compaction: Compaction,
        output: str,
        material: Material,
        scratch: Path,
    ) -> None:
        """See the class."""
        self._networks = {False: model, True: compaction.model}
        self._output, self._material, self._scratch = output, material, scratch
        self._smaller = compaction.before != compaction.after

    def make(self, row: Format, encoding: str | None, target: Path, *, refitted: bool) -> Made:
        """Writes a file in one encoding, or in each that it can have, of which the smallest stays.

        Args:
          row: the format.
          encoding: a name of `ENCODINGS`; None: the smallest.
          target: the directory it goes to.
          refitted: whether a quantised network is given a temperature of its own, where there are
            validation data to fit it on.

        Raises:
          UsageError: the network cannot be written so.
          ExportMismatch: a weight that is 0 in the network is not 0 in the file.
        """
        names = [encoding] if encoding else self._candidates(row)
        sizes = {name: self._write(row, name) for name in names}
        best = min(sizes, key=lambda name: sizes[name])  # The first of equal ones.
        temperature = 1.0
        if refitted and row.tolerance != "float" and self._material.validation is not None:
            temperature = refit(self._scratch / best / row.file, self._material)
        path = (self._scratch / best / row.file).rename(target / row.file)
        held = zeros.check(path, self._networks[ENCODINGS[best].compact])
        return Made(path, best, sizes, temperature, held)

    def reference(self, model: "keras.Model", name: str) -> Path:
        """A network as a dense float32 `.tflite` file, to hold others against."""
        row = FORMATS["float32"]
        tried = self._scratch / _DENSE[False] / row.file
        if model is self._networks[False] and self._output == LOGITS and tried.exists():
            return tried
        path = self._scratch / f"{name}.tflite"
        row.load()(model, path, material=NOTHING)
        return path

    def _candidates(self, row: Format) -> list[str]:
        return [
            name
            for name, how in ENCODINGS.items()
            if (row.encoder or not how.sparse) and (self._smaller or not how.compact)
        ]

    def _write(self, row: Format, encoding: str) -> int:
        """Writes a candidate, a sparse one after its dense one; gives its bytes."""
        how = ENCODINGS[encoding]
        model = self._networks[how.compact]
        if self._output == PROBABILITIES:
            model = with_softmax(model)
        path = self._scratch / encoding / row.file
        path.parent.mkdir(exist_ok=True)
        if not how.sparse:
            row.load()(model, path, material=self._material)
            return size_of(path)
        whole = self._scratch / _DENSE[how.compact] / row.file
        if not whole.exists():
            self._write(row, _DENSE[how.compact])
        path.write_bytes(row.load_encoder()(model, whole.read_bytes()))
        return size_of(path)
