"""Writes files and directories completely or not at all, without TensorFlow.

Everything is written under a temporary name, flushed (fsync), renamed, and then the directory is
flushed. A temporary name contains the host and the process. What a killed process left behind is
removed by the next call that writes under the same name.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from lotcal_tf.errors import FieldError

# This machine, in the names of temporary files.
HOST = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:32]
_TEMPORARY = re.compile(r"\.(?P<host>[A-Za-z0-9-]+)\.(?P<pid>\d+)\.[0-9a-f]{8}")  # after `.NAME`
_TEMPORARY_NAME = re.compile(r"\.(?P<name>.+)" + _TEMPORARY.pattern)
# Error numbers of a full disk.
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Version 0.1 and 0.2 did not name the process. Only the directories of `replacing` are recognised.
_WITHOUT_PROCESS = re.compile(r"\.[a-z0-9_]{8}")
# Whether a process on another host is alive is unknown; its temporary files are removed after a day.
_OLD_SECONDS = 24 * 3600.0
_own: set[str] = set()  # the temporary paths that this process uses


class DiskFull(OSError):
    """There is no space for a file; the message names its size and what to do."""


def flush(path: Path) -> None:
    """Flushes a file or directory to the disk (fsync)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems cannot flush a directory.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(handle)


def write_new(path: Path, content: bytes) -> None:
    """Writes and flushes a new file, in a directory that is renamed later.

    Raises:
      DiskFull: there is no space.
      OSError: it cannot be written.
    """
    with naming_size(path, len(content)):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


@contextlib.contextmanager
def naming_size(path: Path, size: int | None = None) -> Iterator[None]:
    """Inside it, an error of a full disk gets a message with the file and the space that it needs.

    Args:
      path: the file or directory that is written; a temporary name is replaced by the final one.
      size: in bytes, if it is known.
    """
    try:
        yield
    except DiskFull:
        raise  # The innermost call knows the file.
    except Exception as error:
        code, text = getattr(error, "errno", None), str(error)
        code = code if code in NO_SPACE else errno.ENOSPC
        reason = os.strerror(code)
        # C libraries raise errors without an error number: `PATH; No space left on device`.
        if reason not in text and getattr(error, "errno", None) != code:
            raise
        named = re.search(r"(/\S+); " + re.escape(reason), text)
        where = named[1] if named else str(_final(path))
        needs = "" if size is None else f": it needs {size:,} bytes"
        problem = f"{reason}{needs}; free some space and run the same command again"
        raise DiskFull(code, problem, where) from error


