"""Reads and writes the run directory.

Each file is written under a temporary name, flushed and renamed, and so is the directory of a level
as a whole. A level is finished when its directory has its final name, so nothing is half-written.
Tensors are stored as safetensors, everything else as JSON and CSV.
"""

import csv
import hashlib
import io
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.numpy

from lotcal_tf.config.run_directory import finished_levels, level_name, read_experiment
from lotcal_tf.errors import FieldError
from lotcal_tf.files import flush, write_atomically
from lotcal_tf.lottery.ticket import Record, Ticket
from lotcal_tf.lottery.ticket_files import TENSORS, checksum, read_header, read_tensors


def _csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows as CSV with a header; empty if there are no rows."""
    text = io.StringIO()
    writer = csv.DictWriter(
        text, list(dict.fromkeys(c for row in rows for c in row)), lineterminator="\n"
    )
    if rows:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


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

    def check(self, run_id: str, identity: Mapping[str, Any]) -> None:
        """Checks that the directory can hold this run; writes nothing.

        Args:
          run_id: the id of the run.
          identity: the values that the id is a hash of, see `Experiment.identity`.

        Raises:
          FieldError: the directory holds another run (the message names the fields that differ) or
            other files, or cannot be written to.
        """
        try:
            found = sorted(path.name for path in self.directory.iterdir())
        except FileNotFoundError:
            found = []
        except OSError as error:
            raise FieldError("out", self.directory, f"{error.strerror}; choose another") from error
        if "experiment.json" in found:
            record = self.experiment()
            if record.get("run_id") != run_id:
                differing = _differences(record.get("identity", {}), identity)
                problem = f"holds another run, {record.get('run_id')}: {differing}; choose another"
                raise FieldError("out", self.directory, problem)
        elif any(not name.startswith(".") for name in found):
            problem = "holds files but no experiment.json; choose a new or an empty directory"
            raise FieldError("out", self.directory, problem)
        parent = next(path for path in (self.directory, *self.directory.parents) if path.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise FieldError(
                "out", self.directory, f"{parent} cannot be written to; choose another"
            )

    def begin(self, experiment: Mapping[str, Any]) -> None:
        """Creates the directory, writes `experiment.json`, and removes the remains of an unfinished level.

        Raises:
          FieldError: the directory cannot be created or written to.
        """
        if not self.writes:
            return
        try:
            self.tickets.mkdir(parents=True, exist_ok=True)
            for left in self.tickets.glob(".level_*"):
                shutil.rmtree(left)
            text = json.dumps(experiment, indent=2, sort_keys=False)
            write_atomically(self.directory / "experiment.json", text.encode() + b"\n")
        except OSError as error:
            raise FieldError("out", self.directory, f"{error.strerror}; choose another") from error
        records, history = [], []
        for level in range(self.finished()):
            ticket = self.header(level)
            records.append(ticket["record"])
            history += ticket["history"]
        self._write_tables(records, history)

    def experiment(self) -> dict[str, Any]:
        """The content of `experiment.json`; see `read_experiment`."""
        return read_experiment(self.directory)

    def finished(self) -> int:
        """The number of finished levels, counted from level 0 without gaps."""
        return finished_levels(self.directory)

    def records(self) -> list[Record]:
        """The rows of `metrics.csv` of the finished levels."""
        return [self.header(level)["record"] for level in range(self.finished())]

    def header(self, level: int) -> dict[str, Any]:
        """The `ticket.json` of a finished level."""
        return read_header(self.tickets / level_name(level))

    def read(self, level: int) -> Ticket:
        """Reads and verifies the ticket of a finished level; see `read_ticket`."""
        return read_ticket(self.tickets / level_name(level))

    def save(self, ticket: Ticket) -> Path:
        """Stores a finished level, updates the tables, and returns the directory of the level."""
        target = self.tickets / level_name(ticket.level)
        if not self.writes:
            return target
        temporary = self.tickets / f".{target.name}.{os.getpid()}"
        temporary.mkdir()
        sums = {}
        for name in TENSORS:
            content = safetensors.numpy.save(getattr(ticket, name))
            sums[name] = hashlib.sha256(content).hexdigest()
            self._write_tensors(
                temporary / f"{name}.safetensors", content, ticket.level, sums[name]
            )
        header = {
            "level": ticket.level,
            "density": ticket.density,
            "sha256": sums,
            "record": ticket.record,
            "history": list(ticket.history),
            "architecture": json.loads(ticket.architecture),
            "input_range": ticket.input_range,
            **({"callbacks": list(ticket.callbacks)} if ticket.callbacks else {}),
            **({"class_names": list(ticket.class_names)} if ticket.class_names else {}),
        }
        text = json.dumps(header | {"checksum": checksum(header)}, indent=1)
        write_atomically(temporary / "ticket.json", text.encode())
        flush(temporary)
        temporary.rename(target)
        flush(self.tickets)
        rows = [self.header(level) for level in range(ticket.level + 1)]
        self._write_tables([r["record"] for r in rows], [e for r in rows for e in r["history"]])
        return target

    def append_epoch(self, row: Mapping[str, Any]) -> None:
        """Adds an epoch to `history.csv`. If the level is not finished, its rows are removed later."""
        if not self.writes:
            return
        path = self.directory / "history.csv"
        begun = path.exists() and path.stat().st_size
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row), lineterminator="\n")
            if not begun:
                writer.writeheader()
            writer.writerow(row)

    def _write_tables(self, records: Sequence[Record], history: Sequence[Record]) -> None:
        write_atomically(self.directory / "metrics.csv", _csv(records))
        write_atomically(self.directory / "history.csv", _csv(history))

    def _write_tensors(self, path: Path, content: bytes, level: int, digest: str) -> None:
        """Writes tensors; links to the file of the level before if the tensors are equal."""
        before = self.tickets / level_name(level - 1) / path.name
        if before.is_file() and hashlib.sha256(before.read_bytes()).hexdigest() == digest:
            try:
                path.hardlink_to(before)
                return
            except OSError:
                pass  # The file system has no hard links.
        write_atomically(path, content)


def _differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """The fields that differ between two identities, with both values."""
    found = []
    for name in sorted(theirs.keys() | ours.keys()):
        here, there = (str(one.get(name, "default")) for one in (ours, theirs))
        if here != there:
            changed = name.endswith("_source")  # Digests do not help the user.
            found.append(f"{name} differs" if changed else f"{name} is {here} here, {there} there")
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
        callbacks=header.get("callbacks", ()),
        class_names=tuple(header.get("class_names", ())),
        **read_tensors(directory, header),
    )
