"""Making one file: which encodings are tried, which one stays, and what its zeros are held against."""

import pytest

from lotcal_tf.config.registry import FORMATS
from lotcal_tf.deploy.candidates import Maker
from lotcal_tf.files import size_of
from lotcal_tf.formats import tflite
from lotcal_tf.formats.format import LOGITS, Material
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
def maker(model, tmp_path):
    scratch, target = tmp_path / "scratch", tmp_path / "target"
    scratch.mkdir()
    target.mkdir()
    return Maker(model, compact(model), LOGITS, Material(), scratch), target


def test_every_encoding_a_format_can_have_is_tried_and_the_smallest_stays(maker):
    make, target = maker
    made = make.make(FORMATS["float32"], None, target, refitted=False)
    assert set(made.sizes) == {"dense", "sparse", "compact", "compact_sparse"}
    assert made.sizes[made.encoding] == min(made.sizes.values()) == size_of(made.path)
    assert made.path == target / "ticket_float32.tflite"
    made = make.make(FORMATS["keras"], None, target, refitted=False)
    assert set(made.sizes) == {"dense", "compact"}
    assert made.encoding == "compact"
    assert {tensor.layer: tensor.shape for tensor in made.tensors} == {
        "hidden": (8, 5), "logits": (5, 3)
    }  # fmt: skip


@pytest.mark.parametrize("encoding", [None, "compact_sparse"])
def test_a_network_is_written_once_for_both_of_its_encodings(maker, monkeypatch, encoding):
    make, target = maker
    written, write = [], tflite.write_float32

    def counted(model, path, material):
        written.append(model)
        write(model, path, material)

    monkeypatch.setattr(tflite, "write_float32", counted)
    make.make(FORMATS["float32"], encoding, target, refitted=False)
    assert len(written) == (1 if encoding else 2)


def test_a_network_that_was_written_dense_is_held_against_that_file(maker, model):
    make, target = maker
    fresh = make.reference(model, "masked").read_bytes()
    make.make(FORMATS["float32"], None, target, refitted=False)
    again = make.reference(model, "masked")
    assert again.name == "ticket_float32.tflite"
    assert again.read_bytes() == fresh
    assert make.reference(compact(model).model, "dense").name == "dense.tflite"


def test_without_a_dead_unit_there_is_no_compact_encoding(ticket, tmp_path):
    model = ticket.model()
    for layer in ("hidden", "logits"):
        weights = model.get_layer(layer).get_weights()
        model.get_layer(layer).set_weights([weights[0] + 1, weights[1]])
    (tmp_path / "scratch").mkdir()
    make = Maker(model, compact(model), LOGITS, Material(), tmp_path / "scratch")
    made = make.make(FORMATS["keras"], None, tmp_path, refitted=False)
    assert set(made.sizes) == {"dense"}


def test_a_directory_weighs_what_all_its_files_weigh(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a").write_bytes(b"123")
    (tmp_path / "b").write_bytes(b"45")
    assert size_of(tmp_path) == 5
    assert size_of(tmp_path / "b") == 2
