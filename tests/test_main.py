"""The commands by name: `python -m lotcal_tf COMMAND`."""

import importlib.metadata

import pytest

from lotcal_tf import __main__ as main


@pytest.mark.parametrize("argv", [[], ["--help"], ["help"]])
def test_without_a_command_they_are_listed(at_once, argv):
    done = at_once("lotcal_tf", *argv)
    assert (done.code, done.err) == (0, [])
    for name, summary in main.COMMANDS.items():
        assert f"  {name:10} {summary}" in done.out.splitlines()


def test_the_version_is_printed(at_once):
    done = at_once("lotcal_tf", "--version")
    assert (done.code, done.out.strip()) == (
        0,
        f"lotcal_tf {importlib.metadata.version('lotcal_tf')}",
    )


def test_an_unknown_command_is_refused_with_the_list(at_once):
    done = at_once("lotcal_tf", "trian", "--epochs=3")
    assert (done.code, done.out) == (2, "")
    (line,) = done.err
    assert "trian" in line
    assert all(name in line for name in main.COMMANDS)


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["train", "--help"], 0, "usage: python -m lotcal_tf.train"),
        (["evaluate", "--shift=fog"], 2, "evaluate: --model is missing"),
        (["train", "--data_dir=x"], 2, "train: --data_dir=x: applies only with"),
    ],
)
def test_a_command_gets_its_own_arguments(at_once, argv, code, words):
    done = at_once("lotcal_tf", *argv)
    assert done.code == code
    assert words in "\n".join([done.out, *done.err])


@pytest.mark.parametrize("name", main.COMMANDS)
def test_every_command_is_there_and_has_that_name(name):
    module = importlib.import_module(f"lotcal_tf.{name}")
    assert module.COMMAND.name == name
    with pytest.raises(SystemExit) as left:
        module.run(["--no_such_flag"])
    assert left.value.code == 2
