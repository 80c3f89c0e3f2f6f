"""Writes files and directories completely or not at all, without TensorFlow."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


def flush(path: Path) -> None:
    """Flushes a file or directory to the disk (fsync)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file; after an error it is as it was before."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    flush(path.parent)


@contextlib.contextmanager
def replacing(directory: Path) -> Iterator[tuple[Path, Path]]:
    """Replaces a directory at the end of the `with` block; after an error it is as it was before.

    Gives two new directories: one for the new content, and one for temporary files, which is always
    removed.

    Args:
      directory: may exist; its parents are created.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}."))
    try:
        content, scratch, before = work / "content", work / "scratch", work / "before"
        content.mkdir()
        scratch.mkdir()
        yield content, scratch
        for part in parts(content):
            flush(part)
        if directory.exists():
            directory.rename(before)
        try:
            content.rename(directory)
        except OSError:
            if before.exists():
                before.rename(directory)
            raise
        flush(directory.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def parts(path: Path) -> list[Path]:
    """The files of a directory at any depth, sorted; of a file, the file itself."""
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def size_of(path: Path) -> int:
    """Size of a file or of all files of a directory, in bytes."""
    return sum(part.stat().st_size for part in parts(path))
