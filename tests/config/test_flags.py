import inspect
import os
import re
import sys
import types
from pathlib import Path

import pytest

from lotcal_tf import errors
from lotcal_tf.config import flags, registry
from lotcal_tf.config.experiment import FIELDS
from lotcal_tf.config.recipes import recipe_names, resolve

ROOT = Path(__file__).resolve().parents[2]
SUMMARY = "Does a thing."


@pytest.fixture
def run(capsys):
    """Runs a command line; gives exit code, lines of both streams, and what reached the main."""

    def call(*argv, main=None):
        reached = []
        with pytest.raises(SystemExit) as left:
            flags.run("train", SUMMARY, main or reached.append, argv)
        out, err = capsys.readouterr()
        return types.SimpleNamespace(
            code=left.value.code, out=out, err=err.splitlines(), reached=reached
        )

    return call


def refused(result):
    """The one line a wrong request is told; nothing else happened."""
    assert (result.code, result.out, result.reached) == (2, "", [])
    (line,) = result.err
    return line


# --- what is asked for reaches the main ----------------------------------------------------------


def test_flags_become_the_experiment(run):
    result = run("--dataset=mnist", "--lr=0.01", "--lr_drops=3,5", "-seed=3", "--out", "a b")
    flags = {"dataset": "mnist", "lr": 0.01, "lr_drops": (3, 5), "seed": 3, "out": "a b"}
    assert result.reached == [resolve(flags)]
    assert (result.code, result.out, result.err) == (0, "", [])


def test_no_flag_is_the_default_recipe(run):
    assert run().reached == [resolve({"dataset": "digits"})]


def test_ones_own_recipe_is_read(run, tmp_path):
    recipe = tmp_path / "own.toml"
    recipe.write_text("source = 'digits'\nepochs = 3\nlr = 0.5\n")
    (experiment,) = run(f"--config={recipe}", "--epochs=4").reached
    assert (experiment.dataset, experiment.source) == ("own", "digits")
    assert (experiment.epochs, experiment.lr) == (4, 0.5)


def test_arguments_come_from_the_command_line(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "--seed=17"])
    reached = []
    with pytest.raises(SystemExit):
        flags.run("train", SUMMARY, reached.append)
    assert [experiment.seed for experiment in reached] == [17]


# --- --help --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argv", [("--help",), ("-h",), ("--helpfull",), ("--epochs=0", "--help", "--nonsense")]
)
def test_help_is_printed_whatever_stands_beside_it(run, argv):
    result = run(*argv)
    assert (result.code, result.err, result.reached) == (0, [], [])
    assert result.out.startswith(f"{SUMMARY}\n\nusage: python -m lotcal_tf.train ")


@pytest.mark.parametrize("name", FIELDS)
def test_help_explains_every_field_with_choices_and_default(run, name):
    entry = run("--help").out.partition(f"\n  --{name}\n")[2]
    entry = " ".join(re.split(r"\n  --", entry)[0].split())
    field = FIELDS[name]
    assert entry.startswith(" ".join(field.metadata["help"].split()))
    if field.metadata["choices"]:
        assert f"({', '.join(field.metadata['choices'])})" in entry
    if field.default not in (None, "", ()):
        assert entry.endswith(f"[default without a recipe: {field.default}]")


def test_help_names_the_command_and_the_recipe_flag(run):
    assert "--config" in run("--help").out
    values = flags.experiment_flags()
    assert "usage: python -m lotcal_tf.sweep " in flags.help_text("sweep", SUMMARY, values)
    assert set(values) == {*FIELDS, "config"}


# --- wrong requests ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n, f in FIELDS.items() if f.metadata["choices"]])
def test_wrong_choice_is_told_the_choices(run, name):
    line = refused(run(f"--{name}=zzz"))
    assert (
        line == f"train: --{name}=zzz: choose one of {', '.join(FIELDS[name].metadata['choices'])}"
    )


@pytest.mark.parametrize(
    ("wrong", "choices"),
    [
        ("--dataset=imagenet", recipe_names()),
        ("--calib=lwc", registry.STRATEGIES),
        ("--model=vgg99", [row.example or name for name, row in registry.MODELS.items()]),
        ("--prune_rate=0", ["between 0 and 1"]),
        ("--prune_rate=1", ["between 0 and 1"]),
        ("--prune_rate=-0.2", ["between 0 and 1"]),
        ("--prune_rate=nan", ["between 0 and 1"]),
        ("--output_prune_rate=1", ["[0, 1)"]),
        ("--lr_drop_factor=1", ["between 0 and 1"]),
        ("--epochs=0", ["at least 1"]),
        ("--epochs=-3", ["at least 1"]),
        ("--epochs=two", ["a whole number"]),
        ("--epochs=", ["a whole number"]),
        ("--batch_size=0", ["at least 1"]),
        ("--batch_size=-60", ["at least 1"]),
        ("--levels=-1", ["at least 0"]),
        ("--lr=inf", ["finite number above 0"]),
        ("--input_std=nan", ["finite numbers above 0"]),
        ("--rewind=last", ["init", "step:K", "epoch:K", "random", "none"]),
        ("--momentum=0.9", ["--optimizer=sgd"]),
        ("--lr_drop_factor=0.5", ["--lr_drops"]),
    ],
)
def test_wrong_value_is_told_flag_value_and_choices(run, wrong, choices):
    line = refused(run(wrong))
    assert line.startswith(f"train: {wrong}: ")
    assert all(choice in line for choice in choices)


