"""Candidates: which encodings are tried, and which file is kept."""

import numpy as np
import pytest

from lotcal_tf.compat import keras
from lotcal_tf.deploy.candidates import Candidates
from lotcal_tf.errors import UsageError
from lotcal_tf.files import size_of
from lotcal_tf.formats.format import Material
from lotcal_tf.formats.outputs import LOGITS, PROBABILITIES
from lotcal_tf.formats.tflite import Float32, TFLiteRunner
from lotcal_tf.formats.tflite_file import operators
from lotcal_tf.pruning.compaction import compact

EXAMPLE = np.ones((1, 4, 2), np.float32)


@pytest.fixture
def model():
    """A third of the weights is left, scattered; one unit has nothing left: compaction finds it."""
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((4, 2), name="input"),
            layers.Flatten(name="flatten"),
            layers.Dense(120, activation="relu", name="hidden"),
            layers.Dense(3, name="logits"),
        ]
    )
    kernel = model.get_layer("hidden").kernel
    keep = np.random.default_rng(0).random(kernel.shape) < 0.3
    keep[0], keep[:, 2] = True, False
    kernel.assign(kernel.numpy() * keep)
    return model


@pytest.fixture
def candidates(model, tmp_path):
    scratch, target = tmp_path / "scratch", tmp_path / "target"
    scratch.mkdir()
    target.mkdir()
    material = Material(examples=EXAMPLE)
    return Candidates(model, compact(model), LOGITS, material, scratch, EXAMPLE), target


def test_the_smallest_encoding_stays_for_size(candidates):
    writer, target = candidates
    file = writer.write("float32", None, target, prefer="size", refitted=False)
    assert set(file.sizes) == {"dense", "sparse", "compact", "compact_sparse"}
    assert file.sizes[file.encoding] == min(file.sizes.values()) == size_of(file.path)
    assert file.path == target / "ticket_float32.tflite"
    assert (file.alternative.prefer, file.alternative.encoding) == ("speed", "compact")
    file = writer.write("keras", None, target, prefer="speed", refitted=False)
    assert set(file.sizes) == {"dense", "compact"}
    assert file.encoding == "compact"
    assert {tensor.layer: tensor.shape for tensor in file.tensors} == {
        "hidden": (8, 119), "logits": (119, 3)
    }  # fmt: skip


def test_dead_units_are_left_out_for_speed_and_other_zeros_are_not(candidates):
    writer, target = candidates
    file = writer.write("float32", None, target, prefer="speed", refitted=False)
    assert file.encoding == "compact"
    smallest = min(file.sizes, key=file.sizes.get)
    assert smallest != "compact"
    assert (file.alternative.prefer, file.alternative.encoding) == ("size", smallest)
    assert file.alternative.path.stat().st_size == file.sizes[smallest]
    assert not any(tensor.sparse for tensor in file.tensors)


@pytest.mark.parametrize("name", ["float32", "float16"])
def test_blocks_that_a_sparse_kernel_skips_are_left_out_for_speed(name, tmp_path):
    """32 inputs of each of 64 units, of which every unit reads one block of four."""
    layers = keras.layers
    model = keras.Sequential([keras.Input((32,)), layers.Dense(64, name="hidden"), layers.Dense(3)])
    kernel = np.zeros((32, 64), np.float32)
    for unit in range(64):
        kernel[4 * (unit % 8) : 4 * (unit % 8) + 4, unit] = 1 + unit
    model.get_layer("hidden").set_weights([kernel, np.zeros(64)])
    (tmp_path / "scratch").mkdir()
    example, scratch = np.ones((1, 32), np.float32), tmp_path / "scratch"
    material = Material(examples=example)
    writer = Candidates(model, compact(model), LOGITS, material, scratch, example)
    file = writer.write(name, None, tmp_path, prefer="speed", refitted=False)
    # Of float16, LiteRT has no sparse kernel.
    assert file.encoding == {"float32": "blocks", "float16": "dense"}[name]
    graph = operators.read(file.path)
    assert "DENSIFY" not in graph.operators
    assert [use.block for use in graph.kernels.values() if use.sparse] == (
        [(1, 4)] if name == "float32" else []
    )


def test_an_encoding_that_cannot_be_run_is_no_candidate(candidates, monkeypatch):
    writer, target = candidates
    monkeypatch.setattr(Float32, "encode", lambda self, model, dense, material: dense[:100])
    file = writer.write("float32", None, target, prefer="size", refitted=False)
    assert set(file.sizes) == {"dense", "compact"}
    for encoding in ("sparse", "blocks"):
        with pytest.raises(UsageError, match=f"encoding={encoding}: float32 has no such file"):
            writer.write("float32", encoding, target, prefer="speed", refitted=False)


@pytest.mark.parametrize("encoding", [None, "compact_sparse"])
def test_a_network_is_written_once_for_both_of_its_encodings(candidates, monkeypatch, encoding):
    writer, target = candidates
    written, write = [], Float32.write

    def counted(self, model, path, material):
        written.append(model)
        write(self, model, path, material)

    monkeypatch.setattr(Float32, "write", counted)
    writer.write("float32", encoding, target, prefer="speed", refitted=False)
    assert len(written) == (1 if encoding else 2)


def test_the_reference_is_the_dense_candidate_if_there_is_one(candidates, model):
    writer, target = candidates
    fresh = writer.reference(model, "masked").read_bytes()
    writer.write("float32", None, target, prefer="speed", refitted=False)
    again = writer.reference(model, "masked")
    assert again.name == "ticket_float32.tflite"
    assert again.read_bytes() == fresh
    assert writer.reference(compact(model).model, "dense").name == "dense.tflite"


def test_references_give_what_the_files_give(model, tmp_path):
    example, network = Material(examples=EXAMPLE), compact(model)
    writer = Candidates(model, network, PROBABILITIES, example, tmp_path, EXAMPLE)
    logits = model(EXAMPLE).numpy()
    fresh = writer.reference(model, "masked")
    expected = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(TFLiteRunner(fresh)(EXAMPLE), expected, rtol=1e-5)
    (tmp_path / "target").mkdir()
    file = writer.write("float32", "dense", tmp_path / "target", prefer="speed", refitted=False)
    assert file.path.stat().st_size == fresh.stat().st_size


def test_without_a_dead_unit_there_is_no_compact_encoding(ticket, tmp_path):
    model = ticket.model()
    for layer in ("hidden", "logits"):
        weights = model.get_layer(layer).get_weights()
        model.get_layer(layer).set_weights([weights[0] + 1, weights[1]])
    (tmp_path / "scratch").mkdir()
    writer = Candidates(model, compact(model), LOGITS, Material(), tmp_path / "scratch", EXAMPLE)
    file = writer.write("keras", None, tmp_path, prefer="speed", refitted=False)
    assert set(file.sizes) == {"dense"}


def test_a_directory_weighs_what_all_its_files_weigh(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a").write_bytes(b"123")
    (tmp_path / "b").write_bytes(b"45")
    assert size_of(tmp_path) == 5
    assert size_of(tmp_path / "b") == 2
