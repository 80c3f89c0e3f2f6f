"""Candidates: which encodings are tried, and which file is kept."""

import pytest

from lotcal_tf.deploy.candidates import Candidates
from lotcal_tf.files import size_of
from lotcal_tf.formats.format import Material
from lotcal_tf.formats.outputs import LOGITS
from lotcal_tf.formats.tflite import Float32
from lotcal_tf.pruning.compaction import compact


@pytest.fixture
def model(ticket):
    model = ticket.model()
    # One unit of six has nothing left: compaction finds it.
    kernel = model.get_layer("hidden").kernel
    values = kernel.numpy()
    values[:, 2] = 0
    kernel.assign(values)
    return model


@pytest.fixture
def candidates(model, tmp_path):
    scratch, target = tmp_path / "scratch", tmp_path / "target"
    scratch.mkdir()
    target.mkdir()
    return Candidates(model, compact(model), LOGITS, Material(), scratch), target


def test_every_encoding_a_format_can_have_is_tried_and_the_smallest_stays(candidates):
    writer, target = candidates
    file = writer.write("float32", None, target, refitted=False)
    assert set(file.sizes) == {"dense", "sparse", "compact", "compact_sparse"}
    assert file.sizes[file.encoding] == min(file.sizes.values()) == size_of(file.path)
    assert file.path == target / "ticket_float32.tflite"
    file = writer.write("keras", None, target, refitted=False)
    assert set(file.sizes) == {"dense", "compact"}
    assert file.encoding == "compact"
    assert {tensor.layer: tensor.shape for tensor in file.tensors} == {
        "hidden": (8, 5), "logits": (5, 3)
    }  # fmt: skip


@pytest.mark.parametrize("encoding", [None, "compact_sparse"])
def test_a_network_is_written_once_for_both_of_its_encodings(candidates, monkeypatch, encoding):
    writer, target = candidates
    written, write = [], Float32.write

    def counted(self, model, path, material):
        written.append(model)
        write(self, model, path, material)

    monkeypatch.setattr(Float32, "write", counted)
    writer.write("float32", encoding, target, refitted=False)
    assert len(written) == (1 if encoding else 2)


def test_the_reference_is_the_dense_candidate_if_there_is_one(candidates, model):
    writer, target = candidates
    fresh = writer.reference(model, "masked").read_bytes()
    writer.write("float32", None, target, refitted=False)
    again = writer.reference(model, "masked")
    assert again.name == "ticket_float32.tflite"
    assert again.read_bytes() == fresh
    assert writer.reference(compact(model).model, "dense").name == "dense.tflite"


def test_without_a_dead_unit_there_is_no_compact_encoding(ticket, tmp_path):
    model = ticket.model()
    for layer in ("hidden", "logits"):
        weights = model.get_layer(layer).get_weights()
        model.get_layer(layer).set_weights([weights[0] + 1, weights[1]])
    (tmp_path / "scratch").mkdir()
    writer = Candidates(model, compact(model), LOGITS, Material(), tmp_path / "scratch")
    file = writer.write("keras", None, tmp_path, refitted=False)
    assert set(file.sizes) == {"dense"}


def test_a_directory_weighs_what_all_its_files_weigh(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a").write_bytes(b"123")
    (tmp_path / "b").write_bytes(b"45")
    assert size_of(tmp_path) == 5
    assert size_of(tmp_path / "b") == 2
