"""An export counts only when its files, read back, compute what the ticket computes."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from lotcal_tf.compat import keras
from lotcal_tf.deploy import export as export_module
from lotcal_tf.deploy import saved_model, tflite
from lotcal_tf.deploy.export import export, exported
from lotcal_tf.errors import ExportMismatch, UsageError


@pytest.fixture(scope="module")
def done(ticket, inputs, tmp_path_factory):
    return export(ticket, tmp_path_factory.mktemp("done") / "deep" / "export", inputs)


@pytest.fixture
def copy(done, tmp_path):
    """An export that a test may spoil."""
    return shutil.copytree(done.directory, tmp_path / "copy" / "export")


def tree(directory):
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None
        for path in directory.rglob("*")
    }


def test_both_files_compute_what_the_ticket_computes(done, inputs, logits):
    for read, path in ((saved_model.logits, done.saved_model), (tflite.logits, done.tflite)):
        np.testing.assert_allclose(read(path, inputs), logits, rtol=1e-5, atol=1e-5)


def test_what_was_compared_is_told(done, ticket, inputs):
    assert sorted(path.name for path in done.directory.iterdir()) == [
        "parity.json", "saved_model", "ticket.tflite"
    ]  # fmt: skip
    assert [path.name for path in done.directory.parent.iterdir()] == ["export"]
    truth = ticket.model().predict(inputs, verbose=0)
    found = {
        "saved_model": saved_model.logits(done.saved_model, inputs),
        "ticket.tflite": tflite.logits(done.tflite, inputs),
    }
    assert done.difference == {n: float(np.abs(v - truth).max()) for n, v in found.items()}
    assert done.examples == 23
    assert json.loads((done.directory / "parity.json").read_text()) == {
        "ticket": ticket.digest,
        "level": 2,
        "temperature": 1.0,
        "examples": 23,
        "largest_difference": done.difference,
    }


def shifted(model, amount):
    """A copy whose first logit is off by `amount` for every example."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    bias = copy.get_layer("logits").bias
    bias.assign(bias.numpy() + np.array([amount, 0, 0], "float32"))
    return copy


def saved_model_wrong(patch, amount, scratch):
    write = saved_model.write
    patch.setattr(saved_model, "write", lambda model, path: write(shifted(model, amount), path))


def tflite_wrong(patch, amount, scratch):
    """The SavedModel is right, the TFLite file is made from another that is not."""
    write, convert, models = saved_model.write, tflite.write, []

    def written(model, path):
        models.append(model)
        write(model, path)

    def converted(path, target):
        write(shifted(models[0], amount), scratch / "other")
        convert(scratch / "other", target)

    patch.setattr(saved_model, "write", written)
    patch.setattr(tflite, "write", converted)


@pytest.mark.parametrize(
    ("wrong", "named"), [(saved_model_wrong, "saved_model"), (tflite_wrong, "ticket.tflite")]
)
@pytest.mark.parametrize("amount", [0.01, np.nan])
def test_a_wrong_file_is_not_exported_and_an_older_export_stays(
    copy, ticket, make_ticket, inputs, tmp_path, monkeypatch, wrong, named, amount
):
    before = tree(copy.parent)
    wrong(monkeypatch, amount, tmp_path)
    with pytest.raises(ExportMismatch, match=f"{named} differs from the ticket by"):
        export(make_ticket(2), copy, inputs)
    assert tree(copy.parent) == before
    assert exported(ticket, copy) is not None


def test_a_wrong_file_leaves_nothing_where_nothing_was(ticket, inputs, tmp_path, monkeypatch):
    saved_model_wrong(monkeypatch, np.inf, tmp_path)
    with pytest.raises(ExportMismatch):
        export(ticket, tmp_path / "export", inputs)
    assert not list(tmp_path.iterdir())


def test_rounding_is_no_mismatch(make_ticket, inputs, tmp_path, monkeypatch):
    # The limit is 1e-4 of the largest logit, at least of 1.
    ticket = make_ticket(3)
    largest = float(np.abs(ticket.model().predict(inputs, verbose=0)).max())
    assert largest > 1
    for share, fits in ((0.9, True), (1.1, False)):
        with monkeypatch.context() as patch:
            saved_model_wrong(patch, share * 1e-4 * largest, tmp_path)
            if fits:
                assert export(ticket, tmp_path / "export", inputs).difference["saved_model"] > 0
            else:
                with pytest.raises(ExportMismatch):
                    export(ticket, tmp_path / "export", inputs)


