"""Every field of an experiment and every hyperparameter: as a flag, in a recipe and as a keyword."""

import dataclasses
import functools
import json
import operator
import types
import typing

import numpy as np
import pytest

from lotcal_tf import evaluate, export, find_tickets, train
from lotcal_tf.config import registry
from lotcal_tf.config.experiment import FIELDS, Experiment, setting_fields
from lotcal_tf.config.fields import fields_of

LONG_NAME = "a" * 300
LONG_PATH = "/".join(["a" * 200] * 30)
DIGITS = "9" * 4000


@dataclasses.dataclass(frozen=True)
class WithData:
    """A value that only the data or the network shows to be wrong."""

    value: typing.Any


@dataclasses.dataclass(frozen=True)
class Flag:
    """A value that a recipe may have."""

    value: typing.Any


# Out of range, by field; values of the wrong kind are added by type, see `WRONG`. What a flag beside
# it must be, so that the field has a meaning: `BESIDE`.
BAD = {
    "dataset": [Flag("nonsense"), Flag("../mnist"), Flag("mnist,digits"), LONG_NAME],
    "source": ["../etc/passwd", "a b", LONG_NAME, "ü"],
    "data_dir": ["nowhere", LONG_NAME, LONG_PATH],
    "validation_size": ["0", "-1", WithData(10**9), WithData(2**63 - 1)],
    "train_size": ["0", "1", "-1", WithData(10**9), WithData(2**63 - 1)],
    "test_size": ["0", "-1", WithData(10**9)],
    "image_size": ["0", "-1,5", "1,2,3", "1000000000000", "5,100000"],
    "color_mode": ["rgba", "GRAYSCALE"],
    "label_column": [WithData("nowhere")],
    "half": ["c", "A"],
    "nu": ["0", "-0.2", "1e39", "1e-300"],
    "dimensions": ["0", "-1", "1000000000000", WithData(7)],
    "classes": ["3", "-1,2", "1,1", "0,1,0", WithData("0,99"), WithData("10,11")],
    "label_noise": ["-0.1", "1", "1.5", "1e300"],
    "noise_kind": ["asymetric"],
    "noise_map": ["-1,0", WithData("1,2"), WithData("0,1,2,3,4,5,6,7,8,99")],
    "augment": ["flip", WithData("crop_flip")],
    "input_mean": ["nan", "inf", "1,nan", "1,2", "1e39"],
    "input_std": ["0", "-1", "1,0", "nan", "1e-300", "1,2"],
    "memory_limit_mb": ["-1"],
    "shuffle_buffer": ["0", "-1", "1000000000000"],
    "model": [
        *("lenet", "lenet_0", "lenet_-1", "lenet_1000000000000", f"lenet_{DIGITS}", "lenet_٣"),
        *(
            "lenet_9999" + "_9999" * 30,
            "resnet21",
            "resnet20_1000000000000",
            "vgg19_1000",
            "x.keras",
        ),
        *(LONG_NAME, "../../x", "nowhere/x.keras", WithData("resnet20_4"), WithData("vgg19_4")),
    ],
    "precision": ["float64", "float16"],
    "initializer": ["zeros"],
    "use_bias": [],
    "bias_initializer": ["ones", "uniform"],
    "norm_initializer": ["zeros"],
    "calib": [
        "nonsense",
        "a:b:c",
        "module:",
        ":Class",
        WithData("nowhere:Class"),
        WithData("os:path"),
    ],
    "optimizer": ["sgdd", "a b", WithData("nowhere:Class"), WithData("os:getcwd")],
    "lr": ["0", "-1", "1e39", "1e-300"],
    "momentum": ["-0.1", "1", "1.5"],
    "nesterov": [],
    "weight_decay": ["-1", "1e39"],
    "schedule": ["linear", "custom"],
    "warmup_epochs": ["-1", "1e39", "2"],
    "lr_drops": ["0", "-1", "3,2", "5,5"],
    "lr_drop_factor": ["0", "1", "-1", "1.5"],
    "class_weight": ["-1,1", "0,0", "1e39,1", WithData("1,2")],
    "clip_norm": ["0", "-1", "1e39"],
    "clip_value": ["0", "-1", "1e39"],
    "ema": ["-0.1", "1", "2"],
    "early_stopping": ["-1"],
    "epochs": ["0", "-1", "1000000000000"],
    "batch_size": ["0", "-1", WithData(10**9), WithData(2**63 - 1)],
    "drop_remainder": [],
    "levels": ["-1", "1000000000000", WithData(10_000)],
    "prune_rate": ["0", "1", "-0.2", "1.2", WithData(1e-12)],
    "criterion": ["nonsense", "magnitude,random", WithData("nowhere:Class"), WithData("os:path")],
    "scope": ["globall"],
    "count": ["all", WithData("openlth")],
    "output_prune_rate": ["-0.1", "1", "2"],
    "exclude_output": [],
    "exclude": [WithData("nonsense"), WithData("*")],
    "prune_depthwise": [],
    "rewind": [
        "step:0",
        "step:-1",
        "step:",
        "epoch:1.5",
        "step:٣",
        f"step:{DIGITS}",
        WithData("epoch:9"),
    ],
    "ticket": ["nowhere", "/dev/null", "/proc", LONG_NAME, LONG_PATH],
    "control": ["random"],
    "ece_bins": ["0", "-1", "1000000000", "1001"],
    "mc_eval": ["1", "-1", "1000000000"],
    "seed": ["-1", str(2**63)],
    "export_logits": ["yes"],
    "on_unhealthy": ["ignore"],
    "plan": ["jit"],
    "distribute": ["cluster"],
    "checkpoint_minutes": ["-1", "1e39"],
    "threads": ["-1", "1000000000000"],
    "out": [
        *(LONG_NAME, LONG_PATH, WithData("/dev/null"), WithData("/dev/null/x"), WithData("/proc")),
        *(
            WithData("/proc/nowhere"),
            WithData("/sys/x"),
            WithData("../file/x"),
            WithData("../file"),
        ),
    ],
    "passes": ["1", "0", "-1", "1000000000"],
    "dropout_rate": ["1", "-0.1", "0"],
    "dropout_at": ["everywhere"],
    "mixup_a": ["0", "-1", "1e39"],
    "calib_weight": ["-1", "1e39"],
    "lwcc_form": ["linear"],
    "prior": ["0.5,0.6", "-1,2", WithData("0.5,0.5")],
    "nba_bins": ["1", "0", "1000000000"],
    "nba_width": ["0", "-1", "1e39"],
    "slimming_strength": ["-1", "1e39"],
    "slimming_decay": ["-1", "1e39"],
    "gradient_of": ["accuracy"],
}
BESIDE = {
    "data_dir": {"dataset": "folder"},
    "test_size": {"dataset": "table", "data_dir": "../table.csv"},
    "image_size": {"dataset": "folder"},
    "color_mode": {"dataset": "folder"},
    "label_column": {"dataset": "table", "data_dir": "../table.csv"},
    "nu": {"dataset": "mixture_linear"},
    "dimensions": {"dataset": "mixture_xor"},
    "noise_kind": {"label_noise": 0.2},
    "noise_map": {"label_noise": 0.2, "noise_kind": "asymmetric"},
    "momentum": {"optimizer": "sgd"},
    "nesterov": {"optimizer": "sgd", "momentum": 0.5},
    "warmup_epochs": {"epochs": 2},
    "lr_drop_factor": {"lr_drops": "1"},
    "mc_eval": {"calib": "vwcc"},  # Without dropout every value is refused.
    "rewind": {"epochs": 2},
    "count": {"scope": "global", "exclude": "hidden_1"},
    "control": {"ticket": "../run"},
    "input_mean": {"input_std": "1"},
    "input_std": {"input_mean": "1"},
    "augment": {"dataset": "mixture_linear"},
    "model": {"dataset": "mixture_linear"},
}
TINY = {"dataset": "digits", "model": "lenet_4", "epochs": 1, "levels": 1, "plan": "graph"}
ENTRIES = {**FIELDS, **setting_fields()}


