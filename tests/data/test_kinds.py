"""Kinds of data and pipelines that people pass: each is taken, with the examples it holds, or refused."""

import types

import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

from lotcal_tf.compat import keras
from lotcal_tf.config.experiment import Experiment
from lotcal_tf.data import given
from lotcal_tf.data.splits import ResidentSplit, StreamedSplit
from lotcal_tf.errors import UsageError

COUNT, CLASSES, SHAPE = 12, 3, (2, 2, 1)
X = np.arange(COUNT * 4, dtype=np.float32).reshape(COUNT, *SHAPE)
Y = np.arange(COUNT) % CLASSES
FLAT = X.reshape(COUNT, 4)
HOT = np.eye(CLASSES)[Y]


def slices(*parts):
    return tf.data.Dataset.from_tensor_slices(parts[0] if len(parts) == 1 else parts)


def generated(examples, *specs):
    return tf.data.Dataset.from_generator(lambda: examples, output_signature=specs)


def pandas():
    return pytest.importorskip("pandas", reason="needs lotcal-tf[tables]")


def frame(**more):
    return pandas().DataFrame({f"x{n}": column for n, column in enumerate(FLAT.T)} | more)


def hugging_face(label="label", image="image", values=X, **more):
    datasets = pytest.importorskip("datasets", reason="needs lotcal-tf[hf]")
    return datasets.Dataset.from_dict({image: list(values), label: Y.tolist(), **more})


# What is taken: the data, and the inputs that it holds (X unless they are others).
TAKEN = {
    "arrays": lambda: (X, Y),
    "a list of two arrays": lambda: [X, Y],
    "lists": lambda: (X.tolist(), Y.tolist()),
    "tensors": lambda: (tf.constant(X), tf.constant(Y)),
    "float16 inputs": lambda: (X.astype(np.float16), Y),
    "labels (N, 1)": lambda: (X, Y[:, None]),
    "float labels": lambda: (X, Y.astype(float)),
    "float labels (N, 1)": lambda: (X, Y[:, None].astype(np.float32)),
    "one-hot labels": lambda: (X, HOT),
    "one-hot booleans": lambda: (X, HOT == 1),
    "a series of labels": lambda: (X, pandas().Series(Y, index=range(100, 100 + COUNT))),
    "nullable integers": lambda: (X, pandas().Series(Y, dtype="Int64")),
    "one-hot columns": lambda: (X, pandas().DataFrame(HOT)),
    "Hugging Face": lambda: hugging_face(),
    "Hugging Face, other usual names": lambda: hugging_face("labels", "pixel_values"),
    "pipeline": lambda: slices(X, Y),
    "pipeline, labels (1,)": lambda: slices(X, Y[:, None]),
    "pipeline, one-hot": lambda: slices(X, HOT),
    "pipeline, float labels": lambda: slices(X, Y.astype(float)),
    "pipeline, batched": lambda: slices(X, Y).batch(5),
    "pipeline, batches of one size": lambda: slices(X, Y).batch(4, drop_remainder=True),
    "pipeline, batches of as many examples as classes": lambda: slices(X, Y).batch(
        3, drop_remainder=True
    ),
    "pipeline, batches of one": lambda: slices(X, Y).batch(1, drop_remainder=True),
    "pipeline, batches of labels (N, 1)": lambda: slices(X, Y[:, None]).batch(5),
    "pipeline, batches of one-hot labels": lambda: slices(X, HOT).batch(5),
    "pipeline, prefetched and cached": lambda: slices(X, Y).cache().batch(5).prefetch(2),
    "pipeline of a generator": lambda: generated(
        list(zip(X, Y, strict=True)), tf.TensorSpec(SHAPE), tf.TensorSpec([], tf.int64)
    ),
    "pipeline, shuffled once": lambda: slices(X, Y).shuffle(
        COUNT, seed=1, reshuffle_each_iteration=False
    ),
    "pipeline, shuffled and cached": lambda: slices(X, Y).shuffle(COUNT).cache(),
}


def takes(shape):
    """What a model with one input of a shape takes."""
    return None if shape is None else {"x": tf.TensorSpec((None, *shape))}


