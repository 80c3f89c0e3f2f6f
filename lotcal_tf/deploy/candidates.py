"""Writing a network in one format: each possible encoding is a candidate, the smallest file is kept."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from lotcal_tf.compat import keras
from lotcal_tf.config.registry import ENCODINGS, FORMATS, FormatRow
from lotcal_tf.deploy.scaling import refit
from lotcal_tf.errors import UsageError
from lotcal_tf.files import size_of
from lotcal_tf.formats import zeros
from lotcal_tf.formats.format import Format, Material, StoredTensor
from lotcal_tf.formats.outputs import LOGITS, PROBABILITIES, with_softmax
from lotcal_tf.pruning.compaction import Compaction

# The encoding without sparse encoding, by whether dead units are removed.
_DENSE = {how.compact: name for name, how in ENCODINGS.items() if not how.sparse}
_REFERENCE = "float32"  # the format of files that others are compared with


@dataclasses.dataclass(frozen=True)
class WrittenFile:
    """A file in its smallest encoding.

    Attributes:
      row: its format.
      path: the file.
      encoding: the name of its encoding.
      sizes: in bytes, of each encoding that was tried.
      temperature: the divisor of its logits, in addition to the network's temperature.
      tensors: the kernels in it.
    """

    row: FormatRow
    path: Path
    encoding: str
    sizes: Mapping[str, int]
    temperature: float
    tensors: Sequence[StoredTensor]


class Candidates:
    """Writes candidate files of one network.

    Args:
      model: plain; gives logits.
      compaction: of that network.
      output: what files give: `logits` or `probabilities`.
      material: the data for quantisation.
      scratch: an existing directory for candidates.
    """

    def __init__(
        self,
        model: "keras.Model",
        compaction: Compaction,
        output: str,
        material: Material,
        scratch: Path,
    ) -> None:
        self._networks = {False: model, True: compaction.model}
        self._output, self._material, self._scratch = output, material, scratch
        self._has_dead_units = compaction.before != compaction.after

    def write(
        self, name: str, encoding: str | None, target: Path, *, refitted: bool
    ) -> WrittenFile:
        """Writes a file in one encoding, or in every possible encoding to keep the smallest file.

        Args:
          name: the format.
          encoding: a name in `ENCODINGS`; None: the smallest.
          target: the directory for the file.
          refitted: whether to fit a temperature to a quantised network, if there is validation data.

        Raises:
          UsageError: the network cannot be written in this format.
          ExportMismatch: a weight is 0 in the network but not in the file.
        """
        row = FORMATS[name]
        file_format = row.load()
        names = [encoding] if encoding else self._possible_encodings(row)
        try:
            sizes = {name: self._write(row, file_format, name) for name in names}
        except UsageError as error:
            text = str(error)
            raise UsageError(text if text.startswith(name) else f"{name}: {text}") from error
        smallest = min(sizes, key=lambda name: sizes[name])  # the first of equal ones
        candidate = self._scratch / smallest / row.file
        temperature = 1.0
        if refitted and row.quantised and self._material.validation is not None:
            temperature = refit(candidate, file_format, self._material)
        path = candidate.rename(target / row.file)
        tensors = file_format.stored_tensors(path)
        zeros.check(path.name, tensors, self._networks[ENCODINGS[smallest].compact])
        return WrittenFile(row, path, smallest, sizes, temperature, tensors)

    def reference(self, model: "keras.Model", name: str) -> Path:
        """A network as a dense float32 `.tflite` file, for comparisons.

        Args:
          model: the network; the candidate is used if it was written already.
          name: of the file, without suffix.

        Raises:
          UsageError: TFLite cannot run the network.
        """
        row = FORMATS[_REFERENCE]
        candidate = self._scratch / _DENSE[False] / row.file
        if model is self._networks[False] and self._output == LOGITS and candidate.exists():
            return candidate
        path = self._scratch / f"{name}{Path(row.file).suffix}"
        row.load().write(model, path)
        return path

    def _possible_encodings(self, row: FormatRow) -> list[str]:
        return [
            name
            for name, how in ENCODINGS.items()
            if (row.sparse or not how.sparse) and (self._has_dead_units or not how.compact)
        ]

    def _write(self, row: FormatRow, file_format: Format, encoding: str) -> int:
        """Writes a candidate and returns its size; a sparse one is made from its dense one."""
        how = ENCODINGS[encoding]
        model = self._networks[how.compact]
        if self._output == PROBABILITIES:
            model = with_softmax(model)
        path = self._scratch / encoding / row.file
        path.parent.mkdir(exist_ok=True)
        if not how.sparse:
            file_format.write(model, path, self._material)
            return size_of(path)
        dense = self._scratch / _DENSE[how.compact] / row.file
        if not dense.exists():
            self._write(row, file_format, _DENSE[how.compact])
        path.write_bytes(file_format.encode(model, dense.read_bytes()))
        return size_of(path)