@functools.cache
def hints():
    rows = [
        Experiment,
        *(m.hyperparameters for m in (*registry.STRATEGIES.values(), *registry.CRITERIA.values())),
    ]
    return functools.reduce(operator.or_, (typing.get_type_hints(row) for row in rows))


def kind_of(name):
    """The type of one value of a field, and whether it is a tuple of these."""
    hint = hints()[name]
    options = (hint,) if typing.get_origin(hint) is tuple else typing.get_args(hint) or (hint,)
    (hint,) = (option for option in options if option is not types.NoneType)
    many = typing.get_origin(hint) is tuple
    return (typing.get_args(hint)[0] if many else hint), many


# Values of the wrong kind: texts of flags, values of TOML, objects of Python.
_NO_NUMBER = ["", "x", "nan", "inf", "-inf", "٣", DIGITS, "1e999", "None", "\0", "[1]", "0x10"]
TEXTS = {
    int: [*_NO_NUMBER, "1.5", "\ud800"],
    float: [*_NO_NUMBER, "1+2j"],
    bool: ["", "maybe", "2", "None", "٣", "\0"],
    str: ["", "\0", "a\nb", "a\0b", "\x1b[2J", "\ud800", "a\u2028b"],
}
PARTS = {
    int: ["x", "1.5", "1,,2", ",", ",1", "٣", DIGITS, "nan", "1;2"],
    float: ["x", "1,,2", ",", ",1", "٣", "nan", "1;2", "inf"],
    str: ["\0", "a,,b", ",", "\ud800", "a\nb"],
}
TOML = {
    int: ["true", "1.5", "'x'", "[]", "{}", "nan", "inf", "2001-01-01", "[1]", "'٣'", "9" * 400],
    float: ["true", "'x'", "[]", "{}", "nan", "inf", "2001-01-01", "[1.0]", "'٣'"],
    bool: ["1", "1.5", "'x'", "[]", "{}", "2001-01-01"],
    str: ["true", "1", "1.5", "[]", "{}", "2001-01-01", '"a\\u0000"', '"a\\nb"', "['a']"],
}
TOML_PARTS = {
    int: ["true", "'x'", "{}", "[true]", "[1.5]", "[[1]]", "['']", "[nan]"],
    float: ["true", "'x'", "{}", "[true]", "[[1]]", "['x']", "[nan]", "[{}]"],
    str: ["true", "1", "{}", "[1]", "[['a']]", "[true]", '["a\\u0000"]'],
}


