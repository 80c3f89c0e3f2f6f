"""Reads and writes the run directory.

Each file is written under a temporary name, flushed and renamed, and so is the directory of a level
as a whole. A level is finished when its directory has its final name, so nothing is half-written.
Tensors are stored as safetensors, everything else as JSON and CSV. The tables are derived from the
tickets.
"""

import contextlib
import dataclasses
import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.numpy

from lotcal_tf.config.run_directory import (
    finished_levels,
    level_name,
    read_experiment,
    stored_levels,
)
from lotcal_tf.config.sealed import seal
from lotcal_tf.errors import DamagedTicket, FieldError, NewerFormat, UsageError
from lotcal_tf.files import (
    creation_problem,
    flush,
    temporary,
    usable_out,
    write_atomically,
    write_new,
)
from lotcal_tf.lottery.checkpoints import Checkpoint, Checkpoints
from lotcal_tf.lottery.lock import WriterLock
from lotcal_tf.lottery.run_tables import as_csv
from lotcal_tf.lottery.ticket import Record, Ticket
from lotcal_tf.lottery.ticket_files import TENSORS, check_tensors, read_header, read_tensors

# The tensors that the next level depends on.
_INHERITED = ("masks", "rewind", "trained")
# Writing `history.csv` may take at most this share of the time.
_HISTORY_SHARE = 0.02


@dataclasses.dataclass
class _Epochs:
    """The epochs of the level in progress, and when `history.csv` is written next."""

    level: int | None = None
    rows: list[Mapping[str, Any]] = dataclasses.field(default_factory=list)
    due: float = 0.0


