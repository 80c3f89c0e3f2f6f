"""JSON files with a checksum and the number of their format. No TensorFlow here."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lotcal_tf.errors import NewerFormat

# The format of the files of a run; files of version 0.1 have no number.
FORMAT = 2


def checksum(content: Mapping[str, Any]) -> str:
    """The SHA-256 of JSON content, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def seal(content: Mapping[str, Any], indent: int = 2) -> bytes:
    """The text of a file: the content, its format, and the checksum of both."""
    # Read back, since keys and tuples can change on their way through JSON.
    whole = json.loads(json.dumps({"format": FORMAT, **content}))
    text = json.dumps(whole | {"checksum": checksum(whole)}, indent=indent)
    return text.encode()


def unseal(path: Path, always: bool = False) -> dict[str, Any]:
    """The content of a file, without format and checksum.

    Args:
      path: the file.
      always: whether files of older versions have a checksum, too. Otherwise, a file that has neither
        format nor checksum was written by an older version, and is not verified.

    Raises:
      OSError: it cannot be read.
      ValueError: it is damaged.
      NewerFormat: its format is newer than this version of the package.
    """
    try:
        whole = json.loads(path.read_bytes())
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error
    if not isinstance(whole, dict):
        raise ValueError("is not a JSON object")
    recorded, found = whole.pop("checksum", None), whole.get("format")
    if recorded is None and found is None and not always:
        return whole
    newer = isinstance(found, int) and found > FORMAT
    if recorded != checksum(whole) and not (newer and recorded is None):
        raise ValueError("does not match its checksum")
    if newer:
        raise NewerFormat(
            f"{path} has format {found}, of a newer version of lotcal_tf; this one reads formats up "
            f"to {FORMAT}: install the newer version"
        )
    whole.pop("format", None)
    return whole
