"""Every flag of a command that is not a field, and command lines that are wrong as a whole."""

import types

import pytest

from lotcal_tf import evaluate, export, report, sweep, train
from lotcal_tf.config import flags

COMMANDS = (train, sweep, evaluate, export, report)
LONG_NAME = "a" * 300
LONG_PATH = "/".join(["a" * 200] * 30)
DIGITS = "9" * 4000
TEXTS = ["", "\0", "a\nb", "\ud800", "\x1b[2J"]
PATHS = [*TEXTS, LONG_NAME, LONG_PATH]
FILES = [*PATHS, "/dev/null", "/dev/null/x", "/proc/x", "../file/x"]  # to be written
NUMBERS = [*TEXTS, "x", "nan", "inf", "-1", "-inf", "1e999", "٣", DIGITS, "1,2", "[1]"]
SWITCH = ["", "maybe", "2", "\0", "٣"]
NAMES = [*TEXTS, "nonsense", ",", "a,,b", LONG_NAME]
CUSTOM = [*TEXTS, "x", "a:b:c", ":b", "a:", "a:b,", "../x:y", "1:2", LONG_NAME]

# Bad values of each flag, by command.
BAD = {
    "train": {"custom_objects": CUSTOM, "takeover": SWITCH},
    "sweep": {
        "grid": [*PATHS, "nowhere", "/dev/null", "/proc", ".", "/dev/zero", "../file/x"],
        "workers": [*NUMBERS, "0", "1025", "1.5", "1e2"],
        "ray": [*TEXTS, "nowhere:x:y"],
        "gpus": [*(n for n in NUMBERS if n != "1,2"), "65", "1,2", "0.5"],
        "dry_run": SWITCH,
        "custom_objects": CUSTOM,
    },
    "evaluate": {
        "model": [*PATHS, "nowhere", "/dev/null", "/proc", ".", "/dev/null/x", "*?[\\"],
        "split": [*TEXTS, "train", "TEST"],
        "shift": [*NAMES, "all,blur", "blur;contrast"],
        "severity": [
            *(n for n in NUMBERS if n != "1,2"),
            "0",
            "6",
            "1,",
            "1,,2",
            "1.0",
            "1000000000000",
        ],
        "unseen": [*TEXTS, ",", "a,,b", "../x", LONG_NAME, "a b"],
        "scaled": SWITCH,
        "custom_objects": CUSTOM,
        "record": SWITCH,
        "json": SWITCH,
        "trust_saved_model": SWITCH,
    },
    "export": {
        "run": [*PATHS, "nowhere", "/dev/null", "/proc", ".", "*?[\\"],
        "level": [*TEXTS, "x", "-1", "1.5", "99", "٣", DIGITS, "1000000000000", "Selected", "nan"],
        "formats": [*NAMES, "float32,nonsense", "float32;int8", "all"],
        "encoding": [*TEXTS, "zip"],
        "prefer": [*TEXTS, "cost"],
        "output": [*TEXTS, "labels"],
        "float_tolerance": NUMBERS,
        "accuracy_tolerance": NUMBERS,
        "ece_tolerance": NUMBERS,
        "logit_tolerance": NUMBERS,
        "license": TEXTS,
        "custom_objects": CUSTOM,
        "seconds": [*NUMBERS, "1e9"],
        "out": [*PATHS, "/dev/null", "/dev/null/x", "/proc/x", "../file", "../file/x"],
    },
    "report": {
        **{n: [*FILES, ".", "../run"] for n in ("out", "csv", "markdown", "latex")},
        "figures": [*FILES, "../file"],
        "rank": [*TEXTS, "nll", "test_nll", "val_temperature", "val_nll,val_ece"],
        "densities": [*NUMBERS[:-2], "0", "1.5", "0.5,0.5", "1,,0.5", "1;0.5", "21 %"],
    },
}
SHARED = {
    "config": [*PATHS, "nowhere", "/dev/null", "/proc", ".", "/dev/zero", "../file/x"],
    "set": [*TEXTS, "gamma", "=2", "a b=2", "a-b=1", "gamma=a\0b"],
}


def beside(module, name, run):
    """Flags that make the rest of the command line right."""
    needed = {"evaluate": {"model": run}, "export": {"run": run}, "sweep": {"out": "sweep"}}
    needed |= {"report": {"out": "a.html"}}
    model = needed.get(module.COMMAND.name, {})
    custom = {"calib": "nowhere:Class"} if name == "set" else {}
    return [f"--{n}={v}" for n, v in {**model, **custom}.items() if n != name]


@pytest.fixture
def operands(here):
    (here.parent / "file").write_text("")
    (here.parent / "run").mkdir()
    return {report: ["../run"]}


def test_every_flag_has_bad_cases():
    for module in COMMANDS:
        own = {flag.name for flag in module.COMMAND.own}
        short = {flag.short for flag in module.COMMAND.own}
        assert BAD[module.COMMAND.name].keys() == own, "add bad values of the new flag to BAD"
        # `test_fields` has the fields. Everything that the parser knows is in one of the tables.
        known = set(module.COMMAND.parser()) - own - short - set(module.COMMAND.field_flags())
        assert {n.removeprefix("no") for n in known} <= {*SHARED}, known


