"""Makes sure that only one process at a time writes a run directory. No TensorFlow here.

On one machine a kernel lock on the file `.writer` decides; the kernel releases it when the process
ends, however it ends. Kernel locks may not reach other machines, so the owner also touches the file
every 30 s. Its age is compared with the clock of the file server, never with that of a client.
"""

import contextlib
import fcntl
import json
import os
import secrets
import socket
import threading
import time
from pathlib import Path
from typing import Any

from lotcal_tf.errors import RunInUse, TakenOver
from lotcal_tf.files import is_alive, temporary, write_new

NAME = ".writer"
BEAT_SECONDS = 30.0
DEAD_SECONDS = 300.0  # An owner on another machine is dead after this time without a touch.
SETTLE_SECONDS = 1.0


class WriterLock:
    """The right to write a run directory.

    Args:
      directory: the run directory, which exists.
      takeover: whether to take over from an owner on another machine that may still be alive.

    Raises:
      RunInUse: another process, or another call in this one, writes the directory.
      OSError: the directory cannot be written to.
    """

    def __init__(self, directory: Path, takeover: bool = False) -> None:
        self.directory, self.path = directory, directory / NAME
        self._token = secrets.token_hex(16)
        self._ended = threading.Event()
        self._handle, kernel = self._open()
        try:
            before = _parse(_read(self._handle))
            if before and not takeover and self._may_live(before, kernel):
                raise self._in_use(before, self._age())
            self._write()
            if before and not _is_here(before):
                # Another machine may have decided the same at this moment: the last one has it.
                time.sleep(SETTLE_SECONDS)
                self.check()
        except BaseException:
            os.close(self._handle)
            raise
        threading.Thread(target=self._beat, name="lotcal_tf writer", daemon=True).start()

    def check(self) -> None:
        """Checks that this process still has the right to write.

        Raises:
          TakenOver: another process has taken over, or the file was removed.
        """
        try:
            owner = _parse(self.path.read_bytes())
        except FileNotFoundError:
            owner = {}
        if owner.get("token") != self._token:
            who = f"{_name(owner)} writes it now" if owner else f"{self.path} was removed"
            raise TakenOver(
                f"{self.directory}: {who}, so this process stops; finished levels are kept"
            )

    def release(self) -> None:
        """Gives the right back."""
        self._ended.set()
        try:
            with contextlib.suppress(TakenOver, OSError):
                self.check()
                self.path.unlink()
        finally:
            os.close(self._handle)

    def _open(self) -> tuple[int, bool]:
        """Opens the file and locks it; gives the handle, and whether the kernel can lock it.

        Raises:
          RunInUse: another process has the lock.
        """
        while True:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                kernel = _lock(handle)
                # The owner may have removed the file between the two calls.
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(handle), self.path.stat()):
                        return handle, kernel
            except BlockingIOError as error:
                raise self._in_use(self._owner(handle)) from error
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)

    def _owner(self, handle: int) -> dict[str, Any]:
        """The owner that the file names; waits a moment for one that is just beginning."""
        try:
            for _ in range(20):
                if owner := _parse(_read(handle)):
                    return owner
                time.sleep(0.01)
            return {}
        finally:
            os.close(handle)

    def _may_live(self, owner: dict[str, Any], kernel: bool) -> bool:
        """Whether the owner that the file names may be alive, although the file is not locked here."""
        if _is_here(owner) and (kernel or not is_alive(int(owner["pid"]))):
            return False
        return self._age() < DEAD_SECONDS

    def _age(self) -> float:
        """The seconds since the owner last touched the file, by the clock of the file server."""
        with temporary(self.path) as probe:
            write_new(probe, b"")
            return probe.stat().st_mtime - os.fstat(self._handle).st_mtime

    def _write(self) -> None:
        """Names this process in the file; in place, since the lock is on the file, not on its name."""
        owner = {
            "host": socket.gethostname(),
            "machine": _machine(),
            "pid": os.getpid(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
            "token": self._token,
        }
        content = json.dumps(owner).encode()
        os.pwrite(self._handle, content, 0)
        os.ftruncate(self._handle, len(content))
        os.fsync(self._handle)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            with contextlib.suppress(TakenOver, OSError):
                self.check()
                os.utime(self.path)  # Without a time: the file server's clock.

    def _in_use(self, owner: dict[str, Any], age: float | None = None) -> RunInUse:
        if age is not None:
            seen = f"last seen {age:.0f} s ago"
            stop = f" stop it, or add --takeover (takeover=True) if it is dead ({seen}),"
        elif owner and _is_here(owner):
            stop = "" if owner["pid"] == os.getpid() else f" stop it (kill {owner['pid']}),"
        else:
            stop = " stop it,"
        problem = f"{_name(owner)} writes it; wait until it ends,{stop} or choose another out"
        return RunInUse("out", self.directory, problem)


def _lock(handle: int) -> bool:
    """Locks a file without waiting; False if the file system cannot.

    Raises:
      BlockingIOError: it is locked.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def _read(handle: int) -> bytes:
    return os.pread(handle, 4096, 0)


def _parse(content: bytes) -> dict[str, Any]:
    """The owner that the file names; empty if it names none."""
    try:
        owner = json.loads(content)
        return owner if isinstance(owner["pid"], int) and owner["host"] else {}
    except (ValueError, TypeError, KeyError):
        return {}


def _name(owner: dict[str, Any]) -> str:
    if not owner:
        return "another process"
    own = owner["pid"] == os.getpid() and _is_here(owner)
    who = "another call in this process" if own else f"process {owner['pid']}"
    return f"{who} on {owner['host']} (since {owner.get('since')})"


def _machine() -> str:
    """An id of the running kernel, since containers on one machine have different host names."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _is_here(owner: dict[str, Any]) -> bool:
    """Whether an owner is, or was, on this machine."""
    same_kernel = bool(_machine()) and owner.get("machine") == _machine()
    return same_kernel or owner.get("host") == socket.gethostname()
