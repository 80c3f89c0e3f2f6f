"""An export replaces its directory only if its files, run as written, agree with the ticket."""

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lotcal_tf import metrics
from lotcal_tf.compat import keras
from lotcal_tf.config.arguments import ExportArguments
from lotcal_tf.config.fields import checked, fields_of
from lotcal_tf.config.sealed import seal, unseal
from lotcal_tf.config.signature import is_signed
from lotcal_tf.deploy import steps
from lotcal_tf.deploy.examples import Examples
from lotcal_tf.deploy.export import export, exported
from lotcal_tf.deploy.parity import COMPARED, Tolerance
from lotcal_tf.errors import ExportMismatch, NewerFormat, UsageError
from lotcal_tf.evaluation.open_model import open_model
from lotcal_tf.files import temporary
from lotcal_tf.formats.saved_model import SavedModel, SavedModelRunner
from lotcal_tf.formats.tflite import Float32, Int8, TFLiteRunner

FILES = {"saved_model": "saved_model", "float32": "ticket_float32.tflite"}
FORMATS = tuple(FILES)
CARD = {"model_card.json", "README.md", "reliability.png"}


@pytest.fixture(scope="module")
def examples(inputs, logits):
    labels = logits.argmax(1)
    labels[:5] = (labels[:5] + 1) % 3  # Some are wrong.
    given = Examples.given((inputs, labels), (inputs[::-1], labels[::-1]), classes=3)
    return dataclasses.replace(given, data="tiny", of_run=True)


def exporting(ticket, directory, examples, **given):
    asked = {"formats": FORMATS, "seconds": 0, **given}
    options = {name: asked.pop(name) for name in [*asked] if name in fields_of(ExportArguments)}
    return export(ticket, directory, lambda: examples, checked(ExportArguments, options), **asked)


@pytest.fixture(scope="module")
def done(ticket, examples, tmp_path_factory):
    return exporting(ticket, tmp_path_factory.mktemp("done") / "deep" / "export", examples)


@pytest.fixture(scope="module")
def raw(ticket, examples, tmp_path_factory):
    return exporting(ticket, tmp_path_factory.mktemp("raw") / "export", examples, scaled=False)


@pytest.fixture
def copy(done, tmp_path):
    """An export that a test may spoil."""
    return shutil.copytree(done.directory, tmp_path / "copy" / "export")


def there(ticket, directory, **other):
    options = checked(ExportArguments, {"formats": FORMATS, "scaled": True, **other})
    return exported(ticket, directory, options)


def test_every_file_gives_the_tickets_logits_divided_by_its_temperature(
    done, ticket, inputs, logits
):
    wanted = logits / ticket.record["temperature"]
    for read, name in ((SavedModelRunner, "saved_model"), (TFLiteRunner, "float32")):
        np.testing.assert_allclose(read(done.files[name])(inputs), wanted, rtol=1e-5, atol=1e-5)
    # The ticket itself is as it was.
    np.testing.assert_allclose(ticket.model()(inputs), logits, rtol=1e-5, atol=1e-5)


def test_raw_files_give_the_tickets_logits(raw, inputs, logits):
    for read, name in ((SavedModelRunner, "saved_model"), (TFLiteRunner, "float32")):
        np.testing.assert_allclose(read(raw.files[name])(inputs), logits, rtol=1e-5, atol=1e-5)