def test_flag_against_the_recipes_kind_is_refused(run, tmp_path):
    line = refused(run("--scope=global", "--output_prune_rate=0.1"))
    assert line.startswith(
        "train: --output_prune_rate=0.1: only means something with --scope=local"
    )
    assert "scope=global" in line
    recipe = tmp_path / "own.toml"
    recipe.write_text("scope = 'global'\noptimizer = 'sgd'\n")
    assert run(f"--config={recipe}", "--momentum=0.9").reached[0].momentum == 0.9
    refused(run(f"--config={recipe}", "--output_prune_rate=0.1"))
    refused(run(f"--config={recipe}", "--momentum=0.9", "--optimizer=adam"))
    line = refused(run(f"--config={recipe}", "--dataset=mnist"))
    assert line.startswith(f"train: --dataset=mnist: contradicts --config={recipe}")


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--epoch=3"], "'epoch'. Did you mean: epochs ?"),
        (["--nonsense=3"], "'nonsense'"),
        (["--epochs"], "--epochs"),
        (["epochs=3"], "'epochs=3' is not a flag: write --flag=value"),
        (["--epochs=3", "extra"], "'extra' is not a flag"),
        (["--", "--epochs=3"], "'--epochs=3' is not a flag"),
        (["--config=absent.toml"], "cannot read the recipe absent.toml"),
    ],
)
def test_what_is_no_flag_is_named(run, argv, line):
    assert line in refused(run(*argv))


def test_unknown_field_of_a_recipe_is_named(run, tmp_path):
    recipe = tmp_path / "own.toml"
    recipe.write_text("epoch = 3\n")
    assert refused(run(f"--config={recipe}")) == (
        f"train: {recipe}: unknown field 'epoch'; did you mean epochs?"
    )


# --- a command's own flags -----------------------------------------------------------------------

OWN = (
    flags.Flag("colour", "of the thing", "red", choices=("red", "blue")),
    flags.Flag("model", "which thing"),  # a field's name, and not that field
    flags.Flag("loud", "say it aloud", switch=True),
)


def ask(*argv):
    return flags.read("paint", SUMMARY, argv, OWN, ("dataset", "seed"))


def test_own_flags_stand_beside_the_experiments():
    request = ask("--dataset=mnist", "--colour=blue", "--loud", "--seed=4")
    assert request.own == {"colour": "blue", "model": None, "loud": True}
    assert request.given == {"dataset": "mnist", "seed": "4"}
    assert request.experiment == resolve({"dataset": "mnist", "seed": 4})
    request = ask()
    assert request.own == {"colour": "red", "model": None, "loud": False}
    assert request.given == {}


def test_a_recipe_that_was_given_counts_as_given(tmp_path):
    recipe = tmp_path / "own.toml"
    recipe.write_text("source = 'digits'\n")
    assert ask(f"--config={recipe}").given == {"config": str(recipe)}


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--colour=green", "colour=green: choose one of red, blue"),
        ("--epochs=3", "'epochs'"),
        ("--loud=perhaps", "loud"),
        ("--seed=-1", "seed=-1: must be at least 0"),
    ],
)
def test_own_flags_are_checked_and_fields_not_taken_are_unknown(flag, message):
    with pytest.raises(errors.UsageError, match=message):
        ask(flag)


def read_operands(*argv):
    own = (flags.Flag("out", "where to", short="o"), flags.Flag("loud", "aloud", switch=True))
    return flags.read("paint", SUMMARY, argv, own, (), "THING…")


@pytest.mark.parametrize(
    "argv", [("a", "-o", "there", "b", "--loud"), ("--loud", "--out=there", "a", "b")]
)
def test_operands_and_flags_stand_in_any_order(argv):
    request = read_operands(*argv)
    assert list(request.operands) == ["a", "b"]
    assert request.own == {"out": "there", "loud": True}


