"""Subsets of the classes: by an independent selection in NumPy, for data in memory and streams."""

import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf.config.experiment import Experiment
from lotcal_tf.config.recipes import resolve
from lotcal_tf.data import digits, given, sources
from lotcal_tf.data.arrays import from_arrays, from_pipelines, part_of_test
from lotcal_tf.data.splits import Dataset
from lotcal_tf.errors import FieldError

COUNT, CLASSES = 60, 5
DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(COUNT, 3)).astype("float32")
Y = DRAW.permutation(np.arange(COUNT) % CLASSES)
CHOSEN = (3, 0, 4)


def expected():
    """The inputs of the chosen classes with their new numbers, in the order of the data."""
    return [(x.tobytes(), CHOSEN.index(y)) for x, y in zip(X, Y, strict=True) if y in CHOSEN]


def examples(split):
    return [
        (x.tobytes(), int(y))
        for inputs, labels in split.in_order(7)
        for x, y in zip(inputs.numpy(), labels.numpy(), strict=True)
    ]


def one_hot(labels):
    return np.eye(CLASSES)[labels]


def load(form, labels=Y, subset=CHOSEN, **more):
    fields = {"classes": CLASSES, "validation_size": 6, "seed": 0, "subset": subset, **more}
    if form == "memory":
        return from_arrays((X, labels), (X, labels), **fields)
    data = tf.data.Dataset.from_tensor_slices((X, labels))
    limit = {"stream": 0, "pipeline": 100}[form]
    return from_pipelines(data, data, memory_limit_mb=limit, shuffle_buffer=COUNT, **fields)


@pytest.mark.parametrize("form", ["memory", "pipeline", "stream"])
@pytest.mark.parametrize("labels", [Y, one_hot(Y)], ids=["numbers", "one-hot"])
def test_the_chosen_classes_are_kept_with_new_numbers(form, labels):
    dataset = load(form, labels)
    assert dataset.classes == len(CHOSEN)
    assert examples(dataset.test) == expected()
    train, validation = examples(dataset.train), examples(dataset.validation)
    assert (len(train), len(validation)) == (36 - 6, 6), "validation is drawn from the subset"
    assert sorted(train + validation) == sorted(expected())


