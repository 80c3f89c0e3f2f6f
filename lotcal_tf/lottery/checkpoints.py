"""Checkpoints of the level in progress: `checkpoints/level_NN_epoch_NNNN/` in the run directory.

Like a ticket, each is written under a temporary name, flushed and renamed as a whole. The last two
are kept, and all are removed when the level is finished.
"""

import contextlib
import dataclasses
import hashlib
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.numpy

from lotcal_tf.config.run_directory import level_name
from lotcal_tf.config.sealed import seal, unseal
from lotcal_tf.errors import DamagedTicket, NewerFormat
from lotcal_tf.files import flush, remove_leftovers, temporary, write_new
from lotcal_tf.lottery.ticket import Arrays
from lotcal_tf.lottery.ticket_files import load_tensors
from lotcal_tf.training.state import TrainingState
from lotcal_tf.training.trainer import Epoch

_KEPT = 2
_NAME = re.compile(r"level_(?P<level>\d{2,})_epoch_(?P<epochs>\d{4,})")
_LATE = "late_weights/"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A level after some of its epochs.

    Attributes:
      level: the number of the level.
      epochs: the results of the finished epochs.
      state: of the training.
      late_weights: with late rewinding, the weights to rewind to, if that step is passed.
    """

    level: int
    epochs: Sequence[Epoch]
    state: TrainingState
    late_weights: Arrays | None = None


class Checkpoints:
    """The checkpoints of a run directory.

    Args:
      run: the run directory.
    """

    def __init__(self, run: Path) -> None:
        self.directory = run / "checkpoints"

    def write(self, checkpoint: Checkpoint, origin: Mapping[str, Any]) -> None:
        """Writes a checkpoint, and removes all others of its level but the one before it.

        Those of later epochs are of an earlier attempt, which could not be continued.

        Args:
          checkpoint: the checkpoint.
          origin: what the level belongs to, as JSON values; `newest` compares it.
        """
        state = checkpoint.state
        self.directory.mkdir(exist_ok=True)
        flush(self.directory.parent)
        target = self.directory / f"{level_name(checkpoint.level)}_epoch_{state.epochs:04d}"
        remove_leftovers(target)
        late = {_LATE + name: value for name, value in (checkpoint.late_weights or {}).items()}
        content = safetensors.numpy.save({**state.tensors, **late})
        header = {
            "origin": dict(origin),
            "epochs": [epoch.row for epoch in checkpoint.epochs],
            "stopping": dict(state.stopping),
            "callbacks": list(state.callbacks),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        with temporary(target) as directory:
            directory.mkdir()
            write_new(directory / "tensors.safetensors", content)
            write_new(directory / "checkpoint.json", seal(header))
            flush(directory)
            shutil.rmtree(target, ignore_errors=True)  # A damaged one of the same epoch.
            directory.rename(target)
        flush(self.directory)
        own = [path for path in self._found() if _level_of(path) == checkpoint.level]
        end = own.index(target) + 1
        for old in (*own[: max(0, end - _KEPT)], *own[end:]):
            shutil.rmtree(old)

    def newest(
        self, level: int, origin: Mapping[str, Any]
    ) -> tuple[Checkpoint | None, Sequence[str]]:
        """Reads the newest checkpoint of a level that is not damaged.

        Args:
          level: the number of the level.
          origin: as for `write`; a checkpoint of another origin is left out.

        Returns:
          The checkpoint, None if there is none; and a line for each that is damaged.

        Raises:
          NewerFormat: it was written by a newer version of the package.
        """
        damaged: list[str] = []
        for directory in reversed(self._found()):
            try:
                header = unseal(directory / "checkpoint.json", always=True)
                if header["origin"] == dict(origin) and _level_of(directory) == level:
                    return _read(directory, level, header), damaged
            except NewerFormat:
                raise
            except (OSError, ValueError, KeyError, TypeError, AttributeError, DamagedTicket):
                damaged.append(f"{directory} is damaged; the training goes on from before it")
        return None, damaged

    def remove(self, finished: int) -> None:
        """Removes the checkpoints of levels below the number of finished levels."""
        for directory in self._found():
            if _level_of(directory) < finished:
                shutil.rmtree(directory)
        with contextlib.suppress(OSError):
            self.directory.rmdir()  # Others are left, or there is none.

    def _found(self) -> list[Path]:
        """All checkpoints, the newest last."""
        found = self.directory.iterdir() if self.directory.is_dir() else ()
        own = [path for path in found if _NAME.fullmatch(path.name)]
        return sorted(own, key=lambda path: (_level_of(path), len(path.name), path.name))


def _level_of(directory: Path) -> int:
    match = _NAME.fullmatch(directory.name)
    return int(match["level"]) if match else -1


def _read(directory: Path, level: int, header: Mapping[str, Any]) -> Checkpoint:
    """Reads a checkpoint whose header is verified.

    Raises:
      DamagedTicket, KeyError, TypeError, AttributeError: it is damaged.
    """
    tensors = load_tensors(directory / "tensors.safetensors", header["sha256"])
    late = {n.removeprefix(_LATE): tensors.pop(n) for n in list(tensors) if n.startswith(_LATE)}
    epochs = [Epoch.of(row) for row in header["epochs"]]
    stopping, callbacks = dict(header["stopping"]), [dict(own) for own in header["callbacks"]]
    state = TrainingState(len(epochs), tensors, stopping, callbacks)
    return Checkpoint(level, epochs, state, late or None)
