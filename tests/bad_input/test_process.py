"""The process around a command: interpreter options, streams, terminals and environment variables."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lotcal_tf import train

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "lotcal_tf"


def shell(command, here, **environment):
    """A command line of the shell; `python` is this interpreter."""
    done = subprocess.run(
        ["bash", "-c", command.replace("python", sys.executable)],
        cwd=here,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=300,
    )
    assert "Traceback" not in done.stderr + done.stdout
    return done


@pytest.mark.parametrize("option", ["-O", "-OO", "-I -S -E -X utf8=0", "-bb", "-W error"])
def test_interpreter_options_change_nothing(here, option):
    if "-I" in option:
        pytest.skip("isolated: the package must be installed")
    done = shell(f"python {option} -m lotcal_tf.train --epochs=0", here)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1 and "--epochs=0" in done.stderr
    done = shell(f"python {option} -m lotcal_tf.train --help", here)
    assert done.returncode == 0 and done.stdout.count("\n") > 30


@pytest.mark.parametrize("module", ["train", "evaluate", "export", "report"])
def test_help_without_docstrings_and_into_a_closed_pipe(here, module):
    done = shell(
        f"python -OO -m lotcal_tf.{module} --helpfull | head -1; echo ${{PIPESTATUS[0]}}", here
    )
    first, code = done.stdout.splitlines()
    assert (code, done.stderr) == ("0", "")
    assert first.strip()


def test_a_terminal_of_ascii_shows_every_text(here):
    for environment in ({"PYTHONIOENCODING": "ascii"}, {"LANG": "C", "LC_ALL": "C"}):
        environment |= {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        for argv, code in (("--helpfull", 0), ("--model=ü", 2), ("--out=\udcff", 2)):
            done = subprocess.run(
                [sys.executable, "-m", "lotcal_tf.train", argv],
                cwd=here,
                env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
                capture_output=True,
            )
            assert done.returncode == code, done
            assert b"Traceback" not in done.stderr
            assert done.stderr.count(b"\n") == (code == 2)
            (done.stdout + done.stderr).decode("ascii")


def test_closed_streams_change_no_exit_code(here):
    for closed in ("2>&-", ">&-", "<&-", ">&- 2>&- <&-"):
        assert shell(f"python -m lotcal_tf.train --epochs=0 {closed}", here).returncode == 2
        assert shell(f"python -m lotcal_tf.train --help {closed}", here).returncode == 0
    assert list(here.iterdir()) == []


def test_a_full_standard_output_is_an_error_in_one_line(here):
    done = shell("python -m lotcal_tf.train --help > /dev/full", here)
    assert done.returncode == 1 and done.stderr.count("\n") == 1


# Environment variables --------------------------------------------------------------------------

# Bad values by variable: (flags, values, whether the command is refused).
VARIABLES = {
    "TF_CONFIG": (
        ["--distribute=multi_worker"],
        [
            *("", "x", "[]", "{}", "1", "null", '"x"', "{" * 10000, "9" * 5000, '{"cluster": 1}'),
            '{"cluster": {}, "task": {}}',
            '{"cluster": {"worker": "a:1"}, "task": {"type": "worker", "index": 0}}',
            '{"cluster": {"worker": [1]}, "task": {"type": "worker", "index": 0}}',
            '{"cluster": {"worker": ["a"]}, "task": {"type": "worker", "index": 0}}',
            '{"cluster": {"worker": ["a:0"]}, "task": {"type": "worker", "index": 0}}',
            '{"cluster": {"worker": ["a:99999"]}, "task": {"type": "worker", "index": 0}}',
            '{"cluster": {"worker": ["a:'
            + "9" * 5000
            + '"]}, "task": {"type": "worker", "index": 0}}',
            '{"cluster": {"worker": ["a:1", "a:1"]}, "task": {"type": "worker", "index": 0}}',
            '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
            '{"cluster": {"worker": ["a:1"]}, "task": {"type": "ps", "index": 0}}',
            '{"cluster": {"ps": ["a:1"]}, "task": {"type": "ps", "index": 0}}',
            '{"cluster": {"chief": ["a:1", "b:1"]}, "task": {"type": "chief", "index": 0}}',
        ],
        True,
    ),
    # TensorFlow's own: a bad value counts as 0.
    "TF_CPP_MIN_LOG_LEVEL": (["--epochs=0"], ["", "x", "-1", "9" * 100], False),
    "TF_NUM_INTRAOP_THREADS": (["--epochs=0"], ["", "x", "-1", "9" * 100], False),
    "XDG_STATE_HOME": (["--epochs=0"], ["", "nowhere", "/dev/null"], False),
}


def read_variables():
    """The environment variables that the source of the package names beside `environ` or `getenv`."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call | ast.Subscript):
                owner = node.func if isinstance(node, ast.Call) else node.value
                if any(word in ast.unparse(owner) for word in ("os.environ", "getenv")):
                    place = node.args[0] if isinstance(node, ast.Call) else node.slice
                    found.add(ast.literal_eval(place))
    return found


def test_every_variable_that_the_package_reads_has_bad_cases():
    assert read_variables() == set(VARIABLES)


def test_a_bad_environment_variable_is_named_in_one_line(refused_command, each, monkeypatch):
    for name, (flags, values, refused) in VARIABLES.items():

        def check(value, name=name, flags=flags, refused=refused):
            monkeypatch.setenv(name, value)
            refused_command([name] if refused else [], train, *flags)
            monkeypatch.delenv(name)

        each(values, check)


# Paths ------------------------------------------------------------------------------------------


@pytest.mark.full
@pytest.mark.parametrize("name", ["*?[\\ '\"", "-x ü💥" + "a" * 100, "$HOME", "~"])
def test_unusual_names_of_directories_work(here, call_command, name, monkeypatch):
    monkeypatch.setattr(train, "FORMATS", ("keras",))
    flags = ["--model=lenet_4", "--epochs=1", "--levels=0", "--plan=graph", f"--out=./{name}"]
    done = call_command(train, *flags)
    assert done.code == 0, done.err
    assert [path.name for path in here.iterdir()] == [name]
    assert (here / name / "export" / "ticket.keras").is_file()
