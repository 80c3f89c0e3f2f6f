"""The library: one's own Keras model on one's own data, in a few lines, and what it refuses."""

import json
import math
import re
import textwrap
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf import api
from lotcal_tf.compat import keras, tfmot
from lotcal_tf.config.recipes import resolve
from lotcal_tf.data.arrays import from_arrays
from lotcal_tf.data.splits import StreamedSplit
from lotcal_tf.errors import FieldError, UsageError
from lotcal_tf.lottery.run import export_best, run_experiment
from lotcal_tf.lottery.store import RunStore
from lotcal_tf.pruning import masking

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
    """A finished run of level 0 to 2, by the library; no test changes it."""
    out = tmp_path_factory.mktemp("finished") / "run"
    return api.find_tickets(dense(6, 3), TRAIN, TEST, out=str(out), **QUICK)


def test_the_readmes_promise(tmp_path, monkeypatch, capsys):
    text = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (example,) = (block for block in blocks if "find_tickets" in block)
    assert sum(bool(line.strip()) for line in example.splitlines()) < 15

    monkeypatch.chdir(tmp_path)
    keras.backend.reset_uids()  # layers are named as in a program of its own
    names = {}
    exec(compile(example, "README.md", "exec"), names)

    run, model, x, y = (names[name] for name in ("run", "model", "x", "y"))
    assert {path.name for path in run.directory.iterdir()} == {
        "experiment.json", "metrics.csv", "history.csv", "tickets", "tensorboard", "export"
    }  # fmt: skip
    # 64 x 100 less a fifth a level, 100 x 10 less a tenth: 6400 - 1280, 5120 - 1024, 4096 - 819.2.
    assert [r["remaining"] for r in run.records] == [7400, 5120 + 900, 4096 + 810, 3277 + 729]
    best = run.best
    logits = best.model().predict(x[1500:], verbose=0)
    assert best.record["test_accuracy"] == np.mean(logits.argmax(-1) == y[1500:]) > 0.8
    assert names["done"].examples == 297
    for name, value in masking.values(model).items():  # the user's model is left alone
        np.testing.assert_array_equal(value, run.ticket(0).rewind[name])
    out, err = capsys.readouterr()
    assert run.table() in out and names["done"].table() in out
    assert err.count("% kept") == 4


@pytest.mark.parametrize("levels", [2, 1, 0])
def test_the_same_call_again_and_fewer_levels_do_nothing(finished, levels, capsys, tree):
    before = tree(finished.directory)
    fields = QUICK | {"levels": levels, "progress": True}
    again = api.find_tickets(dense(6, 3), TRAIN, TEST, out=finished.directory, **fields)
    assert (again.found, len(again.records)) == (3, 3)
    assert again.best.digest == finished.best.digest
    assert tree(finished.directory) == before
    assert capsys.readouterr().err == ""


def test_pipelines_of_the_same_examples_are_the_same_experiment(finished):
    train, test = pipeline(TRAIN), pipeline(TEST)
    again = api.find_tickets(dense(6, 3), train, test, out=finished.directory, **QUICK)
    assert again.found == 3


def test_an_interrupted_run_goes_on_and_ends_alike(finished, tmp_path, monkeypatch):
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


def test_label_noise_of_ones_own_data(finished, tmp_path):
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
    # Data without a name are the same data: noise is told by fields.
    sources = [written(d)["experiment"]["source"] for d in (tmp_path, finished.directory)]
    assert sources[0] == sources[1]


def test_the_time_of_all_levels_is_predicted(tmp_path, capsys):
    api.find_tickets(dense(6, 3), TRAIN, out=tmp_path, **QUICK | {"progress": True})
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "predicted" in line]
    assert re.fullmatch(r"predicted: about \d+ s for 3 levels on this (CPU|GPU)", line)


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
    with pytest.raises(FieldError, match="holds another experiment") as caught:
        api.find_tickets(asked.pop("model")(), out=finished.directory, **asked)
    assert caught.value.field == "out"
    assert tree(finished.directory) == before


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
    assert run.table().startswith("figures of the val split")
    assert not any(name.startswith("test") for name in run.records[0])
    assert written(run.directory)["realised"]["examples"] == {"train": 100, "val": 25}
    model = run.ticket(2).model()
    assert type(model.get_layer("body").layers[-1]) is keras.layers.Dropout
    logits = model.predict(VALIDATION[0], verbose=0)
    assert run.records[2]["val_accuracy"] == np.mean(logits.argmax(-1) == VALIDATION[1])
    # Without a test split the export is compared on validation; the same ticket is not redone.
    first = export_best(run)
    assert (first.directory, first.examples) == (run.directory / "export", 25)
    stamp = first.files["float32"].stat().st_mtime_ns
    assert export_best(run) == first and first.files["float32"].stat().st_mtime_ns == stamp


