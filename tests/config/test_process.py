"""Commands in bad company: closed streams, broken pipes, poor terminals, signals."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lotcal_tf.config import flags
from lotcal_tf.config.process import (
    AGAIN_SECONDS,
    Stopped,
    Tolerant,
    safe_streams,
    stoppable,
    tolerant,
)

ROOT = Path(__file__).resolve().parents[2]
PYTHON = f"exec {sys.executable}"


def shell(line, **environment):
    """Runs a line in bash, with the package on the path."""
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        timeout=60,
    )


# --- streams -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["lotcal_tf.train", "lotcal_tf"])
@pytest.mark.parametrize(
    "redirected",
    ["| head -1", ">&-", "2>&-", ">&- 2>&- <&-", "2>&1 | head -1", "> /dev/null", "2>&- | true"],
)
def test_help_works_with_any_streams(module, redirected):
    done = shell(f"({PYTHON} -m {module} --help) {redirected}")
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("redirected", [">&-", "2>&-", "2>&1 | head -c 1", ">&- 2>&- <&-"])
def test_a_usage_error_keeps_its_code_with_any_streams(redirected):
    done = shell(f"({PYTHON} -m lotcal_tf.train --epochs=x) {redirected}")
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LANG": "C"},
    ],
)
def test_poor_terminals_show_escapes(environment):
    done = shell(f"{PYTHON} -m lotcal_tf.train --helpfull", **environment)
    assert (done.returncode, done.stderr) == (0, b"")
    done = shell(f"{PYTHON} -m lotcal_tf.train --model=größe", **environment)
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1
    assert done.stderr.startswith(b"train: --model=gr")


def test_output_that_is_lost_on_a_full_disk_is_a_failure():
    done = shell(f"{PYTHON} -m lotcal_tf.train --help > /dev/full")
    assert done.returncode == 1
    assert done.stderr == b"train: standard output cannot be written: No space left on device\n"


OPENS = """
import os, sys
from lotcal_tf.config.process import safe_streams
with safe_streams():
    handle = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
    os.write(1, b"noise"); os.write(2, b"noise")
    print("noise"); print("noise", file=sys.stderr)
"""


def test_nothing_is_written_into_a_file_that_is_opened_after_a_stream_was_closed(tmp_path):
    path = tmp_path / "weights"
    done = shell(f"{PYTHON} -c '{OPENS}' {path} >&- 2>&- <&-")
    assert done.returncode == 0
    assert path.read_bytes() == b""


class Broken(io.StringIO):
    def write(self, text):
        raise BrokenPipeError

    flush = isatty = write


def test_a_tolerant_stream_drops_what_cannot_be_written():
    closed = io.StringIO()
    closed.close()
    for stream in (None, closed, io.TextIOWrapper(io.BytesIO(), "ascii")):
        one = Tolerant(stream)
        assert one.write("é\n") == 2
        one.flush()
        assert not one.isatty()
    broken = Tolerant(Broken())
    print("x", file=broken)
    broken.flush()
    assert broken.full is None
    assert tolerant(broken) is broken


def test_what_a_stream_cannot_encode_is_escaped():
    raw = io.BytesIO()
    one = Tolerant(io.TextIOWrapper(raw, "ascii"))
    print("± 1 \udcff", file=one)
    one.flush()
    assert raw.getvalue() == b"\\xb1 1 \\udcff\n"


def test_streams_are_given_back(capsys):
    before = sys.stdout, sys.stderr
    with pytest.raises(ZeroDivisionError), safe_streams():
        print("out")
        print("err", file=sys.stderr)
        raise ZeroDivisionError
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr() == ("out\n", "err\n")


# --- signals -----------------------------------------------------------------------------------------

COMMAND = """
import sys, time
from lotcal_tf.config import flags
def main(request):
    try:
        print("begun", flush=True)
        time.sleep(60)
    finally:
        print("cleaning", flush=True)
        if "slow" in sys.argv:
            time.sleep(60)
