"""A digest of the files that data is read from, since they can change. No TensorFlow here."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from lotcal_tf.errors import UsageError


def digest_of(files: Iterable[tuple[str, Path]]) -> str:
    """A digest of files in their order, each with a text; their paths do not matter.

    Raises:
      UsageError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for text, path in files:
        try:
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256")
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}") from error
        digest.update(text.encode() + b"\0" + content.digest())
    return digest.hexdigest()[:10]