def test_data_larger_than_the_memory_streams(tmp_path, capsys):
    data = [pipeline(part) for part in (TRAIN, TEST, VALIDATION)]
    run = api.find_tickets(dense(6, 3), *data, out=tmp_path, memory_limit_mb=0, **QUICK)
    assert written(tmp_path)["realised"]["examples"] == {"train": 100, "val": 25, "test": 30}
    logits = run.ticket(2).model().predict(TEST[0], verbose=0)
    assert run.records[2]["test_accuracy"] == np.mean(logits.argmax(-1) == TEST[1])
    assert isinstance(run.load().train, StreamedSplit)
    assert "kept" not in capsys.readouterr().err  # progress=False


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
    with pytest.raises(FieldError, match="holds another experiment"):
        tickets("whole", half="a")
    # Of 20 examples a class, 10; 3 of the 30 are for validation.
    half = tickets("half", half="a")
    examples = {"train": 27, "val": 3, "test": 15}
    assert written(half.directory)["realised"]["examples"] == examples


class Own(keras.layers.Dense, tfmot.sparsity.keras.PrunableLayer):
    """A layer of the user's own, not registered with Keras."""

    def get_prunable_weights(self):
        return [self.kernel]


def test_a_prunable_layer_of_ones_own_takes_part_however_it_is_rewound(tmp_path):
    given = keras.Input((8,), name="inputs")
    model = keras.Model(given, keras.layers.Dense(3)(Own(6, "relu", name="own")(given)))
    run = api.find_tickets(model, TRAIN, TEST, out=tmp_path, rewind="random", **QUICK)
    starts = [run.ticket(level).rewind["own/kernel"] for level in range(3)]
    assert len({start.tobytes() for start in starts}) == 3
    assert [int(run.ticket(level).masks["own/kernel"].sum()) for level in range(3)] == [48, 38, 30]


def softmax_model():
    return keras.Sequential([dense(6, 3), keras.layers.Softmax()])


def keras_3_model():
    import keras as keras_3

    return keras_3.Sequential([keras_3.Input((8,)), keras_3.layers.Dense(3)])


class Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


