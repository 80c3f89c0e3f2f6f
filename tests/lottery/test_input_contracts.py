"""Every kind of input that Keras models have: trained, stored, resumed, measured, exported, verified."""

import json

import numpy as np
import pytest
import tensorflow as tf

import lotcal_tf
from lotcal_tf.api import export_ticket, find_tickets, measure_model
from lotcal_tf.compat import keras
from lotcal_tf.config import registry
from lotcal_tf.deploy.parity import Tolerance
from lotcal_tf.errors import UsageError
from tests.cases import quick

L = keras.layers
RNG = np.random.default_rng(0)
COUNT = 50
IDS, LABELS = RNG.integers(0, 20, (COUNT, 6)), RNG.integers(0, 3, COUNT)
NUMBERS = RNG.normal(size=(COUNT, 5)).astype("float32")
IMAGES = RNG.integers(0, 256, (COUNT, 6, 6, 3)).astype("uint8")
# 50 examples: rounding a weight moves several of them from bin to bin.
WIDE = Tolerance(accuracy=0.2, ece=0.2)


def tokens(*layers, dtype="int32", size=6, mask=True):
    embedding = L.Embedding(20, 4, mask_zero=mask)
    return keras.Sequential([keras.Input((size,), dtype=dtype), embedding, *layers, L.Dense(3)])


def pair(form):
    names = {} if form == "keys" else {"name": "text"}, {} if form == "keys" else {"name": "meta"}
    text, meta = keras.Input((6,), dtype="int32", **names[0]), keras.Input((5,), **names[1])
    read = L.GlobalAveragePooling1D()(L.Embedding(20, 4)(text))
    logits = L.Dense(3)(L.Concatenate()([read, L.Dense(4, activation="relu")(meta)]))
    return keras.Model([text, meta] if form == "list" else {"text": text, "meta": meta}, logits)


def normalised():
    layer = L.Normalization()
    layer.adapt(NUMBERS * 3 + 7)
    return keras.Sequential([keras.Input((5,)), layer, L.Dense(3)])


def initialised():
    table = keras.initializers.Constant(np.arange(80.0).reshape(20, 4) / 80)
    embedding = L.Embedding(20, 4, embeddings_initializer=table)
    return keras.Sequential([keras.Input((6,), dtype="int32"), embedding, L.Flatten(), L.Dense(3)])


def convolutional():
    image = [keras.Input((None, None, 3)), L.Rescaling(1 / 255), L.Conv2D(4, 3, activation="relu")]
    return keras.Sequential([*image, L.GlobalAveragePooling2D(), L.Dense(3)])


DICT, LIST = {"text": IDS, "meta": NUMBERS}, [IDS, NUMBERS]
# Fine-tuning for a file takes other networks; see tests/formats/test_qat.py.
FORMATS = [name for name, row in registry.FORMATS.items() if "training" not in row.needs]
# The model and its inputs.
CASES = {
    "int32": (lambda: tokens(L.Dense(4), L.GlobalAveragePooling1D()), IDS),
    "declared as floats": (
        lambda: tokens(L.Dense(4), L.GlobalAveragePooling1D(), dtype="float32"),
        IDS,
    ),
    "int64, LSTM with mask": (
        # Short: the files unroll the steps.
        lambda: tokens(L.LSTM(4), L.Dropout(0.2), dtype="int64", size=3),
        IDS[:, :3],
    ),
    "int64, mask through dropout": (
        lambda: tokens(L.Dropout(0.2), L.Conv1D(4, 2), L.GlobalMaxPooling1D(), dtype="int64"),
        IDS,
    ),
    "open length": (
        lambda: tokens(
            L.Conv1D(4, 3, padding="same"), L.GlobalMaxPooling1D(), size=None, mask=False
        ),
        IDS,
    ),
    "open size": (convolutional, IMAGES),
    "fixed batch": (
        lambda: keras.Sequential([keras.Input(batch_shape=(20, 5)), L.Dense(4), L.Dense(3)]),
        NUMBERS,
    ),
    "list": (lambda: pair("list"), LIST),
    "dictionary for a list": (lambda: pair("list"), DICT),
    "dictionary": (lambda: pair("dict"), DICT),
    "keys that are not names": (lambda: pair("keys"), DICT),
    "normalization": (normalised, NUMBERS * 3 + 7),
    "array initialiser": (initialised, IDS),
}


