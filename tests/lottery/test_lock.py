"""One process at a time writes a run directory, whatever happens to the one before."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lotcal_tf.errors import FieldError, TakenOver
from lotcal_tf.lottery import lock
from lotcal_tf.lottery.lock import NAME, WriterLock

ROOT = Path(__file__).resolve().parents[2]
HOLDS = """
import sys, time
from pathlib import Path
from lotcal_tf.lottery.lock import WriterLock
held = WriterLock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def start(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def owner(pid=4711, host="another-host", machine="another-kernel"):
    content = {"host": host, "machine": machine, "pid": pid, "since": "yesterday", "token": "t"}
    return json.dumps(content).encode()


def written(directory, seconds_ago=0.0, **given):
    """The file of another owner, last touched some seconds ago."""
    path = directory / NAME
    path.write_bytes(owner(**given))
    touched = path.stat().st_mtime - seconds_ago
    os.utime(path, (touched, touched))
    return path


@pytest.fixture(autouse=True)
def settled(monkeypatch):
    monkeypatch.setattr(lock, "SETTLE_SECONDS", 0)


def test_a_lock_can_be_had_again_after_its_release_which_leaves_nothing(tmp_path):
    for _ in range(2):
        held = WriterLock(tmp_path)
        held.check()
        held.release()
        assert list(tmp_path.iterdir()) == []


def test_a_second_call_in_one_process_is_refused(tmp_path):
    held = WriterLock(tmp_path)
    for takeover in (False, True):
        with pytest.raises(FieldError, match="another call in this process on") as caught:
            WriterLock(tmp_path, takeover=takeover)
        assert caught.value.field == "out"
        assert "kill" not in str(caught.value)
    held.check()  # It has not been disturbed.
    held.release()
    WriterLock(tmp_path).release()


def test_another_process_is_named_and_its_death_frees_the_directory(tmp_path):
    with start(HOLDS, tmp_path) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(FieldError, match=f"process {process.pid} on .* .since 20") as caught:
            WriterLock(tmp_path, takeover=True)
        assert f"kill {process.pid}" in str(caught.value)
        assert "\n" not in str(caught.value)
        process.send_signal(signal.SIGKILL)
    assert (tmp_path / NAME).exists()
    WriterLock(tmp_path).release()
    assert list(tmp_path.iterdir()) == []


TAKES_TURNS = """
import os, sys, time
from pathlib import Path
from lotcal_tf.errors import FieldError
from lotcal_tf.lottery.lock import WriterLock
directory, until = Path(sys.argv[1]), float(sys.argv[2])
log = os.open(directory.parent / "log", os.O_WRONLY | os.O_APPEND)
while time.time() < until:
    try:
        held = WriterLock(directory)
    except FieldError:
        continue
    os.write(log, f"{os.getpid()} begins\\n".encode())
    time.sleep(0.003)
    held.check()
    os.write(log, f"{os.getpid()} ends\\n".encode())
    held.release()
"""


def test_many_processes_never_write_at_once(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "log").touch()
    until = time.time() + 2
    processes = [start(TAKES_TURNS, tmp_path / "run", until) for _ in range(4)]
    for process in processes:
        process.communicate()
    assert [process.returncode for process in processes] == [0] * 4
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) > 8
    for begins, ends in zip(lines[::2], lines[1::2], strict=True):
        assert begins.endswith("begins") and ends == begins.replace("begins", "ends")


# --- an owner on another machine -------------------------------------------------------------------


def test_an_owner_elsewhere_is_respected_for_five_minutes(tmp_path):
    path = written(tmp_path, seconds_ago=280)
    with pytest.raises(FieldError, match="process 4711 on another-host .since yesterday") as caught:
        WriterLock(tmp_path)
    for part in ("--takeover", "takeover=True", "last seen 280 s ago"):
        assert part in str(caught.value)
    assert path.read_bytes() == owner()
    written(tmp_path, seconds_ago=301)
    WriterLock(tmp_path).release()


def test_a_client_whose_clock_is_wrong_changes_nothing(tmp_path, monkeypatch):
    written(tmp_path, seconds_ago=10)
    monkeypatch.setattr(time, "time", lambda: 4e9)
    with pytest.raises(FieldError, match="last seen 10 s ago"):
        WriterLock(tmp_path)


def test_a_takeover_stops_the_owner_at_its_next_write(tmp_path):
    held = WriterLock(tmp_path)
    (tmp_path / NAME).write_bytes(owner())
    with pytest.raises(TakenOver, match="process 4711 on another-host .* writes it now"):
        held.check()
    held.release()
    assert (tmp_path / NAME).read_bytes() == owner()  # It is the other's now.
    held = WriterLock(tmp_path, takeover=True)
    held.check()
    held.release()


def test_a_removed_file_stops_the_owner(tmp_path):
    held = WriterLock(tmp_path)
    (tmp_path / NAME).unlink()
    with pytest.raises(TakenOver, match="was removed"):
        held.check()
    held.release()


def test_the_owner_touches_the_file_until_it_is_taken_over(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.01)
    path = tmp_path / NAME
    held = WriterLock(tmp_path)
    os.utime(path, (0, 0))
    deadline = time.monotonic() + 10
    while path.stat().st_mtime == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert path.stat().st_mtime > 0
    path.write_bytes(owner())
    os.utime(path, (0, 0))
    time.sleep(0.1)
    assert path.stat().st_mtime == 0
    held.release()


def test_a_released_lock_leaves_no_thread_and_no_handle(tmp_path):
    for _ in range(5):
        WriterLock(tmp_path).release()
    held = WriterLock(tmp_path)
    with pytest.raises(FieldError):
        WriterLock(tmp_path)
    held.release()
    for thread in threading.enumerate():
        if thread.name == "lotcal_tf writer":
            thread.join(10)
            assert not thread.is_alive()
    handles = [path.readlink() for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    assert not [path for path in handles if tmp_path in path.parents]


# --- odd files and file systems ---------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\x00" * 50, b'{"pid": "x", "host": 1}'])
def test_a_file_that_names_nobody_is_free(tmp_path, content):
    (tmp_path / NAME).write_bytes(content)
    held = WriterLock(tmp_path)
    held.check()
    held.release()


def test_after_a_restart_of_this_machine_the_directory_is_free(tmp_path):
    written(tmp_path, host=os.uname().nodename, pid=os.getppid())
    WriterLock(tmp_path).release()


def test_without_kernel_locks_the_process_and_the_heartbeat_decide(tmp_path, monkeypatch):
    def refuses(*_):
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr(fcntl, "flock", refuses)
    here = {"host": os.uname().nodename}
    written(tmp_path, pid=os.getppid(), **here)  # alive
    with pytest.raises(FieldError, match=f"process {os.getppid()} on"):
        WriterLock(tmp_path)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    written(tmp_path, pid=ended.pid, **here)
    WriterLock(tmp_path).release()


def test_a_directory_that_is_gone_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        WriterLock(tmp_path / "absent")