def test_a_new_export_replaces_the_old_one(copy, ticket, make_ticket, inputs):
    (copy / "left.over").write_text("of the old one")
    second = make_ticket(2)
    done = export(second, copy, inputs)
    assert exported(ticket, copy) is None
    assert exported(second, copy) == done
    assert not (copy / "left.over").exists()
    assert [path.name for path in copy.parent.iterdir()] == ["export"]


@pytest.mark.parametrize("lost", ["ticket.tflite", "saved_model", "parity.json"])
def test_an_export_that_lost_a_file_does_not_count(copy, ticket, done, lost):
    found = exported(ticket, copy)
    assert (found.examples, found.difference) == (done.examples, done.difference)
    assert found.saved_model.is_dir() and found.tflite.is_file()
    (copy / lost).rename(copy / "elsewhere")
    assert exported(ticket, copy) is None


@pytest.mark.parametrize("parity", [None, "not json", '{"ticket": "another one"}'])
def test_nothing_else_is_taken_for_an_export(ticket, tmp_path, parity):
    if parity is not None:
        (tmp_path / "parity.json").write_text(parity)
    assert exported(ticket, tmp_path) is None
    assert exported(ticket, tmp_path / "missing") is None


def test_what_is_no_export_is_never_replaced(ticket, inputs, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("years of work")
    (tmp_path / "file").write_text("x")
    before = tree(tmp_path)
    for target in ("thesis", "file"):
        with pytest.raises(UsageError, match=f"{target} holds something else than an export"):
            export(ticket, tmp_path / target, inputs)
    assert tree(tmp_path) == before
    (tmp_path / "empty").mkdir()
    assert export(ticket, tmp_path / "empty", inputs[:1]).examples == 1


def test_nothing_to_compare_on_is_refused(ticket, inputs, tmp_path):
    with pytest.raises(UsageError, match="give at least one"):
        export(ticket, tmp_path / "export", inputs[:0])
    assert not list(tmp_path.iterdir())


# Scaled by the temperature


def test_scaled_files_give_logits_divided_by_the_temperature(ticket, inputs, logits, tmp_path):
    temperature = ticket.record["temperature"]
    done = export(ticket, tmp_path / "export", inputs, scaled=True)
    for read, path in ((saved_model.logits, done.saved_model), (tflite.logits, done.tflite)):
        np.testing.assert_allclose(read(path, inputs), logits / temperature, rtol=1e-5, atol=1e-5)
    parity = json.loads((done.directory / "parity.json").read_text())
    assert parity["temperature"] == temperature != 1
    # The ticket itself is as it was.
    np.testing.assert_allclose(ticket.model()(inputs), logits, rtol=1e-5, atol=1e-5)


def test_raw_and_scaled_exports_are_told_apart(copy, ticket, inputs):
    assert exported(ticket, copy) is not None
    assert exported(ticket, copy, scaled=True) is None
    done = export(ticket, copy, inputs, scaled=True)
    assert exported(ticket, copy, scaled=True) == done
    assert exported(ticket, copy) is None


def test_a_folding_that_is_wrong_is_not_exported(ticket, inputs, tmp_path, monkeypatch):
    """The files are held against the ticket's own logits, not against the folded model's."""
    monkeypatch.setattr(export_module, "fold_temperature", lambda model, temperature: None)
    with pytest.raises(ExportMismatch):
        export(ticket, tmp_path / "export", inputs, scaled=True)
    assert not list(tmp_path.iterdir())


def test_a_ticket_without_a_temperature_cannot_be_scaled(ticket, inputs, tmp_path):
    old = dataclasses.replace(ticket, record={"level": 2})
    with pytest.raises(UsageError, match="records no temperature"):
        export(old, tmp_path / "export", inputs, scaled=True)
    assert list(tmp_path.iterdir()) == []
    done = export(old, tmp_path / "export", inputs[:2])
    assert exported(old, tmp_path / "export") == done
    with pytest.raises(UsageError, match="records no temperature"):
        exported(old, tmp_path / "export", scaled=True)
