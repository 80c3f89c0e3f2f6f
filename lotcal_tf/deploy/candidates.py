"""Writing a network in one format: each possible encoding is a candidate, a fixed rule selects the file.

The rule does not depend on measured time, so that the same ticket always gives the same file. For
speed (the default), dead units are removed, if there are any, and zeros are left out only where a
sparse kernel of the runtime skips them (`blocks`): nothing is unpacked when the file is loaded. For
size, the smallest file is selected.
"""

import dataclasses
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lotcal_tf.compat import keras
from lotcal_tf.config.registry import ENCODINGS, FORMATS, SIZE, SPEED, FormatRow
from lotcal_tf.deploy.scaling import refit
from lotcal_tf.errors import FieldError, UsageError
from lotcal_tf.files import size_of
from lotcal_tf.formats import zeros
from lotcal_tf.formats.format import Format, Material, StoredTensor
from lotcal_tf.formats.outputs import PROBABILITIES, with_softmax
from lotcal_tf.pruning.compaction import Compaction

# The encodings from which the others are made, by whether dead units are removed.
_DENSE = {how.compact: name for name, how in ENCODINGS.items() if not how.sparse}
_SPARSE = {how.compact: name for name, how in ENCODINGS.items() if how.sparse and not how.blocks}
_NO_SPARSE = "no sparse kernel would be faster, or LiteRT cannot run it; choose another encoding"
_REFERENCE = "float32"  # the format of files that others are compared with


@dataclasses.dataclass(frozen=True)
class Alternative:
    """The same file in another encoding, for comparisons of size and latency.

    Attributes:
      prefer: the preference that selects it.
      encoding: the name of its encoding.
      path: the file, before any temperature was fitted.
    """

    prefer: str
    encoding: str
    path: Path


@dataclasses.dataclass(frozen=True)
class WrittenFile:
    """A file in the selected encoding.

    Attributes:
      row: its format.
      path: the file.
      encoding: the name of its encoding.
      sizes: in bytes, of each encoding that was tried.
      alternative: the file that the other preference selects, if it is another one.
      temperature: the divisor of its logits, in addition to the network's temperature.
      tensors: the kernels in it.
    """

    row: FormatRow
    path: Path
    encoding: str
    sizes: Mapping[str, int]
    alternative: "Alternative | None"
    temperature: float
    tensors: Sequence[StoredTensor]


class Candidates:
    """Writes candidate files of one network.

    Args:
      model: plain; gives logits.
      compaction: of that network.
      output: what files give: `logits` or `probabilities`.
      material: the data for quantisation, and examples for verifying encodings.
      scratch: an existing directory for candidates.
      example: the inputs of one example `(1, …)`; encodings whose file cannot be run are left out.
    """

    def __init__(
        self,
        model: "keras.Model",
        compaction: Compaction,
        output: str,
        material: Material,
        scratch: Path,
        example: Any,
    ) -> None:
        self._networks = {False: model, True: compaction.model}
        self._output, self._material, self._scratch = output, material, scratch
        self._example = example
        self._has_dead_units = compaction.before != compaction.after

    def write(
        self, name: str, encoding: str | None, target: Path, *, prefer: str, refitted: bool
    ) -> WrittenFile:
        """Writes a file in one encoding, or in every possible encoding to select one.

        Args:
          name: the format.
          encoding: a name in `ENCODINGS`; None: selected by `prefer`.
          target: the directory for the file.
          prefer: `speed` or `size`.
          refitted: whether to fit a temperature to a quantised network, if there is validation data.

        Raises:
          UsageError: the network cannot be written in this format or encoding.
          ExportMismatch: a weight is 0 in the network but not in the file.
        """
        row = FORMATS[name]
        file_format = row.load()
        names = [encoding] if encoding else self._possible_encodings(row)
        try:
            tried = {name: self._write(row, file_format, name) for name in names}
        except UsageError as error:
            text = str(error)
            raise UsageError(text if text.startswith(name) else f"{name}: {text}") from error
        candidates = {name: path for name, path in tried.items() if path is not None}
        if not candidates:
            problem = f"{name} has no such file of this network: {_NO_SPARSE}"
            raise FieldError("encoding", encoding, problem)
        sizes = {name: size_of(path) for name, path in candidates.items()}
        smallest = min(sizes, key=lambda name: sizes[name])  # the first of equal ones
        selections = {SPEED: encoding or self._fastest(sizes), SIZE: encoding or smallest}
        selected, path = selections[prefer], target / row.file
        copy = shutil.copytree if candidates[selected].is_dir() else shutil.copyfile
        copy(candidates[selected], path)
        temperature = 1.0
        if refitted and row.quantised and self._material.validation is not None:
            temperature = refit(path, file_format, self._material)
        tensors = file_format.stored_tensors(path)
        zeros.check(path.name, tensors, self._networks[ENCODINGS[selected].compact])
        others = [
            Alternative(preference, other, candidates[other])
            for preference, other in selections.items()
            if other != selected
        ]
        alternative = others[0] if others else None
        return WrittenFile(row, path, selected, sizes, alternative, temperature, tensors)

    def reference(self, model: "keras.Model", name: str) -> Path:
        """A network as a dense float32 `.tflite` file with the output of all files, for comparisons.

        Args:
          model: the network; the candidate is used if it was written already.
          name: of the file, without suffix.

        Raises:
          UsageError: TFLite cannot run the network.
        """
        row = FORMATS[_REFERENCE]
        candidate = self._scratch / _DENSE[False] / row.file
        if model is self._networks[False] and candidate.exists():
            return candidate
        path = self._scratch / f"{name}{Path(row.file).suffix}"
        row.load().write(self._with_output(model), path)
        return path

    def _with_output(self, model: "keras.Model") -> "keras.Model":
        return with_softmax(model) if self._output == PROBABILITIES else model

    def _possible_encodings(self, row: FormatRow) -> list[str]:
        return [
            name for name in row.encodings if self._has_dead_units or not ENCODINGS[name].compact
        ]

    def _fastest(self, names: Iterable[str]) -> str:
        """The encoding that is selected for speed: in blocks if there is such a file, else dense."""
        encodings = {name: ENCODINGS[name] for name in names}
        return [
            name
            for name, how in encodings.items()
            if how.compact == self._has_dead_units and (how.blocks or not how.sparse)
        ][-1]

    def _write(self, row: FormatRow, file_format: Format, encoding: str) -> Path | None:
        """Writes a candidate, if that was not done before.

        A file in blocks is made from the sparse one, and that from the dense one. None: no kernel would
        be in blocks, or the file cannot be run.
        """
        how = ENCODINGS[encoding]
        path = self._scratch / encoding / row.file
        if path.exists():
            return path
        path.parent.mkdir(exist_ok=True)
        model = self._with_output(self._networks[how.compact])
        if not how.sparse:
            file_format.write(model, path, self._material)
            return path
        before = self._write(row, file_format, (_SPARSE if how.blocks else _DENSE)[how.compact])
        if before is None:
            return None
        if how.blocks:
            content = file_format.encode_blocks(before.read_bytes())
        else:
            content = file_format.encode(model, before.read_bytes(), self._material)
        if content is None:
            return None
        path.write_bytes(content)
        if not self._runs(file_format, path):
            path.unlink()
            return None
        return path

    def _runs(self, file_format: Format, path: Path) -> bool:
        try:
            file_format.runner(path)(self._example)
        except (UsageError, RuntimeError, ValueError):  # of LiteRT
            return False
        return True