def test_the_comparison_is_recorded(done, ticket, examples, logits):
    names = {"saved_model", "ticket_float32.tflite", "parity.json", "sparsity_report.json", *CARD}
    assert {path.name for path in done.directory.iterdir()} == names
    assert [path.name for path in done.directory.parent.iterdir()] == ["export"]
    parity = unseal(done.directory / "parity.json")
    assert parity == done.parity
    sums = {
        path.relative_to(done.directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in done.directory.rglob("*")
        if path.is_file() and path.name != "parity.json"
    }
    assert parity.pop("sha256") == sums
    assert is_signed(sums, parity.pop("signature"))
    files = parity.pop("files")
    assert parity == {
        "ticket": ticket.digest,
        "level": 2,
        "output": "logits",
        "requested_encoding": None,
        "prefer": "speed",
        "temperature": 2.5,
        "data": "tiny",
        "of_run": True,
        "split": "test",
        "examples": 23,
        "ece_bins": 15,
        "tolerance": {"exact": 1e-4, "accuracy": 0.01, "ece": 0.005, "logits": 0.3},
        "interval_level": 0.99,
    }
    truth = logits / 2.5
    measured = metrics.measure(examples.labels, truth, bins=15)
    assert list(files) == list(FORMATS)
    for name, read in (("saved_model", SavedModelRunner), ("float32", TFLiteRunner)):
        row, found = files[name], read(done.files[name])(examples.inputs)
        assert row["file"] == done.files[name].name
        assert row["largest_difference"] == pytest.approx(np.abs(found - truth).max(), abs=1e-6)
        assert row["temperature"] == 2.5
        for side in ("ticket", "measured"):
            assert row[side] == {n: pytest.approx(measured[n], abs=1e-5) for n in COMPARED}
        assert row["intervals"] == {}  # of files that are not quantised
    path = done.files["float32"]
    assert files["float32"]["bytes"] == path.stat().st_size


def test_names_of_classes_are_in_the_labels_file_and_in_the_card(ticket, examples, tmp_path):
    options = {"formats": ["float32"], "encoding": "dense"}
    names = ["Katze", "großer Hund", "#3"]
    ticket = dataclasses.replace(ticket, class_names=names)
    done = exporting(ticket, tmp_path / "recorded", examples, **options)
    others = exporting(ticket, tmp_path / "given", examples, class_names=("a", "b", "c"), **options)
    text = (done.directory / "labels.txt").read_text("utf-8")
    assert text.splitlines() == names and text.endswith("#3\n")
    assert (others.directory / "labels.txt").read_text() == "a\nb\nc\n"
    card = (done.directory / "README.md").read_text("utf-8")
    assert "Katze, großer Hund, #3" in card and "labels.txt" in card


@pytest.mark.parametrize("encoding", ["sparse", "compact_sparse"])
def test_an_encoding_can_be_asked_for(ticket, examples, inputs, logits, tmp_path, encoding):
    done = exporting(ticket, tmp_path / "export", examples, formats=["float32"], encoding=encoding)
    assert not any("prefer" in row["file"] for row in done.sparsity_report["files"])
    assert done.parity["files"]["float32"]["encoding"] == encoding
    found = TFLiteRunner(done.files["float32"])(inputs)
    np.testing.assert_allclose(found, logits / 2.5, rtol=1e-5, atol=1e-5)


def test_probabilities_can_be_asked_for(ticket, examples, inputs, logits, tmp_path):
    done = exporting(
        ticket, tmp_path / "export", examples, formats=["float32", "int8"], output="probabilities",
        tolerance=Tolerance(accuracy=0.1, ece=0.1),
    )  # fmt: skip

    def softmax(temperature):
        weights = np.exp(logits / temperature)
        return weights / weights.sum(1, keepdims=True)

    found = TFLiteRunner(done.files["float32"])(inputs)
    np.testing.assert_allclose(found, softmax(2.5), rtol=1e-5, atol=1e-6)
    # The int8 file's softmax is a float one: its rows add up to 1, in steps finer than 1/256.
    rough = TFLiteRunner(done.files["int8"])(inputs)
    np.testing.assert_allclose(rough.sum(1), 1, atol=1e-5)
    own = done.parity["files"]["int8"]["temperature"]
    np.testing.assert_allclose(rough, softmax(own), atol=0.05)
    assert np.abs(rough * 256 - np.rint(rough * 256)).max() > 0.1


def test_what_is_quantised_gets_a_temperature_of_its_own(ticket, examples, tmp_path):
    few, labels = examples.material.of_validation("the test")
    pair = np.tile(few, (5, 1, 1)), np.tile(labels, 5)
    examples = Examples.given(pair, pair, classes=3)
    loose = Tolerance(accuracy=0.2, ece=0.5)
    options = {"formats": ["int8"], "encoding": "dense", "tolerance": loose}
    raw = exporting(ticket, tmp_path / "raw", examples, scaled=False, **options)
    done = exporting(ticket, tmp_path / "export", examples, **options)
    inputs, labels = examples.material.of_validation("the test")
    rough = TFLiteRunner(raw.files["int8"])(inputs)
    # Fitted on the quantised network itself: no other temperature has a lower NLL on validation.
    own = done.parity["files"]["int8"]["temperature"]
    fitted = TFLiteRunner(done.files["int8"])(inputs)
    np.testing.assert_allclose(fitted, rough / own, atol=0.06 * np.abs(fitted).max())
    lowest = metrics.nll(labels, fitted)
    for factor in (0.8, 1.25):
        assert metrics.nll(labels, fitted * factor) > lowest
    assert raw.parity["files"]["int8"]["temperature"] == 1
    assert done.parity["temperature"] == 2.5


# What is wrong is not exported


def shifted(model, amount):
    """A copy whose first logit is off by `amount` for every example."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    bias = copy.get_layer("logits").bias
    bias.assign(bias.numpy() + np.array([amount, 0, 0], "float32"))
    return copy


@pytest.mark.parametrize(
    ("file_format", "name", "amount", "problem"),
    [
        (SavedModel, "saved_model", np.nan, "gives NaN or infinity"),
        (Float32, "float32", 0.01, "differs from the ticket by"),
    ],
)
def test_a_wrong_file_is_not_exported_and_an_older_export_stays(
    copy, ticket, make_ticket, examples, monkeypatch, file_format, name, amount, problem, tree
):
    before, write = tree(copy.parent), file_format.write
    monkeypatch.setattr(
        file_format,
        "write",
        lambda self, model, path, *rest: write(self, shifted(model, amount), path, *rest),
    )
    with pytest.raises(ExportMismatch, match=rf"{FILES[name]} {problem}"):
        exporting(make_ticket(2), copy, examples, formats=[name], encoding="dense")
    assert tree(copy.parent) == before
    assert there(ticket, copy) is not None


@pytest.mark.parametrize("name", ["float32", "int8"])
def test_a_damaged_file_fails_the_gate_and_leaves_nothing(
    ticket, examples, tmp_path, monkeypatch, name
):
    """The weights in a file are changed after it was written."""
    file_format = {"float32": Float32, "int8": Int8}[name]
    write = file_format.write

    def damaged(self, model, path, *rest):
        write(self, model, path, *rest)
        whole = bytearray(path.read_bytes())
        hidden = model.get_layer("hidden").get_weights()[0]
        if name == "float32":
            kernel = np.ascontiguousarray(hidden.T).tobytes()
            place = bytes(whole).find(kernel)
            assert place > 0
            values = np.frombuffer(kernel, np.float32) * -3
            whole[place : place + len(kernel)] = values.astype("<f4").tobytes()
        else:
            scale = np.abs(hidden.T).max(1, keepdims=True) / 127
            kernel = np.rint(hidden.T / scale).astype(np.int8).tobytes()
            place = bytes(whole).find(kernel)
            assert place > 0
            whole[place : place + len(kernel)] = (-np.frombuffer(kernel, np.int8)).tobytes()
        path.write_bytes(bytes(whole))

    monkeypatch.setattr(file_format, "write", damaged)
    # So many examples that chance cannot explain the difference.
    inputs, labels = np.repeat(examples.inputs, 20, 0), np.repeat(examples.labels, 20)
    many = dataclasses.replace(examples, inputs=inputs, labels=labels)
    with pytest.raises(ExportMismatch, match=f"ticket_{name}.tflite differs from the ticket by"):
        exporting(ticket, tmp_path / "export", many, formats=[name], encoding="dense")
    assert not list(tmp_path.iterdir())


def test_a_lost_zero_is_no_export(ticket, examples, tmp_path, monkeypatch):
    """One pruned weight that is not zero any more, too small to change any metric."""
    write = Float32.write

    def leaky(self, model, path, *rest):
        copy = keras.models.clone_model(model)
        copy.set_weights(model.get_weights())
        kernel = copy.get_layer("hidden").kernel
        values = kernel.numpy()
        values[tuple(np.argwhere(values == 0)[0])] = 1e-9
        kernel.assign(values)
        write(self, copy, path, *rest)

    monkeypatch.setattr(Float32, "write", leaky)
    with pytest.raises(
        ExportMismatch, match=r"ticket_float32\.tflite: 1 weight.* are 0 in the ticket"
    ):
        exporting(ticket, tmp_path / "export", examples, formats=["float32"], encoding="dense")
    assert not list(tmp_path.iterdir())


def test_a_new_export_replaces_the_old_one(copy, ticket, make_ticket, examples):
    second = make_ticket(2)
    said, lost = [], list(there(ticket, copy).files)
    done = exporting(second, copy, examples, formats=["keras"], progress=said.append)
    assert lost and all(name in said[0] for name in lost)
    assert there(ticket, copy) is None
    assert there(second, copy, formats=["keras"]) == done
    assert not any((copy / FILES[name]).exists() for name in lost)
    assert [path.name for path in copy.parent.iterdir()] == ["export"]


def test_the_old_export_comes_back_where_the_new_one_cannot_take_its_place(
    copy, make_ticket, examples, monkeypatch, tree
):
    before, rename = tree(copy.parent), Path.rename

    def failing(path, target):
        if path.name == "content":
            raise OSError("the disk is gone")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="the disk is gone"):
        exporting(make_ticket(2), copy, examples, formats=["keras"])
    assert tree(copy.parent) == before


@pytest.mark.parametrize("lost", ["ticket_float32.tflite", "saved_model", "parity.json"])
def test_an_export_that_lost_a_file_does_not_count(copy, ticket, done, lost):
    assert there(ticket, copy).parity == done.parity
    (copy / lost).rename(copy / "elsewhere")
    assert there(ticket, copy) is None


def truncated(content, left):
    return content[: int(left * len(content))]


def test_a_damaged_export_does_not_count_and_no_file_of_it_is_measured(copy, ticket, done):
    files = [path for path in copy.rglob("*") if path.is_file()]
    for path in files:
        whole = path.read_bytes()
        place = len(whole) // 2
        flipped = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        for damaged in (b"", truncated(whole, 0.5), whole[:-1], flipped):
            path.write_bytes(damaged)
            assert there(ticket, copy) is None, path
            for name in FILES.values():
                part = copy / name in (path, *path.parents)
                if part or path.name == "parity.json":
                    with pytest.raises(UsageError, match="is damaged") as caught:
                        open_model(copy / name)
                    assert "\n" not in str(caught.value)
        path.write_bytes(whole)
        assert there(ticket, copy).parity == done.parity
    assert open_model(copy / "ticket_float32.tflite").kind == "tflite"


def test_an_export_of_an_older_version_is_verified_by_its_sizes(copy, ticket, done):
    path = copy / "parity.json"
    old = {name: value for name, value in done.parity.items() if name != "sha256"}
    path.write_text(json.dumps(old))
    assert there(ticket, copy).parity == old
    (copy / "ticket_float32.tflite").write_bytes(b"")
    assert there(ticket, copy) is None
    with pytest.raises(UsageError, match=r"ticket_float32\.tflite is damaged"):
        open_model(copy / "ticket_float32.tflite")


def test_an_export_of_a_newer_version_is_refused_by_name(copy, ticket, done):
    newer = seal(done.parity).replace(b'"format": 2', b'"format": 3')
    content = json.loads(newer)
    del content["checksum"]
    (copy / "parity.json").write_text(json.dumps(content))
    with pytest.raises(NewerFormat, match="has format 3, of a newer version"):
        there(ticket, copy)
    with pytest.raises(NewerFormat, match="has format 3, of a newer version"):
        open_model(copy / "ticket_float32.tflite")


def test_what_a_killed_export_left_is_removed_even_if_the_export_is_found(copy, ticket, done):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with temporary(copy) as path:
        left = path.parent / path.name.replace(f".{os.getpid()}.", f".{ended.pid}.")
    left.mkdir()
    shutil.copytree(copy, left / "content")
    copy.rename(left / "before")  # It was killed between its two renames.
    assert there(ticket, copy).parity == done.parity
    assert [path.name for path in copy.parent.iterdir()] == ["export"]


@pytest.mark.parametrize("parity", [None, "not json", '{"ticket": "another one"}', "[]"])
def test_nothing_else_is_taken_for_an_export(ticket, tmp_path, parity):
    if parity is not None:
        (tmp_path / "parity.json").write_text(parity)
    assert there(ticket, tmp_path) is None
    assert there(ticket, tmp_path / "missing") is None


def test_other_formats_and_another_scale_are_another_export(done, raw, ticket):
    assert there(ticket, done.directory) is not None
    assert there(ticket, done.directory, formats=["float32"]) == there(ticket, done.directory)
    assert there(ticket, done.directory, formats=["float32", "int8"]) is None
    assert there(ticket, done.directory, scaled=False) is None
    for other in ({"output": "probabilities"}, {"encoding": "dense"}, {"prefer": "size"}):
        assert there(ticket, done.directory, **other) is None, other
    assert there(ticket, raw.directory, scaled=False) == raw
    assert there(ticket, raw.directory) is None


def test_what_was_measured_on_other_data_is_another_export(ticket, examples, tmp_path):
    other = dataclasses.replace(examples, of_run=False)
    exporting(ticket, tmp_path / "export", other, formats=["keras"])
    assert there(ticket, tmp_path / "export", formats=["keras"]) is None
    exporting(ticket, tmp_path / "export", examples, formats=["keras"])
    assert there(ticket, tmp_path / "export", formats=["keras"]) is not None


@pytest.mark.parametrize("name", ["notes.txt", "saved_model/more/x", "run_1/experiment.json"])
def test_files_beside_an_export_are_never_lost(ticket, examples, tmp_path, tree, name):
    target = tmp_path / "export"
    exporting(ticket, target, examples, formats=["float32"])
    (target / name).parent.mkdir(parents=True, exist_ok=True)
    (target / name).write_text("years of work")
    before = tree(target)
    with pytest.raises(UsageError, match=f"export holds {name}, which is not part of the export"):
        exporting(ticket, target, examples, formats=["float32"])
    assert tree(target) == before


@pytest.mark.parametrize(
    "record", ['{"bits": [0, 1]}', '{"sha256": "thesis.tex"}', '{"bits": [0,', "[]"]
)
@pytest.mark.parametrize(
    "name", ["thesis.tex", "saved_model/thesis.tex", "ticket.keras/thesis.tex"]
)
def test_files_beside_a_record_without_checksums_are_never_lost(
    ticket, examples, tmp_path, tree, record, name
):
    (tmp_path / "mine" / name).parent.mkdir(parents=True)
    (tmp_path / "mine" / name).write_text("years of work")
    (tmp_path / "mine" / "parity.json").write_text(record)
    before = tree(tmp_path)
    with pytest.raises(UsageError, match=f"mine holds {name}, which is not part of the export"):
        exporting(ticket, tmp_path / "mine", examples, formats=["keras"])
    assert tree(tmp_path) == before


@pytest.mark.parametrize("lost", ["sha256", "the record"])
def test_an_export_without_checksums_can_be_replaced(copy, ticket, done, examples, lost):
    old = {name: value for name, value in done.parity.items() if name != "sha256"}
    (copy / "labels.txt").write_text("a\nb\nc\n")
    (copy / "parity.json").write_text(json.dumps(old) if lost == "sha256" else "{")
    exporting(ticket, copy, examples, formats=["keras"])
    assert (copy / "ticket.keras").is_file() and not (copy / "saved_model").exists()


def test_a_link_beside_an_export_is_never_lost(copy, ticket, examples, tmp_path):
    (copy / "results").symlink_to(tmp_path)
    with pytest.raises(UsageError, match="export holds results, which is not part of the export"):
        exporting(ticket, copy, examples, formats=["keras"])
    assert (copy / "results").is_symlink()


@pytest.mark.parametrize("earlier", [True, False])
def test_a_file_that_is_put_there_during_an_export_is_never_lost(
    copy, ticket, examples, tmp_path, tree, earlier
):
    target, before = copy if earlier else tmp_path / "new", {}

    def put(line):
        target.mkdir(exist_ok=True)
        (target / "notes.txt").write_text("years of work")
        before.update(tree(target))

    with pytest.raises(UsageError, match=r"holds notes.txt|holds something other than an export"):
        exporting(ticket, target, examples, formats=["keras"], progress=put)
    assert tree(target) == before and "notes.txt" in map(str, before)


def test_what_is_no_export_is_never_replaced(ticket, examples, tmp_path, tree):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("years of work")
    (tmp_path / "file").write_text("x")
    before = tree(tmp_path)
    for target in ("thesis", "file"):
        with pytest.raises(UsageError, match=f"{target} holds something other than an export"):
            exporting(ticket, tmp_path / target, examples)
    assert tree(tmp_path) == before
    (tmp_path / "empty").mkdir()
    done = exporting(ticket, tmp_path / "empty", examples, formats=["keras"])
    assert [path.name for path in done.files.values()] == ["ticket.keras"]


@pytest.mark.parametrize("target", [".", "..", "/proc"])
def test_what_cannot_be_replaced_is_refused_before_the_export(
    ticket, examples, tmp_path, monkeypatch, target
):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(UsageError, match=f"^{target} is a mount point or holds"):
        exporting(ticket, Path(target), examples, formats=["keras"])
    assert [path.name for path in tmp_path.rglob("*")] == ["here"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"formats": ["onnx"]}, r"formats=\['onnx'\]: .*keras3, saved_model, float32"),
        ({"formats": []}, r"formats=\[\]: .*keras"),
        ({"output": "classes"}, "output=classes: .*logits, probabilities"),
        ({"encoding": "zip"}, "encoding=zip: .*dense, sparse, blocks, compact"),
        ({"formats": ["float32", "int8_qat"]}, "int8_qat needs training data"),
        (
            {"formats": ["float32", "keras"], "encoding": "sparse"},
            "encoding=sparse: keras has no such encoding; choose from dense, compact",
        ),
        ({"formats": ["int8"], "encoding": "blocks"}, "encoding=blocks: int8 has no such encoding"),
        ({"prefer": "beauty"}, "prefer=beauty: .*speed, size"),
        ({"class_names": ["cat", "dog"]}, "class_names=cat,dog: 2 names for 3 classes"),
        ({"class_names": ["cat", "dog", "a\nb"]}, "class_names=.*one line"),
        ({"class_names": ["cat", "dog", 3]}, "class_names=3: .*string"),
        ({"license": 3}, "license=3: .*string"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_at_once(ticket, examples, tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        exporting(ticket, tmp_path / "export", examples, **options)
    assert not list(tmp_path.iterdir())


def test_integers_need_validation_data(ticket, examples, tmp_path):
    alone = Examples.given((examples.inputs, examples.labels), classes=3)
    with pytest.raises(UsageError, match="int8 needs validation data"):
        exporting(ticket, tmp_path / "export", alone, formats=["int8"])
    assert not list(tmp_path.iterdir())


def test_inputs_of_another_shape_are_refused(ticket, inputs, examples, tmp_path):
    flat = Examples.given((inputs.reshape(23, 8), examples.labels), classes=3)
    with pytest.raises(UsageError, match=r"inputs of shape \(4, 2\), the test data has \(8\)"):
        exporting(ticket, tmp_path / "export", flat)
    assert not list(tmp_path.iterdir())


def test_data_with_another_number_of_classes_is_refused(ticket, examples, tmp_path):
    other = dataclasses.replace(examples, classes=4)
    with pytest.raises(UsageError, match="has 3 classes, the test data has 4 classes"):
        exporting(ticket, tmp_path / "export", other)
    assert not list(tmp_path.iterdir())


def test_a_folding_that_is_wrong_is_not_exported(ticket, examples, tmp_path, monkeypatch):
    """The files are compared with the logits of the ticket, not with those of the folded model."""
    monkeypatch.setattr(steps, "fold_temperature", lambda model, temperature, inputs: None)
    with pytest.raises(ExportMismatch):
        exporting(ticket, tmp_path / "export", examples, formats=["keras"])
    assert not list(tmp_path.iterdir())


def test_a_ticket_without_a_temperature_cannot_be_scaled(ticket, examples, tmp_path):
    old = dataclasses.replace(ticket, record={"level": 2})
    with pytest.raises(UsageError, match="has no temperature"):
        exporting(old, tmp_path / "export", examples)
    assert list(tmp_path.iterdir()) == []
    done = exporting(old, tmp_path / "export", examples, scaled=False, formats=["keras"])
    assert there(old, tmp_path / "export", scaled=False, formats=["keras"]) == done
    with pytest.raises(UsageError, match="has no temperature"):
        there(old, tmp_path / "export", formats=["keras"])
