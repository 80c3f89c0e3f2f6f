import inspect
import os
import re
import sys
import types
from pathlib import Path

import pytest

from lotcal_tf import errors
from lotcal_tf.config import flags, registry
from lotcal_tf.config.experiment import FIELDS, setting_fields, setting_owners
from lotcal_tf.config.fields import SECTIONS
from lotcal_tf.config.recipes import recipe_names, resolve

ROOT = Path(__file__).resolve().parents[2]
SUMMARY = "Does a thing."
TRAIN = flags.Command("train", SUMMARY)


@pytest.fixture
def run(capsys):
    """Runs a command line; gives exit code, lines of both streams, and the experiment that was asked for."""

    def call(*argv, main=None):
        reached = []

        def resolved(request):
            reached.append(resolve(request.given, request.config))

        with pytest.raises(SystemExit) as left:
            flags.run(TRAIN, main or resolved, argv, interrupted="continue it")
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
        flags.run(TRAIN, reached.append)
    assert [request.given for request in reached] == [{"seed": "17"}]


def test_settings_of_custom_methods_are_repeated_flags(run):
    request = TRAIN.read(["--set=gamma=2", "--set", "names=a=b,c", "--passes=3"])
    assert request.given == {"gamma": "2", "names": "a=b,c", "passes": "3"}
    (experiment,) = run("--calib=mine:Focal", "--set=gamma=2").reached
    assert experiment.settings == {"gamma": "2"}
    assert "more than once" in refused(run("--set=gamma=2", "--set=gamma=3"))
    for wrong in ("gamma", "=2", "a b=2"):
        assert refused(run(f"--set={wrong}")).startswith(f"train: --set={wrong}: write --set=NAME=")


def test_a_boolean_field_is_a_switch(run):
    assert run("--exclude_output").reached[0].exclude_output
    assert not run("--noexclude_output").reached[0].exclude_output
    assert run("--exclude_output=true").reached[0].exclude_output


# --- --help --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argv", [("--help",), ("-h",), ("--helpfull",), ("--epochs=0", "--help", "--nonsense")]
)
def test_help_is_printed_whatever_stands_beside_it(run, argv):
    result = run(*argv)
    assert (result.code, result.err, result.reached) == (0, [], [])
    assert result.out.startswith(f"{SUMMARY}\n\nusage: python -m lotcal_tf.train ")


ENTRIES = {**FIELDS, **setting_fields()}


@pytest.mark.parametrize("name", ENTRIES)
def test_full_help_explains_every_field_with_choices_and_default(run, name):
    entry = run("--helpfull").out.partition(f"\n  --{name}\n")[2]
    entry = " ".join(re.split(r"\n  --|\n\n", entry)[0].split())
    field = ENTRIES[name]
    assert entry.startswith(" ".join(field.metadata["help"].split()))
    if field.metadata["choices"]:
        assert f"({', '.join(field.metadata['choices'])})" in entry
    names = " ".join(f"{known}: {meaning}" for known, meaning in field.metadata["names"].items())
    assert entry.endswith(names)
    if name in FIELDS and field.default not in (None, "", ()):
        assert entry.removesuffix(names).rstrip().endswith(f"[default: {field.default}]")
    if name not in FIELDS:
        assert all(owner.partition("=")[2] in entry for owner in setting_owners()[name])


def test_short_help_has_the_main_flags_by_topic(run):
    shown = run("--help").out
    main = [name for name, field in FIELDS.items() if field.metadata["main"]]
    listed = re.findall(r"^  --(\w+)", shown, re.MULTILINE)
    assert 10 <= len(main) <= 13
    assert sorted(listed) == sorted([*main, "config"])
    topics = re.findall(r"^([A-Z][a-z ]+):$", shown, re.MULTILINE)
    assert topics == [s for s in SECTIONS if any(FIELDS[n].metadata["section"] == s for n in main)]
    assert "--helpfull" in shown


def test_help_of_calib_lists_the_strategies(run):
    entry = run("--help").out.partition("\n  --calib\n")[2].partition("\n  --")[0]
    assert all(name in entry for name in registry.STRATEGIES)


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
        ("--model=vgg99", [row.example for row in registry.MODELS.values()]),
        ("--criterion=big", registry.CRITERIA),
        ("--prune_rate=0", ["between 0 and 1"]),
        ("--prune_rate=1", ["between 0 and 1"]),
        ("--prune_rate=-0.2", ["between 0 and 1"]),
        ("--prune_rate=nan", ["between 0 and 1"]),
        ("--output_prune_rate=1", ["[0, 1)"]),
        ("--lr_drop_factor=1", ["between 0 and 1"]),
        ("--epochs=0", ["at least 1"]),
        ("--epochs=-3", ["at least 1"]),
        ("--epochs=two", ["an integer"]),
        ("--epochs=", ["an integer"]),
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
    assert line.startswith(f"train: {wrong.removesuffix('=')}: ")
    assert all(choice in line for choice in choices)


