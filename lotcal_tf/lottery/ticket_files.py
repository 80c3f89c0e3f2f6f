"""The files of a stored ticket, read and verified. No TensorFlow here."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
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


def _is_row(value: object) -> bool:
    """Whether a value is a row of a table: texts, numbers or nothing by name."""
    return isinstance(value, dict) and all(
        isinstance(cell, str | int | float | None) for cell in value.values()
    )


# The entries of `ticket.json`, each with a check of its value; None: it is missing.
_FIELDS: Mapping[str, Callable[[Any], bool]] = {
    "level": lambda value: type(value) is int and value >= 0,
    "sha256": lambda value: isinstance(value, dict),
    "record": _is_row,
    "history": lambda value: isinstance(value, list) and all(map(_is_row, value)),
    "architecture": lambda value: isinstance(value, dict) and isinstance(value.get("config"), dict),
    "input_range": lambda value: isinstance(value, int | float | None),
    "callbacks": lambda value: isinstance(value, list | None),
    "class_names": lambda value: value is None or all(isinstance(name, str) for name in value),
}


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
    wrong = next((name for name, holds in _FIELDS.items() if not holds(header.get(name))), None)
    if wrong is not None:
        raise DamagedTicket(_damaged(path, f"has no valid entry {wrong}"))
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
    tensors = {
        name: load_tensors(directory / f"{name}.safetensors", header["sha256"].get(name))
        for name in names
    }
    _check_masks(directory, tensors)
    return tensors


def load_tensors(path: Path, digest: Any) -> dict[str, NDArray]:
    """The arrays of a safetensors file, by name.

    Args:
      path: the file.
      digest: its SHA-256, in hexadecimal digits.

    Raises:
      DamagedTicket: it is missing, does not match its checksum, or is not a valid file.
    """
    try:
        content = path.read_bytes() if path.is_file() else b""
    except OSError as error:
        raise DamagedTicket(_damaged(path)) from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise DamagedTicket(_damaged(path))
    try:
        return dict(safetensors.numpy.load(content))
    except Exception as error:
        # The library has an exception class of its own, and raises others for unknown types.
        raise DamagedTicket(_damaged(path, "is not a valid safetensors file")) from error


def _check_masks(directory: Path, tensors: Mapping[str, Mapping[str, NDArray]]) -> None:
    """Checks that masks are booleans of the shapes of their weights: others would be broadcast."""
    for path, mask in tensors.get("masks", {}).items():
        weights = [tensors.get(kind, {}).get(path) for kind in ("rewind", "trained")]
        if mask.dtype != bool or any(x is not None and x.shape != mask.shape for x in weights):
            problem = (
                f"has a mask of shape {mask.shape} for {path!r}, which does not fit its weight"
            )
            raise DamagedTicket(_damaged(directory / "masks.safetensors", problem))


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


@contextlib.contextmanager
def refusing_damaged() -> Iterator[None]:
    """Inside it, a damaged ticket raises UsageError: who names it has passed an invalid argument."""
    try:
        yield
    except DamagedTicket as error:
        raise UsageError(str(error)) from error


def _damaged(path: Path, how: str = "does not match its checksum") -> str:
    return (
        f"{path} is damaged: it {how}; delete {path.parent} and repeat the command that started its run, "
        "which trains that level again"
    )
