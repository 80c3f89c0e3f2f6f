"""What every refusal has in common: exit code 2 or UsageError, one line that names the field, and no file."""

import re

import pytest

from lotcal_tf.config import flags
from lotcal_tf.errors import UsageError, shown

# Words with which a message says what is valid, or what to do.
WAY_OUT = re.compile(
    r"\b(must|choose|give|needs?|needed|write|pass|use|cannot|only|leave|at most|at least|no such|missing|"
    r"is not|applies|delete|reduce|raise|install|set|let|call|did you mean|unknown|"
    r"convert|run|columns|similar|rewind to|pad|name inputs|"
    r"objects|takes inputs|build the model)\b",
    re.IGNORECASE,
)
LONGEST = 2000  # Characters of a line; that of an unknown recipe field lists all fields.


def check_line(line, named):
    """Checks the one line of a refusal: it names the field, and says what is valid."""
    assert len(line) < LONGEST, line
    assert line.isprintable(), ascii(line)
    assert "Traceback" not in line
    assert WAY_OUT.search(line), line
    for name in named:
        assert name in line, line


@pytest.fixture
def each():
    """each(values, check) calls check(value) for each value; a failure says for which."""

    def walk(values, check):
        for value in values:
            try:
                check(value)
            except BaseException as error:
                error.add_note(f"the bad value is {shown(value)!a}")
                raise

    return walk


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory, in which nothing may be left."""
    directory = tmp_path / "here"
    directory.mkdir()
    monkeypatch.chdir(directory)
    return directory


@pytest.fixture
def refused_command(here, call_command, monkeypatch, tree):
    """refused_command(named, module, *argv) → the one line of a command that is refused; it contains `named`.

    needs_data: whether the command may start TensorFlow first.
    """

    def reached():
        raise AssertionError("the request was accepted")

    def call(named, module, *argv, needs_data=False, unchanged=None):
        place = unchanged or here
        before = tree(place)
        with monkeypatch.context() as patch:
            if not needs_data:
                patch.setattr(flags, "start_tensorflow", reached)
            done = call_command(module, *argv)
        assert (done.code, done.out) == (2, ""), done
        (line,) = done.err
        assert line.startswith(f"{module.COMMAND.name}: ")
        check_line(line, named)
        assert tree(place) == before
        return line

    return call


@pytest.fixture
def refused_call(here, capfd, tree):
    """refused_call(named, function, *args, **kwargs) → the message of the UsageError; it contains `named`."""

    def call(named, function, *args, unchanged=None, **kwargs):
        place = unchanged or here
        before = tree(place)
        capfd.readouterr()
        with pytest.raises(UsageError) as error:
            function(*args, **kwargs)
        check_line(str(error.value), named)
        assert tree(place) == before
        return str(error.value)

    return call