class Unprintable:
    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __str__


COMMON = {
    "bytes": b"1",
    "dict": {"a": 1},
    "set": {1},
    "complex": 1j,
    "object": Unprintable(),
    "function": len,
    "array": np.array([1.0, 2.0]),
    "frozen set": frozenset(),
    "range": range(3),
}
OBJECTS = {
    int: COMMON
    | {"None": None, "bool": True, "half": 0.5, "nan": float("nan"), "huge": 10**5000}
    | {"numpy half": np.float32(2.5), "list": [1], "numpy bool": np.True_},
    float: COMMON
    | {"None": None, "bool": True, "nan": float("nan"), "huge": 10**5000, "list": [1.0]},
    bool: COMMON | {"None": None, "int": 1, "float": 0.0, "list": [True]},
    str: COMMON | {"None": None, "int": 1, "bool": True, "list": ["a"], "NUL": "a\0", "empty": ""},
}
OBJECTS_PARTS = {
    int: COMMON
    | {"None": None, "bool": [True], "nested": [[1]], "half": [0.5], "huge": [10**5000]},
    float: COMMON | {"None": None, "bool": [True], "nested": [[1.0]], "complex part": [1j]},
    str: COMMON | {"None": None, "bool": [True], "nested": [["a"]], "number": [1]},
}
# Objects that these arguments of the library may be.
ALLOWED = {
    "class_weight": {"dict"},
    "validation_size": {"None"},
    "train_size": {"None"},
    "test_size": {"None"},
    "threads": {"None"},
    "data_dir": {"None"},
    "model": {"None"},
    "out": {"None"},
    "clip_norm": {"None"},
    "clip_value": {"None"},
    "output_prune_rate": {"None"},
}


def beside(name):
    found = TINY | BESIDE.get(name, {})
    owner = next(
        (
            (field, method)
            for field, rows in (("calib", registry.STRATEGIES), ("criterion", registry.CRITERIA))
            for method, row in rows.items()
            if name in fields_of(row.hyperparameters)
        ),
        None,
    )
    return found if owner is None else found | dict([owner])