def test_operands_are_refused_by_commands_that_take_none():
    assert list(ask("--seed=1").operands) == []
    with pytest.raises(errors.UsageError, match="'a' is not a flag"):
        ask("a")


def test_a_command_without_fields_has_no_recipe(capsys):
    with pytest.raises(errors.UsageError, match="config"):
        read_operands("a", "--config=own.toml")
    with pytest.raises(SystemExit):
        read_operands("--help")
    lines = capsys.readouterr().out.splitlines()
    assert "usage: python -m lotcal_tf.paint THING… [--flag=value …]" in lines
    assert [line for line in lines if line.startswith("  --")] == ["  --loud", "  --out, -o"]


def test_help_tells_own_flags_and_only_the_fields_taken(capsys):
    with pytest.raises(SystemExit) as left:
        ask("--help")
    out = capsys.readouterr().out
    assert left.value.code == 0
    assert [line[4:] for line in out.splitlines() if line.startswith("  --")] == [
        "colour", "config", "dataset", "loud", "model", "seed"
    ]  # fmt: skip
    assert "of the thing (red, blue) [default: red]" in out
    assert "say it aloud\n" in out
    assert "which thing\n" in out
    assert "without a recipe" not in out


def test_leaving_says_what_an_interruption_means(capsys):
    def work():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as left:
        flags.leave("paint", work, interrupted="the paint is wet")
    assert (left.value.code, capsys.readouterr().err) == (130, "paint: the paint is wet\n")


# --- exit codes ----------------------------------------------------------------------------------


def failing(error):
    def main(_):
        raise error

    return main


@pytest.mark.parametrize("kind", [k for _, k in inspect.getmembers(errors, inspect.isclass)])
def test_every_error_has_its_exit_code_and_one_line(run, kind):
    # Whatever the constructor takes; a message may quote several lines of somebody else's.
    error = kind.__new__(kind, "it went\nwrong")
    result = run(main=failing(error))
    assert result.code == (2 if issubclass(kind, errors.UsageError) else 1)
    flag = "--" if kind is errors.FieldError else ""
    assert (result.out, result.err) == ("", [f"train: {flag}it went wrong"])


def test_interruption_is_130_and_says_how_to_go_on(run):
    result = run(main=failing(KeyboardInterrupt()))
    assert (result.code, result.out) == (130, "")
    (line,) = result.err
    assert line.startswith("train: interrupted; the same command goes on")


def test_a_bug_is_not_dressed_up_as_a_mistake_of_the_user():
    with pytest.raises(ZeroDivisionError):
        flags.run("train", SUMMARY, failing(ZeroDivisionError()), [])


# --- before and at TensorFlow's start ------------------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "code", "lines"),
    [
        ("--help", 0, []),
        ("--epochs=0", 2, ["train: --epochs=0: must be at least 1"]),
        (
            "--ticket=absent",
            2,
            [
                "train: --ticket=absent: is no ticket: give RUN/tickets/level_NN, or RUN for each of "
                "its levels"
            ],
        ),
    ],
)
def test_answers_in_a_second_and_without_tensorflow(at_once, flag, code, lines):
    done = at_once("train", flag)
    assert (done.code, done.told) == (code, lines)
    assert ("--epochs" in done.out) == (code == 0)


@pytest.fixture
def tensorflow(monkeypatch):
    """A stand-in whose start writes a notice to the process's standard error, as C++ does."""
    calls = []

    def start():
        calls.append(os.environ["TF_CPP_MIN_LOG_LEVEL"])
        os.write(2, b"I0000 a notice\n")

    experimental = types.SimpleNamespace(enable_op_determinism=lambda: calls.append("determined"))
    config = types.SimpleNamespace(list_physical_devices=start, experimental=experimental)
    fake = types.SimpleNamespace(config=config, calls=calls)
    monkeypatch.setitem(sys.modules, "tensorflow", fake)
    # Set first, so that it is put back to how it was; the code under test sets it.
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "")
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL")
    return fake


def test_start_is_silent_and_standard_error_comes_back(tensorflow, capfd, monkeypatch):
    flags.start_tensorflow()
    os.write(2, b"afterwards\n")
    assert capfd.readouterr().err == "afterwards\n"
    assert tensorflow.calls == ["2", "determined"]
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    flags.start_tensorflow()
    assert tensorflow.calls[2] == "0", "a user's own setting stands"


def test_start_that_fails_shows_why(tensorflow, capfd):
    def start():
        os.write(2, b"E0000 a library is missing\n")
        raise ImportError

    tensorflow.config.list_physical_devices = start
    with pytest.raises(ImportError):
        flags.start_tensorflow()
    os.write(2, b"afterwards\n")
    assert capfd.readouterr().err == "E0000 a library is missing\nafterwards\n"
