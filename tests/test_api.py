"""The library: tickets of a Keras model on arrays and pipelines, and what is refused.

`export_ticket` is tested in test_export, `measure_model` in test_evaluate.
"""

import dataclasses
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import keras as keras3
import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf import api
from lotcal_tf.calibration.strategies import Mixup
from lotcal_tf.calibration.strategy import Strategy
from lotcal_tf.compat import keras, tfmot
from lotcal_tf.config.experiment import FIELDS, setting_fields
from lotcal_tf.config.recipes import resolve
from lotcal_tf.data.arrays import from_arrays
from lotcal_tf.data.splits import StreamedSplit
from lotcal_tf.errors import FieldError, UsageError
from lotcal_tf.lottery.run import run_experiment
from lotcal_tf.lottery.store import RunStore
from lotcal_tf.pruning import masking
from lotcal_tf.pruning.compaction import compact
from lotcal_tf.pruning.criteria import Criterion, State

ROOT = Path(__file__).resolve().parents[1]

DRAW = np.random.default_rng(0)
CENTRES = 2 * DRAW.normal(size=(3, 8))


def blobs(count):
    labels = DRAW.integers(0, 3, count)
    return (CENTRES[labels] + DRAW.normal(size=(count, 8))).astype("float32"), labels


TRAIN, TEST, VALIDATION = blobs(100), blobs(30), blobs(25)
QUICK = {"epochs": 1, "levels": 2, "batch_size": 10, "plan": "graph", "progress": False}


def dense(*widths, name="tiny", inputs=8):
    """Functional, ReLU between the layers."""
    keras.utils.set_random_seed(7)
    x = given = keras.Input((inputs,), name="inputs")
    for number, width in enumerate(widths[:-1]):
        x = keras.layers.Dense(width, activation="relu", name=f"hidden_{number}")(x)
    return keras.Model(given, keras.layers.Dense(widths[-1], name="logits")(x), name=name)


def pipeline(pair):
    return tf.data.Dataset.from_tensor_slices(pair)


