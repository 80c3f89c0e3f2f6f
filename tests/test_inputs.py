"""The inputs of models: how names, order and types of data become those of the model."""

import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf import inputs
from lotcal_tf.compat import keras
from lotcal_tf.errors import UsageError

TEXT, META = np.arange(12).reshape(2, 6), np.ones((2, 5))
SPECS = {
    "text": tf.TensorSpec([None, 6], tf.int32, "text"),
    "meta": tf.TensorSpec([None, 5], tf.float32, "meta"),
}


def model(as_dict=False, **kinds):
    text = keras.Input((6,), dtype=kinds.get("text", "int32"), name="text")
    meta = keras.Input((5,), dtype=kinds.get("meta", "float32"), name="meta")
    found = keras.layers.Concatenate()([tf.cast(text, tf.float32), tf.cast(meta, tf.float32)])
    given = {"text": text, "meta": meta} if as_dict else [text, meta]
    return keras.Model(given, keras.layers.Dense(3)(found))


def test_specs_are_in_the_order_in_which_keras_takes_a_list():
    assert inputs.specs_of(model()) == SPECS and list(inputs.specs_of(model())) == ["text", "meta"]
    # Keras sorts the keys of a dictionary.
    assert list(inputs.specs_of(model(as_dict=True))) == ["meta", "text"]


def test_floating_types_are_float32_as_data_is_kept():
    found = inputs.specs_of(model(meta="float16", text="uint8"))
    assert {name: spec.dtype.name for name, spec in found.items()} == {
        "text": "uint8",
        "meta": "float32",
    }


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: keras.Input((3,), dtype="string", name="words"), "'words' .* string"),
        (lambda: keras.Input((None,), ragged=True, name="words"), "'words' .* RaggedTensor"),
        (lambda: keras.Input((3,), sparse=True, name="words"), "'words' .* SparseTensor"),
    ],
)
def test_strings_and_tensors_that_are_not_dense_are_refused(build, words):
    given = build()
    with pytest.raises(UsageError, match=words):
        inputs.specs_of(keras.Model(given, keras.layers.Lambda(lambda x: x)(given)))


def test_a_dictionary_is_in_the_models_order_and_a_list_becomes_a_tuple():
    found = inputs.arranged({"meta": META, "text": TEXT}, SPECS, "x")
    assert list(found) == ["text", "meta"] and found["text"] is TEXT
    assert inputs.arranged([TEXT, META], SPECS, "x") == (TEXT, META)


def test_the_dictionary_of_a_single_input_is_unwrapped_and_a_list_of_examples_is_not():
    specs = {"text": SPECS["text"]}
    assert inputs.arranged({"text": TEXT}, specs, "x") is TEXT
    examples = [[1, 2], [3, 4]]
    assert inputs.arranged(examples, specs, "x") is examples


@pytest.mark.parametrize(
    ("given", "ordered", "words"),
    [
        ({"text": TEXT}, True, "train inputs have the names text, .* 2 inputs: text, meta"),
        ({"text": TEXT, "mata": META}, True, "text, mata"),
        ((TEXT,), True, "1 elements, .* tuple in this order"),
        (TEXT, True, "no names, .* dictionary"),
        ((TEXT, META), False, "2 elements, .* a dictionary with these names$"),
    ],
)
def test_other_inputs_than_the_models_are_refused(given, ordered, words):
    with pytest.raises(UsageError, match=words):
        inputs.arranged(given, SPECS, "train inputs", ordered=ordered)


@pytest.mark.parametrize("given", [(TEXT, META), {"meta": META, "text": TEXT}])
def test_arrays_by_name_have_the_types_of_the_model(given):
    found = inputs.by_name(given, SPECS)
    assert [(name, x.dtype.name) for name, x in found.items()] == [
        ("text", "int32"),
        ("meta", "float32"),
    ]
    assert np.array_equal(found["text"], TEXT) and np.array_equal(found["meta"], META)


@pytest.mark.parametrize(
    ("shape", "wrong"),
    [
        ({"meta": (5,), "text": (6,)}, False),
        ({"0": (6,), "1": (5,)}, False),  # a tuple
        ({"0": (5,), "1": (6,)}, True),
        ({"meta": (5,), "text": (7,)}, True),
        ((6,), True),
    ],
)
def test_shapes_are_compared_by_name_or_in_order(shape, wrong):
    assert inputs.misfit(SPECS, shape) == wrong


def test_a_dimension_of_any_size_takes_every_size():
    specs = {"image": tf.TensorSpec([None, None, None, 3])}
    assert not inputs.misfit(specs, (8, 9, 3)) and inputs.misfit(specs, (8, 9, 1))


def test_the_bytes_of_an_example_are_those_of_all_its_inputs():
    found = list(
        inputs.examples_bytes({"b": np.array([[1], [2]], "u1"), "a": np.array([3, 4], "u1")})
    )
    assert found == [b"\x03\x01", b"\x04\x02"]  # a before b
