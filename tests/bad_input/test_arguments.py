"""Every argument of every public function and class: a value that cannot be used is a UsageError."""

import dataclasses
import functools
import inspect
import types

import numpy as np
import pytest
import tensorflow as tf

import lotcal_tf
from lotcal_tf.compat import keras
from lotcal_tf.metrics import Estimate, Interval

DRAW = np.random.default_rng(0)
X, Y = DRAW.normal(size=(60, 4)).astype("float32"), np.arange(60) % 3
PAIR = (X, Y)
LONG_NAME = "a" * 300
NOT_PATHS = [1, b"x", {}, [], 1.5, object(), "", "a\0", LONG_NAME, "nowhere", "/dev/null", "/proc"]
# Of files and directories that are to be written; None: no such file is wanted.
NOT_DIRECTORIES = [*(p for p in NOT_PATHS if p != "nowhere"), "/dev/null/x", "/proc/x"]
NOT_FILES = [*NOT_DIRECTORIES, "."]
NOT_FLAGS = [None, 1, "yes please", b"", [], {}, 0.5]
NOT_NUMBERS = [None, "x", b"1", {}, [1], 1j, True, float("nan"), -1, 10**5000, object()]
NOT_OBJECTS = [1, "x", b"x", [1], {1: len}, {"a", "b"}]
NOT_MODELS = [1, b"x", {}, [], len, object(), 1.5, keras.Model, keras.layers.Dense(3)]


def model(layers=(), classes=3, activation=None, **options):
    """A tiny classifier of vectors of 4."""
    last = keras.layers.Dense(classes, activation=activation, **options)
    return keras.Sequential([keras.Input((4,)), *layers, last], name="tiny")


def frozen():
    found = model()
    found.trainable = False
    return found


def with_weights(value):
    found = model()
    found.set_weights([np.full_like(w, value) for w in found.get_weights()])
    return found


def two_outputs():
    inputs = keras.Input((4,))
    return keras.Model(inputs, [keras.layers.Dense(3)(inputs), keras.layers.Dense(3)(inputs)])


class Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


def ragged():
    found = np.empty(60, object)
    for place in range(60):
        found[place] = np.zeros(4 + place % 2)
    return found


MODELS = {
    "frozen": frozen,
    "a sigmoid for each class": lambda: model(activation="sigmoid"),
    "NaN": lambda: with_weights(np.nan),
    "infinite": lambda: with_weights(np.inf),
    "nothing to prune": lambda: keras.Sequential([keras.Input((4,)), keras.layers.ReLU()]),
    "two outputs": two_outputs,
    "subclassed": Subclassed,
    "not built": lambda: keras.Sequential([keras.layers.Dense(3)]),
    "empty": lambda: keras.Sequential(),
    "images": lambda: keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(3, 3)]),
    "a softmax in the middle": lambda: model(
        [keras.layers.Dense(5), keras.layers.Softmax()], 1, "relu"
    ),
    "other inputs": lambda: keras.Sequential([keras.Input((7,)), keras.layers.Dense(3)]),
    "Lambda": lambda: model([keras.layers.Lambda(lambda x: x)]),
}
ARRAYS = {
    "NaN": np.where(X > 1, np.nan, X),
    "infinite": np.where(X > 1, np.inf, X),
    "empty": X[:0],
    "shorter": X[:50],
    "objects": np.full((60, 4), None),
    "ragged": ragged(),
    "ragged lists": [[1.0] * (4 + n % 2) for n in range(60)],
    "ragged tensor": tf.ragged.constant([[1.0] * (4 + n % 2) for n in range(60)]),
    "sparse tensor": tf.sparse.from_dense(X),
    "strings": X.astype(str),
    "bytes": X.astype(bytes),
    "complex": X.astype(complex),
    "dates": np.zeros((60, 4), "datetime64[s]"),
    "records": np.zeros(60, [("a", "f4"), ("b", "f4")]),
    "another width": np.zeros((60, 5)),
    "a number": 1.0,
    "scalars": np.zeros(60),
    "too large": np.full((60, 4), 1e300),
    "None": None,
    "dictionary": {"a": X},
    "tuple": (X, X),
    "text": "x",
    "set": {1, 2},
    "generator": (row for row in X),
    "function": len,
}
LABELS = {
    "from 5": Y + 5,
    "negative": Y - 1,
    "halves": Y + 0.5,
    "NaN": np.where(Y == 1, np.nan, Y),
    "empty": Y[:0],
    "shorter": Y[:50],
    "strings": Y.astype(str),
    "objects": np.full(60, None),
    "mixed": np.array([*Y[:59], "a"], object),
    "complex": Y.astype(complex),
    "dates": Y.astype("datetime64[s]"),
    "huge": Y + 2**62,
    "columns": np.zeros((60, 2)),
    "soft": np.full((60, 3), 1 / 3),
    "two hot": np.ones((60, 3)),
    "cube": np.zeros((60, 3, 1)),
    "a number": 1,
    "None": None,
    "dictionary": {"a": Y},
    "text": "abc",
    "ragged": [[0], [1, 2]] * 30,
    "set": {0, 1},
    "generator": (label for label in Y),
}
WEIGHTS = {
    "negative": -np.ones(60),
    "NaN": np.full(60, np.nan),
    "shorter": np.ones(50),
    "zeros": np.zeros(60),
    "strings": np.full(60, "a"),
    "complex": np.ones(60, complex),
    "objects": np.full(60, None),
    "a number": 1.0,
    "None": None,
    "columns": np.ones((60, 2)),
}
DATA = [
    *(1, "x", b"x", {}, [], (), (X,), (X, Y, Y, Y), X, len, object(), {"x": X, "y": Y}),
    *(((X, Y), (X, Y)), (row for row in X), 1.5, True, [1, 2], tf.data.Dataset.range(5)),
    tf.data.Dataset.from_tensor_slices(X),
    tf.data.Dataset.from_tensor_slices((X, Y + 5)),
    tf.data.Dataset.from_tensor_slices((X[:0], Y[:0])),
    tf.data.Dataset.from_tensor_slices((X.astype(str), Y)),
    *((inputs, Y) for inputs in ARRAYS.values()),
    *((X, labels) for labels in LABELS.values()),
]