@pytest.mark.parametrize(
    ("module", "name"),
    [
        pytest.param(module, name, id=f"{module.COMMAND.name}-{name}")
        for module in COMMANDS
        for name in BAD[module.COMMAND.name]
    ],
)
def test_a_bad_flag_is_refused(refused_command, each, exported_run, operands, module, name):
    given = [*operands.get(module, []), *beside(module, name, exported_run)]
    flag = next(flag for flag in module.COMMAND.own if flag.name == name)

    def check(value):
        line = refused_command([name], module, *given, f"--{name}={value}")
        assert all(choice in line for choice in flag.choices) or not value, line

    each(BAD[module.COMMAND.name][name], check)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        pytest.param(module, name, id=f"{module.COMMAND.name}-{name}")
        for module in (train, sweep, evaluate, export)
        for name in SHARED
        if module in (train, sweep) or name == "config"
    ],
)
def test_a_bad_recipe_or_setting_is_refused(
    refused_command, each, exported_run, operands, module, name
):
    given = beside(module, name, exported_run)
    each(SHARED[name], lambda value: refused_command([], module, *given, f"--{name}={value}"))


@pytest.mark.parametrize("module", COMMANDS, ids=lambda module: module.COMMAND.name)
@pytest.mark.parametrize(
    "argv",
    [
        ["--nonsense"],
        ["--nonsense=1"],
        ["--ou=x"],
        ["---out=x"],
        ["--=x"],
        ["nonsense"],
        ["-x"],
        ["\0"],
        ["--out"],
        ["--flagfile=nowhere"],
        ["-"],
        [""],
        [LONG_NAME],
        ["--" + LONG_NAME],
        ["--\ud800"],
        ["--ünïcode=1"],
    ],
    ids=ascii,
)
def test_a_wrong_command_line_is_refused(refused_command, exported_run, operands, module, argv):
    line = refused_command(
        [], module, *beside(module, None, exported_run), *operands.get(module, ()), *argv
    )
    # Whatever else could be wrong is right, so the line shows the word; a long one is cut.
    word = argv[0].lstrip("-").partition("=")[0]
    if word.isprintable():
        assert word[:20] in line, line


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense = 1",
        "epochs",
        "epochs = ",
        "epochs = 1\nepochs = 2",
        "[epochs]\nx = 1",
        "epochs = 1\0",
        "\0",
        "'a\0b' = 1",
        "epochs = " + DIGITS,
        "epochs = " + "9" * 5000,
        "lr = 1e999999999999",
        "lr_drops = " + "[" * 2000 + "]" * 2000,
        "x = " + "{a=" * 2000 + "1" + "}" * 2000,
        "set = 1",
        "set = [1]",
        "[set]\nx = {}",
        "[set]\nepochs = [[1]]",
        "[settings]\na = 1",
        "settings = 1",
        "config = 'x.toml'",
        "[[set]]\na = 1",
        "epochs = 2001-01-01T00:00:00Z",
        "# " + "x" * (1 << 20),
        'dataset = "a\\nb"',
        "passes = 5",
        "input_mean = [0.5]",
        "ticket = '/proc'",
        "levels = 1000000000000",
        "ece_bins = 1000000000",
        "model = 'lenet_1000000000000'",
        '"\\u0000" = 1',
    ],
    ids=lambda text: ascii(text)[:30],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1"])
def test_a_recipe_that_is_wrong_is_refused(refused_command, here, text, encoding):
    if encoding != "utf-8":
        text += "# ü"  # what these encodings write is not UTF-8
    elif text in ("", "passes = 5"):  # source alone; a hyperparameter of another strategy
        pytest.skip("a valid recipe")
    path = here.parent / "own.toml"
    path.write_bytes(("source = 'digits'\n" + text).encode(encoding, "surrogatepass"))
    named = [] if text.startswith(("ticket", "model")) else ["own.toml"]
    refused_command(named, train, f"--config={path}")


def test_a_recipe_file_that_cannot_be_read_is_refused(refused_command, here):
    (here.parent / "loop.toml").symlink_to("loop.toml")
    (here.parent / "dangling.toml").symlink_to("nowhere")
    for name in ("loop.toml", "dangling.toml", "nowhere.toml", "."):
        refused_command([], train, f"--config=../{name}")


def test_no_operand_is_a_run(refused_command, here, each):
    (here.parent / "file").write_text("")
    values = [*PATHS, "nowhere", "/dev/null", "/proc", "../file", "."]
    each(values, lambda value: refused_command([], report, "--out=a.html", value))


def test_memory_that_is_not_there_is_an_error_in_one_line(here, call_command):
    def main(request):
        raise MemoryError

    module = types.SimpleNamespace(run=lambda argv: flags.run(train.COMMAND, main, argv))
    done = call_command(module)
    assert (done.code, done.out) == (1, "")
    (line,) = done.err
    assert "memory" in line
