"""The process around a command: its standard streams, its CPUs, and the signals that end it.

A terminal that goes away, a closed stream or a broken pipe must not end a run, and a character that
a terminal cannot show must not either.
"""

import contextlib
import os
import signal
import sys
import threading
import weakref
from collections.abc import Iterator
from types import FrameType
from typing import Any, TextIO, cast

from lotcal_tf.files import NO_SPACE

# The exit codes of shells for a process that a signal ended.
_CODES = {number: 128 + number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}

# Seconds between two exceptions of one signal, if something drops the first.
AGAIN_SECONDS = 1.0


def cpus() -> int:
    """The number of CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Stopped(KeyboardInterrupt):
    """A signal asks the process to end.

    Attributes:
      name: of the signal.
      code: the exit code.
    """

    def __init__(self, number: int) -> None:
        self.name, self.code = signal.Signals(number).name, _CODES[signal.Signals(number)]
        super().__init__(self.name)


class Tolerant:
    """A text stream whose failures to write are ignored.

    Args:
      stream: the stream; None: nothing is written.
      replace: whether to connect the file of a broken stream to the null device, so that nothing
        else in this process fails at it.

    Attributes:
      full: the error of a stream on a full disk; None if there was none.
    """

    def __init__(self, stream: TextIO | None, replace: bool = False) -> None:
        self._stream, self._replace = stream, replace
        self.full: OSError | None = None

    def write(self, text: str) -> int:
        """Writes text, with escapes for characters that the stream cannot encode."""
        if self._stream is not None:
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                encoding = self._stream.encoding or "ascii"
                self.write(text.encode(encoding, "backslashreplace").decode(encoding))
            except (OSError, ValueError) as error:  # ValueError: it is closed.
                self._broken(error)
        return len(text)

    def flush(self) -> None:
        """Flushes the stream."""
        if self._stream is not None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._broken(error)

    def close(self) -> None:
        """Closes the stream, if it is not broken."""
        if self._stream is not None:
            self._stream.close()

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        try:
            return self._stream is not None and self._stream.isatty()
        except ValueError:
            return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _broken(self, error: Exception) -> None:
        if isinstance(error, OSError) and error.errno in NO_SPACE:  # What is lost was wanted.
            self.full = error
        stream, self._stream = self._stream, None
        if self._replace and stream is not None:
            with contextlib.suppress(OSError, ValueError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream.fileno())
                os.close(null)


def tolerant(stream: TextIO | None) -> TextIO:
    """A stream like the given one, whose failures to write are ignored."""
    return cast(TextIO, stream if isinstance(stream, Tolerant) else Tolerant(stream))


@contextlib.contextmanager
def safe_streams() -> Iterator[Tolerant]:
    """Makes the standard streams tolerant, and flushes them at the end; gives standard output."""
    _open_missing()
    before = sys.stdout, sys.stderr
    out, err = (Tolerant(stream, replace=True) for stream in before)
    sys.stdout, sys.stderr = cast(TextIO, out), cast(TextIO, err)
    try:
        yield out
    finally:
        out.flush()
        err.flush()
        sys.stdout, sys.stderr = before


def _open_missing() -> None:
    """Opens the null device in place of closed standard streams.

    Otherwise the next file that is opened would take the number of a standard stream, and messages of
    C++ code would be written into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)


class _Request:
    """Raises `Stopped` in the main thread, again and again until nothing swallows it.

    Python drops an exception that a signal raises in a destructor or in the callback of a weak reference,
    and compiled libraries drop some, too. A dropped exception no longer exists, so the next alarm raises
    another one; one that is on its way out of the block is left alone.
    """

    def __init__(self) -> None:
        self._number = 0
        self._raised: weakref.ref[Stopped] | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handles a signal that asks the process to end, or the alarm after it."""
        if self._raised is None:
            self._number = number
            # Only if nothing else uses the alarm.
            if signal.getsignal(signal.SIGALRM) == signal.SIG_DFL:
                signal.signal(signal.SIGALRM, self)
                signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS, AGAIN_SECONDS)
        elif not self.swallowed:
            return
        raise self._new()

    @property
    def swallowed(self) -> bool:
        """Whether it raised an exception, and the exception was dropped."""
        return self._raised is not None and self._raised() is None

    def _new(self) -> Stopped:
        # In a function of its own: a local variable of the handler would keep the exception alive.
        stopped = Stopped(self._number)
        self._raised = weakref.ref(stopped)
        return stopped

    def end(self) -> None:
        """Ends the alarms, and raises what was dropped since the last one."""
        if signal.getsignal(signal.SIGALRM) is self:
            try:
                signal.setitimer(signal.ITIMER_REAL, 0)
            finally:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
        if self.swallowed:
            raise self._new()


@contextlib.contextmanager
def stoppable(*, second_exits: bool = True) -> Iterator[None]:
    """Lets SIGINT, SIGTERM and SIGHUP raise `Stopped` in the `with` block.

    Code that drops the exception meets it again within `AGAIN_SECONDS`, if nothing else uses SIGALRM, and at
    the end of the block. Ignored signals stay ignored, as `nohup` wants it.

    Args:
      second_exits: whether the second signal ends the process at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Only the main thread can set handlers.
        return
    usual = (signal.SIG_DFL, signal.default_int_handler)
    before = {n: h for n in _CODES if (h := signal.getsignal(n)) in usual}
    request = _Request()
    with _second_signal_exits() if second_exits else contextlib.nullcontext():
        try:
            for number in before:
                signal.signal(number, request)
            try:
                yield
            finally:
                request.end()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def _second_signal_exits() -> Iterator[None]:
    """Ends the process at the second signal that asks it to end.

    A handler in Python waits until a running TensorFlow program returns. The numbers of signals are
    written to a pipe at once, and another thread reads them.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def watch() -> None:
        asked = False
        with open(reading, "rb", buffering=0) as signals:  # noqa: PTH123
            while number := signals.read(1):
                asks = number[0] in _CODES
                if asks and asked:
                    os._exit(128 + number[0])
                asked |= asks

    threading.Thread(target=watch, name="lotcal_tf signals", daemon=True).start()
    outer = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(outer)
        os.close(writing)  # The thread ends.