def train(model, train, out, test=None, **fields):
    options = {"epochs": 1, "levels": 1, "batch_size": 20, "plan": "graph", "progress": False}
    return find_tickets(model, train, test, out=out, **options | fields)


def stream(*data):
    return tf.data.Dataset.from_tensor_slices(tf.nest.map_structure(tf.constant, listed(data)))


def listed(data):
    """Lists as tuples: `tf.data` would stack a list."""
    return tuple(tuple(part) if isinstance(part, list) else part for part in data)


@pytest.mark.parametrize("name", quick(CASES, "dictionary"))
def test_a_model_goes_all_the_way(name, tmp_path):
    build, x = CASES[name]
    keras.utils.set_random_seed(1)
    model = build()
    run = train(model, (x, LABELS), tmp_path / "run", (x, LABELS))
    # The masked network in training and the ticket are one function, which depends on the weights.
    logits = run.selected.predictions["test/logits"]
    plain = run.selected.model()
    np.testing.assert_allclose(plain(x, training=False), logits, rtol=1e-4, atol=1e-5)
    start = run.ticket(0).dense()
    np.testing.assert_allclose(start(x), unfixed(model, x), rtol=1e-5, atol=1e-6)
    ticket = measure_model(run.directory / "tickets" / "level_01", (x, LABELS), progress=False)
    exported = export_ticket(
        run.selected,
        tmp_path / "export",
        (x, LABELS),
        (x, LABELS),
        formats=FORMATS,
        encoding="dense",
        tolerance=WIDE,
        scaled=False,
        seconds=0.01,
    )
    named = DICT if isinstance(x, list) else x
    for kind, path in exported.files.items():
        found = measure_model(path, (named, LABELS), progress=False).metrics["nll"]
        limit = 0.05 if registry.FORMATS[kind].quantised else 1e-4
        assert found == pytest.approx(ticket.metrics["nll"], abs=limit), kind


@pytest.mark.parametrize("form", ["list", "dict"])
def test_a_keras3_model_takes_several_inputs_in_its_order_and_by_name(form, tmp_path):
    """Also where a temperature is fitted to the int8 file, whose inputs are sorted by name."""
    keras3 = pytest.importorskip("keras")
    layers = keras3.layers
    text, meta = keras3.Input((6,), dtype="int32", name="text"), keras3.Input((5,), name="meta")
    read = layers.Flatten()(layers.Embedding(20, 4)(text))
    inputs = [text, meta] if form == "list" else {"text": text, "meta": meta}
    model = keras3.Model(inputs, layers.Dense(3)(layers.Concatenate()([read, meta])))
    x = tuple(LIST) if form == "list" else DICT
    data = stream(x, np.eye(3)[LABELS], np.ones(COUNT)).batch(7)
    run = train(model, data, tmp_path / "run", stream(x, LABELS).batch(4))
    wanted = run.selected.predictions["test/logits"]
    exported = export_ticket(
        run.selected,
        tmp_path / "export",
        (x, LABELS),
        (x, LABELS),
        formats=["int8"],
        tolerance=WIDE,
        scaled=True,
        seconds=0,
    )
    found = measure_model(exported.files["int8"], (DICT, LABELS), progress=False).metrics["nll"]
    scaled = wanted / run.selected.record["temperature"]
    nll = -tf.nn.log_softmax(scaled).numpy()[np.arange(COUNT), LABELS].mean()
    assert found <= nll + 0.05  # The file's own temperature was fitted on these examples.


def unfixed(model, x):
    """The logits of a model that may have a fixed batch size of 20."""
    if model.inputs[0].shape[0] != 20:
        return model(x, training=False)
    padded = np.concatenate([x, x[:10]])
    return np.concatenate([model(part) for part in np.split(padded, 3)])[:COUNT]


@pytest.mark.full
@pytest.mark.parametrize("name", ["int32", "list", "dictionary"])
def test_arrays_streams_and_data_that_stays_in_memory_are_one(name, tmp_path):
    build, x = CASES[name]
    digests = set()
    for kind in ("arrays", "memory", "stream"):
        keras.utils.set_random_seed(1)
        data = (x, LABELS) if kind == "arrays" else stream(x, LABELS)
        limit = 0 if kind == "stream" else 100
        fields = {"levels": 0, "memory_limit_mb": limit, "shuffle_buffer": 100}
        run = train(build(), data, tmp_path / kind, **fields)
        digests.add(run.ticket(0).digest)
    assert len(digests) == 1