def fresh(function, *args, **kwargs):
    """A call with a model of its own."""
    return function(model(), *args, **kwargs)


FIELDS = {"epochs": 1, "levels": 0, "batch_size": 20, "plan": "graph", "progress": False}


def find(**given):
    return lotcal_tf.find_tickets(
        **({"model": model(), "train": PAIR, "test": PAIR} | FIELDS | given)
    )


def of_run(run, name):
    """The functions that need a finished run."""
    if name == "load_ticket":
        return functools.partial(lotcal_tf.load_ticket, directory=run / "tickets" / "level_00")
    if name == "export_ticket":
        return functools.partial(
            lotcal_tf.export_ticket, ticket=run, directory="out", formats=["keras"], seconds=0
        )
    if name == "measure_run":
        shifts = {"shifts": ["blur"], "severities": [1]}
        return functools.partial(lotcal_tf.measure_run, run=run, progress=False, **shifts)
    return functools.partial(lotcal_tf.measure_model, model=run, progress=False)


LABELS_3, LOGITS_3 = [0, 1, 2], np.eye(3)
BAD_LOGITS = [
    None,
    "x",
    1,
    [],
    [1, 2],
    np.zeros((3, 1)),
    np.zeros((0, 3)),
    [[1], [1, 2]],
    1j * np.eye(3),
]
BAD_LOGITS += [
    np.full((3, 3), np.nan),
    np.full((3, 3), np.inf),
    {},
    np.eye(3).astype(str),
    np.eye(4),
    b"x",
]
BAD_LABELS = [
    None,
    "x",
    [0, 1],
    [0, 1, 5],
    [-1, 0, 1],
    [0.5, 1, 2],
    ["a", "b", "c"],
    {},
    [[0], [1, 2]],
    1j,
]
BAD_BINS = [0, -1, 1.5, "x", None, True, [], 10**9, 10**5000]

NOT_FORMS = ["x", "", None, 1, b"convex", [], {}]

