"""The record of an export, `parity.json`, with the checksums of all files beside it. No TensorFlow here."""

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from lotcal_tf.config.registry import FORMATS
from lotcal_tf.config.sealed import seal, unseal
from lotcal_tf.config.signature import is_signed, signature
from lotcal_tf.errors import NewerFormat, UsageError
from lotcal_tf.files import parts, sha256_of, size_of

EXPORT = "export"  # the export of the selected level, in the directory of its run
# The files of an export beside those of its formats.
PARITY, SPARSITY_REPORT, LABELS = "parity.json", "sparsity_report.json", "labels.txt"
CARD, CARD_JSON, DIAGRAM = "README.md", "model_card.json", "reliability.png"


def seal_export(directory: Path) -> None:
    """Adds the checksums of all files of a new export to its record."""
    path = directory / PARITY
    record = json.loads(path.read_bytes())
    others = [part for part in parts(directory) if part != path]
    sums = {part.relative_to(directory).as_posix(): sha256_of(part) for part in others}
    signed = signature(sums)
    own = {} if signed is None else {"signature": signed}
    path.write_bytes(seal({**record, "sha256": sums, **own}))


def read_export(directory: Path) -> dict[str, Any]:
    """The record of an export.

    Raises:
      OSError: it cannot be read.
      ValueError: it is damaged.
      NewerFormat: it is of a newer version of the package.
    """
    return unseal(directory / PARITY)


def foreign_file(directory: Path) -> str | None:
    """A file in the directory of an export that is not part of it; None: there is none.

    A record without checksums, of an older version or damaged, does not say what is part of it: then all
    files count that an export can have.

    Raises:
      NewerFormat: the export is of a newer version of the package.
    """
    try:
        named = read_export(directory).get("sha256")
    except NewerFormat:
        raise
    except (OSError, ValueError):
        named = None
    everything = (part for part in directory.rglob("*") if part.is_symlink() or not part.is_dir())
    found = (part.relative_to(directory).as_posix() for part in sorted(everything))
    known = named.__contains__ if isinstance(named, Mapping) else _can_be_exported
    return next((name for name in found if name != PARITY and not known(name)), None)


def _can_be_exported(name: str) -> bool:
    """Whether an export can have a file of this name."""
    others = name in (SPARSITY_REPORT, LABELS, CARD, CARD_JSON, DIAGRAM)
    return others or any(row.writes(name) for row in FORMATS.values())


def damaged_file(directory: Path, record: dict[str, Any], below: str = "") -> str | None:
    """The first file of an export that is missing or does not match its checksum; None if all do.

    Exports of older versions have no checksums; the sizes of their files are compared.

    Args:
      directory: of the export.
      record: see `read_export`.
      below: only this file, or the files of this directory.
    """
    named = [*record.get("sha256", ()), *(row["file"] for row in record["files"].values())]
    if outside := next((name for name in named if not _is_inside(name)), None):
        raise ValueError(f"it names {outside!r}, a file outside the directory")
    if "sha256" not in record:
        sizes = {row["file"]: row["bytes"] for row in record["files"].values()}
        return next(
            (
                name
                for name, size in sizes.items()
                if name.startswith(below) and _size(directory / name) != size
            ),
            None,
        )
    sums = {
        name: digest
        for name, digest in record["sha256"].items()
        if not below or name == below or name.startswith(f"{below}/")
    }
    return next((n for n, digest in sums.items() if _digest(directory / n) != digest), None)


def check_exported(path: Path) -> bool:
    """Verifies the checksum of a file, or of a directory of files, that lies in an export.

    Returns:
      Whether this user exported it on this machine, and nothing was changed or added since.

    Raises:
      UsageError: it is damaged, or the record of the export is.
    """
    path = path.absolute()
    if not (path.parent / PARITY).is_file():
        return False
    try:
        record = read_export(path.parent)
        damaged = damaged_file(path.parent, record, path.name)
    except NewerFormat:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{path.parent / PARITY} is damaged ({error}): export the ticket again"
        ) from error
    if damaged is not None:
        raise UsageError(
            f"{path.parent / damaged} is damaged: it does not match its checksum in {PARITY}; export "
            "the ticket again"
        )
    sums = record.get("sha256")
    if not isinstance(sums, dict) or not is_signed(sums, record.get("signature")):
        return False
    return all(part.relative_to(path.parent).as_posix() in sums for part in parts(path))


def _is_inside(name: str) -> bool:
    """Whether a name from a record is that of a file in the directory of the record."""
    return not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts


def _size(path: Path) -> int | None:
    return size_of(path) if path.exists() else None


def _digest(path: Path) -> str | None:
    try:
        return sha256_of(path)
    except OSError:
        return None