BROKEN = np.where(np.arange(8) == 2, np.nan, TRAIN[0])
REFUSED = {
    "several machines": (
        {"distribute": "multi_worker"},
        "distribute=multi_worker: belongs to the train command",
    ),
    # what is asked for → what the error must name
    "unknown field": ({"prune_rates": 0.2}, "prune_rates: no such field; there are .*prune_rate"),
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
    "averaged without dropout": ({"mc_eval": 4}, "model 'tiny' has no dropout.* leave mc_eval 0"),
    "prior": (
        {"calib": "mda", "prior": (0.5, 0.5)},
        r"prior=\(0.5, 0.5\): the data has 3 classes: give so many shares",
    ),
    "noise without a map": (
        {"label_noise": 0.2, "noise_kind": "asymmetric"},
        r"noise_map=.*: the data has 3 classes: give so many of 0 … 2",
    ),
    "map without noise": (
        {"noise_kind": "asymmetric", "noise_map": (1, 2, 0)},
        "noise_kind=asymmetric: only means something with --label_noise; here label_noise=0.0",
    ),
    "all labels noisy": ({"label_noise": 1.0}, r"label_noise=1.0: must lie in \[0, 1\)"),
    "mixture": ({"mixture_clusters": 3}, "mixture_clusters=3: only means something with"),
    "validation": ({"validation_size": 100}, "validation_size=100: .* has 100 examples"),
    "softmax": ({"model": softmax_model}, "gives probabilities, logits are needed: leave out"),
    "Keras 3": ({"model": keras_3_model}, "Keras 3 model; .*import tf_keras as keras"),
    "subclassed": ({"model": Subclassed}, "Subclassed is a subclassed model"),
    "no model": (
        {"model": lambda: "lenet"},
        "the model is of type str: a tf_keras model is needed",
    ),
    "input shape": ({"model": lambda: dense(3, inputs=5)}, r"cannot take inputs of shape \(8,\)"),
    "NaN": ({"train": (BROKEN, TRAIN[1])}, "train inputs hold NaN or infinity, first in example 0"),
    "NaN in test": ({"test": (BROKEN, TRAIN[1])}, "test inputs hold NaN or infinity"),
    "classes": ({"train": (TRAIN[0], TRAIN[1] + 1)}, "train has a label 3: labels must be 0 … 2"),
    "lengths": ({"train": (TRAIN[0], TRAIN[1][1:])}, "train has 100 inputs and 99 labels"),
    "empty": ({"test": (TEST[0][:0], TEST[1][:0])}, "test is empty"),
    "mixed": ({"test": pipeline(TEST)}, "must all be .inputs, labels. pairs, or all tf.data"),
    "mixed, other way": ({"train": pipeline(TRAIN)}, "must all be .inputs, labels. pairs"),
    "bare array": ({"train": TRAIN[0]}, "must all be .inputs, labels. pairs"),
    "batched": ({"train": pipeline(TRAIN).batch(5), "test": None}, "unbatched .* are needed"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_refused_in_one_line_with_nothing_written(tmp_path, case):
    changed, message = REFUSED[case]
    asked = {"model": lambda: dense(6, 3), "train": TRAIN, "test": TEST} | QUICK | changed
    with pytest.raises(UsageError, match=message) as caught:
        api.find_tickets(asked.pop("model")(), out=tmp_path / "run", **asked)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", sorted({*api._COMMAND_FIELDS} - {"model"}))
def test_what_belongs_to_the_commands_is_refused(tmp_path, name):
    with pytest.raises(FieldError, match=f"{name}=x: belongs to the commands"):
        api.find_tickets(dense(6, 3), TRAIN, TEST, out=tmp_path / "run", **{name: "x"})
    assert not list(tmp_path.iterdir())


def test_a_model_of_ones_own_trains_on_all_devices_of_the_machine(finished, tmp_path):
    """Here that is one: the tickets are those of a run that shares out nothing."""
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


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """A module of the user's with a strategy that takes no step at all, and one that is none."""
    source = """
        import lotcal_tf
        from lotcal_tf import losses
        import tensorflow as tf

        class Idle(lotcal_tf.Strategy):
            def train_step(self, data):
                inputs, labels = data
                loss = tf.reduce_mean(losses.cross_entropy(labels, self(inputs)))
                return {"loss": loss, "accuracy": tf.constant(0.25)}

        class Telling(Idle):
            log_names = (*lotcal_tf.Strategy.log_names, "two")

            def train_step(self, data):
                return super().train_step(data) | {"two": tf.constant(2.0)}

        class NotOne:
            pass
        """
    (tmp_path / "users_strategies.py").write_text(textwrap.dedent(source))
    monkeypatch.syspath_prepend(tmp_path)
    return "users_strategies"


def test_a_strategy_of_ones_own_trains(own_module, tmp_path):
    fields = QUICK | {"levels": 0, "calib": f"{own_module}:Idle", "out": tmp_path / "run"}
    model = dense(6, 3)
    run = api.find_tickets(model, TRAIN, TEST, **fields)
    # It takes no step: what was trained is what there was, and the loss that of the start.
    for name, value in masking.values(model).items():
        np.testing.assert_array_equal(run.ticket(0).trained[name], value)
    (epoch,) = run.ticket(0).history
    assert epoch["train_accuracy"] == 0.25
    assert epoch["train_loss"] == pytest.approx(run.records[0]["train_nll"], rel=1e-5)
    assert "-Idle-" in written(run.directory)["run_id"]


def test_what_a_strategy_of_ones_own_logs_stands_in_the_history(own_module, tmp_path):
    fields = QUICK | {"levels": 1, "calib": f"{own_module}:Telling", "out": tmp_path / "run"}
    run = api.find_tickets(dense(6, 3), TRAIN, TEST, **fields)
    header, *rows = (run.directory / "history.csv").read_text().splitlines()
    assert header == "level,epoch,train_loss,train_accuracy,train_two,val_loss,val_accuracy"
    assert [row.split(",")[4] for row in rows] == ["2.0"] * len(rows)
    assert [epoch["train_two"] for level in (0, 1) for epoch in run.ticket(level).history] == [
        2
    ] * 2


@pytest.mark.parametrize(
    ("calib", "problem"),
    [
        ("no_such_module:Idle", "cannot be imported: No module named 'no_such_module'"),
        ("users_strategies:Missing", "cannot be imported: .*Missing"),
        ("users_strategies:NotOne", r"is no subclass of lotcal_tf\.Strategy"),
    ],
)
def test_a_strategy_that_is_none_is_named(own_module, tmp_path, calib, problem):
    with pytest.raises(FieldError, match=f"calib={calib}: {problem}"):
        api.find_tickets(dense(6, 3), TRAIN, TEST, calib=calib, out=tmp_path / "run", **QUICK)
    assert not (tmp_path / "run").exists()


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
    # The ticket's own arrays had no range that anybody named: nothing is rescaled.
    assert transfer["input_range"] == "as in the ticket"
    # 8 x 6 less a fifth and a fifth; the new output layer, 6 x 5, is whole.
    assert [r["remaining"] for r in run.records] == [48 + 30, 38 + 30, 30 + 30]
    assert run.best.model().output_shape == (None, 5)
    assert export_best(run).examples == 20


def test_a_ticket_that_does_not_fit_the_data_is_refused(finished, tmp_path):
    path = str(finished.directory / "tickets" / "level_01")
    experiment = resolve({"ticket": path, "epochs": 1, "out": str(tmp_path / "run")})
    with pytest.raises(UsageError, match=r"takes inputs of shape \(8,\), the data has \(8, 8, 1\)"):
        run_experiment(experiment, progress=False)
    assert not list(tmp_path.iterdir())


def test_a_field_that_means_nothing_here_is_refused(tmp_path):
    with pytest.raises(
        FieldError, match=r"momentum=0\.9: only means something with --optimizer=sgd"
    ):
        api.find_tickets(dense(6, 3), TRAIN, momentum=0.9, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