# How each public name is called with valid arguments, and bad values of each argument.
METRIC = {"labels": BAD_LABELS, "logits": BAD_LOGITS}
BINNED = METRIC | {"bins": BAD_BINS}
LOSS_LABELS = [None, "x", {}, [0, 1], [[[0]]], ["a", "b", "c"], object()]
LOSS_LOGITS = [None, "x", {}, 1.0, [1.0, 2.0], [["a"]], object(), [[1.0], [1.0, 2.0]]]
LOSS = {"labels": LOSS_LABELS, "logits": LOSS_LOGITS}
NOT_WEIGHTS = ["x", {}, [1.0, 2.0], [[1.0]], object(), ["a", "b", "c"]]
NOT_STRENGTH = [-1.0, float("nan"), float("inf"), "x", None, [1.0], {}, True]
BAD = {
    "find_tickets": {
        "model": [None, *NOT_MODELS, "nonsense", "nowhere.keras", *MODELS.values()],
        "train": [None, *DATA, *((X, Y, w) for w in WEIGHTS.values())],
        "test": [*DATA, (X, Y, np.ones(60))],
        "validation": [*DATA, (X, Y, np.ones(60))],
        "config": [1, b"x", {}, "nowhere", "digits", LONG_NAME, ""],
        "callbacks": [1, "x", [1], [len], [keras.callbacks.Callback], {"a": 1}, None, object()],
        "custom_objects": NOT_OBJECTS,
        "progress": NOT_FLAGS,
        "takeover": NOT_FLAGS,
        "fields": [
            {"nonsense": 1},
            {"epoch": 1},
            {"data": 1},
            {"dataset": "digits"},
            {"model_": 1},
        ],
    },
    "run_sweep": {
        "model": [1, b"x", {}, [], object(), "nonsense", "nowhere.keras", keras.Sequential()],
        "train": [*DATA, *((X, Y, w) for w in WEIGHTS.values())],
        "test": [*DATA, (X, Y, np.ones(60))],
        "validation": [*DATA, (X, Y, np.ones(60))],
        "out": [1, b"x", {}, [], object(), "", "a\0", LONG_NAME, "/dev/null", "/proc/x"],
        "axes": [
            *(
                {"nonsense": [1, 2]},
                {"seed": 1},
                {"seed": []},
                {"seed": [0, 0]},
                {"levels": [1, 2]},
            ),
            *(
                {"calib": "none"},
                {"epochs": [1, 0]},
                {"seed": [object()]},
                {1: [1, 2]},
                [1],
                1,
                "x",
            ),
        ],
        "grid": [1, b"x", {}, [], object(), "", "nowhere", LONG_NAME, "/dev/null", "."],
        "config": [1, b"x", {}, "nowhere", "digits", LONG_NAME, ""],
        "workers": [0, -1, 1.5, "x", True, [], 10**5000],
        "ray": [1, b"x", [], {}, True],
        "gpus": [-1, 65, float("nan"), "x", True, [], 0.5],  # 0.5: without a cluster
        "custom_objects": NOT_OBJECTS,
        "progress": NOT_FLAGS,
        "fields": [
            *({"nonsense": 1}, {"seed": [1, 2]}, {"dataset": "digits"}, {"epochs": 0}),
            *({"optimizer": keras.optimizers.Adam()}, {"distribute": "multi_worker"}),
        ],
    },
    "load_ticket": {"directory": [None, *NOT_PATHS], "custom_objects": NOT_OBJECTS},
    "export_ticket": {
        "ticket": [None, *NOT_PATHS],
        "directory": [
            1,
            b"x",
            {},
            [],
            1.5,
            object(),
            "",
            "a\0",
            LONG_NAME,
            "/dev/null",
            "/proc/x",
            "/dev/null/x",
        ],
        "test": [1, "x", b"x", {}, X, (X,), PAIR, len],
        "validation": [1, "x", b"x", {}, X, (X,), len],
        "train": [1, "x", b"x", {}, X, (X,), len],
        "level": [None, -1, 99, 1.5, True, "x", b"0", {}, [0], 10**5000, "٣"],
        "formats": [
            ["keras", "keras"],
            None,
            1,
            "nonsense",
            [],
            [1],
            ["keras", "x"],
            {"keras": 1},
            [None],
            b"keras",
            [["keras"]],
        ],
        "encoding": [1, "zip", b"dense", [], {}, True],
        "prefer": [None, 1, "cost", b"", []],
        "output": [None, 1, "labels", b"", []],
        "scaled": [1, "maybe", [], {}, 0.5],
        "tolerance": [None, 1, 0.01, "x", {}, lotcal_tf.Tolerance, (1, 2, 3)],
        "class_names": [1, ["a"], ["a"] * 11, [1] * 10, "abc", {"a": 1}, [None] * 10],
        "license": [1, b"x", [], {}, "a\nb", True],
        "seconds": [*NOT_NUMBERS, 1e9],
        "reuse": NOT_FLAGS,
        "custom_objects": NOT_OBJECTS,
        "progress": [None, 1, "x", {}, True],
        "config": [1, b"x", {}, "nowhere", LONG_NAME, ""],
        "fields": [{"nonsense": 1}, {"epochs": 1}, {"ece_bins": 0}, {"dataset": "nonsense"}],
    },
    "from_hf": {
        "dataset": [None, 1, "x", {}, [], X, object()],
        "inputs": [1, "nowhere", b"x", [], {}],
        "labels": [1, "nowhere", b"x", [], {}],
    },
    "measure_run": {
        "run": [None, *NOT_PATHS, *NOT_MODELS, model],
        "shifts": [None, 1, (), "nonsense", ["nonsense"], [1], {"blur": 1}, b"blur", [["blur"]]],
        "severities": [None, [0], [6], [1.5], ["x"], [], {}, 10**5000, [True], b"1"],
        "unseen": [None, 1, ["../x"], [1], {"a": X}, b"x", [""], "a\0", [None]],
        "custom_objects": NOT_OBJECTS,
        "progress": NOT_FLAGS,
        "fields": [{"nonsense": 1}, {"ece_bins": 5}, {"dataset": "mnist"}, {"data_dir": "x"}],
    },
    "measure_model": {
        "model": [None, *NOT_PATHS, *NOT_MODELS, model],
        "test": [1, "x", b"x", {}, X, (X,), PAIR, len],
        "split": [None, 1, "train", b"test", [], True],
        "scaled": NOT_FLAGS,
        "shifts": [None, 1, "nonsense", ["nonsense"], [1], {"blur": 1}, b"blur", [["blur"]]],
        "severities": [None, [0], [6], [1.5], ["x"], [], {}, 10**5000, [True], b"1"],
        "unseen": [None, 1, ["../x"], [1], {"a": X}, b"x", [""], "a\0", [None]],
        "input_range": [*NOT_NUMBERS[1:], 0],
        "trust_saved_model": NOT_FLAGS,
        "custom_objects": NOT_OBJECTS,
        "progress": NOT_FLAGS,
        "config": [1, b"x", {}, "nowhere", LONG_NAME, ""],
        "fields": [{"nonsense": 1}, {"epochs": 1}, {"ece_bins": 0}, {"dataset": "nonsense"}],
    },
    "write_report": {
        "directories": [p for p in NOT_PATHS if not isinstance(p, list)] + [[], [1], ["nowhere"]],
        "out": [p for p in NOT_FILES if p is not None] + [None],
        "figures": NOT_DIRECTORIES,
        "csv": NOT_FILES,
        "markdown": NOT_FILES,
        "latex": NOT_FILES,
        "rank": [1, "test_nll", "nll", "", b"val_nll", [], True, "val_temperature"],
        "densities": [
            None,
            *(n for n in NOT_NUMBERS[1:] if n != [1]),
            0,
            [0.5, 0.5],
            [1.5],
            [0.5, "x"],
            ["a"],
        ],
    },
    "from_keras3": {
        "model": [None, *NOT_MODELS, "x"],
        "examples": [
            1,
            "x",
            {},
            np.zeros((3, 9)),
            np.full((3, 4), np.nan),
            np.zeros((0, 4)),
            object(),
        ],
        "custom_objects": NOT_OBJECTS,
    },
    "compact": {"model": [None, *NOT_MODELS, "x", Subclassed]},
    "Criterion": {"given": [{"nonsense": 1}]},
    "Masked": {
        "layer": [None, 1, "x", object(), keras.layers.Dense],
        "mask_shapes": [1, "x", [1], [["a"]], [[-1]], None, [[1.5]]],
        "depthwise": NOT_FLAGS,
    },
    "StatelessDropout": {
        "rate": [None, "x", -0.1, 1, 2, float("nan"), [], {}, b"x", True],
        "shared_axes": [1, "x", [1.5], ["a"], None, {}],
    },
    "Strategy": {"network": [None, 1, "x", object(), keras.Model], "given": [{"nonsense": 1}]},
    "Tolerance": {n: [*NOT_NUMBERS, float("inf")] for n in ("exact", "accuracy", "ece", "logits")},
    "draw_seed": {"use": [None, 1, b"x", [], {}]},
    "hyperparameter": {
        "default": [{}, [], object(), len, b"x", 1j],
        "help": [None, 1, b"x", []],
        "options": [{"nonsense": 1}, {"check": 1}, {"choices": 1}],
    },
    "step_seed": {"seed": [None, 1, "x", [1], [1.5, 2.5], [[1, 2]], [1, 2, 3], {}]},
    "losses.cross_entropy": LOSS,
    "losses.mean": {"losses": [*LOSS_LOGITS[:3], ["a"]], "weights": NOT_WEIGHTS},
    "losses.vwcc": LOSS,
    "losses.mda": LOSS
    | {
        "weight": NOT_STRENGTH,
        "prior": [[0.5], [1, 1, 1], [-1, 1, 1], "abc", 1],
        "example_weights": NOT_WEIGHTS,
    },
    "losses.lwcc": LOSS | {"weight": NOT_STRENGTH, "form": NOT_FORMS},
    "losses.lwcc_si": LOSS | {"weight": NOT_STRENGTH, "form": NOT_FORMS},
    "losses.nba": LOSS
    | {
        "weight": NOT_STRENGTH,
        "bins": BAD_BINS,
        "width": [*NOT_STRENGTH, 0.0],
        "example_weights": NOT_WEIGHTS,
    },
    "losses.soft_counts": {
        "confidence": [None, "x", {}, 1.0, [["a"]]],
        "bins": BAD_BINS,
        "width": [*NOT_STRENGTH, 0.0],
    },
    **{f"metrics.{n}": METRIC for n in ("accuracy", "aurc", "brier", "nll", "nll_standard_error")},
    **{f"metrics.{n}": METRIC for n in ("overconfidence", "wrong_confident")},
    **{f"metrics.{n}": BINNED for n in ("adaptive_ece", "classwise_ece", "ece", "mce", "measure")},
    "metrics.debiased_ece": BINNED,
    "metrics.metric_intervals": {
        **BINNED,
        "names": [1, "ece", b"ece", [1], ["nonsense"], {"ece": 1, 2: 3}, [["ece"]]],
    },
    "metrics.prediction_bins": BINNED,
    "metrics.confidence": {"logits": BAD_LOGITS[:-2]},
    "metrics.log_softmax": {"logits": BAD_LOGITS[:-2]},
    "metrics.paired_intervals": {
        "labels": BAD_LABELS,
        "first": BAD_LOGITS,
        "second": BAD_LOGITS,
        "bins": BAD_BINS,
    },
}
RECORDS = {Estimate, Interval}  # results, which no caller makes