def written(directory):
    return json.loads((directory / "experiment.json").read_text())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of levels 0 to 2; no test changes it."""
    out = tmp_path_factory.mktemp("finished") / "run"
    return api.find_tickets(dense(6, 3), TRAIN, TEST, out=str(out), **QUICK)


# The README's example


@pytest.fixture(scope="module")
def example():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (example,) = (block for block in blocks if "find_tickets" in block)
    return example


@pytest.fixture(scope="module")
def executed(example, tmp_path_factory):
    """The names that the example leaves, executed in a directory of its own."""
    assert sum(bool(line.strip()) for line in example.splitlines()) < 15
    names = {"place": tmp_path_factory.mktemp("readme")}
    keras.backend.clear_session()  # layers are named as in a new process
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(names["place"])
        exec(compile(example, "README.md", "exec"), names)
        names["digest"] = names["run"].selected.digest
    return names


def test_the_readmes_example_works(executed, monkeypatch):
    monkeypatch.chdir(executed["place"])
    run, model, x, y = (executed[name] for name in ("run", "model", "x", "y"))
    assert {path.name for path in run.directory.iterdir()} == {
        "experiment.json", "metrics.csv", "history.csv", "tickets", "export",
        "train", "validation", "test", "selected",
    }  # fmt: skip
    # 64 x 100 less a fifth a level, 100 x 10 less a tenth: 6400 - 1280, 5120 - 1024, 4096 - 819.2.
    assert [r["remaining"] for r in run.records] == [7400, 5120 + 900, 4096 + 810, 3277 + 729]
    selected = run.selected
    logits = selected.model().predict(x[1500:], verbose=0)
    assert selected.record["test_accuracy"] == np.mean(logits.argmax(-1) == y[1500:]) > 0.8
    assert executed["done"].examples == 297
    for name, value in masking.values(model).items():  # the user's model is not changed
        np.testing.assert_array_equal(value, run.ticket(0).rewind[name])


@pytest.mark.full
def test_the_readmes_example_again_continues_the_same_run(executed, example, monkeypatch, capsys):
    monkeypatch.chdir(executed["place"])
    names = {}
    exec(compile(example, "README.md", "exec"), names)
    # By now Keras has counted on, and the model's layers have other names.
    assert names["model"].layers[0].name != executed["model"].layers[0].name
    assert names["run"].found == 4
    assert names["run"].selected.digest == executed["digest"]
    out, err = capsys.readouterr()
    assert names["run"].table() in out and names["done"].table() in out
    assert "kept" not in err  # no level is run again


@pytest.mark.full
def test_the_readmes_example_in_another_process_continues_the_same_run(executed, example):
    done = subprocess.run(
        [sys.executable, "-c", f"{example}\nprint('found', run.found, run.selected.digest)"],
        cwd=executed["place"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"found 4 {executed['digest']}"


# Runs


@pytest.mark.parametrize("levels", [2, 1, 0])
def test_the_same_call_again_and_fewer_levels_do_nothing(finished, levels, capsys, tree):
    before = tree(finished.directory)
    fields = QUICK | {"levels": levels, "progress": True}
    again = api.find_tickets(dense(6, 3), TRAIN, TEST, out=finished.directory, **fields)
    assert (again.found, len(again.records)) == (3, 3)
    assert again.selected.digest == finished.selected.digest
    assert tree(finished.directory) == before
    assert capsys.readouterr().err == ""


def test_pipelines_of_the_same_examples_are_the_same_experiment(finished):
    train, test = pipeline(TRAIN), pipeline(TEST)
    again = api.find_tickets(dense(6, 3), train, test, out=finished.directory, **QUICK)
    assert again.found == 3


def test_an_interrupted_run_is_continued_to_the_same_tickets(finished, tmp_path, monkeypatch):
    save = RunStore.save

    def interrupted(store, ticket):
        if ticket.level == 1:
            raise KeyboardInterrupt
        return save(store, ticket)

    with monkeypatch.context() as patch:
        patch.setattr(RunStore, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            api.find_tickets(dense(6, 3), TRAIN, TEST, out=tmp_path, **QUICK)
    run = api.find_tickets(dense(6, 3), TRAIN, TEST, out=tmp_path, **QUICK)
    assert run.found == 1
    for level in range(3):
        assert run.ticket(level).digest == finished.ticket(level).digest
    assert written(tmp_path)["run_id"] == written(finished.directory)["run_id"]


def test_label_noise_on_arrays(finished, tmp_path):
    noise = {"label_noise": 0.25, "noise_kind": "asymmetric", "noise_map": (1, 2, 0)}
    run = api.find_tickets(dense(6, 3), TRAIN, TEST, out=tmp_path, **QUICK | noise)
    realised = written(tmp_path)["realised"]
    counts = realised["examples"]
    wrong = {
        name: math.floor(0.25 * counts[name] + 0.5) / counts[name] for name in ("train", "val")
    }
    assert realised["wrong_labels"] == wrong
    assert {"test_noisy_ece", "test_kl_true"} <= run.records[0].keys()
    assert written(tmp_path)["run_id"] != written(finished.directory)["run_id"]
    # The data is the same: noise is described by fields.
    sources = [written(d)["experiment"]["source"] for d in (tmp_path, finished.directory)]
    assert sources[0] == sources[1]


def nudged(pair, part):
    """The pair with one number changed, in the inputs or the labels."""
    inputs, labels = pair[0].copy(), pair[1].copy()
    if part == "inputs":
        inputs[17, 3] += 0.5
    else:
        labels[17] = (labels[17] + 1) % 3
    return inputs, labels


def other_weights():
    model = dense(6, 3)
    model.get_layer("logits").bias.assign([0.0, 0.0, 1e-6])
    return model


OTHER = {
    "weights": {"model": other_weights},
    "name": {"model": lambda: dense(6, 3, name="other")},
    "inputs": {"train": nudged(TRAIN, "inputs")},
    "labels": {"train": nudged(TRAIN, "labels")},
    "test": {"test": nudged(TEST, "inputs")},
    "no test": {"test": None},
    "seed": {"seed": 1},
    "rewind": {"rewind": "none"},
}


@pytest.mark.parametrize("case", OTHER)
def test_another_experiment_is_not_written_into_the_same_directory(finished, case, tree):
    before = tree(finished.directory)
    asked = {"model": lambda: dense(6, 3), "train": TRAIN, "test": TEST} | QUICK | OTHER[case]
    with pytest.raises(FieldError, match="holds another run") as caught:
        api.find_tickets(asked.pop("model")(), out=finished.directory, **asked)
    assert caught.value.field == "out"
    assert tree(finished.directory) == before


@pytest.mark.full
def test_nested_model_with_dropout_own_validation_and_no_test(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(7)
    body = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(6, "relu", name="inner"), keras.layers.Dropout(0.2)],
        name="body",
    )
    given = keras.Input((8,))
    model = keras.Model(given, keras.layers.Dense(3, name="head")(body(given)))
    run = api.find_tickets(model, TRAIN, validation=VALIDATION, **QUICK)
    assert run.directory == Path("runs") / written(run.directory)["run_id"]
    assert set(run.ticket(2).masks) == {"body/inner/kernel", "head/kernel"}
    assert run.table().startswith("metrics of the val split before temperature scaling;")
    assert sum(line.endswith("<- selected") for line in run.table().splitlines()) == 1
    assert not any(name.startswith("test") for name in run.records[0])
    assert written(run.directory)["realised"]["examples"] == {"train": 100, "val": 25}
    model = run.ticket(2).model()
    assert type(model.get_layer("body").layers[-1]) is keras.layers.Dropout
    logits = model.predict(VALIDATION[0], verbose=0)
    assert run.records[2]["val_accuracy"] == np.mean(logits.argmax(-1) == VALIDATION[1])
    for found, wanted in zip(run.validation, VALIDATION, strict=True):
        np.testing.assert_array_equal(found, wanted)
    # Without a test split files are compared with the ticket on validation data.
    done = api.export_ticket(run, formats=["float32"], encoding="dense", seconds=0)
    assert (done.directory, done.examples) == (run.directory / "export", 25)
    assert done.parity["split"] == "val"


@pytest.mark.full
def test_data_larger_than_the_memory_streams(tmp_path, capsys):
    data = [pipeline(part) for part in (TRAIN, TEST, VALIDATION)]
    run = api.find_tickets(dense(6, 3), *data, out=tmp_path, memory_limit_mb=0, **QUICK)
    assert written(tmp_path)["realised"]["examples"] == {"train": 100, "val": 25, "test": 30}
    logits = run.ticket(2).model().predict(TEST[0], verbose=0)
    assert run.records[2]["test_accuracy"] == np.mean(logits.argmax(-1) == TEST[1])
    assert isinstance(run.load().train, StreamedSplit)
    inputs, labels = zip(*run.validation.as_numpy_iterator(), strict=True)
    np.testing.assert_array_equal(inputs, VALIDATION[0])
    np.testing.assert_array_equal(labels, VALIDATION[1])
    assert capsys.readouterr().err == ""  # progress=False


@pytest.mark.full
def test_augmented_training_resumes_to_the_bit_and_half_the_data_is_another_run(tmp_path):
    rng = np.random.default_rng(0)
    data = [(rng.integers(0, 256, (n, 4, 4, 1), np.uint8), np.arange(n) % 3) for n in (60, 15)]

    def tickets(name, **fields):
        keras.utils.set_random_seed(7)
        given = keras.Input((4, 4, 1), name="inputs")
        x = keras.layers.Rescaling(1 / 255, name="scaling")(given)
        x = keras.layers.Flatten(name="flat")(x)
        model = keras.Model(given, keras.layers.Dense(3, name="logits")(x), name="tiny")
        fields = QUICK | {"levels": 1, "augment": "crop_flip"} | fields
        return api.find_tickets(model, *data, out=tmp_path / name, **fields)

    whole = tickets("whole")
    assert tickets("pieces", levels=0).found == 0
    pieces = tickets("pieces")
    assert pieces.found == 1
    plain = tickets("plain", augment="none")
    for level in (0, 1):
        trained = [run.ticket(level).trained["logits/kernel"] for run in (whole, pieces, plain)]
        np.testing.assert_array_equal(trained[1], trained[0])
        assert (trained[2] != trained[0]).any()
    with pytest.raises(FieldError, match="holds another run"):
        tickets("whole", half="a")
    # Of 20 examples a class, 10; 3 of the 30 are for validation.
    half = tickets("half", half="a")
    examples = {"train": 27, "val": 3, "test": 15}
    assert written(half.directory)["realised"]["examples"] == examples


class Own(keras.layers.Dense, tfmot.sparsity.keras.PrunableLayer):
    """A custom layer, not registered with Keras."""

    def get_prunable_weights(self):
        return [self.kernel]


def test_a_custom_prunable_layer_takes_part_however_it_is_rewound(tmp_path):
    given = keras.Input((8,), name="inputs")
    model = keras.Model(given, keras.layers.Dense(3)(Own(6, "relu", name="own")(given)))
    objects = {"Own": Own}
    run = api.find_tickets(
        model, TRAIN, TEST, out=tmp_path, rewind="random", custom_objects=objects, **QUICK
    )
    starts = [run.ticket(level).rewind["own/kernel"] for level in range(3)]
    assert len({start.tobytes() for start in starts}) == 3
    assert [int(run.ticket(level).masks["own/kernel"].sum()) for level in range(3)] == [48, 38, 30]


def sigmoid_model():
    return keras.Sequential([dense(6, 3), keras.layers.Activation("sigmoid", name="last")])


def frozen_model():
    model = dense(6, 3)
    model.trainable = False
    return model


def keras_3_model():
    import keras as keras_3

    return type("Mine", (keras_3.Model,), {})()


class Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


BROKEN = np.where(np.arange(8) == 2, np.nan, TRAIN[0])
REFUSED = {
    "several machines": (
        {"distribute": "multi_worker"},
        "distribute=multi_worker: is for the train command",
    ),
    # what is asked for → what the error must name
    "unknown field": ({"prune_rates": 0.2}, "prune_rates=0.2: no such .*did you mean prune_rate"),
    "unknown name": ({"zzz": 1}, "zzz=1: no such .*fields are dataset, .*prune_rate.*, out"),
    "other hyperparameter": (
        {"calib": "mixup", "calib_weight": 0.3},
        "calib_weight=0.3: not a hyperparameter of calib=mixup .*but of calib=mda, calib=lwcc",
    ),
    "hyperparameter": (
        {"calib": "mixup", "mixup_a": 0},
        "mixup_a=0: must be a finite number above",
    ),
    "epochs": ({"epochs": 0}, "epochs=0: must be at least 1"),
    "batch": ({"batch_size": -1}, "batch_size=-1: must be at least 1"),
    "levels": ({"levels": -1}, "levels=-1: must be at least 0"),
    "rate": ({"prune_rate": 1.0}, "prune_rate=1.0: must lie strictly between 0 and 1"),
    "scope": ({"scope": "nowhere"}, "scope=nowhere: choose one of local, global"),
    "batch too large": ({"batch_size": 91}, "batch_size=91: the training split has 90 examples"),
    "rewind too late": ({"rewind": "step:9"}, "rewind=step:9: a level has 9 steps"),
    "excluded": ({"exclude": "hidden0"}, r"exclude=hidden0: none of .* similar names: hidden_0"),
    "all excluded": ({"exclude": "hidden_0,logits"}, "nothing is left to prune: exclude"),
    "strategy": ({"calib": "mixup2"}, "calib=mixup2: choose one of none"),
    "no hyperparameter": ({"calib": "vwcc", "passes": 1}, "passes=1: must be at least 2"),
    "stochastic without dropout": ({"calib": "vwcc"}, "model 'tiny' has no dropout, and passes"),
    "averaged without dropout": ({"mc_eval": 4}, "model 'tiny' has no dropout.* mc_eval=0"),
    "prior": (
        {"calib": "mda", "prior": (0.5, 0.5)},
        r"prior=\(0.5, 0.5\): .*3 classes",
    ),
    "noise without a map": (
        {"label_noise": 0.2, "noise_kind": "asymmetric"},
        "noise_map=.*: .*noise_kind=asymmetric",
    ),
    "map without noise": (
        {"noise_kind": "asymmetric", "noise_map": (1, 2, 0)},
        "noise_kind=asymmetric: applies only with --label_noise; here label_noise=0.0",
    ),
    "all labels noisy": ({"label_noise": 1.0}, r"label_noise=1.0: must lie in \[0, 1\)"),
    "momentum": ({"momentum": 0.9}, "momentum=0.9: applies only with --optimizer=sgd"),
    "frozen": (
        {"model": frozen_model},
        "model 'tiny' has no trainable weight.*model.trainable = True",
    ),
    "validation": ({"validation_size": 100}, "validation_size=100: .* 100 training examples"),
    "sigmoids": ({"model": sigmoid_model}, "sigmoid for each of 3 classes .*'last'"),
    "Keras 3": ({"model": keras_3_model}, r"'mine(_\d+)?' .Mine. is a subclassed model"),
    "subclassed": ({"model": Subclassed}, "Subclassed is a subclassed model"),
    "no model": (
        {"model": lambda: "lenet"},
        "model=lenet: .*Keras model or a .keras file",
    ),
    "missing model": ({"model": lambda: None}, "model is missing"),
    "missing training data": ({"train": None}, "data needs train=.inputs, labels."),
    "missing data": (
        {"train": None, "test": None},
        "train is missing: .*train=.inputs, labels.*dataset=.*config=",
    ),
    "recipe": ({"config": "a.toml"}, "data .*takes no config"),
    "input shape": ({"model": lambda: dense(3, inputs=5)}, r"cannot take inputs of shape \(8,\)"),
    "NaN": ({"train": (BROKEN, TRAIN[1])}, "train inputs hold NaN or infinity, first in example 0"),
    "NaN in test": ({"test": (BROKEN, TRAIN[1])}, "test inputs hold NaN or infinity"),
    "classes": ({"train": (TRAIN[0], TRAIN[1] + 1)}, "train has a label 3: labels must be 0 … 2"),
    "lengths": ({"train": (TRAIN[0], TRAIN[1][1:])}, "train has 100 inputs and 99 labels"),
    "empty": ({"test": (TEST[0][:0], TEST[1][:0])}, "test is empty"),
    "mixed": ({"test": pipeline(TEST)}, "must all be .inputs, labels. pairs, or all tf.data"),
    "mixed, other way": ({"train": pipeline(TRAIN)}, "must all be .inputs, labels. pairs"),
    "bare array": ({"train": TRAIN[0]}, "train has inputs of shape .* without labels"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_refused_in_one_line_with_nothing_written(tmp_path, case):
    changed, message = REFUSED[case]
    asked = {"model": lambda: dense(6, 3), "train": TRAIN, "test": TEST} | QUICK | changed
    with pytest.raises(UsageError, match=message) as caught:
        api.find_tickets(asked.pop("model")(), out=tmp_path / "run", **asked)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


NAMED_ONLY = [
    name
    for name, field in {**setting_fields(), **FIELDS}.items()
    if field.metadata["named_only"] and name != "model"
]


def test_some_fields_describe_named_data():
    assert {"dataset", "data_dir", "nu", "initializer", "dropout_rate"} <= {*NAMED_ONLY}
    assert not {"validation_size", "half", "label_noise", "epochs", "passes"} & {*NAMED_ONLY}


@pytest.mark.parametrize("name", NAMED_ONLY)
def test_fields_of_named_data_are_refused_beside_a_model(tmp_path, name):
    with pytest.raises(FieldError, match="describes named data or a built-in network") as caught:
        api.find_tickets(dense(6, 3), TRAIN, TEST, out=tmp_path / "run", **{name: "x"})
    assert caught.value.field == name
    assert not list(tmp_path.iterdir())


def test_a_model_trains_on_all_devices_of_the_machine(finished, tmp_path):
    """Here that is one: the tickets are those of a run on one device."""
    given = QUICK | {"plan": "auto", "distribute": "mirrored"}
    run = api.find_tickets(dense(6, 3), TRAIN, TEST, out=tmp_path / "run", **given)
    assert written(run.directory)["realised"]["replicas"] == 1
    assert written(run.directory)["run_id"] == written(finished.directory)["run_id"]
    mine, theirs = run.ticket(2), finished.ticket(2)
    for name, weight in theirs.trained.items():
        np.testing.assert_allclose(mine.trained[name], weight, rtol=1e-4, atol=1e-5, err_msg=name)


def test_a_directory_below_a_file_is_refused(tmp_path, tree):
    (tmp_path / "file").write_text("x")
    with pytest.raises(FieldError, match=r"out=.*file/run: Not a directory; choose another"):
        api.find_tickets(dense(6, 3), TRAIN, TEST, out=tmp_path / "file" / "run", **QUICK)
    assert tree(tmp_path) == {"file": b"x"}


# Strategies and criteria


@dataclasses.dataclass(frozen=True)
class Constant:
    accuracy: float = 0.25


class Idle(Strategy):
    """Takes no step at all, and logs one more value."""

    Hyperparameters = Constant
    log_names = (*Strategy.log_names, "two")

    def train_step(self, data):
        inputs, labels = data
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, self(inputs))
        accuracy = tf.constant(self.hyper.accuracy)
        return {"loss": tf.reduce_mean(losses), "accuracy": accuracy, "two": tf.constant(2.0)}


@dataclasses.dataclass(frozen=True)
class Sign:
    sign: int = 1


class Signed(Criterion):
    """Keeps the smallest weights where the sign is -1."""

    Hyperparameters = Sign

    def scores(self, state):
        return {name: self.hyper.sign * abs(state.weights[name]) for name in state.masks}


def test_classes_and_their_hyperparameters_are_taken(finished, tmp_path):
    model = dense(6, 3)
    given = QUICK | {"calib": Idle, "criterion": Signed, "accuracy": 0.5, "sign": -1}
    run = api.find_tickets(model, TRAIN, TEST, out=tmp_path / "run", **given)
    # It takes no step: the weights stay as they were, and the loss is that of the start.
    for name, value in masking.values(model).items():
        np.testing.assert_array_equal(run.ticket(0).trained[name], value)
    for level in (0, 1):
        trained, masks = run.ticket(level).trained, run.ticket(level + 1).masks
        for name, mask in masks.items():
            left = run.ticket(level).masks[name]
            sizes = abs(trained[name])
            assert sizes[mask].max() <= sizes[left & ~mask].min()
    (epoch,) = run.ticket(0).history
    assert (epoch["train_accuracy"], epoch["train_two"]) == (0.5, 2)
    assert epoch["train_loss"] == pytest.approx(run.records[0]["train_nll"], rel=1e-5)
    header, *rows = (run.directory / "history.csv").read_text().splitlines()
    assert header == "level,epoch,train_loss,train_accuracy,train_two,val_loss,val_accuracy"
    assert [row.split(",")[4] for row in rows] == ["2.0"] * 3
    record = written(run.directory)
    assert record["experiment"]["calib"] == f"{Idle.__module__}:Idle"
    assert record["experiment"]["criterion"] == f"{Signed.__module__}:Signed"
    assert record["identity"]["accuracy"] == 0.5 and record["identity"]["sign"] == -1
    assert "-Idle-" in record["run_id"]
    again = api.find_tickets(dense(6, 3), TRAIN, TEST, out=tmp_path / "run", **given)
    assert again.found == 3
    with pytest.raises(FieldError, match="accuracy is 0.75 here, 0.5 there"):
        api.find_tickets(
            dense(6, 3), TRAIN, TEST, out=tmp_path / "run", **given | {"accuracy": 0.75}
        )
    with pytest.raises(FieldError, match="^accuracies=1: no such .*did you mean accuracy"):
        api.find_tickets(dense(6, 3), TRAIN, out=tmp_path / "new", **given, accuracies=1)


def test_a_built_in_class_has_its_hyperparameters(tmp_path):
    fields = QUICK | {"levels": 0, "out": tmp_path / "run"}
    run = api.find_tickets(dense(6, 3), TRAIN, calib=Mixup, mixup_a=0.3, **fields)
    assert written(run.directory)["experiment"]["settings"] == {"mixup_a": 0.3}
    # By name it is the same strategy, but a class is recorded by its own name.
    with pytest.raises(FieldError, match="holds another run"):
        api.find_tickets(dense(6, 3), TRAIN, calib="mixup", mixup_a=0.4, **fields)


@pytest.mark.parametrize("field", ["calib", "criterion"])
@pytest.mark.parametrize("given", [dict, "json:JSONDecoder", "no_such_module:Idle"])
def test_what_is_not_a_method_is_refused(tmp_path, field, given):
    with pytest.raises(FieldError, match=f"^{field}=.*: (must be a subclass|cannot be imported)"):
        api.find_tickets(dense(6, 3), TRAIN, TEST, out=tmp_path / "run", **QUICK | {field: given})
    assert not list(tmp_path.iterdir())


# Callbacks


class Watch(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.calls = []

    def on_train_begin(self, logs=None):
        self.calls.append("begin")

    def on_epoch_end(self, epoch, logs=None):
        assert {"loss", "val_loss", "val_accuracy"} <= set(logs)
        self.calls.append(epoch)

    def on_train_end(self, logs=None):
        self.calls.append("end")


class PerBatch(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        pass


def test_callbacks_are_called_in_each_level_and_are_not_part_of_the_identity(finished, tmp_path):
    watch = Watch()
    fields = QUICK | {"epochs": 2, "levels": 1}
    watched = api.find_tickets(
        dense(6, 3), TRAIN, TEST, out=tmp_path / "a", callbacks=[watch], **fields
    )
    assert watch.calls == ["begin", 0, 1, "end"] * 2
    alone = api.find_tickets(dense(6, 3), TRAIN, TEST, out=tmp_path / "b", **fields)
    assert written(alone.directory)["run_id"] == written(watched.directory)["run_id"]
    assert alone.ticket(1).digest == watched.ticket(1).digest


@pytest.mark.parametrize("callback", [PerBatch(), Watch, "print"])
def test_callbacks_that_cannot_be_called_are_refused(tmp_path, callback):
    with pytest.raises(UsageError, match="^callbacks: "):
        api.find_tickets(dense(6, 3), TRAIN, out=tmp_path / "run", callbacks=[callback], **QUICK)
    assert not list(tmp_path.iterdir())


# Names and frozen layers


def unnamed():
    keras.utils.set_random_seed(7)
    layers = [keras.layers.Dense(6, "relu"), keras.layers.Dense(5, "relu"), keras.layers.Dense(3)]
    return keras.Sequential([keras.Input((8,)), *layers])


def test_automatic_names_do_not_enter_the_identity(tmp_path):
    keras.backend.clear_session()
    fields = QUICK | {"levels": 1, "out": tmp_path / "run"}
    first = api.find_tickets(unnamed(), TRAIN, TEST, **fields)
    model = unnamed()
    assert model.layers[0].name == "dense_3"
    again = api.find_tickets(model, TRAIN, TEST, **fields)
    assert again.found == 2
    assert set(again.ticket(1).masks) == {"dense/kernel", "dense_1/kernel", "dense_2/kernel"}
    assert first.ticket(1).digest == again.ticket(1).digest


def test_exclude_means_the_layers_of_the_model_that_is_given(tmp_path):
    keras.backend.clear_session()
    unnamed()
    model = unnamed()  # dense_3, dense_4, dense_5
    fields = QUICK | {"levels": 0, "out": tmp_path / "run"}
    run = api.find_tickets(model, TRAIN, TEST, exclude="dense_4", **fields)
    assert set(run.ticket(0).masks) == {"dense/kernel", "dense_2/kernel"}
    keras.backend.clear_session()
    assert api.find_tickets(unnamed(), TRAIN, TEST, exclude="dense_1", **fields).found == 1
    with pytest.raises(UsageError, match="exclude=dense_9: none of .* similar names"):
        api.find_tickets(unnamed(), TRAIN, exclude="dense_9", **fields | {"out": tmp_path / "x"})


@pytest.mark.parametrize("rewind", ["init", "random"])
def test_a_frozen_layer_is_not_pruned_and_keeps_its_weights(tmp_path, rewind):
    x = given = keras.Input((8,))
    x = keras.layers.Dense(6, "relu", name="features")(x)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Dense(5, "relu", name="hidden")(x)
    model = keras.Model(given, keras.layers.Dense(3, name="logits")(x))
    for name in ("features", "norm"):
        model.get_layer(name).trainable = False
    before = masking.values(model)
    fields = QUICK | {"weight_decay": 0.1, "rewind": rewind}
    run = api.find_tickets(model, TRAIN, TEST, out=tmp_path / "run", **fields)
    for level in range(3):
        ticket = run.ticket(level)
        assert set(ticket.masks) == {"hidden/kernel", "logits/kernel"}
        for name, value in before.items():
            kept = name.partition("/")[0] in ("features", "norm")
            for found in (ticket.rewind[name], ticket.trained[name]):
                if kept:
                    np.testing.assert_array_equal(found, value)
            assert kept or (ticket.trained[name] != value).any()
    assert not run.ticket(2).model().get_layer("features").trainable


# Determinism


def convolutional():
    keras.utils.set_random_seed(7)
    x = given = keras.Input((6, 6, 1))
    x = keras.layers.Conv2D(4, 3, activation="relu")(x)
    x = keras.layers.Conv2D(4, 3)(keras.layers.BatchNormalization()(x))
    return keras.Model(given, keras.layers.Dense(3)(keras.layers.Flatten()(x)))


@pytest.mark.full
def test_convolutions_give_identical_tickets_and_the_processes_setting_is_restored(tmp_path):
    from tensorflow.python.framework import config

    inside = []

    class Watching(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            inside.append(config.is_op_determinism_enabled())

    class Failing(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise RuntimeError("mine")

    draw = np.random.default_rng(0)
    data = [(draw.normal(size=(n, 6, 6, 1)), np.arange(n) % 3) for n in (60, 15)]
    before = config.is_op_determinism_enabled()
    assert not before
    fields = QUICK | {"levels": 1}
    runs = [
        api.find_tickets(
            convolutional(), *data, out=tmp_path / name, callbacks=[Watching()], **fields
        )
        for name in ("one", "other")
    ]
    assert inside == [True] * 4
    for level in (0, 1):
        assert runs[0].ticket(level).digest == runs[1].ticket(level).digest
    assert not config.is_op_determinism_enabled()
    with pytest.raises(RuntimeError, match="mine"):
        api.find_tickets(
            convolutional(), *data, out=tmp_path / "failed", callbacks=[Failing()], **fields
        )
    assert not config.is_op_determinism_enabled()


# Tickets on other data


def test_a_ticket_moves_to_data_of_other_classes_and_range(finished, tmp_path, monkeypatch):
    """A ticket of blobs, 8 inputs and 3 classes, trains on data that has 5."""
    draw = np.random.default_rng(4)
    pairs = [(draw.normal(size=(n, 8)), np.arange(n) % 5) for n in (50, 20)]
    data = from_arrays(*pairs, classes=5, validation_size=None, seed=0)
    monkeypatch.setattr("lotcal_tf.data.digits.load", lambda _: data)
    fields = {"ticket": str(finished.directory), "epochs": 1, "batch_size": 10, "plan": "graph"}
    run = run_experiment(resolve(fields | {"out": str(tmp_path)}), progress=False)
    transfer = written(tmp_path)["transfer"]
    assert transfer["output_layer"] == "redrawn: 3 → 5 classes"
    # The range of the ticket's arrays is not known: nothing is rescaled.
    assert transfer["input_range"] == "as in the ticket"
    # 8 x 6 less a fifth and a fifth; the new output layer, 6 x 5, is whole.
    assert [r["remaining"] for r in run.records] == [48 + 30, 38 + 30, 30 + 30]
    assert run.selected.model().output_shape == (None, 5)


def test_a_ticket_that_does_not_fit_the_data_is_refused(finished, tmp_path):
    path = str(finished.directory / "tickets" / "level_01")
    experiment = resolve({"ticket": path, "epochs": 1, "out": str(tmp_path / "run")})
    with pytest.raises(UsageError, match=r"takes inputs of shape \(8,\), the data has \(8, 8, 1\)"):
        run_experiment(experiment, progress=False)
    assert not list(tmp_path.iterdir())


# Models of Keras 3 and in files


def keras3_model(units=3, activation="softmax"):
    keras3.utils.set_random_seed(7)
    layers = keras3.layers
    return keras3.Sequential(
        [
            keras3.Input((8,)),
            layers.Dense(6, activation="relu"),
            layers.BatchNormalization(),
            layers.Dropout(0.1),
            layers.Dense(units, activation=activation),
        ]
    )


def test_a_keras3_model_goes_all_the_way(tmp_path, capsys):
    model = keras3_model()
    quick = QUICK | {"progress": True, "out": tmp_path / "run"}
    run = api.find_tickets(model, TRAIN, TEST, **quick)
    assert capsys.readouterr().err.count("softmax") == 1
    first = run.ticket(0).dense()
    odds = tf.nn.softmax(first(TEST[0], training=False)).numpy()
    np.testing.assert_allclose(odds, np.asarray(model(TEST[0])), rtol=1e-4, atol=1e-6)
    again = api.find_tickets(keras3_model(), TRAIN, TEST, **quick)
    assert again.found == 3, "the same model, built again, is the same experiment"

    ticket = run.selected
    logits = ticket.model()(TEST[0], training=False).numpy()
    limit = 1e-5 * np.abs(logits).max()
    np.testing.assert_allclose(ticket.model(keras=3)(TEST[0]), logits, rtol=0, atol=limit)
    exported = api.export_ticket(
        run, tmp_path / "export", TEST, formats=["keras3"], scaled=False, seconds=0
    )
    loaded = keras3.models.load_model(exported.files["keras3"])
    np.testing.assert_allclose(loaded(TEST[0]), logits, rtol=0, atol=limit)
    found = api.measure_model(exported.files["keras3"], TEST)
    assert found.metrics["nll"] == pytest.approx(ticket.record["test_nll"], abs=1e-5)


@pytest.mark.parametrize("in_file", [False, True])
def test_a_binary_classifier_of_keras3_is_trained_and_measured(in_file, tmp_path):
    model = given = keras3_model(1, "sigmoid")
    if in_file:
        given = tmp_path / "a.keras"
        model.save(given)
    train, test = ((x, y % 2) for x, y in (TRAIN, TEST))
    measured = api.measure_model(given, test)
    positive = np.asarray(model(test[0]), np.float64)[:, 0]
    expected = -np.log(np.where(test[1] == 1, positive, 1 - positive)).mean()
    assert measured.metrics["nll"] == pytest.approx(expected, rel=1e-4)
    run = api.find_tickets(given, train, test, out=tmp_path / "run", **QUICK)
    assert run.ticket(1).model().output_shape == (None, 2)


def test_there_are_two_kerases(finished):
    with pytest.raises(UsageError, match="keras=4: choose 2 .*3"):
        finished.ticket(0).model(keras=4)


def test_a_keras3_model_is_compacted():
    model = keras3_model(3, None)
    weights = model.get_weights()
    weights[0][:, 2:] = 0
    model.set_weights(weights)
    smaller = compact(model)
    kernel = f"{model.layers[0].name}/kernel"
    assert (smaller.before[kernel], smaller.after[kernel][1]) == ((8, 6), 2)
    np.testing.assert_allclose(smaller.model(TEST[0]), np.asarray(model(TEST[0])), atol=1e-5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: api.find_tickets("lenet_300_100", TRAIN), "model=lenet_300_100: .*keras file"),
        (lambda: api.find_tickets("missing.keras", TRAIN), "model=missing.keras: there is no such"),
        (lambda: api.measure_model(keras3_model()), "test is missing"),
        (lambda: api.measure_model(keras3_model(1, "softmax"), TEST), "one output"),
        (lambda: api.measure_model(3, TEST), "type int"),
    ],
)
def test_other_models_are_refused_before_training(call, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=words):
        call()
    assert not list(tmp_path.iterdir())


def test_more_levels_than_the_weights_allow_are_refused_before_level_0(tmp_path):
    # 8 x 6 + 6 x 3 weights at 0.6, and half of it for the output layer. By hand, halves up:
    # 48 -> 19 -> 8 -> 3 -> 1, then it stays; 18 -> 13 -> 9 -> 6 -> 4 -> 3 -> 2 -> 1.
    model, fields = dense(6, 3), QUICK | {"prune_rate": 0.6, "output_prune_rate": 0.3}
    with pytest.raises(FieldError, match=r"^levels=12: at most 7: .*66 prunable") as refused:
        api.find_tickets(model, TRAIN, out=tmp_path / "run", **fields | {"levels": 12})
    assert refused.value.field == "levels"
    assert not list(tmp_path.iterdir())
    run = api.find_tickets(model, TRAIN, out=tmp_path / "run", **fields | {"levels": 7})
    assert [r["remaining"] for r in run.records] == [66, 32, 17, 9, 5, 4, 3, 2]
    with pytest.raises(FieldError, match="^levels=8: at most 7"):
        api.find_tickets(model, TRAIN, out=tmp_path / "run", **fields | {"levels": 8})


def test_levels_from_a_ticket_are_counted_from_its_masks(digits_run, tmp_path):
    # lenet_10 has 640 + 100 weights; level 2 at 0.6 (0.3 for the output layer) has left 102 + 49.
    ticket = digits_run.directory / "tickets" / "level_02"
    assert digits_run.records[2]["remaining"] == 102 + 49
    fields = {"prune_rate": 0.6, "output_prune_rate": 0.6, "dataset": "digits", "progress": False}
    # By hand, halves up: 102 -> 41 -> 16 -> 6 -> 2 -> 1; 49 -> 20 -> 8 -> 3 -> 1.
    with pytest.raises(FieldError, match="^levels=6: at most 5"):
        api.find_tickets(ticket=ticket, levels=6, out=tmp_path / "run", **fields)
    assert not list(tmp_path.iterdir())


def random_dense():
    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.GaussianNoise(0.5),
            keras.layers.Dense(6, "selu"),
            keras.layers.AlphaDropout(0.3),
            keras.layers.Reshape((2, 3)),
            keras.layers.LSTM(4, dropout=0.3, recurrent_dropout=0.3),
            keras.layers.Dense(3),
        ]
    )


def random_images():
    inputs = keras.Input((8,))
    x = keras.layers.Reshape((4, 2, 1))(inputs)
    for kind in ("RandomFlip", "RandomRotation", "RandomZoom", "RandomContrast"):
        x = getattr(keras.layers, kind)(*([] if kind == "RandomFlip" else [0.3]))(x)
    x = keras.layers.Conv2D(4, 2, activation="relu")(keras.layers.RandomCrop(3, 2)(x))
    x = keras.layers.Reshape((2, 4))(x)
    x = keras.layers.Attention(dropout=0.3)([x, x])
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(x)))


@pytest.mark.full
@pytest.mark.parametrize(
    ("model", "plan"),
    [
        (random_dense, "graph"),
        (random_dense, "xla"),
        (random_images, "auto"),  # A graph.
    ],
)
def test_runs_with_random_layers_repeat_and_resume_to_the_bit(model, plan, tmp_path):
    model, fields = model(), QUICK | {"plan": plan, "epochs": 2, "lr": 0.05}
    whole = api.find_tickets(model, TRAIN, out=tmp_path / "a", **fields | {"levels": 1})
    keras.utils.set_random_seed(5)  # What is global must not count.
    api.find_tickets(model, TRAIN, out=tmp_path / "b", **fields | {"levels": 0})
    resumed = api.find_tickets(model, TRAIN, out=tmp_path / "b", **fields | {"levels": 1})
    for level in (0, 1):
        assert resumed.ticket(level).digest == whole.ticket(level).digest
    # The ticket's model is the caller's, with Keras's layers.
    kinds = [type(layer) for layer in whole.selected.model().layers]
    assert kinds == [type(layer) for layer in model.layers]


class Unseeded(keras.layers.Layer):
    def call(self, inputs, training=None):
        return inputs + tf.random.normal(tf.shape(inputs)) if training else inputs


def test_random_layers_that_the_seed_does_not_determine_are_refused(tmp_path):
    layers = [keras.Input((8,)), Unseeded(name="mine"), keras.layers.Dense(3)]
    with pytest.raises(UsageError, match=r"layer 'mine' \(Unseeded\) draws random numbers"):
        api.find_tickets(
            keras.Sequential(layers),
            TRAIN,
            out=tmp_path / "run",
            custom_objects={"Unseeded": Unseeded},
            **QUICK,
        )
    assert not list(tmp_path.iterdir())


# Printing


def test_results_print_what_identifies_them_and_not_their_content(finished, tmp_path):
    exported = api.export_ticket(
        finished, tmp_path / "files", TEST, formats=["float32"], encoding="dense", seconds=0
    )
    ticket = finished.ticket(1)
    state = State(ticket.trained, ticket.masks, ticket.rewind, ticket.network, dict, 0, 1, 0)
    measured = api.measure_model(ticket.model(), TEST, unseen={"noise": TEST[0]}, progress=False)
    results = [finished, ticket, exported, compact(ticket.model()), state, measured]
    for result in results:
        assert len(repr(result)) < 1500, type(result)
    assert str(finished.directory) in repr(finished)
    assert "level=1" in repr(ticket) and str(tmp_path / "files") in repr(exported)
    assert "'accuracy': " in repr(measured)