def dataset(train, limit=100, shape=SHAPE, classes=CLASSES):
    experiment = Experiment(validation_size=3, memory_limit_mb=limit)
    return given.dataset(train, None, None, experiment, classes=classes, takes=takes(shape))


def held(found):
    """The examples of all splits by their first value, each with its label, which must be one."""
    pairs = [pair for split in found.named_splits().values() for pair in split.in_order(5)]
    x, y = (np.concatenate([p[n].numpy() for p in pairs]) for n in (0, 1))
    assert (x.dtype, y.dtype) == (np.float32, np.int32)
    order = np.argsort(x.reshape(len(x), -1)[:, 0])
    return x[order], y[order]


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("limit", [100, 0], ids=["in memory", "streamed"])
@pytest.mark.parametrize("make", TAKEN.values(), ids=TAKEN)
def test_data_is_taken_with_the_examples_it_holds(make, limit):
    found = dataset(make(), limit)
    x, y = held(found)
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(y, Y)
    assert found.validation.count == 3
    streams = limit == 0 and isinstance(make(), tf.data.Dataset)
    assert isinstance(found.train, StreamedSplit if streams else ResidentSplit)


@pytest.mark.parametrize("make", TAKEN.values(), ids=TAKEN)
def test_one_split_is_taken_in_the_same_order(make):
    ((x, y),) = given.part(
        make(), split="test", classes=CLASSES, takes=takes(SHAPE)
    ).split.in_order(99)
    order = np.argsort(x.numpy()[:, 0, 0, 0])
    np.testing.assert_array_equal(x.numpy()[order], X)
    np.testing.assert_array_equal(y.numpy()[order], Y)


def test_a_frame_holds_the_inputs_of_its_columns():
    for inputs in (frame(), frame().astype("Float64"), frame(x3=FLAT[:, 3])):
        x, y = held(dataset((inputs, pandas().Series(Y)), shape=(4,)))
        np.testing.assert_array_equal(x, FLAT)
        np.testing.assert_array_equal(y, Y)


def test_booleans_are_labels_of_two_classes():
    for labels in (Y == 1, (Y == 1)[:, None], pandas().Series(Y == 1, dtype="boolean")):
        _, y = held(dataset((X, labels), classes=2))
        np.testing.assert_array_equal(y, Y == 1)


def test_without_the_models_shape_an_open_first_axis_is_a_batch():
    x, y = held(dataset(slices(X, Y).batch(5), shape=None))
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(y, Y)


def test_inputs_of_open_size_are_batched_or_not_by_their_rank():
    for data in (slices(FLAT, Y), slices(FLAT, Y).batch(5), slices(FLAT, HOT).batch(3)):
        np.testing.assert_array_equal(held(dataset(data, shape=(None,)))[0], FLAT)


class Sequence(keras.utils.Sequence):
    def __len__(self):
        return 2

    def __getitem__(self, place):
        return X[:6], Y[:6]


def ragged():
    return tf.ragged.constant([[1.0], [1.0, 2.0]] * 6)


def sparse():
    return tf.sparse.from_dense(FLAT)


def untyped():
    return tf.data.Dataset.from_generator(lambda: [(X[0], 0)], output_types=(tf.float32, tf.int32))


def open_inputs():
    specs = tf.TensorSpec((None, None, 1)), tf.TensorSpec([], tf.int32)
    return generated([(X[0], 0)], *specs)


def other_shapes():
    examples = [(X[0], 0), (X[0, :1], 1)]
    return generated(examples, tf.TensorSpec(SHAPE), tf.TensorSpec([], tf.int32))


def once():
    examples = iter(list(zip(X, Y, strict=True)))
    return tf.data.Dataset.from_generator(
        lambda: examples, output_signature=(tf.TensorSpec(SHAPE), tf.TensorSpec([], tf.int64))
    )


def augmented():
    draw = np.random.default_rng(0)  # TensorFlow's own draws repeat where a global seed is set
    return tf.data.Dataset.from_generator(
        lambda: ((x + draw.random(), y) for x, y in zip(X, Y, strict=True)),
        output_signature=(tf.TensorSpec(SHAPE), tf.TensorSpec([], tf.int64)),
    )