def test_flag_against_the_recipes_kind_is_refused(run, tmp_path):
    line = refused(run("--scope=global", "--output_prune_rate=0.1"))
    assert line.startswith("train: --output_prune_rate=0.1: ")
    assert "--scope=local" in line
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
        (["--config=absent.toml"], "--config=absent.toml: cannot be read"),
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
    return flags.Command("paint", SUMMARY, OWN, ("dataset", "seed")).read(argv)


def test_own_flags_stand_beside_the_experiments():
    request = ask("--dataset=mnist", "--colour=blue", "--loud", "--seed=4")
    assert request.own == {"colour": "blue", "model": None, "loud": True}
    assert request.given == {"dataset": "mnist", "seed": "4"}
    request = ask()
    assert request.own == {"colour": "red", "model": None, "loud": False}
    assert request.given == {}


def test_a_recipe_file_is_handed_on():
    assert (ask("--config=own.toml").config, ask().config) == ("own.toml", None)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--colour=green", "colour=green: choose one of red, blue"),
        ("--epochs=3", "'epochs'"),
        ("--loud=perhaps", "loud"),
    ],
)
def test_own_flags_are_checked_and_fields_not_taken_are_unknown(flag, message):
    with pytest.raises(errors.UsageError, match=message):
        ask(flag)


def read_operands(*argv):
    own = (flags.Flag("out", "where to", short="o"), flags.Flag("loud", "aloud", switch=True))
    return flags.Command("paint", SUMMARY, own, (), "THING…").read(argv)


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
    assert [line for line in lines if line.startswith("  --")] == ["  --out, -o", "  --loud"]


def test_help_tells_own_flags_and_only_the_fields_taken(capsys):
    with pytest.raises(SystemExit) as left:
        ask("--help")
    out = capsys.readouterr().out
    assert left.value.code == 0
    assert [line[4:] for line in out.splitlines() if line.startswith("  --")] == [
        "colour", "model", "loud", "dataset", "config", "seed"
    ]  # fmt: skip
    assert "of the thing (red, blue) [default: red]" in out
    assert "say it aloud\n" in out
    assert "which thing\n" in out


# --- exit codes ----------------------------------------------------------------------------------


def failing(error):
    def main(_):
        raise error

    return main


@pytest.mark.parametrize("kind", [k for _, k in inspect.getmembers(errors, inspect.isclass)])
def test_every_error_has_its_exit_code_and_one_line(run, kind):
    # Whatever the constructor takes; a message may quote several lines of somebody else's.
    error = kind.__new__(kind, "it went\nwrong")
    error.field = "epochs"  # of a FieldError
    result = run(main=failing(error))
    assert result.code == (2 if issubclass(kind, errors.UsageError) else 1)
    flag = "--" if issubclass(kind, errors.FieldError) else ""
    assert (result.out, result.err) == ("", [f"train: {flag}it went wrong"])


@pytest.mark.parametrize(
    ("field", "prefix"), [("epochs", "--"), ("passes", "--"), ("config", "--"), ("gamma", "--set=")]
)
def test_an_error_names_the_flag_that_sets_the_field(run, field, prefix):
    result = run(main=failing(errors.FieldError(field, 3, "must be less")))
    assert result.err == [f"train: {prefix}{field}=3: must be less"]


def test_interruption_is_130_and_says_how_to_go_on(run):
    result = run(main=failing(KeyboardInterrupt()))
    assert (result.code, result.out) == (130, "")
    (line,) = result.err
    assert line == "train: interrupted; continue it"


def test_a_bug_is_not_dressed_up_as_a_mistake_of_the_user():
    with pytest.raises(ZeroDivisionError):
        flags.run(TRAIN, failing(ZeroDivisionError()), [])


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
                "train: --ticket=absent: is not a ticket: give RUN/tickets/level_NN, or RUN for each of "
                "its levels"
            ],
        ),
    ],
)
def test_answers_in_a_second_and_without_tensorflow(at_once, flag, code, lines):
    done = at_once("lotcal_tf.train", flag)
    assert (done.code, done.err) == (code, lines)
    assert ("--epochs" in done.out) == (code == 0)


@pytest.fixture
def tensorflow(monkeypatch):
    """A stand-in whose start writes a notice to the process's standard error, as C++ does."""
    calls = []

    def start():
        calls.append(os.environ["TF_CPP_MIN_LOG_LEVEL"])
        os.write(2, b"I0000 a notice\n")

    config = types.SimpleNamespace(list_physical_devices=start)
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
    assert tensorflow.calls == ["2"]
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    flags.start_tensorflow()
    assert tensorflow.calls[1] == "0", "a user's own setting stands"


def test_start_that_fails_shows_why(tensorflow, capfd):
    def start():
        os.write(2, b"E0000 a library is missing\n")
        raise ImportError

    tensorflow.config.list_physical_devices = start
    with pytest.raises(ImportError):
        flags.start_tensorflow()
    os.write(2, b"afterwards\n")
    assert capfd.readouterr().err == "E0000 a library is missing\nafterwards\n"
