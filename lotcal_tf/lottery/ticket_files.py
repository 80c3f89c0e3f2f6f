"""The files of a stored ticket, read and verified. No TensorFlow here."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.numpy
from numpy.typing import NDArray

from lotcal_tf.config.run_directory import level_of, read_experiment
from lotcal_tf.config.sealed import unseal
from lotcal_tf.errors import DamagedTicket, NewerFormat, UsageError
from lotcal_tf.files import sha256_of

# One safetensors file each.
TENSORS = ("masks", "rewind", "trained", "predictions")


def read_header(directory: Path) -> dict[str, Any]:
    """A ticket's `ticket.json`: run, level, record, history, architecture, checksums of the tensors.

    Raises:
      UsageError: the directory is not a ticket, or is of a newer version of the package.
      DamagedTicket: the file does not match its checksum, or is that of another level or run than
        the directory in which it lies.
    """
    path = directory / "ticket.json"
    if not path.is_file():
        raise UsageError(f"{directory} is not a ticket: give RUN/tickets/level_NN")
    try:
        header = unseal(path, always=True)
    except NewerFormat:
        raise
    except (OSError, ValueError) as error:
        raise DamagedTicket(_damaged(path)) from error
    if "sha256" not in header:
        raise DamagedTicket(_damaged(path))
    if level_of(directory) not in (None, header["level"]):
        raise DamagedTicket(_damaged(path, f"is that of level {header['level']}"))
    if "run" in header and header["run"] != _run_id(directory, header["run"]):
        raise DamagedTicket(_damaged(path, f"is of another run, {header['run']}"))
    return header


def _run_id(directory: Path, default: Any) -> Any:
    """The id of the run that a ticket lies in; the default if it lies in none, or in an unreadable one."""
    if directory.parent.name != "tickets":
        return default
    try:
        return read_experiment(directory.parent.parent).get("run_id")
    except UsageError:
        return default


def check_tensors(
    directory: Path, header: Mapping[str, Any], known: dict[tuple[int, int], str]
) -> None:
    """Verifies the checksums of a ticket's tensor files, without loading them.

    Args:
      directory: the ticket.
      header: its `ticket.json`.
      known: the checksums of files that are already verified, by their device and number. Levels
        share files.

    Raises:
      DamagedTicket: a file is missing or does not match its checksum.
    """
    for name in TENSORS:
        path = directory / f"{name}.safetensors"
        try:
            status = path.stat()
            key = status.st_dev, status.st_ino
            if key not in known:
                known[key] = sha256_of(path)
        except OSError as error:
            raise DamagedTicket(_damaged(path)) from error
        if known[key] != header["sha256"].get(name):
            raise DamagedTicket(_damaged(path))


def read_tensors(
    directory: Path, header: Mapping[str, Any], names: Sequence[str] = TENSORS
) -> dict[str, dict[str, NDArray]]:
    """Some of a ticket's tensor files, by their names in `TENSORS`.

    Raises:
      DamagedTicket: a file is missing or does not match its checksum.
    """
    tensors = {}
    for name in names:
        path = directory / f"{name}.safetensors"
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DamagedTicket(_damaged(path)) from error
        if hashlib.sha256(content).hexdigest() != header["sha256"].get(name):
            raise DamagedTicket(_damaged(path))
        tensors[name] = safetensors.numpy.load(content)
    return tensors


def read_predictions(directory: Path, split: str) -> tuple[NDArray, NDArray]:
    """Labels `(N,)` and logits `(N, K)` of `val` or `test` that a ticket holds.

    Raises:
      UsageError: the directory is not a ticket, or has no such predictions.
      DamagedTicket: a file is missing or does not match its checksum.
    """
    found = read_tensors(directory, read_header(directory), ["predictions"])["predictions"]
    return predictions_of(found, split, directory)


def predictions_of(
    predictions: Mapping[str, NDArray], split: str, path: Path
) -> tuple[NDArray, NDArray]:
    """Labels `(N,)` and logits `(N, K)` of a split, from the predictions of the ticket at `path`.

    Raises:
      UsageError: there are none of this split.
    """
    if f"{split}/logits" not in predictions:
        raise UsageError(f"{path} holds no predictions of the {split} split")
    return predictions[f"{split}/labels"], predictions[f"{split}/logits"]


def _damaged(path: Path, how: str = "does not match its checksum") -> str:
    return (
        f"{path} is damaged: it {how}; delete {path.parent} and run the same command again, which "
        "trains that level again"
    )