def public():
    """Every public function and class, by name."""
    found = {}
    for name in lotcal_tf.__all__:
        value = getattr(lotcal_tf, name)
        if isinstance(value, types.ModuleType):
            names = getattr(
                value, "__all__", [n for n, v in vars(value).items() if defined(v, value)]
            )
            found |= {f"{name}.{n}": getattr(value, n) for n in names}
        else:
            found[name] = value
    return {n: v for n, v in found.items() if callable(v) and v not in RECORDS}


def defined(value, module):
    return (
        inspect.isfunction(value)
        and value.__module__ == module.__name__
        and value.__name__[0] != "_"
    )


def test_every_argument_has_bad_cases():
    # The other keywords of layers are Keras's, and so are its errors.
    expected = {n: {*inspect.signature(v).parameters} - {"kwargs"} for n, v in public().items()}
    assert {name: set(arguments) for name, arguments in BAD.items()} == expected
    assert all(values for arguments in BAD.values() for values in arguments.values())


def keras3_model():
    import keras

    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])


def enter(seed):
    with lotcal_tf.step_seed(seed):
        lotcal_tf.draw_seed("x")


def in_step(use):
    with lotcal_tf.step_seed(tf.constant([1, 2])):
        return lotcal_tf.draw_seed(use)


def masked(**given):
    found = lotcal_tf.Masked(**({"layer": keras.layers.Dense(3)} | given))
    found.build((None, 4))
    return found