@pytest.mark.full
def test_the_same_run_goes_on_to_the_bit(tmp_path):
    build, x = CASES["dictionary"]
    digests = []
    for out, steps in (("whole", (2,)), ("parts", (0, 2))):
        for levels in steps:
            keras.utils.set_random_seed(1)
            run = train(build(), (x, LABELS), tmp_path / out, levels=levels, calib="lwcc")
        digests.append([run.ticket(level).digest for level in range(3)])
    assert digests[0] == digests[1]


class Noting(lotcal_tf.Strategy):
    """Notes the structure and the types of its inputs."""

    def train_step(self, data):
        inputs, labels = data
        SEEN[type(inputs).__name__] = tf.nest.map_structure(lambda x: x.dtype.name, inputs)
        with tf.GradientTape() as tape:
            logits = self(inputs, training=True)
            loss = tf.reduce_mean(lotcal_tf.losses.cross_entropy(labels, logits))
        return self.descend(tape, loss, labels, logits)


SEEN = {}


def test_a_strategy_gets_the_inputs_as_keras_passes_them(tmp_path):
    for form, x in (("list", LIST), ("dict", DICT)):
        train(pair("list"), (x, LABELS), tmp_path / form, levels=0, calib=Noting)
    assert SEEN == {
        "tuple": ("int32", "float32"),
        "dict": {"text": "int32", "meta": "float32"},
    }


@pytest.mark.parametrize("calib", ["vwcc", "mixup"])
def test_other_strategies_take_several_inputs(calib, tmp_path):
    a, b = keras.Input((5,), name="a"), keras.Input((5,), name="b")
    x = L.Dropout(0.2)(L.Dense(4)(a))
    model = keras.Model([a, b], L.Dense(3)(L.Add()([x, L.Dense(4)(b)])))
    run = train(model, ((NUMBERS, NUMBERS + 1), LABELS), tmp_path / "run", levels=0, calib=calib)
    assert np.isfinite(run.records[0]["train_loss"])


# Weights


@pytest.mark.full
def test_class_weights_train_as_weights_of_examples_do(tmp_path):
    def run(data, out, **fields):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((5,)), L.Dense(4, activation="relu"), L.Dense(3)])
        return train(model, data, tmp_path / out, (NUMBERS, LABELS), levels=0, **fields)

    weights = (1.0, 2.5, 0.25)
    by_class = run((NUMBERS, LABELS), "classes", class_weight=dict(enumerate(weights)))
    by_tuple = run((NUMBERS, LABELS), "tuple", class_weight=weights)
    by_example = run((NUMBERS, LABELS, np.take(weights, LABELS)), "examples")
    both = run(
        (NUMBERS, LABELS, np.full(COUNT, 2.0)), "both", class_weight=[w / 2 for w in weights]
    )
    plain = run((NUMBERS, LABELS), "plain")
    digests = [r.ticket(0).digest for r in (by_class, by_tuple, by_example, both)]
    assert set(digests) == {digests[0]} and plain.ticket(0).digest != digests[0]
    ids = [
        json.loads((r.directory / "experiment.json").read_text())["run_id"]
        for r in (by_class, by_tuple, by_example, both, plain)
    ]
    assert ids[0] == ids[1] and len(set(ids)) == 4
    # Metrics are not weighted.
    logits = by_class.ticket(0).predictions["test/logits"]
    found = lotcal_tf.metrics.nll(LABELS, logits)
    assert by_class.records[0]["test_nll"] == pytest.approx(found)