flags.run(flags.Command("train", "Does a thing."), main, [], interrupted="do this")
"""


def start(*arguments, ignored=(), code=COMMAND):
    def ignore():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)

    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=ignore,
    )
    assert process.stdout.readline() == "begun\n"
    return process


@pytest.mark.parametrize(
    "number, code, line",
    [
        (signal.SIGINT, 130, "train: interrupted; do this\n"),
        (signal.SIGTERM, 143, "train: ended by SIGTERM; do this\n"),
        (signal.SIGHUP, 129, "train: ended by SIGHUP; do this\n"),
    ],
)
def test_a_signal_ends_a_command_in_one_line(number, code, line):
    with start() as process:
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (code, "cleaning\n", line)


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_at_once(second):
    with start("slow") as process:
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "cleaning\n"
        process.send_signal(second)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (128 + second, "", "")


def test_a_second_signal_ends_a_program_that_python_cannot_interrupt():
    """As long as compiled code runs, no handler in Python does."""
    compiled = "hashlib.pbkdf2_hmac('sha256', b'a', b'b', 10**9)"
    slow = COMMAND.replace("time.sleep(60)", compiled, 1).replace(
        "import sys", "import hashlib, sys"
    )
    with start(code=slow) as process:
        for _ in range(2):
            time.sleep(0.3)
            process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (143, "", "")


def test_ignored_signals_stay_ignored():
    with start(ignored=[signal.SIGHUP, signal.SIGINT]) as process:
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 143


def test_handlers_are_set_back_and_other_threads_leave_them_alone():
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    with pytest.raises(Stopped) as caught, stoppable():
        signal.raise_signal(signal.SIGTERM)
    assert (caught.value.name, caught.value.code) == ("SIGTERM", 143)
    assert [signal.getsignal(number) for number in numbers] == before
    failed = []

    def run():
        try:
            with stoppable():
                assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert not failed


@pytest.mark.parametrize("ends", [True, False])
def test_a_dropped_request_to_end_is_repeated(ends):
    """The end of the block repeats it at once, a longer block within a second."""
    with pytest.raises(Stopped) as caught, stoppable():
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        for _ in range(0 if ends else 100):
            time.sleep(0.1)
    assert (caught.value.name, caught.value.code) == ("SIGTERM", 143)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL


def test_a_signal_in_a_destructor_ends_a_command():
    """Python drops exceptions there, after it has printed them."""
    first = """
class Destroyed:
    def __del__(self):
        print("begun", flush=True)
        time.sleep(2)
Destroyed()
"""
    with start(
        first, code=COMMAND.replace("try:\n", "try:\n        exec(sys.argv[1])\n")
    ) as process:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert out.endswith("cleaning\n")
    assert err.endswith("train: interrupted; do this\n")


def test_an_alarm_of_others_stays_theirs():
    rung = []
    before = signal.signal(signal.SIGALRM, lambda *_: rung.append(True))
    try:
        with pytest.raises(Stopped), stoppable():
            with contextlib.suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
            assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
            signal.raise_signal(signal.SIGALRM)
        assert rung == [True]
    finally:
        signal.signal(signal.SIGALRM, before)


def test_cleaning_up_is_not_interrupted_again():
    cleaned = False
    with pytest.raises(Stopped), stoppable():
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            until = time.monotonic() + 2.5 * AGAIN_SECONDS
            while time.monotonic() < until:
                time.sleep(0.05)
            cleaned = True
    assert cleaned


def test_other_signals_are_no_requests_to_end():
    """They are written to the same pipe if they have a handler."""
    child = COMMAND.replace(
        "def main", "import signal\nsignal.signal(signal.SIGUSR1, lambda *_: None)\ndef main"
    )
    with start(code=child) as process:
        for number in (signal.SIGUSR1, signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR1):
            process.send_signal(number)
            time.sleep(0.2)
        out = process.communicate(timeout=30)[0]
    assert (process.returncode, out) == (143, "cleaning\n")


def test_an_error_of_the_system_is_one_line(capsys):
    def main(request):
        raise OSError(28, "No space left on device", "/full/file")

    with pytest.raises(SystemExit) as left:
        flags.run(flags.Command("train", "Does a thing."), main, [])
    assert left.value.code == 1
    assert capsys.readouterr().err == "train: /full/file: No space left on device\n"
