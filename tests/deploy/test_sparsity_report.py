"""The sparsity report of files that the converter makes here."""

import dataclasses
import gzip
import json
import logging

import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf.compat import keras
from lotcal_tf.deploy.latency import Latency
from lotcal_tf.deploy.report_tables import report_text
from lotcal_tf.deploy.sparsity_report import DENSE, MASKED, sparsity_report
from lotcal_tf.formats.format import StoredTensor
from lotcal_tf.formats.tflite_file import operators
from lotcal_tf.formats.tflite_file.stored import stored_tensors
from lotcal_tf.pruning.compaction import compact

layers = keras.layers


def tensor(name, model, layer, named=True):
    """The kernel of a layer as a file holds it; its name may not show the layer."""
    value = model.get_layer(layer).get_weights()[0]
    return dataclasses.replace(StoredTensor.of(name, value), layer=layer if named else "")


@pytest.fixture(scope="module")
def masked():
    """4 inputs, 6 hidden units, 3 classes; hidden units 4 and 5 are dead, one weight more is zero."""
    given = keras.Input((4,))
    hidden = layers.Dense(6, activation="relu", name="hidden")(given)
    model = keras.Model(given, layers.Dense(3, name="logits")(hidden))
    first = np.arange(1.0, 25.0).reshape(4, 6)
    first[:, 4:] = 0
    first[0, 0] = 0
    second = np.arange(1.0, 19.0).reshape(6, 3)
    second[4:] = 0
    model.set_weights([first, np.zeros(6), second, np.zeros(3)])
    return model


def written(model, path):
    logging.getLogger("absl").setLevel(logging.ERROR)
    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    return path


@pytest.fixture(scope="module")
def files(masked, tmp_path_factory):
    place = tmp_path_factory.mktemp("report")
    saved = place / "saved_model"
    (saved / "variables").mkdir(parents=True)
    (saved / "saved_model.pb").write_bytes(b"a" * 1000)
    (saved / "variables" / "data").write_bytes(b"b" * 500)
    return {
        DENSE: written(masked, place / "dense.tflite"),
        MASKED: written(masked, place / "masked.tflite"),
        "ticket.tflite": written(masked, place / "ticket.tflite"),
        "small.tflite": written(compact(masked).model, place / "small.tflite"),
        "saved_model": saved,
    }


def stored(path, model):
    """The kernels of a file; hidden has more outputs than inputs, logits none of its layer's name."""
    kernels = operators.read(path).kernels
    return [
        tensor(name, model, layer, named)
        for name, use in kernels.items()
        for layer, named in [("logits", False) if use.shape[0] == 3 else ("hidden", True)]
    ]


LATENCY = {
    DENSE: {1: Latency(20.0, 30.0, 100), 2: Latency(15.0, 22.0, 90)},
    "small.tflite": {1: Latency(5.04, 7.5, 400), 2: Latency(6.0, 9.0, 300)},
}


@pytest.fixture(scope="module")
def found(masked, files):
    tensors = {
        "ticket.tflite": stored(files["ticket.tflite"], masked),
        "small.tflite": stored(files["small.tflite"], compact(masked).model),
        "saved_model": [tensor("a", masked, "hidden"), tensor("b", masked, "logits")],
    }
    return sparsity_report(
        masked,
        compact(masked),
        tensors,
        paths=files,
        encodings={"small.tflite": "compact"},
        latency=LATENCY,
    )


def test_a_row_a_layer_and_file(found):
    rows = {(row.file, row.layer): row for row in found.layers}
    assert len(rows) == 6 == len(found.layers)
    for row in found.layers:
        shapes = {"hidden": ((4, 6), (4, 4)), "logits": ((6, 3), (4, 3))}[row.layer]
        assert (row.dense_shape, row.compact_shape) == shapes
    whole = rows["ticket.tflite", "hidden"]
    assert (whole.weights, whole.zeros, whole.stored) == (24, 9, "dense")
    assert whole.executed == "dense kernel" and "multiplies zeros" in whole.why
    # 24 weights became 16, of 18 there are 12: a third left out of each.
    small = rows["small.tflite", "hidden"]
    assert (small.weights, small.zeros, small.stored) == (16, 1, "dense, 33.3 % left out")
    assert small.executed == "dense kernel" and "multiplies zeros" in small.why
    last = rows["small.tflite", "logits"]
    assert (last.weights, last.zeros, last.why) == (12, 0, "it has no zeros")
    keras_like = rows["saved_model", "logits"]
    assert (keras_like.zeros, keras_like.executed) == (6, "dense kernel (TensorFlow)")


