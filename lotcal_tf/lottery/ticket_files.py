"""The files of a stored ticket, read and verified. No TensorFlow here."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.numpy
from numpy.typing import NDArray

from lotcal_tf.errors import DamagedTicket, UsageError

# One safetensors file each.
TENSORS = ("masks", "rewind", "trained", "predictions")


def checksum(header: Mapping[str, Any]) -> str:
    """The checksum that `ticket.json` holds of its other content."""
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()


def read_header(directory: Path) -> dict[str, Any]:
    """A ticket's `ticket.json`: level, record, history, architecture, checksums.

    Raises:
      UsageError: the directory is not a ticket.
      DamagedTicket: the file does not match its checksum.
    """
    path = directory / "ticket.json"
    if not path.is_file():
        raise UsageError(f"{directory} is not a ticket: give RUN/tickets/level_NN")
    try:
        header = json.loads(path.read_text())
        recorded = header.pop("checksum")
    except (ValueError, KeyError, AttributeError) as error:
        raise DamagedTicket(_damaged(path)) from error
    if recorded != checksum(header):
        raise DamagedTicket(_damaged(path))
    return header


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


def _damaged(path: Path) -> str:
    return (
        f"{path} is damaged: it does not match its checksum; delete {path.parent} and every later level "
        "of its run, and run the same command again"
    )