def declared(**given):
    options = given.pop("options", {})
    kind = dataclasses.make_dataclass(
        "Own", [("own", int, lotcal_tf.hyperparameter(**({"default": 1} | given), **options))]
    )
    return type("OwnStrategy", (lotcal_tf.Strategy,), {"Hyperparameters": kind})(model())


def valid(name, run):
    """A call of a public name with valid arguments; others replace them."""
    stacked = np.stack([LOGITS_3, LOGITS_3])
    special = {
        "find_tickets": find,
        "run_sweep": lambda **given: lotcal_tf.run_sweep(
            **({"model": model, "train": PAIR, "out": "out", "workers": 1} | FIELDS | given)
        ),
        "from_hf": lambda **given: lotcal_tf.from_hf(**({"dataset": hugging_face()} | given)),
        "from_keras3": lambda **given: lotcal_tf.from_keras3(**({"model": keras3_model()} | given)),
        "compact": lotcal_tf.compact,
        "Criterion": type("Own", (lotcal_tf.Criterion,), {"scores": lambda self, state: {}}),
        "Masked": masked,
        "StatelessDropout": lambda **given: lotcal_tf.StatelessDropout(**({"rate": 0.1} | given)),
        "Strategy": lambda **given: lotcal_tf.Strategy(**({"network": model()} | given)),
        "Tolerance": lotcal_tf.Tolerance,
        "draw_seed": in_step,
        "hyperparameter": declared,
        "step_seed": enter,
        "losses.mean": functools.partial(lotcal_tf.losses.mean, losses=[1.0, 2.0, 3.0]),
        "losses.soft_counts": functools.partial(
            lotcal_tf.losses.soft_counts, confidence=[0.1, 0.2, 0.3], bins=3, width=0.1
        ),
    }
    if name in special:
        return special[name]
    if name in ("load_ticket", "export_ticket", "measure_model", "measure_run"):
        return of_run(run, name)
    if name == "write_report":
        return functools.partial(lotcal_tf.write_report, **{"directories": run, "out": "a.html"})
    function = public()[name]
    arguments = {"labels": LABELS_3, "logits": LOGITS_3, "first": LOGITS_3, "second": LOGITS_3}
    if name in ("losses.vwcc", "losses.lwcc_si"):
        arguments["logits"] = stacked
    known = inspect.signature(function).parameters
    return functools.partial(function, **{n: v for n, v in arguments.items() if n in known})


