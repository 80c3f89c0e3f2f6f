"""Fewer training examples, from memory and from streams: which they are, and that nothing else changes."""

import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf.config.experiment import Experiment
from lotcal_tf.data import given, sources
from lotcal_tf.errors import FieldError

COUNT, CLASSES = 60, 3
X = np.arange(COUNT, dtype="float32")[:, None]
Y = np.arange(COUNT) % CLASSES
WEIGHTS = np.arange(COUNT, dtype="float32")


def load(form, size=None, labels=Y, weights=(), **fields):
    train = (X, labels, *weights)
    data = tf.data.Dataset.from_tensor_slices(train) if form == "stream" else train
    fields = {"validation_size": 10, "train_size": size, "memory_limit_mb": 0, **fields}
    experiment = Experiment(**fields)
    dataset = given.dataset(data, None, None, experiment, classes=CLASSES)
    return sources.arranged(dataset, experiment)


def numbers(split):
    found = [i for inputs, _ in split.in_order(7) for i in inputs.numpy()[:, 0].astype(int)]
    assert len(found) == split.count
    return found


@pytest.mark.parametrize("form", ["memory", "stream"])
def test_the_examples_of_a_size_are_among_those_of_a_larger_one(form):
    whole = load(form)
    parts = [set(numbers(load(form, size).train)) for size in (5, 20, 50)]
    assert [len(part) for part in parts] == [5, 20, 50]
    assert parts[0] < parts[1] < parts[2] == set(numbers(whole.train))
    assert numbers(load(form, 20).validation) == numbers(whole.validation)
    assert set(numbers(load(form, 20, seed=1).train)) != parts[1]


def test_memory_and_stream_keep_the_same_examples_labels_and_weights():
    one, other = (load(form, 20, weights=(WEIGHTS,)).train for form in ("memory", "stream"))
    assert numbers(one) == numbers(other)
    for split in (one, other):
        np.testing.assert_array_equal(split.labels, np.array(numbers(split)) % CLASSES)
        np.testing.assert_array_equal(split.weights(), numbers(split))


def test_the_share_of_noisy_labels_is_that_of_the_examples_kept():
    found = load("memory", 20, label_noise=0.5, noise_kind="symmetric").train
    wrong = np.asarray(found.labels) != np.array(numbers(found)) % CLASSES
    assert wrong.sum() == 10


def test_a_table_is_standardised_by_the_examples_kept(tmp_path):
    pandas = pytest.importorskip("pandas")
    pandas.DataFrame({"x": X[:, 0], "label": Y}).to_csv(tmp_path / "t.csv", index=False)
    fields = {"source": "table", "data_dir": str(tmp_path / "t.csv"), "train_size": 10}
    dataset = sources.load(Experiment(**fields))
    kept = numbers(dataset.train)
    assert len(kept) == 10
    np.testing.assert_allclose(dataset.statistics, [[np.mean(kept)], [np.std(kept)]])


@pytest.mark.parametrize("form", ["memory", "stream"])
def test_what_cannot_train_is_refused(form):
    with pytest.raises(FieldError, match="^train_size=51: there are 50 training examples"):
        load(form, 51)
    kept = numbers(load(form, 4).train)
    labels = np.ones(COUNT, int)
    labels[[i for i in range(COUNT) if i not in kept][:5]] = 0
    with pytest.raises(FieldError, match="^train_size=4: the examples drawn have only one class"):
        load(form, 4, labels=labels)
    weights = np.ones(COUNT, "float32")
    weights[kept] = 0
    with pytest.raises(FieldError, match="^train_size=4: .* no weight above 0"):
        load(form, 4, weights=(weights,))