def test_a_stream_is_shuffled_and_relabelled_as_data_in_memory():
    memory, stream = (load(form) for form in ("memory", "stream"))
    assert examples(memory.train) == examples(stream.train)
    assert examples(memory.validation) == examples(stream.validation)
    blocks = [next(iter(d.train.shuffled(5, 6, (1, 2)))) for d in (memory, stream)]
    for one, other in zip(*blocks, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("form", ["memory", "stream"])
def test_the_halves_of_a_subset_are_those_of_its_classes(form):
    parts = [load(form, half=half) for half in "ab"]
    found = [set(examples(d.train)) | set(examples(d.validation)) for d in parts]
    assert len(found[0]) == len(found[1]) == 18
    assert found[0] | found[1] == set(expected())


@pytest.mark.parametrize("form", ["memory", "stream"])
def test_weights_stay_with_their_examples(form):
    weights = np.arange(COUNT, dtype="float32") + 1
    fields = {"classes": CLASSES, "validation_size": 6, "seed": 0, "subset": CHOSEN}
    if form == "memory":
        dataset = from_arrays((X, Y, weights), None, **fields)
    else:
        data = tf.data.Dataset.from_tensor_slices((X, Y, weights))
        dataset = from_pipelines(data, None, memory_limit_mb=0, shuffle_buffer=9, **fields)
    of_input = {x.tobytes(): w for x, w in zip(X, weights, strict=True)}
    found = [of_input[x] for x, _ in examples(dataset.train)]
    np.testing.assert_array_equal(dataset.train.weights(), found)


@pytest.mark.parametrize("limit", [0, 100])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_split_by_itself_is_restricted_too(streamed, limit):
    test = tf.data.Dataset.from_tensor_slices((X, Y)) if streamed else (X, Y)
    part = part_of_test(test, classes=CLASSES, memory_limit_mb=limit, subset=CHOSEN)
    assert (part.classes, examples(part.split)) == (3, expected())


@pytest.mark.parametrize("form", ["memory", "stream"])
def test_an_unknown_class_and_one_without_examples_are_refused(form):
    with pytest.raises(FieldError, match=r"^classes=\(0, 5\): 5 is not .* 0 … 4"):
        load(form, subset=(0, 5))
    some = np.where(Y == 2, 1, Y)
    with pytest.raises(FieldError, match=r"^classes=\(0, 2\): train has no example of class 2"):
        load(form, some, subset=(0, 2))


def test_names_of_the_classes_follow_and_noise_comes_after():
    fields = {"classes": "8,3,5", "label_noise": 0.5, "noise_kind": "uniform"}
    dataset = sources.load(resolve({"dataset": "digits", **fields}))
    assert (dataset.classes, dataset.class_names) == (3, ("8", "3", "5"))
    assert set(np.unique(dataset.train.labels)) == {0, 1, 2}
    # Half of the labels are redrawn from three classes.
    count = dataset.train.count
    assert abs(dataset.wrong_labels["train"] - 1 / 3) < 4.5 * np.sqrt(0.25 / count)
    clean = sources.load(resolve({"dataset": "digits", "classes": "8,3,5"}))
    np.testing.assert_array_equal(clean.train.inputs, dataset.train.inputs)
    whole = digits.load(Experiment())
    assert clean.test.count == sum(int((whole.test.labels.numpy() == c).sum()) for c in (3, 5, 8))
    part = sources.load_part(resolve({"dataset": "digits", "classes": "8,3,5"}), "test")
    assert (part.classes, part.class_names) == (3, ("8", "3", "5"))


@pytest.mark.parametrize("classes", [(0, 1), (1, 0)])
def test_the_truth_of_a_mixture_follows_the_order(classes):
    fields = {"dataset": "mixture_xor", "source": "mixture_xor", "dimensions": 4, "nu": 0.9}
    plain = sources.load(Experiment(**fields))
    found = sources.load(Experiment(**fields, classes=classes))
    np.testing.assert_array_equal(found.truth, plain.truth[:, classes])
    expected = plain.test.labels.numpy()
    np.testing.assert_array_equal(
        found.test.labels, expected if classes == (0, 1) else 1 - expected
    )


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("labels", [Y, one_hot(Y)], ids=["numbers", "one-hot"])
def test_objects_are_restricted_to_the_outputs_of_the_model(streamed, labels):
    pair = tf.data.Dataset.from_tensor_slices((X, labels)) if streamed else (X, labels)
    experiment = Experiment(classes=CHOSEN, validation_size=6)
    dataset = given.dataset(pair, pair, None, experiment, classes=3)
    assert examples(dataset.test) == expected()
    with pytest.raises(FieldError, match=r"^classes=.*\b5 outputs"):
        given.dataset(pair, pair, None, experiment, classes=5)
    with pytest.raises(FieldError, match=r"^classes=\(0, 9\): "):
        given.dataset(pair, pair, None, Experiment(classes=(0, 9)), classes=2)


def test_a_source_that_gives_all_classes_is_refused(monkeypatch):
    row = sources.registry.Source("lotcal_tf.data.digits:load", "")
    monkeypatch.setattr(row.__class__, "load", lambda self: lambda _: digits.load(Experiment()))
    with pytest.raises(FieldError, match=r"^classes=\(0, 1\): source=digits gives all classes"):
        sources.load(Experiment(source="digits", classes=(0, 1)))


def test_all_classes_are_the_same_data_as_before():
    plain, found = load("memory", subset=()), load("memory", subset=tuple(range(CLASSES)))
    assert isinstance(found, Dataset)
    for name, split in plain.named_splits().items():
        assert examples(split) == examples(found.named_splits()[name])