@functools.cache
def hugging_face():
    datasets = pytest.importorskip("datasets", reason="needs lotcal-tf[hf]")
    return datasets.Dataset.from_dict({"features": X.tolist(), "label": Y.tolist()})


# What messages call an argument where they do not use its name.
ALSO_CALLED = {
    "example_weights": ["weights"],
    "train": ["model 'tiny' cannot take inputs"],
    "dataset": ["data set"],
    "options": ["check"],
    "axes": ["seed", "epochs"],
}


def needed(name, argument, run):
    """Other arguments, without which the argument itself would be refused."""
    if name == "export_ticket" and argument in ("validation", "train"):
        return {"test": run.validation}
    if name in ("find_tickets", "run_sweep") and argument == "config":
        return {"model": "lenet_3", "train": None, "test": None}
    return {}


def texts(value):
    """The texts in a bad value, which a message may show instead of the argument's name."""
    parts = value if isinstance(value, dict | list | tuple) else [value]
    return [part for part in parts if isinstance(part, str) and part]


@pytest.mark.parametrize(
    ("name", "argument"), [(name, argument) for name, found in BAD.items() for argument in found]
)
def test_a_bad_argument_is_refused(refused_call, each, digits_run, name, argument):
    call = functools.partial(
        valid(name, digits_run.directory), **needed(name, argument, digits_run)
    )
    spread = argument in ("fields", "given", "options") and name != "hyperparameter"

    def check(value):
        made = value() if inspect.isfunction(value) or value is Subclassed else value
        given = made if spread else {argument: made}
        line = refused_call([], call, **given)
        assert spread or any(
            word in line for word in (argument, *ALSO_CALLED.get(argument, ()), *texts(value))
        ), line

    each(BAD[name][argument], check)