def command_line(name, value):
    given = {k: v for k, v in beside(name).items() if k != name}
    return [*(f"--{k}={v}" for k, v in given.items()), f"--{name}={value}"]


def wrong_texts(name):
    kind, many = kind_of(name)
    return PARTS[kind] if many else TEXTS[kind]


@pytest.fixture(autouse=True)
def around(here, make_source):
    """What flags beside a field refer to: a table, a file and a directory that looks like a run."""
    (here.parent / "file").write_text("")
    (here.parent / "full").mkdir()
    (here.parent / "full" / "notes.txt").write_text("not a run")
    (here.parent / "run" / "tickets").mkdir(parents=True)
    if not (here.parent / "table.csv").exists():
        rows = "".join(f"{n},{n % 3},{n % 3}\n" for n in range(30))
        (here.parent / "table.csv").write_text("x,y,label\n" + rows)


def wrong_objects(name):
    kind, many = kind_of(name)
    found = (OBJECTS_PARTS if many else OBJECTS)[kind]
    return {k: v for k, v in found.items() if k not in ALLOWED.get(name, ())}


def test_every_field_has_bad_cases():
    assert BAD.keys() == ENTRIES.keys(), "add bad values of the new field to BAD"
    for name in ENTRIES:
        assert [*BAD[name], *wrong_texts(name)], name
        if not ENTRIES[name].metadata["choices"] and kind_of(name)[0] is not bool:
            assert BAD[name], f"{name}: values outside its range are needed"


EARLY = {n: [v for v in found if not isinstance(v, WithData)] for n, found in BAD.items()}
FLAGS = {n: [v.value if isinstance(v, Flag) else v for v in found] for n, found in EARLY.items()}
LATE = {n: [v.value for v in found if isinstance(v, WithData)] for n, found in BAD.items()}


every_field = pytest.mark.parametrize("name", ENTRIES)


@every_field
def test_a_bad_flag_is_refused_before_tensorflow_starts(refused_command, each, name):
    def check(value):
        line = refused_command([name], train, *command_line(name, value))
        assert all(choice in line for choice in ENTRIES[name].metadata["choices"]) or not value

    each([*FLAGS[name], *wrong_texts(name)], check)


@pytest.mark.parametrize("name", [name for name in BAD if LATE[name]])
def test_a_flag_that_does_not_fit_the_data_is_refused_before_the_first_step(
    refused_command, each, name
):
    each(
        LATE[name],
        lambda value: refused_command([name], train, *command_line(name, value), needs_data=True),
    )


@every_field
def test_a_bad_value_in_a_recipe_is_refused(refused_command, each, here, name):
    recipe, given = here.parent / "own.toml", beside(name)
    given |= {"source": given["dataset"], "dataset": "own"}
    lines = [f"{k} = {json.dumps(v)}" for k, v in given.items() if k != name]

    def check(value):
        recipe.write_text("\n".join([*lines, f"{name} = {value}"]) + "\n")
        refused_command([name], train, f"--config={recipe}")

    kind, many = kind_of(name)
    texts = [f"'{value}'" for value in EARLY[name] if not isinstance(value, Flag)]
    each([*texts, *(TOML_PARTS if many else TOML)[kind]], check)


@every_field
def test_an_object_of_the_wrong_kind_is_refused_as_a_keyword(refused_call, each, name):
    given = {k: v for k, v in beside(name).items() if k != name}
    objects = wrong_objects(name)
    each(objects, lambda kind: refused_call([name], find_tickets, **given, **{name: objects[kind]}))


@pytest.mark.parametrize(
    ("module", "name"),
    [
        pytest.param(module, name, id=f"{module.COMMAND.name}-{name}")
        for module in (evaluate, export)
        for name in module.FIELDS
    ],
)
def test_a_bad_field_is_refused_by_the_other_commands(
    refused_command, each, exported_run, module, name
):
    model = {evaluate: "model", export: "run"}[module]
    beside = {"dataset": "folder"} if name == "data_dir" else {}
    flags = [f"--{model}={exported_run}", *(f"--{n}={v}" for n, v in beside.items())]
    each(
        [*FLAGS[name], *wrong_texts(name)],
        lambda value: refused_command([name], module, *flags, f"--{name}={value}"),
    )
