"""A user's arrays and pipelines: what is refused, how validation is split off, what stays in memory."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf.data.arrays import (
    UnreadableExample,
    check_arrays,
    from_arrays,
    from_pipelines,
    part_of_test,
)
from lotcal_tf.data.splits import ResidentSplit, StreamedSplit
from lotcal_tf.errors import FieldError, LotcalError, UsageError

CLASSES = 3


def examples(count, start=0, dtype=np.float32):
    """Inputs that name themselves: (n, n + 0.5), label n mod 3."""
    numbers = np.arange(start, start + count)
    return np.stack([numbers, numbers + 0.5], 1).astype(dtype), numbers % CLASSES


def numbers_in(split):
    """Which examples a split holds, in its order; labels must still belong to them."""
    inputs, labels = (np.concatenate(parts) for parts in zip(*split.in_order(7), strict=True))
    numbers = inputs[:, 0].astype(int)
    np.testing.assert_array_equal(inputs[:, 1], inputs[:, 0] + 0.5)
    np.testing.assert_array_equal(labels, numbers % CLASSES)
    return numbers.tolist()


def arrays_dataset(train, test=None, validation=None, *, size=None, seed=0, half="whole"):
    return from_arrays(
        train,
        test,
        validation,
        classes=CLASSES,
        validation_size=size,
        seed=seed,
        half=half,
        identified=True,
    )


def pipelines_dataset(
    train, test=None, validation=None, *, limit=100, buffer=1000, size=None, half="whole"
):
    given = [
        tf.data.Dataset.from_tensor_slices(pair) if isinstance(pair, tuple) else pair
        for pair in (train, test, validation)
    ]
    return from_pipelines(
        *given,
        classes=CLASSES,
        validation_size=size,
        seed=0,
        memory_limit_mb=limit,
        shuffle_buffer=buffer,
        half=half,
        identified=True,
    )


def with_value(value, place, count=10):
    inputs, labels = examples(count, dtype=np.float64)
    inputs[place, 1] = value
    return inputs, labels


X, Y = examples(4)
BAD_PAIRS = {
    "lengths": ((X, Y[:3]), "train has 4 inputs and 3 labels: one label per input is needed"),
    "empty": ((X[:0], Y[:0]), "train is empty"),
    "no lists": (([], []), "train is empty"),
    "too high": ((X, [0, 1, 2, 3]), r"train has a label 3: labels must be 0 … 2"),
    "negative": ((X, [0, 1, -1, 2]), r"train has a label -1: labels must be 0 … 2"),
    "two ones": (
        (X, [[1, 0, 0], [0, 1, 1], [0, 0, 1], [1, 0, 0]]),
        r"not one-hot, \[0, 1, 1\] in example 1",
    ),
    "fractions": ((X, [0.0, 0.5, 1.0, 2.0]), "train has a label 0.5: labels must be 0 … 2"),
    "NaN label": ((X, [0.0, np.nan, 1.0, 2.0]), "train has a label nan: labels must be 0 … 2"),
    "endless label": ((X, [0, np.inf, 1, 2]), "label inf: labels must be 0 … 2"),
    "names": (
        (X, ["cat", "dog", "cat", "eel"]),
        "labels are strings, of type <U3: labels must be 0 … 2; of class names take ",
    ),
    "NaN": (with_value(np.nan, 6), "inputs hold NaN or infinity, first in example 6"),
    "infinity": (with_value(-np.inf, 0), "inputs hold NaN or infinity, first in example 0"),
    "too large for float32": (with_value(1e39, 9), "NaN or infinity, first in example 9"),
    "texts": ((["a", "b"], [0, 1]), "inputs are of type <U1: numbers are needed"),
    "complex": ((X * 1j, Y), "inputs are of type complex64: numbers are needed"),
    "nothing": ((None, Y), "inputs are of type NoneType: an array with one entry per example"),
    "generator": (
        (iter(X), Y),
        "inputs are of type .*iterator: an array with one entry per example",
    ),
    "labels of a generator": ((X, (y for y in Y)), "train labels are of type generator: an array"),
    "objects": (([None, None], [0, 1]), "inputs are of type object: numbers are needed"),
    "ragged": (([[1.0], [1.0, 2.0]], [0, 1]), "train inputs do not form an array.*inhomogeneous"),
}


@pytest.mark.filterwarnings("error")  # a warning beside the error would be a second line
@pytest.mark.parametrize(("pair", "message"), BAD_PAIRS.values(), ids=BAD_PAIRS)
def test_bad_arrays_are_refused_in_one_line(pair, message):
    with pytest.raises(UsageError, match=message) as error:
        arrays_dataset(pair)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["validation", "test"])
def test_a_bad_split_is_named(name):
    with pytest.raises(UsageError, match=f"^{name} has a label 9"):
        arrays_dataset(examples(9), **{name: (X, [0, 1, 2, 9])})
    with pytest.raises(
        UsageError, match=rf"^{name} inputs have shape \(1,\) per example: \(2,\) is needed"
    ):
        arrays_dataset(examples(9), **{name: (X[:, :1], Y)})


@pytest.mark.parametrize(
    ("dtype", "kept"),
    [(np.uint8, np.uint8), (np.int64, np.float32), (np.float16, np.float32), (float, np.float32)],
)
def test_images_stay_bytes_and_other_inputs_become_float32(dtype, kept):
    inputs, labels = check_arrays(X.astype(dtype), Y, split="train", classes=CLASSES)
    assert (inputs.dtype, labels.dtype) == (kept, np.int32)
    np.testing.assert_array_equal(inputs, X.astype(dtype))


@pytest.mark.parametrize("labels", [Y[:, None], Y.astype(float), Y.astype(np.uint8), Y.tolist()])
def test_labels_of_other_types_and_shapes_are_accepted(labels):
    np.testing.assert_array_equal(check_arrays(X, labels, split="train", classes=3)[1], Y)


def test_validation_is_cut_from_train_and_never_from_test():
    dataset = arrays_dataset(examples(40), examples(20, start=100), size=9)
    kept, cut = numbers_in(dataset.train), numbers_in(dataset.validation)
    assert len(cut) == 9
    assert sorted(kept + cut) == list(range(40))  # disjoint, and together all of train
    assert numbers_in(dataset.test) == list(range(100, 120))


def test_another_seed_draws_another_validation_split():
    cuts = [numbers_in(arrays_dataset(examples(40), seed=s).validation) for s in (0, 0, 1)]
    assert cuts[0] == cuts[1] != cuts[2]


def test_a_given_validation_split_is_taken_as_it_is():
    dataset = arrays_dataset(examples(10), None, examples(5, start=50))
    assert numbers_in(dataset.train) == list(range(10))
    assert numbers_in(dataset.validation) == list(range(50, 55))
    assert dataset.test is None


@pytest.mark.parametrize("dataset", [arrays_dataset, pipelines_dataset])
def test_no_size_is_taken_beside_a_validation_split(dataset):
    more = {} if dataset is arrays_dataset else {"limit": 0}
    with pytest.raises(FieldError, match="^validation_size=3: the data has its own validation"):
        dataset(examples(10), None, examples(5), size=3, **more)


@pytest.mark.parametrize("validation", [None, examples(6, start=200)])
@pytest.mark.parametrize("limit", [100, 0])
def test_pipelines_hold_what_the_arrays_hold(limit, validation):
    given = examples(50), examples(20, start=100), validation
    expected, dataset = arrays_dataset(*given), pipelines_dataset(*given, limit=limit)
    kind = ResidentSplit if limit else StreamedSplit
    splits = dataset.named_splits()
    for name, split in expected.named_splits().items():
        assert type(splits[name]) is kind
        assert splits[name].count == split.count
        assert numbers_in(splits[name]) == numbers_in(split)
        assert numbers_in(splits[name]) == numbers_in(split)  # read again
    assert dataset.digest == expected.digest
    assert (dataset.classes, dataset.input_range) == (CLASSES, 1.0)


@pytest.mark.parametrize("validation", [None, examples(6, start=200)])
def test_halves_cut_training_data_alone(validation):
    given = examples(50), examples(20, start=100), validation
    parts = {half: arrays_dataset(*given, half=half) for half in ("a", "b")}
    kept = {}
    for half, dataset in parts.items():
        kept[half] = numbers_in(dataset.train)
        if validation is None:
            # Classes of 17, 17 and 16; a tenth of 26, or of 24, is cut by seed as elsewhere.
            assert dataset.validation.count == 2
            kept[half] += numbers_in(dataset.validation)
        else:
            assert numbers_in(dataset.validation) == list(range(200, 206))
        assert numbers_in(dataset.test) == list(range(100, 120))
    assert [np.bincount(np.array(kept[half]) % 3).tolist() for half in "ab"] == [
        [9, 9, 8],
        [8, 8, 8],
    ]
    assert sorted(kept["a"] + kept["b"]) == list(range(50))


@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
@pytest.mark.parametrize("half", ["a", "b"])
@pytest.mark.parametrize("validation", [None, examples(6, start=200)])
def test_a_stream_has_the_half_that_memory_has(half, dtype, validation):
    numbers = np.arange(50, dtype=dtype)
    given = (np.stack([numbers, numbers], 1), np.arange(50) % 3), None, validation
    resident, streamed = (pipelines_dataset(*given, limit=n, half=half) for n in (100, 0))
    assert isinstance(streamed.train, StreamedSplit)
    assert streamed.digest == resident.digest
    assert streamed.train.count == resident.train.count


def test_a_failing_pipeline_is_reported_with_the_place():
    def give(number):
        tf.debugging.assert_less(number, np.int64(1234), "the disk\nis full")
        return tf.cast([number], tf.float32), number % 3

    with pytest.raises(UnreadableExample, match=r"^test cannot be read from example 1234") as e:
        pipelines_dataset(examples(20), tf.data.Dataset.range(2000).map(give))
    assert (e.value.split, e.value.example) == ("test", 1234)
    assert "the disk" in str(e.value)
    assert "\n" not in str(e.value)
    assert "{{" not in str(e.value)


@pytest.mark.parametrize("more", [0, 1])
def test_one_byte_too_many_streams(more):
    # 512 kB of train and 512 kB of test are exactly the megabyte; together they count.
    train = np.zeros((512, 1024), np.uint8), np.arange(512) % CLASSES
    test = np.zeros((512 + more, 1024), np.uint8), np.zeros(512 + more, np.int64)
    dataset = pipelines_dataset(train, test, limit=1)
    kind = StreamedSplit if more else ResidentSplit
    assert [type(split) for split in dataset.named_splits().values()] == [kind] * 3


@pytest.mark.parametrize("limit", [100, 0])
def test_pipelines_give_the_types_that_arrays_get(limit):
    for dtype, kept in ((np.uint8, tf.uint8), (np.float64, tf.float32)):
        inputs, labels = np.ones((20, 2), dtype), np.arange(20) % CLASSES
        dataset = pipelines_dataset((inputs, labels), limit=limit)
        (block,) = dataset.train.shuffled(18, 1, (0, 1))
        assert [part.dtype for part in block] == [kept, tf.int32]


def test_training_data_of_one_class_is_refused():
    with pytest.raises(UsageError, match="train has only the class 1: at least 2 classes"):
        arrays_dataset((np.zeros((6, 2)), np.ones(6, int)), examples(6), examples(6))


def test_classes_without_a_training_example_are_named():
    train = np.zeros((4, 2)), np.array([0, 1, 0, 1])
    with_two, without = ((np.zeros((2, 2)), np.array([0, k])) for k in (2, 1))
    for test, validation in ((with_two, without), (without, with_two)):
        (note,) = arrays_dataset(train, test, validation).notes
        assert "val or test has: 2; no network" in note
    assert not arrays_dataset(train, without, without).notes
    named = dataclasses.replace(arrays_dataset(train, None, with_two), class_names=("a", "b", "c"))
    assert "val has: c; no network" in named.notes[0]
    (note,) = pipelines_dataset(train, with_two, limit=0).notes
    assert "val or test has: 2; no network" in note


@pytest.mark.parametrize("limit", [0, 100])
def test_one_class_in_all_training_data_is_refused(limit):
    train, test = (np.zeros((4, 2)), np.array([1, 1, 1, 1])), (np.zeros((2, 2)), np.array([0, 1]))
    with pytest.raises(UsageError, match="train has only the class 1: at least 2 classes"):
        pipelines_dataset(train, test, limit=limit)


def test_a_stream_that_is_sorted_by_class_is_named():
    def notes(labels, buffer):
        train = np.zeros((len(labels), 2)), np.asarray(labels)
        test = np.zeros((2, 2)), np.array([0, 1])
        return pipelines_dataset(train, test, limit=0, buffer=buffer).notes

    in_order = np.repeat([0, 1], 50)
    (note,) = notes(in_order, 20)
    assert "the first 20 examples of train have other classes than the rest" in note
    assert not notes(in_order, 1000) and not notes(np.tile([0, 1], 50), 20)
    # A small random buffer lacks classes by chance.
    assert not notes(np.random.default_rng(0).integers(0, 2, 100), 4)


def test_a_stream_has_the_buffer_asked_for():
    dataset = pipelines_dataset(examples(30), limit=0, buffer=1)
    (block,) = dataset.train.shuffled(27, 1, (0, 1))
    assert block[0].numpy()[:, 0].astype(int).tolist() == numbers_in(dataset.train)


def pairs(*arrays):
    return tf.data.Dataset.from_tensor_slices(arrays)


def shapeless():
    signature = (tf.TensorSpec([None, 2], tf.float32), tf.TensorSpec([], tf.int32))
    return tf.data.Dataset.from_generator(lambda: [(X, 0)], output_signature=signature)


def unspecified():
    return tf.data.Dataset.from_generator(lambda: [(X, 0)], output_types=(tf.float32, tf.int32))


late = with_value(np.nan, 1203, count=1500)  # beyond the first thousand, which are checked at once
BAD_PIPELINES = {
    "vectors": (pairs(X, np.zeros((4, 5))), "one class number 0 … 2 per example or"),
    "no labels": (tf.data.Dataset.from_tensor_slices(X), "gives inputs without labels: .* zip it"),
    "quadruples": (
        pairs(X, Y, Y, Y),
        "gives 4-tuples: .* are needed; map each example to",
    ),
    "dictionaries": (
        pairs({"image": X}, Y),
        "gives inputs as a dictionary with the keys 'image': one dense tensor is needed; select or",
    ),
    "pairs of labels": (
        pairs(X, (Y, Y)),
        "gives labels as a tuple of 2: one dense tensor is needed",
    ),
    "ragged": (
        pairs(tf.ragged.constant([[1.0], [1.0, 2.0]]), Y[:2]),
        "inputs as a RaggedTensor: one",
    ),
    "named": (
        tf.data.Dataset.from_tensor_slices({"image": X, "label": Y}),
        r"gives dictionaries with the keys 'image', 'label': .*map\(lambda e: \(e\['image'\], e\['label'",
    ),
    "no shape": (
        shapeless(),
        r"of shape \(None, 2\) per example: one fully known shape is needed; ",
    ),
    "no label shape": (
        unspecified(),
        r"known shapes are needed; .*tf\.ensure_shape.*output_signature",
    ),
    "empty": (pairs(X, Y).take(0), "train is empty: at least one example is needed"),
    "endless": (
        pairs(X, Y).repeat(),
        r"never ends: a finite one is needed; leave out its repeat\(\)",
    ),
    "texts": (pairs(np.array(["a", "b"]), Y[:2]), "inputs as strings: numbers are needed"),
    "label": (pairs(X, Y + 1), "train has a label 3: labels must be 0 … 2"),
    "NaN": (pairs(*late), "NaN or infinity, first in example 1203"),
}


@pytest.mark.parametrize("limit", [100, 0])
@pytest.mark.parametrize(("pipeline", "message"), BAD_PIPELINES.values(), ids=BAD_PIPELINES)
def test_bad_pipelines_are_refused_in_one_line(pipeline, message, limit):
    with pytest.raises(UsageError, match=message) as error:
        pipelines_dataset(pipeline, limit=limit)
    assert "\n" not in str(error.value)
    assert "train" in str(error.value)


@pytest.mark.parametrize("limit", [100, 0])
def test_pipelines_of_other_shapes_are_refused(limit):
    with pytest.raises(
        UsageError, match=r"^test inputs have shape \(1,\) per example: \(2,\) is needed"
    ):
        pipelines_dataset(examples(9), (X[:, :1], Y), limit=limit)


def test_the_digest_sees_every_value_and_where_it_is():
    def digest_of(train, test):
        return arrays_dataset(train, test, examples(4)).digest

    train, test = examples(8), examples(8, start=8)
    pixel, label = (train[0].copy(), train[1]), (train[0], train[1].copy())
    pixel[0][7, 1] += 1
    label[1][7] = 0
    variants = [(train, test), (test, train), (pixel, test), (label, test), (train, None)]
    assert len({digest_of(*variant) for variant in variants}) == 5
    assert digest_of(train, test) == digest_of(examples(8), examples(8, start=8))


def test_the_digest_does_not_depend_on_the_seed():
    datasets = [arrays_dataset(examples(50), examples(8), seed=seed) for seed in (0, 1)]
    first, second = (numbers_in(dataset.validation) for dataset in datasets)
    assert first != second
    assert datasets[0].digest == datasets[1].digest
    assert len(datasets[0].digest) == 10


def test_a_stream_that_breaks_while_its_digest_is_taken_is_reported_in_one_line():
    readings = []

    def numbers():
        readings.append(0)
        for number, label in zip(*examples(20), strict=True):
            if len(readings) > 1 and label == 2:
                raise OSError("the disk is gone")
            yield number, label

    shapes = tf.TensorSpec((2,), tf.float32), tf.TensorSpec((), tf.int64)
    pipeline = tf.data.Dataset.from_generator(numbers, output_signature=shapes)
    with pytest.raises(LotcalError, match="the data cannot be read any more"):
        pipelines_dataset(pipeline, limit=0)
    assert len(readings) > 1


def test_a_test_split_comes_alone():
    pair = examples(20)
    pipeline = tf.data.Dataset.from_tensor_slices(pair)
    for test, limit, kind in (
        (pair, 0, ResidentSplit),
        (list(pair), 0, ResidentSplit),
        (pipeline, 100, ResidentSplit),
        (pipeline, 0, StreamedSplit),
    ):
        part = part_of_test(test, classes=CLASSES, memory_limit_mb=limit, input_range=4.0)
        assert (part.classes, part.input_range, part.split.count) == (CLASSES, 4.0, 20)
        assert isinstance(part.split, kind)
        assert numbers_in(part.split) == list(range(20))


def test_a_test_split_that_comes_alone_is_checked():
    inputs, labels = examples(20)
    for test, message in (
        ((inputs, labels + 1), "test has a label 3: labels must be 0 … 2"),
        ((inputs[:5], labels), "test has 5 inputs and 20 labels"),
        (tf.data.Dataset.from_tensor_slices((inputs, labels + 1)), "test has a label 3"),
    ):
        with pytest.raises(UsageError, match=message):
            part_of_test(test, classes=CLASSES)


# What was read last


class Counted:
    """Pipelines of train and test that count how often they are read."""

    def __init__(self, start=0, count=12):
        self.readings, self.start, self.count = [], start, count

    def __call__(self, name, offset):
        def read():
            self.readings.append(name)
            yield from zip(*examples(self.count, self.start + offset), strict=True)

        spec = (tf.TensorSpec((2,), tf.float32), tf.TensorSpec((), tf.int64))
        return tf.data.Dataset.from_generator(read, output_signature=spec)

    def load(self, key, *, seed=0, limit=100):
        return from_pipelines(
            self("train", 0),
            self("test", 100),
            classes=CLASSES,
            validation_size=3,
            seed=seed,
            memory_limit_mb=limit,
            shuffle_buffer=5,
            key=key,
        )


def contents(dataset):
    return {name: numbers_in(split) for name, split in dataset.named_splits().items()}


def test_data_with_the_key_of_the_last_is_not_read_again():
    data = Counted()
    first = contents(data.load("a"))
    assert data.readings == ["train", "test"]
    assert contents(data.load("a")) == first
    assert data.readings == ["train", "test"]
    # Another seed draws other validation examples from it, as from a fresh reading.
    assert contents(data.load("a", seed=1)) == contents(Counted().load(None, seed=1)) != first
    assert len(data.readings) == 2


@pytest.mark.parametrize("key", ["b", None])
def test_other_data_is_read(key):
    Counted().load("a")
    data = Counted(start=200)
    assert min(contents(data.load(key))["train"]) >= 200
    assert data.readings == ["train", "test"]


def test_only_the_last_data_stays_and_only_if_it_may_be_in_memory():
    data = Counted()
    data.load("a")
    Counted().load("b")
    data.load("a")
    assert data.readings == ["train", "test"] * 2
    streamed = data.load("a", limit=0)
    assert isinstance(streamed.train, StreamedSplit)
    assert len(data.readings) > 4
