"""Making one file: in the smallest of its encodings, its zeros counted, its temperature fitted anew."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from lotcal_tf.calibration.temperature import fit_temperature
from lotcal_tf.catalog import ENCODINGS, Encoding, Format
from lotcal_tf.compat import keras
from lotcal_tf.deploy.formats import PROBABILITIES, Material, with_softmax
from lotcal_tf.pruning.compaction import Compaction


@dataclasses.dataclass(frozen=True)
class Made:
    """A file that was written.

    Attributes:
      path: where it is.
      encoding: its encoding's name.
      sizes: bytes in each of the encodings that were tried.
    """

    path: Path
    encoding: str
    sizes: Mapping[str, int]


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
        finish = with_softmax if output == PROBABILITIES else lambda model: model
        self.networks = {False: finish(model), True: finish(compaction.model)}
        self.material, self.scratch = material, scratch
        self.worthwhile = compaction.before != compaction.after

    def make(self, row: Format, encoding: str | None = None) -> Made:
        """Writes a file in one encoding, or in each that it can have, of which the smallest stays."""
        names = [encoding] if encoding else self._candidates(row)
        paths = {name: self.scratch / name / row.file for name in names}
        for name, path in paths.items():
            path.parent.mkdir(exist_ok=True)
            how = ENCODINGS[name]
            write = row.load()
            write(self.networks[how.compact], path, sparse=how.sparse, material=self.material)
        sizes = {name: size_of(path) for name, path in paths.items()}
        best = min(sizes, key=lambda name: sizes[name])  # The first of equal ones.
        return Made(paths[best], best, sizes)

    def _candidates(self, row: Format) -> list[str]:
        return [
            name
            for name, how in ENCODINGS.items()
            if (row.sparse or not how.sparse) and (self.worthwhile or not how.compact)
        ]


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files of a directory."""
    files = [path] if path.is_file() else [part for part in path.rglob("*") if part.is_file()]
    return sum(file.stat().st_size for file in files)