def with_label(value, labels=Y):
    changed = labels.astype(type(value))
    changed[7] = value
    return changed


def with_input(value):
    changed = X.copy()
    changed[7, 0, 0, 0] = value
    return changed


# What is refused: the data, and what the message must say, in any order.
REFUSED = {
    "nothing but inputs": (
        lambda: X,
        ["shape (12, 2, 2, 1)", "without labels", "(inputs, labels)"],
    ),
    "four arrays": (lambda: (X, Y, Y, Y), ["tuple of 4", "(inputs, labels)"]),
    "load_data()": (lambda: ((X, Y), (X, Y)), ["load_data", "train=(x_train, y_train)", "test="]),
    "a dictionary": (lambda: {"image": X, "label": Y}, ["dictionary", "'image', 'label'"]),
    "a dictionary of inputs": (
        lambda: ({"a": X, "b": X}, Y),
        ["inputs", "a, b", "takes 1 input: x"],
    ),
    "a generator": (lambda: (pair for pair in [(X, Y)]), ["read once", "from_generator"]),
    "an iterator": (lambda: iter([(X, Y)]), ["read once", "from_generator"]),
    "a zip": (lambda: zip(X, Y, strict=True), ["read once", "from_generator"]),
    "a Keras Sequence": (Sequence, ["Sequence of Keras", "from_generator"]),
    "a path": (lambda: "images", ["path", "dataset='folder'", "data_dir"]),
    "an object": (lambda: types.SimpleNamespace(), ["SimpleNamespace", "(inputs, labels)"]),
    "a frame alone": (lambda: frame(y=Y), ["DataFrame alone", "drop(columns=LABEL)"]),
    "a text column": (
        lambda: (frame(city=["Bonn"] * COUNT), Y),
        ["column 'city'", "numbers are needed", "get_dummies"],
    ),
    "a gap in a frame": (
        lambda: (frame(x1=[None, *FLAT[1:, 1]]), Y),
        ["column 'x1'", "row 0", "fillna"],
    ),
    "a gap in labels": (
        lambda: (X, pandas().Series([None, *Y[1:]])),
        ["no label in row 0"],
    ),
    "a sparse matrix": (lambda: (scipy.sparse.csr_matrix(FLAT), Y), ["sparse matrix", "toarray()"]),
    "a sparse tensor": (lambda: (sparse(), Y), ["SparseTensor", "tf.sparse.to_dense"]),
    "a ragged tensor": (lambda: (ragged(), Y), ["RaggedTensor", "to_tensor()"]),
    "ragged lists": (lambda: ([[1.0], [1.0, 2.0]] * 6, Y), ["inputs do not form an array"]),
    "string inputs": (lambda: (["a"] * COUNT, Y), ["inputs are of type <U1", "numbers are needed"]),
    "string labels": (
        lambda: (X, np.array(["cat", "dog", "eel"])[Y]),
        ["labels are strings", "0 … 2", "np.unique(labels, return_inverse=True)[1]"],
    ),
    "categorical labels": (
        lambda: (X, pandas().Series(np.array(["cat", "dog", "eel"])[Y], dtype="category")),
        ["labels are strings", "0 … 2", "np.unique"],
    ),
    "labels from 1": (lambda: (X, Y + 1), ["label 3", "0 … 2", "count from 1, subtract 1"]),
    "a class too many": (lambda: (X, with_label(9)), ["label 9", "0 … 2"]),
    "a negative label": (lambda: (X, with_label(-1)), ["label -1", "0 … 2"]),
    "a fraction as label": (lambda: (X, with_label(0.5)), ["label 0.5", "0 … 2"]),
    "NaN as label": (lambda: (X, with_label(float("nan"))), ["label nan", "0 … 2"]),
    "booleans for three classes": (lambda: (X, Y == 1), ["booleans", "2 classes", "0 … 2"]),
    "one-hot of other classes": (
        lambda: (X, np.eye(5)[Y]),
        ["labels have shape (12, 5)", "(N,) or (N, 1)", "one-hot (N, 3)", "0 … 2"],
    ),
    "several labels per example": (
        lambda: (X, np.where(np.arange(COUNT)[:, None] == 4, 1, HOT)),
        ["not one-hot", "example 4", "[1, 1, 1]", "exactly one 1"],
    ),
    "probabilities as labels": (lambda: (X, HOT * 0.8 + 0.1), ["example 0", "[0.9, 0.1, 0.1]"]),
    "labels of pixels": (lambda: (X, X[..., 0]), ["labels have shape (12, 2, 2)", "(N,)"]),
    "NaN": (lambda: (with_input(np.nan), Y), ["inputs hold NaN or infinity", "example 7"]),
    "fewer labels": (lambda: (X, Y[:5]), ["12 inputs and 5 labels"]),
    "no examples": (lambda: (X[:0], Y[:0]), ["empty"]),
    "dates": (lambda: (np.array(["2020-01-01"] * COUNT, "datetime64[D]"), Y), ["datetime64"]),
    "Hugging Face, other columns": (
        lambda: hugging_face(label="fine_label"),
        ["no column for labels", "label, labels", "image, fine_label", "from_hf"],
    ),
    "Hugging Face, two columns of inputs": (
        lambda: hugging_face(features=FLAT.tolist()),
        ["image and features", "from_hf"],
    ),
    "Hugging Face, different lengths": (
        lambda: hugging_face(image="input_ids", values=[[1, 2]] * 11 + [[1]]),
        ["different shapes", "'input_ids'", 'padding="max_length"'],
    ),
    "pipeline of dictionaries": (
        lambda: slices({"image": X, "label": Y}),
        ["'image', 'label'", "dataset.map(lambda e: (e['image'], e['label']))"],
    ),
    "pipeline of dictionaries with other keys": (
        lambda: slices({"photo": X, "kind": Y}),
        ["'photo', 'kind'", "e[INPUT], e[LABEL]"],
    ),
    "pipeline of quadruples": (lambda: slices(X, Y, Y, Y), ["4-tuples", "input and its label"]),
    "pipeline without labels": (lambda: slices(X), ["inputs without labels", "Dataset.zip"]),
    "pipeline of singles in a tuple": (lambda: slices((X,)), ["inputs without labels"]),
    "pipeline of windows": (lambda: slices(X).window(2), ["datasets", "flat_map"]),
    "pipeline of two inputs": (lambda: slices((X, X), Y), ["inputs as a tuple of 2", "one dense"]),
    "pipeline of named inputs": (
        lambda: slices({"a": X}, Y),
        ["inputs", "names a", "takes 1 input: x"],
    ),
    "pipeline of two labels": (lambda: slices(X, (Y, Y)), ["labels as a tuple of 2"]),
    "pipeline, ragged": (lambda: slices(ragged(), Y), ["RaggedTensor", "to_tensor"]),
    "pipeline, sparse": (lambda: slices(sparse(), Y), ["SparseTensor", "tf.sparse.to_dense"]),
    "pipeline, string inputs": (lambda: slices(np.array(["a"] * COUNT), Y), ["inputs as strings"]),
    "pipeline, string labels": (
        lambda: slices(X, np.array(["cat", "dog", "eel"])[Y]),
        ["labels as strings", "StringLookup"],
    ),
    "pipeline, batched twice": (
        lambda: slices(X, Y).batch(2).batch(3),
        ["(None, None, 2, 2, 1)", "single or in batches", "(2, 2, 1)"],
    ),
    "pipeline, one-hot of other classes": (
        lambda: slices(X, np.eye(5)[Y]),
        ["labels of shape (5,)", "0 … 2", "3 values"],
    ),
    "pipeline, unknown shapes": (untyped, ["<unknown>", "ensure_shape", "output_signature"]),
    "pipeline, open inputs": (open_inputs, ["(None, None, 1)", "fully known shape", "resize"]),
    "pipeline, different shapes": (other_shapes, ["cannot be read from example 1"]),
    "pipeline, endless": (lambda: slices(X, Y).repeat(), ["never ends", "repeat()"]),
    "pipeline, empty": (lambda: slices(X, Y).take(0), ["empty"]),
    "pipeline, labels from 1": (lambda: slices(X, Y + 1), ["label 3", "0 … 2"]),
    "pipeline, NaN": (lambda: slices(with_input(np.nan), Y), ["NaN or infinity", "example 7"]),
    "pipeline, probabilities": (lambda: slices(X, HOT / 2), ["example 0", "[0.5, 0, 0]"]),
    "pipeline, reshuffled": (
        lambda: slices(X, Y).shuffle(COUNT),
        ["another order", "shuffle(…, reshuffle_each_iteration=False)"],
    ),
    "pipeline, reshuffled and batched": (
        lambda: slices(X, Y).shuffle(COUNT).batch(5),
        ["another order", "reshuffle_each_iteration=False"],
    ),
    "pipeline, random images": (augmented, ["other examples", "augment"]),
    "pipeline of one generator": (
        once,
        ["was empty", "from_generator", "new generator"],
    ),
}


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("limit", [100, 0], ids=["in memory", "streamed"])
@pytest.mark.parametrize(("make", "words"), REFUSED.values(), ids=REFUSED)
def test_data_is_refused_in_one_line_that_says_what_it_is(make, words, limit):
    with pytest.raises(UsageError) as error:
        dataset(make(), limit)
    message = str(error.value)
    assert message.startswith(("train ", "the train pipeline "))
    assert "\n" not in message
    assert [word for word in words if word not in message] == [], message