class RunStore:
    """A run directory.

    Args:
      directory: the path; it need not exist.
      writes: whether this process writes. Of several workers only the chief does; in the others,
        the methods that write do nothing.
    """

    def __init__(self, directory: Path, writes: bool = True) -> None:
        self.directory, self.writes = directory, writes
        self.tickets = directory / "tickets"
        self._checkpoints = Checkpoints(directory)
        self._lock: WriterLock | None = None
        self._rows: dict[int, tuple[Record, Sequence[Record]]] = {}
        self._epochs = _Epochs()

    def lock(self, takeover: bool = False) -> None:
        """Makes this process the only one that writes the directory, which is created.

        Args:
          takeover: whether to take over from a process on another machine that may still be alive.

        Raises:
          FieldError: another process writes the directory, or it cannot be created.
        """
        if not self.writes or self._lock is not None:
            return
        with usable_out(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
            self._lock = WriterLock(self.directory, takeover)

    def close(self) -> None:
        """Lets other processes write the directory."""
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()

    def check(self, run_id: str, identity: Mapping[str, Any]) -> None:
        """Checks that the directory can hold this run; writes nothing.

        Args:
          run_id: the id of the run.
          identity: the values that the id is a hash of, see `Experiment.identity`.

        Raises:
          FieldError: the directory holds another run (the message names the fields that differ) or
            other files, or cannot be written to.
        """
        found: list[str] = []
        with usable_out(self.directory), contextlib.suppress(FileNotFoundError):
            found = sorted(path.name for path in self.directory.iterdir() if not _is_empty(path))
        if "experiment.json" in found:
            self._check_record(run_id, identity)
        elif any(not name.startswith(".") for name in found) and not self._belongs_to(run_id):
            problem = "holds files but no experiment.json; choose a new or an empty directory"
            raise FieldError("out", self.directory, problem)
        if wrong := creation_problem(self.directory):
            raise FieldError("out", self.directory, wrong)

    def _check_record(self, run_id: str, identity: Mapping[str, Any]) -> None:
        try:
            record = self.experiment()
        except NewerFormat:
            raise
        except UsageError:
            if self._belongs_to(run_id):
                return  # `begin` writes it again.
            raise
        if record.get("run_id") != run_id:
            differing = _differences(record.get("identity", {}), identity)
            problem = f"holds another run, {record.get('run_id')}: {differing}; choose another"
            raise FieldError("out", self.directory, problem)

    def _belongs_to(self, run_id: str) -> bool:
        """Whether there are tickets, and all of them are of this run."""
        try:
            runs = {self.header(level).get("run") for level in stored_levels(self.directory)}
        except (DamagedTicket, UsageError):
            return False
        return runs == {run_id}

    @property
    def recorded(self) -> bool:
        """Whether `experiment.json` is there and whole."""
        try:
            self.experiment()
        except UsageError:
            return False
        return True

    def realised(self) -> Mapping[str, Any]:
        """The realised values in `experiment.json`, such as the plan; empty for a new run."""
        found: Mapping[str, Any] = self.experiment().get("realised", {}) if self.recorded else {}
        return found

    def verify(self) -> None:
        """Verifies the checksums of all levels, and that each was pruned from the level before.

        Raises:
          DamagedTicket: a file is damaged, or the level is that of another run.
        """
        known: dict[tuple[int, int], str] = {}
        for level in stored_levels(self.directory):
            directory = self.tickets / level_name(level)
            if not (directory / "ticket.json").is_file():
                raise DamagedTicket(
                    f"{directory} has no ticket.json; delete it and repeat the command that started its "
                    "run, which trains that level again"
                )
            check_tensors(directory, self.header(level), known)
            self._check_origin(level)

    def _check_origin(self, level: int) -> None:
        """Checks that a finished level was pruned from the finished level before, if that is there."""
        before = self.header(level).get("before")
        if before is None or not (self.tickets / level_name(level - 1)).is_dir():
            return
        if before != _inherited(self.header(level - 1)):
            raise DamagedTicket(
                f"{self.tickets / level_name(level)} was pruned from another {level_name(level - 1)} than "
                f"the one beside it; delete {level_name(level)} and every later level of "
                f"{self.directory}, and repeat the command that started its run"
            )

    def missing(self, levels: int) -> list[int]:
        """The levels of 0 … `levels` that are not finished.

        Raises:
          UsageError: one is missing before a level of an older version, which does not say what it
            was pruned from.
        """
        stored = stored_levels(self.directory)
        missing = sorted(set(range(levels + 1)) - set(stored))
        for level in missing:
            after = next((n for n in stored if n > level), None)
            if after is not None and "run" not in self.header(after):
                raise UsageError(
                    f"{self.directory} has no {level_name(level)}, from which {level_name(after)} was "
                    f"pruned; delete {level_name(after)} and every later level, and run the same "
                    "command again"
                )
        return missing

    def gaps(self, levels: int) -> list[str]:
        """A line for each missing level that has a finished one after it."""
        last = max(stored_levels(self.directory), default=-1)
        return [
            f"{level_name(level)} is missing in {self.directory}; it is trained again"
            for level in self.missing(levels)
            if level < last
        ]

    def begin(self, experiment: Mapping[str, Any]) -> None:
        """Creates the directory, writes `experiment.json`, and removes the remains of an unfinished level.

        Raises:
          FieldError: the directory cannot be created or written to.
        """
        if not self.writes:
            return
        self._check_lock()
        with usable_out(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
            # First of all, so that tickets never lie under the record of another experiment.
            write_atomically(self.directory / "experiment.json", seal(experiment))
            self.tickets.mkdir(exist_ok=True)
            flush(self.directory)
            for left in self.tickets.glob(".level_*"):
                shutil.rmtree(left)
        self._rows.clear()
        self._epochs = _Epochs()
        self.repair()

    def note_failure(self, problem: str) -> None:
        """Adds to `experiment.json` why the run ended, as `failed`. The next `begin` removes it."""
        if self.writes:
            self._check_lock()
            record = self.experiment() | {"failed": problem}
            write_atomically(self.directory / "experiment.json", seal(record))

    def experiment(self) -> dict[str, Any]:
        """The content of `experiment.json`; see `read_experiment`."""
        return read_experiment(self.directory)

    def finished(self) -> int:
        """The number of finished levels, counted from level 0 without gaps."""
        return finished_levels(self.directory)

    def records(self) -> list[Record]:
        """The rows of `metrics.csv` of the finished levels, up to the first that is missing."""
        return [self.header(level)["record"] for level in range(self.finished())]

    def stored_records(self) -> list[Record]:
        """The rows of `metrics.csv` of all finished levels; some may be missing before others."""
        return [self.header(level)["record"] for level in stored_levels(self.directory)]

    def complete_records(self) -> list[Record]:
        """The rows of `metrics.csv` of the finished levels.

        Raises:
          UsageError: a level is missing before another.
        """
        gaps = self.gaps(max(stored_levels(self.directory), default=0))
        if gaps:
            raise UsageError(f"{gaps[0]} by the command that started the run")
        return self.records()

    def header(self, level: int) -> dict[str, Any]:
        """The `ticket.json` of a finished level."""
        return read_header(self.tickets / level_name(level))

    def read(self, level: int) -> Ticket:
        """Reads and verifies the ticket of a finished level; see `read_ticket`."""
        return read_ticket(self.tickets / level_name(level))

    def save(self, ticket: Ticket) -> Path:
        """Stores a finished level, updates the tables, and returns the directory of the level.

        Raises:
          DamagedTicket: the next level is there already, and was pruned from another ticket.
        """
        target = self.tickets / level_name(ticket.level)
        if not self.writes:
            return target
        with temporary(target) as directory:
            directory.mkdir()
            sums = {}
            for name in TENSORS:
                content = safetensors.numpy.save(getattr(ticket, name))
                sums[name] = hashlib.sha256(content).hexdigest()
                path = directory / f"{name}.safetensors"
                self._write_tensors(path, content, ticket.level, sums[name])
            write_new(directory / "ticket.json", seal(self._header(ticket, sums), indent=1))
            flush(directory)
            self._check_lock()
            directory.rename(target)
        flush(self.tickets)
        self.repair()
        if (self.tickets / level_name(ticket.level + 1)).is_dir():
            self._check_origin(ticket.level + 1)
        return target

    def save_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Stores the state of the level in progress."""
        if self.writes:
            self._check_lock()
            self._checkpoints.write(checkpoint, self._origin(checkpoint.level))

    def checkpoint(self, level: int) -> tuple[Checkpoint | None, Sequence[str]]:
        """The newest checkpoint of a level, see `Checkpoints.newest`; only for the first missing level."""
        if not self.recorded:
            return None, ()
        return self._checkpoints.newest(level, self._origin(level))

    def _origin(self, level: int) -> dict[str, Any]:
        """What a level belongs to: the run, and the tensors of the level before that it depends on."""
        before = self.tickets / level_name(level - 1)
        return {
            "run": self.experiment().get("run_id"),
            "level": level,
            "before": _inherited(read_header(before)) if before.is_dir() else None,
        }

    def _header(self, ticket: Ticket, sums: Mapping[str, str]) -> dict[str, Any]:
        """The content of `ticket.json`."""
        return {
            **self._origin(ticket.level),
            "density": ticket.density,
            "sha256": dict(sums),
            "record": ticket.record,
            "history": list(ticket.history),
            "architecture": json.loads(ticket.architecture),
            "input_range": ticket.input_range,
            **({"callbacks": list(ticket.callbacks)} if ticket.callbacks else {}),
            **({"class_names": list(ticket.class_names)} if ticket.class_names else {}),
        }

    def append_epoch(self, row: Mapping[str, Any]) -> None:
        """Adds an epoch to `history.csv`. If the level is not finished, its rows are removed later.

        Of many short epochs, only some are written at once, the others with a later one.
        """
        if not self.writes:
            return
        if row["level"] != self._epochs.level:
            self._epochs = _Epochs(row["level"])
        self._epochs.rows.append(row)
        begun = time.monotonic()
        if begun >= self._epochs.due:
            self.write_table("history.csv", [*self._history(), *self._epochs.rows])
            ended = time.monotonic()
            self._epochs.due = ended + (ended - begun) / _HISTORY_SHARE

    def repair(self) -> None:
        """Makes the tables those of the tickets, and removes the checkpoints of finished levels."""
        if not self.writes:
            return
        self._checkpoints.remove(self.finished())
        history = self._history()
        self.write_table("metrics.csv", [record for record, _ in self._rows.values()])
        self.write_table("history.csv", history)

    def _history(self) -> list[Record]:
        """The epochs of all finished levels."""
        found = {}
        for level in stored_levels(self.directory):
            if level not in self._rows:
                header = self.header(level)
                self._rows[level] = header["record"], header["history"]
            found[level] = self._rows[level]
        self._rows = found
        return [row for _, history in found.values() for row in history]

    def write_table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes a table of the run, if its content has changed."""
        path, content = self.directory / name, as_csv(rows)
        if not path.is_file() or path.read_bytes() != content:
            self._check_lock()
            write_atomically(path, content)

    def _check_lock(self) -> None:
        if self._lock is not None:
            self._lock.check()

    def _write_tensors(self, path: Path, content: bytes, level: int, digest: str) -> None:
        """Writes tensors; links to the file of the level before if the tensors are equal."""
        before = self.tickets / level_name(level - 1) / path.name
        if before.is_file() and hashlib.sha256(before.read_bytes()).hexdigest() == digest:
            try:
                path.hardlink_to(before)
                return
            except OSError:
                pass  # The file system has no hard links.
        write_new(path, content)


def _inherited(header: Mapping[str, Any]) -> dict[str, str]:
    """The checksums of a ticket's tensors that the next level depends on."""
    return {name: header["sha256"][name] for name in _INHERITED}


def _is_empty(path: Path) -> bool:
    """Whether a path is the `tickets/` of a run that could not be started."""
    return path.name == "tickets" and path.is_dir() and not any(path.iterdir())


def _differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """The fields that differ between two identities, with both values."""
    found = []
    for name in sorted(theirs.keys() | ours.keys()):
        here, there = (str(one.get(name, "default")) for one in (ours, theirs))
        if here != there:
            # Digests do not help the user.
            digest = name.endswith("_source") or name in ("data", "initial_weights")
            found.append(f"{name} differs" if digest else f"{name} is {here} here, {there} there")
    return ", ".join(found)


def read_ticket(directory: Path) -> Ticket:
    """Reads a ticket and verifies all its files.

    Raises:
      UsageError: the directory is not a ticket.
      DamagedTicket: a file is missing or does not match its checksum.
    """
    header = read_header(directory)
    return Ticket(
        level=header["level"],
        architecture=json.dumps(header["architecture"], sort_keys=True),
        record=header["record"],
        history=header["history"],
        input_range=header.get("input_range"),
        directory=directory,
        callbacks=header.get("callbacks", ()),
        class_names=tuple(header.get("class_names", ())),
        **read_tensors(directory, header),
    )