def test_a_row_a_file_with_its_bytes_and_latency(found, files):
    rows = {row.file: row for row in found.files}
    assert list(rows) == list(files)
    small = rows["small.tflite"]
    content = files["small.tflite"].read_bytes()
    assert (small.encoding, small.bytes) == ("compact", len(content))
    assert small.gzipped == len(gzip.compress(content, 6, mtime=0))
    assert small.latency == LATENCY["small.tflite"] and rows[MASKED].latency == {}
    # A directory is all that is in it.
    assert rows["saved_model"].bytes == 1500
    assert {name: row.runtime for name, row in rows.items()} == {
        **dict.fromkeys(files, "LiteRT"), "saved_model": "TensorFlow",
    }  # fmt: skip
    assert rows["saved_model"].gzipped < 100


def test_a_kernel_that_the_file_does_not_show_is_unknown(masked, files):
    # Of no layer's name, and without the zeros of the kernel of its size.
    tensors = [StoredTensor.of("x", np.ones((4, 6))), StoredTensor.of("y", np.ones((5, 5)))]
    given = {"paths": {"t": files["ticket.tflite"]}, "encodings": {}, "latency": {}}
    rows = sparsity_report(masked, compact(masked), {"t": tensors}, **given).layers
    assert [row.executed for row in rows] == ["unknown", "unknown"]
    # The zeros are those of the network.
    assert [(row.zeros, row.weights) for row in rows] == [(9, 24), (6, 18)]


def test_a_name_that_no_operator_reads_is_reported(masked, files):
    tensors = [tensor("stranger", masked, "hidden")]
    given = {"paths": {"t": files["ticket.tflite"]}, "encodings": {}, "latency": {}}
    row = sparsity_report(masked, compact(masked), {"t": tensors}, **given).layers[0]
    assert row.executed == "not found"


def test_the_tensors_of_real_files_find_their_operators(masked, files):
    names = ("ticket.tflite", "small.tflite")
    found = sparsity_report(
        masked,
        compact(masked),
        {name: stored_tensors(files[name]) for name in names},
        paths={name: files[name] for name in names},
        encodings={"small.tflite": "compact"},
        latency={},
    )
    rows = {(row.file, row.layer): row for row in found.layers}
    assert {row.executed for row in found.layers} == {"dense kernel"}
    for file, layer, zeros in (
        ("ticket.tflite", "hidden", 9),
        ("ticket.tflite", "logits", 6),
        ("small.tflite", "hidden", 1),
        ("small.tflite", "logits", 0),
    ):
        assert rows[file, layer].zeros == zeros


def test_it_is_json_and_a_table(found):
    whole = found.as_dict()
    assert json.loads(json.dumps(whole)) == whole
    assert whole["files"][0]["latency"]["2"] == {"median_us": 15.0, "p99_us": 22.0, "runs": 90}
    assert whole["layers"][0]["dense_shape"] == [4, 6]
    text = report_text(whole)
    for piece in (
        "4×6",
        "4×4",
        "37.5 %",
        "33.3 % left out",
        "5.0 (7.5)",
        "20.0 (30.0)",
        "3.97 ×",
        "2.50 ×",
    ):
        assert piece in text, piece
    assert text.count("why not faster") == 3
    assert "µs, 1 thread (p99)" in text and "µs, 2 threads (p99)" in text
    lines = text.split("\n\n")[-1].splitlines()
    assert [line.split("  ")[0] for line in lines[2:]] == [row.file for row in found.files]
    assert "processors" in found.machine and found.machine in lines[0]