def test_an_epoch_with_class_weights_is_that_of_keras(tmp_path):
    def build():
        keras.utils.set_random_seed(1)
        return keras.Sequential([keras.Input((5,)), L.Dense(3)])

    # One batch of all examples: their order does not matter.
    options = {"batch_size": 40, "optimizer": "sgd", "lr": 0.1, "validation_size": 10, "epochs": 3}
    weights = {0: 1.0, 1: 3.0, 2: 0.5}
    run = train(
        build(), (NUMBERS, LABELS), tmp_path / "r", levels=0, class_weight=weights, **options
    )
    model, split = build(), run.load().train
    model.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(True))
    model.fit(*split.data(), batch_size=40, epochs=3, class_weight=weights, verbose=0)
    for found, wanted in zip(run.ticket(0).model().get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


class Unweighted(lotcal_tf.Strategy):
    """Takes pairs only."""

    def train_step(self, data):
        raise AssertionError("it is refused before")


# What is refused

DENSE = [keras.Input((5,)), L.Dense(3)]
REFUSED = {
    "missing input": (lambda: pair("list"), {"text": IDS}, {}, "names text, .*text, meta"),
    "one of two": (lambda: pair("list"), IDS, {}, "takes 2 inputs: text, meta"),
    "lengths": (lambda: pair("list"), [IDS[:9], NUMBERS], {}, "number of examples"),
    "fractions": (lambda: tokens(L.Flatten()), IDS + 0.5, {}, "declares int32"),
    "mixup of tokens": (lambda: tokens(L.Flatten()), IDS, {"calib": "mixup"}, "calib=mixup"),
    "augmented": (lambda: pair("list"), LIST, {"augment": "crop_flip"}, "augment=crop_flip"),
    "stateful": (
        lambda: keras.Sequential(
            [keras.Input(batch_shape=(20, 6, 1)), L.LSTM(3, stateful=True), L.Dense(3)]
        ),
        IDS[..., None],
        {},
        "'lstm.*stateful=True",
    ),
    "number of class weights": (
        lambda: keras.Sequential(DENSE),
        NUMBERS,
        {"class_weight": (1, 2)},
        r"class_weight=\(1.0, 2.0\): has 2 weights, and the data has 3",
    ),
    "keys of class weights": (
        lambda: keras.Sequential(DENSE),
        NUMBERS,
        {"class_weight": {0: 1.0, 2: 1.0}},
        "class_weight=.* 0, 1",
    ),
    "negative class weight": (
        lambda: keras.Sequential(DENSE),
        NUMBERS,
        {"class_weight": (1, -2, 3)},
        "class_weight=.* 0 or more",
    ),
    "strategy without weights": (
        lambda: keras.Sequential(DENSE),
        NUMBERS,
        {"class_weight": (1, 2, 3), "calib": Unweighted},
        "calib=.*takes_weights",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_work_is_refused_before_training(name, tmp_path):
    build, x, fields, words = REFUSED[name]
    with pytest.raises(UsageError, match=words) as error:
        train(build(), (x, LABELS), tmp_path / "run", **fields)
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


def test_an_operation_with_a_fixed_batch_size_is_refused(tmp_path):
    given = keras.Input(batch_shape=(20, 6))
    model = keras.Model(given, L.Dense(3)(tf.reshape(given, (20, 6))))
    with pytest.raises(UsageError, match="cannot take inputs|fixed batch size"):
        train(model, (IDS.astype("float32"), LABELS), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_tuple_for_a_file_with_named_inputs_is_refused(tmp_path):
    run = train(pair("list"), (LIST, LABELS), tmp_path / "run", levels=0)
    options = {"formats": ["saved_model"], "seconds": 0, "scaled": False}
    done = export_ticket(run.ticket(0), tmp_path / "export", (LIST, LABELS), **options)
    with pytest.raises(UsageError, match="takes 2 inputs: .*; give a dictionary"):
        measure_model(done.files["saved_model"], (LIST, LABELS), progress=False)


def test_a_keras_file_with_a_fixed_batch_size_is_measured(tmp_path):
    model = keras.Sequential([keras.Input(batch_shape=(20, 5)), L.Dense(3)])
    model.save(tmp_path / "m.keras")
    found = measure_model(tmp_path / "m.keras", (NUMBERS, LABELS), progress=False)
    logits = NUMBERS @ model.layers[-1].kernel.numpy() + model.layers[-1].bias.numpy()
    assert found.metrics["nll"] == pytest.approx(lotcal_tf.metrics.nll(LABELS, logits), rel=1e-5)


def test_weights_of_test_data_are_refused(tmp_path):
    model = keras.Sequential(DENSE)
    test = (NUMBERS, LABELS, np.ones(COUNT))
    with pytest.raises(UsageError, match="test has sample weights"):
        train(model, (NUMBERS, LABELS), tmp_path / "run", test)