# What is refused except as train.
WEIGHTED = {
    "three arrays": (lambda: (X, Y, Y), ["sample weights", "(inputs, labels)"]),
    "pipeline of triples": (lambda: slices(X, Y, Y), ["sample weights", "(x, y)"]),
}


@pytest.mark.parametrize(
    ("make", "words"), [*REFUSED.values(), *WEIGHTED.values()], ids=[*REFUSED, *WEIGHTED]
)
def test_one_split_is_refused_likewise(make, words):
    with pytest.raises(UsageError) as error:
        given.part(make(), split="test", classes=CLASSES, takes=takes(SHAPE))
    message = str(error.value)
    assert message.startswith(("test ", "the test pipeline "))
    assert [word for word in words if word not in message] == [], message


def test_static_batches_are_ambiguous_without_the_models_shape():
    for data in (slices(X, Y).batch(3, drop_remainder=True), slices(X, Y).batch(1, True)):
        with pytest.raises(UsageError, match="can be a batch of [13] or one example") as error:
            dataset(data, shape=None)
        assert "drop_remainder" in str(error.value)


TWO = {"a": tf.TensorSpec((None, *SHAPE)), "b": tf.TensorSpec((None, 4))}


@pytest.mark.parametrize("streamed", [False, True])
def test_splits_have_several_inputs_in_one_form(streamed):
    """By name or in order: a mixture is refused, by the forms of both."""
    named, ordered = {"a": X, "b": FLAT}, (X, FLAT)
    for train, test, words in (
        (named, ordered, ("test inputs are a tuple of 2", "dictionary with the names 'a', 'b'")),
        (ordered, named, ("test inputs are a dictionary with the names 'a', 'b'", "tuple of 2")),
    ):
        pairs = [slices(part, Y) if streamed else (part, Y) for part in (train, test)]
        experiment = Experiment(validation_size=3)
        with pytest.raises(UsageError) as refused:
            given.dataset(*pairs, None, experiment, classes=CLASSES, takes=TWO)
        assert all(word in str(refused.value) for word in words)
        assert "\n" not in str(refused.value)
        for part in pairs:
            given.dataset(part, part, None, experiment, classes=CLASSES, takes=TWO)


@pytest.mark.parametrize(
    ("names", "wanted"), [(["a", "b", "c"], ("a", "b", "c")), (["a", "b"], ()), (None, ())]
)
def test_class_names_of_a_pipeline_are_taken_if_there_is_one_per_class(names, wanted):
    data = slices(X, Y)
    data.class_names = names
    assert given.class_names(data, CLASSES) == wanted