def _final(path: Path) -> Path:
    """The path of a file without temporary names: where it will be after the rename."""
    found = [_TEMPORARY_NAME.fullmatch(part) for part in path.parts]
    return Path(*(m["name"] if m else p for m, p in zip(found, path.parts, strict=True)))


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file; if that fails or the process is killed, the file is unchanged."""
    remove_leftovers(path)
    with temporary(path) as new:
        write_new(new, content)
        new.replace(path)
    flush(path.parent)


@contextlib.contextmanager
def temporary(path: Path) -> Iterator[Path]:
    """A new name beside a path. A file or directory of that name is removed at the end."""
    name = f".{path.name}.{HOST}.{os.getpid()}.{secrets.token_hex(4)}"
    new = path.parent / name
    _own.add(str(new))
    try:
        yield new
    finally:
        _remove(new)
        _own.discard(str(new))


def remove_leftovers(path: Path) -> None:
    """Removes the temporary files and directories that killed processes left beside a path.

    If a process was killed while it replaced a directory (see `replacing`), the new directory is put
    in place.
    """
    for left in _leftovers(path):
        with contextlib.suppress(FileNotFoundError):
            _finish(left, path)
        _remove(left)


def _leftovers(path: Path) -> list[Path]:
    prefix = f".{path.name}"
    try:
        found = [entry for entry in path.parent.iterdir() if entry.name.startswith(prefix)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [entry for entry in found if _is_leftover(entry, entry.name.removeprefix(prefix))]


def _is_leftover(path: Path, suffix: str) -> bool:
    """Whether a path is a temporary one whose process is dead."""
    if str(path) in _own:
        return False
    match = _TEMPORARY.fullmatch(suffix)
    if match and match["host"] == HOST:
        pid = int(match["pid"])
        return pid == os.getpid() or not is_alive(pid)
    try:
        if match is None and not (_WITHOUT_PROCESS.fullmatch(suffix) and _is_exchange(path)):
            return False
        return time.time() - path.stat().st_mtime > _OLD_SECONDS
    except FileNotFoundError:
        return False


def _is_exchange(path: Path) -> bool:
    """Whether a directory is a temporary one of `replacing`, by what it contains."""
    return path.is_dir() and {p.name for p in path.iterdir()} <= {"content", "scratch", "before"}


def is_alive(pid: int) -> bool:
    """Whether this machine has a process of this id."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # It belongs to another user.
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing(directory: Path) -> Iterator[tuple[Path, Path]]:
    """Replaces a directory at the end of the `with` block; after an error or a kill it is unchanged.

    Gives two new directories: one for the new content, and one for temporary files, which is always
    removed.

    Args:
      directory: may exist; its parents are created.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(directory)
    with temporary(directory) as work, naming_size(directory):
        content, scratch = work / "content", work / "scratch"
        for new in (work, content, scratch):
            new.mkdir()
        yield content, scratch
        for part in content.rglob("*"):
            flush(part)
        flush(content)
        with one_at_a_time(directory.parent):
            _exchange(work, directory)
        flush(directory.parent)


def _exchange(work: Path, directory: Path) -> None:
    """Puts `work/content` in the place of a directory, which is moved to `work/before`."""
    content, before = work / "content", work / "before"
    try:
        if directory.exists():
            directory.rename(before)
        content.rename(directory)
    except BaseException:
        if before.exists() and not directory.exists():
            before.rename(directory)
        raise


def _finish(work: Path, directory: Path) -> None:
    """Ends an exchange that was killed between its two renames."""
    with one_at_a_time(directory.parent):
        if (work / "before").exists() and not directory.exists():
            new = work / "content" if (work / "content").exists() else work / "before"
            new.rename(directory)
            flush(directory.parent)


@contextlib.contextmanager
def one_at_a_time(directory: Path) -> Iterator[None]:
    """Waits for other processes in such a block of a directory, where the file system can lock one."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)  # releases the lock


@contextlib.contextmanager
def usable_out(directory: Path) -> Iterator[None]:
    """Inside it, an error of the file system says that another `out` should be chosen.

    Raises:
      DiskFull: there is no space.
      FieldError: of `out`, for all other errors.
    """
    try:
        with naming_size(directory):
            yield
    except DiskFull:
        raise
    except OSError as error:
        raise FieldError("out", directory, f"{error.strerror}; choose another") from error


def creation_problem(directory: Path) -> str | None:
    """Why a directory cannot be created or written to; None if nothing speaks against it."""
    for path in (directory, *directory.parents):
        try:
            found = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            return f"{error.strerror}; choose another"
        if not stat.S_ISDIR(found.st_mode):
            which = "" if path == directory else f"{path} "
            return f"{which}is not a directory; choose another"
        virtual = path.absolute().parts[1:2] in (("proc",), ("sys",))
        if virtual or not os.access(path, os.W_OK):
            return f"{path} cannot be written to; choose another"
        return None
    return None


def parts(path: Path) -> list[Path]:
    """The files of a directory at any depth, sorted; for a file, the file itself."""
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def size_of(path: Path) -> int:
    """Size of a file or of all files of a directory, in bytes."""
    return sum(part.stat().st_size for part in parts(path))


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits.

    Raises:
      OSError: it cannot be read, or is a device or a pipe, which may never end.
    """
    if not path.is_file():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
