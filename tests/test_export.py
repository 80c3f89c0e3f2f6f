"""Exporting from a run: the command, and `export_ticket`, which it calls.

What an export does with a ticket and its examples is tested in tests/deploy.
"""

import dataclasses
import functools
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf import api, export
from lotcal_tf.compat import keras as tf_keras
from lotcal_tf.config.experiment import Experiment
from lotcal_tf.config.recipes import recipe_directory
from lotcal_tf.config.run_directory import read_experiment
from lotcal_tf.config.sealed import seal
from lotcal_tf.data import digits
from lotcal_tf.deploy.parity import Tolerance
from lotcal_tf.errors import FieldError, UsageError
from lotcal_tf.formats.tflite import Float32, Int8, TFLiteRunner
from lotcal_tf.lottery.run_tables import selected_level

LOOSE = ("--accuracy_tolerance=0.2", "--ece_tolerance=0.2")  # for a network that has hardly learnt
QUICK = ("--formats=float32", "--encoding=dense", "--seconds=0")
FLOAT = {"formats": ["float32"], "encoding": "dense", "seconds": 0}


@pytest.fixture
def run(digits_run):
    return digits_run.directory


@pytest.fixture
def call(call_command):
    return functools.partial(call_command, export)


@pytest.fixture(scope="module")
def data():
    return digits.load(Experiment())


def parity_of(directory):
    return json.loads((directory / "parity.json").read_text())


# The command


def test_by_default_the_selected_level_becomes_two_small_files(call, digits_run, tmp_path):
    run, out = digits_run.directory, tmp_path / "out"
    done = call(f"--run={run}", f"--out={out}", "--seconds=0.02", *LOOSE)
    assert done.code == 0, done.err
    assert "reading digits" in done.err
    parity = parity_of(out)
    selected = selected_level(digits_run.records)
    assert (parity["level"], parity["split"], parity["examples"]) == (selected, "test", 360)
    assert parity["ece_bins"] == 12
    assert parity["temperature"] == digits_run.selected.record["temperature"]
    rows = {row["file"]: row for row in parity["files"].values()}
    assert set(rows) == {"ticket_float32.tflite", "ticket_int8.tflite"}
    for name, row in rows.items():
        size = (out / name).stat().st_size
        assert size == row["bytes"] == row["bytes_by_encoding"]["dense"]
        assert row["encoding"] == "dense"  # whatever is smaller
        assert name in done.out
        # What the files are measured at agrees with what the export recorded.
        found = api.measure_model(out / name, dataset="digits", ece_bins=12)
        for metric, value in row["measured"].items():
            assert found.metrics[metric] == pytest.approx(value, abs=1e-6)
    report = json.loads((out / "sparsity_report.json").read_text())
    latencies = {row["file"]: row["latency"] for row in report["files"]}
    # The dense int8 file of such a small network is the smallest, too.
    assert list(latencies)[2:] == [
        "ticket_float32.tflite", "ticket_float32.tflite (prefer=size)", "ticket_int8.tflite",
    ]  # fmt: skip
    assert all(set(found) == {"1", "2"} for found in latencies.values())
    card = json.loads((out / "model_card.json").read_text())
    assert (card["experiment"]["model"], card["data"]["classes"]) == ("lenet_10", 10)
    assert (card["input"]["shape"], card["input"]["range"]) == ([8, 8, 1], [0, 16])
    assert not list(tmp_path.glob(".out*"))


def test_one_preference_selects_a_file_and_the_other_is_measured_too(call, run, tmp_path):
    def export(name, *flags):
        out = tmp_path / name
        shared = [f"--run={run}", f"--out={out}", "--formats=float32", "--seconds=0.02"]
        done = call(*shared, *flags)
        assert done.code == 0, done.err
        report = json.loads((out / "sparsity_report.json").read_text())
        rows = {row["file"]: row for row in report["files"]}
        return (out / "ticket_float32.tflite").read_bytes(), parity_of(out), rows, done.out

    fast, parity, fast_rows, printed = export("fast")
    small, small_parity, small_rows, _ = export("small", "--prefer=size")
    sizes = parity["files"]["float32"]["bytes_by_encoding"]
    assert sizes == small_parity["files"]["float32"]["bytes_by_encoding"]
    assert (len(fast), len(small)) == (sizes["dense"], min(sizes.values()))
    name, other = "ticket_float32.tflite", "ticket_float32.tflite (prefer={})"
    assert other.format("size") in printed
    for mine, theirs, preference in (
        (fast_rows, small_rows, "speed"),
        (small_rows, fast_rows, "size"),
    ):
        compared = theirs[other.format(preference)]
        assert compared["latency"].keys() == {"1", "2"}
        for key in ("encoding", "bytes", "gzipped"):
            assert compared[key] == mine[name][key]
    # The rule does not depend on what was measured.
    assert export("again")[0] == fast


def test_a_numbered_level_goes_to_a_directory_of_its_own(call, run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    done = call(f"--run={copy}", "--level=1", "--formats=keras", "--seconds=0")
    assert done.code == 0, done.err
    assert [p.name for p in copy.glob("export*")] == ["export_level_01"]
    assert parity_of(copy / "export_level_01")["level"] == 1
    # The file's place tells which run it is from.
    found = api.measure_model(copy / "export_level_01" / "ticket.keras")
    assert (found.kind, found.data, found.ece_bins) == ("keras", "digits", 12)
    assert call(f"--run={copy}", "--formats=keras", "--seconds=0").code == 0
    assert (copy / "export" / "parity.json").is_file()


def test_what_the_run_recorded_holds_unless_a_flag_is_given(call, digits_run, tmp_path):
    run, ticket = tmp_path / "run", digits_run.ticket(1)
    shutil.copytree(digits_run.directory, run)
    record = read_experiment(run)
    record["experiment"]["export_logits"] = "raw"
    (run / "experiment.json").write_bytes(seal(record))
    flags = [f"--run={run}", "--level=1", *QUICK]
    for more, temperature, bins in [
        ([], 1, 12),
        (["--export_logits=scaled", "--ece_bins=7"], ticket.record["temperature"], 7),
    ]:
        done = call(*flags, *more)
        assert done.code == 0, done.err
        parity = parity_of(run / "export_level_01")
        assert (parity["ticket"], parity["level"]) == (ticket.digest, 1)
        assert (parity["temperature"], parity["ece_bins"]) == (temperature, bins)
        inputs = 16 * np.random.default_rng(0).random((5, 8, 8, 1)).astype("float32")
        found = TFLiteRunner(run / "export_level_01" / "ticket_float32.tflite")(inputs)
        wanted = ticket.model()(inputs) / temperature
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "--run is missing"),
        (["--run=absent"], "--run=absent: is not a run directory"),
        (["--run={run}", "--level=3"], "--level=3: {run} has not finished it; finished: 0 … 2"),
        (["--run={run}", "--level=-1"], "--level=-1: give a level's number, or selected"),
        (["--run={run}", "--level=best"], "--level=best: give a level's number, or selected"),
        (
            ["--run={run}", "--formats=onnx"],
            "--formats=onnx: give a list of keras, keras3, saved_model",
        ),
        (["--run={run}", "--formats="], "--formats: give a list of keras"),
        (["--run={run}", "--encoding=zip"], "--encoding=zip: choose one of auto, dense"),
        (
            ["--run={run}", "--formats=float32,keras", "--encoding=sparse"],
            "--encoding=sparse: keras has no such encoding",
        ),
        (["--run={run}", "--prefer=x"], "--prefer=x: choose one of speed, size"),
        (["--run={run}", "--output=classes"], "--output=classes: choose one of logits, prob"),
        (["--run={run}", "--ece_tolerance=-1"], "--ece_tolerance=-1: must be a finite number"),
        (["--run={run}", "--seconds=nan"], "--seconds=nan: must be a finite number"),
        (["--run={run}", "--ece_bins=0"], "--ece_bins=0: must be at least 1"),
        (["--run={run}", "--dataset=absent"], "--dataset=absent: choose one of cifar10"),
        (["--run={run}", "--data_dir=x"], "--data_dir=x: applies only with"),
        (["--run={run}", "--epochs=3"], "'epochs'"),
        (["--run={taken}", "--out={taken}"], "holds something other than an export"),
        (["--run={arrays}"], "dataset is missing: {arrays} was trained on data"),
    ],
)
def test_a_wrong_request_is_reported_in_one_line(
    call, run, arrays_run, tmp_path, tree, flags, words
):
    taken = shutil.copytree(run, tmp_path / "taken")
    places = {"run": run, "taken": taken, "arrays": arrays_run.directory}
    before = tree(tmp_path), tree(arrays_run.directory)
    done = call(*(flag.format(**places) for flag in flags))
    assert (done.code, done.out) == (2, "")
    assert done.err[-1].startswith("export: ")
    assert words.format(**places) in done.err[-1]
    assert (tree(tmp_path), tree(arrays_run.directory)) == before
    assert not (run / "export").exists()


def test_a_directory_that_cannot_be_replaced_is_refused_before_the_data_is_read(run, tmp_path):
    taken = shutil.copytree(run, tmp_path / "taken")
    with pytest.raises(UsageError, match="taken holds something other than an export"):
        api.export_ticket(run, taken, test="not read")
    with pytest.raises(UsageError, match="^test"):
        api.export_ticket(run, tmp_path / "new", test="not read", **FLOAT)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"formats": ["saved_model"], "encoding": "blocks"}, "encoding=blocks: saved_model has no"),
        ({"test": "not read"}, "int8 needs validation data"),
        ({"class_names": ["cat", "dog"]}, "class_names=cat,dog: 2 names for 10 classes"),
    ],
)
def test_what_cannot_work_is_refused_before_the_data_is_read(
    run, tmp_path, monkeypatch, options, words
):
    def fails(*_, **__):
        raise AssertionError("data was read")

    monkeypatch.setattr("lotcal_tf.data.digits.load", fails)
    with pytest.raises(UsageError, match=f"^{words}"):
        api.export_ticket(run, tmp_path / "out", **options)
    with pytest.raises(AssertionError, match="data was read"):
        api.export_ticket(run, tmp_path / "out")


def test_a_damaged_ticket_is_refused(call, run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    for level in (1, 0):  # of level 0 the report needs the dense network
        masks = copy / "tickets" / f"level_0{level}" / "masks.safetensors"
        content = masks.read_bytes()
        masks.unlink()  # Levels may share a file: only this one is to be damaged.
        masks.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        done = call(f"--run={copy}", "--level=1")
        assert (done.code, done.out) == (2, "")
        assert f"level_0{level}/masks.safetensors is damaged" in done.err[-1]
        for given, chosen in ((copy, {"level": 1}), (copy / "tickets" / "level_01", {})):
            with pytest.raises(UsageError, match="is damaged"):
                api.export_ticket(given, tmp_path / "out", seconds=0, **chosen)
        masks.write_bytes(content)
    assert not list(copy.glob("export*")) + list(copy.glob(".export*"))


def test_a_run_without_a_level_is_refused(call, tmp_path):
    (tmp_path / "tickets").mkdir()
    (tmp_path / "experiment.json").write_text('{"experiment": {"source": "digits"}}')
    for flags in ([], ["--level=0"]):
        done = call(f"--run={tmp_path}", *flags)
        assert done.code == 2
        assert "finished" in done.err[-1]


def test_a_file_that_computes_something_else_fails(call, run, tmp_path, monkeypatch):
    def wrong(self, model, path, *rest):
        model.layers[-1].bias.assign_add(np.arange(10, dtype="float32"))
        write(self, model, path, *rest)

    write = Float32.write
    monkeypatch.setattr(Float32, "write", wrong)
    done = call(f"--run={run}", f"--out={tmp_path / 'out'}", *QUICK)
    assert (done.code, done.out) == (1, "")
    assert "ticket_float32.tflite differs from the ticket by" in done.err[-1]
    assert not list(tmp_path.iterdir())


def test_tolerances_are_flags(call, run, tmp_path):
    done = call(f"--run={run}", f"--out={tmp_path / 'out'}", *QUICK, "--float_tolerance=0")
    # Rounding alone is more than nothing.
    assert done.code == 1 and "more than 0 (float_tolerance)" in done.err[-1]


def test_interruption_leaves_nothing_and_is_130(call, run, tmp_path, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(Int8, "write", interrupt)
    done = call(f"--run={run}", f"--out={tmp_path / 'out'}", "--seconds=0")
    assert (done.code, done.out) == (130, "")
    assert done.err[-1].startswith("export: interrupted; nothing was exported; ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        (["--help"], 0),
        (["--run=absent"], 2),
        (["--formats=onnx"], 2),
        ([], 2),
        (["--run={run}", "--dataset=absent"], 2),
        (["--run={run}", "--formats=float32,keras", "--encoding=sparse"], 2),
    ],
)
def test_answers_in_a_second_and_without_tensorflow(at_once, run, flags, code):
    done = at_once("lotcal_tf.export", *(flag.format(run=run) for flag in flags))
    assert (done.code, len(done.err)) == (code, code == 2)
    for name in (*(flag.name for flag in export.FLAGS), *export.FIELDS, "config"):
        assert (f"\n  --{name}\n" in done.out) == (code == 0)


# What export_ticket takes


def test_a_run_its_directory_and_a_ticket_give_the_same_files(digits_run, data, tmp_path):
    named = api.export_ticket(digits_run, tmp_path / "run", **FLOAT)
    again = api.export_ticket(str(digits_run.directory), tmp_path / "directory", **FLOAT)
    lone = api.export_ticket(
        digits_run.selected, tmp_path / "ticket", data.test.data(), ece_bins=12, **FLOAT
    )
    assert (named.examples, lone.examples) == (360, 360)
    for done in (again, lone):
        assert done.files["float32"].read_bytes() == named.files["float32"].read_bytes()
    assert again.parity == named.parity
    # The same examples, but whose they are is not known; the card says so.
    card = {"sha256", "signature"}
    same = {name: value for name, value in named.parity.items() if name not in card}
    assert {n: v for n, v in lone.parity.items() if n not in card} == {
        **same, "data": None, "of_run": False,
    }  # fmt: skip
    level = api.export_ticket(digits_run, tmp_path / "level", level=1, **FLOAT)
    assert (level.parity["level"], level.parity["ece_bins"]) == (1, 12)
    assert not (digits_run.directory / "export").exists()


def test_an_earlier_export_of_the_same_ticket_can_be_reused(exported_run, monkeypatch):
    def fails(*_, **__):
        raise AssertionError("data was read")

    monkeypatch.setattr("lotcal_tf.data.digits.load", fails)
    asked = {"formats": ["float32", "saved_model"], "reuse": True}
    done = api.export_ticket(exported_run, scaled=False, **asked)
    assert done.directory == exported_run / "export"
    fewer = api.export_ticket(exported_run, scaled=False, formats=["float32"], reuse=True)
    assert set(fewer.files) == {"float32", "saved_model"}
    with pytest.raises(AssertionError, match="data was read"):
        api.export_ticket(exported_run, scaled=False, formats=["keras"], reuse=True)
    with pytest.raises(AssertionError, match="data was read"):
        api.export_ticket(exported_run, scaled=True, **asked)
    with pytest.raises(
        FieldError, match="^validation_size=200: "
    ):  # otherwise divided than in the run
        api.export_ticket(
            exported_run, scaled=False, config=recipe_directory() / "digits.toml", **asked
        )


def test_other_data_is_neither_reused_nor_credited_to_the_run(exported_run, tmp_path):
    run = shutil.copytree(exported_run, tmp_path / "run")
    draw = np.random.default_rng(0)
    noise = 16 * draw.random((300, 8, 8, 1)).astype("float32"), draw.integers(0, 10, 300)
    asked = {"formats": ["float32"], "encoding": None, "scaled": False, "seconds": 0}
    own = api.export_ticket(run, reuse=True, **asked)
    assert (own.parity["data"], own.parity["of_run"], own.examples) == ("digits", True, 360)
    other = api.export_ticket(run, test=noise, reuse=True, **asked)
    assert (other.parity["data"], other.parity["of_run"], other.examples) == (None, False, 300)
    text = (run / "export" / "README.md").read_text()
    assert "datasets:" not in text and "model-index:" not in text
    back = api.export_ticket(run, reuse=True, **asked)
    assert back.parity["files"]["float32"] == own.parity["files"]["float32"]
    text = (run / "export" / "README.md").read_text()
    assert 'datasets: ["digits"]' in text and "model-index:" in text


@pytest.mark.parametrize("kind", ["arrays", "pipelines"])
def test_a_run_gives_the_validation_data_that_int8_needs(arrays_run, data, tmp_path, kind):
    test, validation = data.test.data(), arrays_run.validation
    if kind == "pipelines":
        test, validation = map(tf.data.Dataset.from_tensor_slices, (test, validation))
    done = api.export_ticket(
        arrays_run.selected, tmp_path / "out", test=test, validation=validation,
        formats=["int8"], encoding="dense", seconds=0, tolerance=Tolerance(accuracy=0.1, ece=0.1),
    )  # fmt: skip
    assert done.examples == 360
    logits = TFLiteRunner(done.files["int8"])(data.test.data()[0])
    stored = arrays_run.selected.predictions["test/logits"]
    assert (logits.argmax(1) == stored.argmax(1)).mean() > 0.95


def test_without_validation_data_int8_is_refused(arrays_run, data, tmp_path):
    with pytest.raises(UsageError, match="validation"):
        api.export_ticket(arrays_run.selected, tmp_path / "out", data.test.data())
    assert not list(tmp_path.iterdir())


def test_a_level_is_refused_beside_a_ticket_and_a_split_beside_arrays(arrays_run, data, tmp_path):
    with pytest.raises(FieldError, match="^level=2: is given for a run, and here a ticket"):
        api.export_ticket(arrays_run.ticket(1), tmp_path, data.test.data(), level=2)
    with pytest.raises(FieldError, match="^split=val: is of named data"):
        api.measure_model(arrays_run, data.test.data(), split="val")


def test_a_run_of_arrays_is_exported_on_the_arrays_that_it_has(arrays_run, tmp_path):
    done = api.export_ticket(arrays_run, tmp_path / "out", **FLOAT)
    assert (done.examples, done.parity["split"], done.parity["ece_bins"]) == (360, "test", 9)
    assert (done.parity["data"], done.parity["of_run"]) == ("own", True)
    raw = api.export_ticket(arrays_run, tmp_path / "raw", ece_bins=4, export_logits="raw", **FLOAT)
    assert (raw.parity["ece_bins"], raw.parity["temperature"]) == (4, 1)


def test_a_run_of_arrays_is_exported_by_the_command_where_data_is_named(call, arrays_run, tmp_path):
    out = tmp_path / "out"
    flags = [f"--run={arrays_run.directory}", f"--out={out}", "--seconds=0", *LOOSE]
    done = call(*flags, "--dataset=digits")
    assert done.code == 0, done.err
    parity = parity_of(out)
    assert set(parity["files"]) == {"float32", "int8"}
    assert (parity["examples"], parity["ece_bins"]) == (360, 9)
    assert (parity["data"], parity["of_run"]) == ("digits", False)
    stored = arrays_run.selected.record
    assert parity["files"]["float32"]["ticket"]["accuracy"] == stored["test_accuracy"]


@pytest.mark.parametrize(
    ("given", "field", "words"),
    [
        ({"level": "best"}, "level", "give a level's number, 0 … 2, or selected"),
        ({"level": 7}, "level", "give a level's number, 0 … 2, or selected"),
        ({"level": -1}, "level", "give a level's number, 0 … 2, or selected"),
        ({"level": True}, "level", "give a level's number, 0 … 2, or selected"),
        ({"config": "a.toml"}, "config", "describes named data; here data is passed as objects"),
        ({"dataset": "mnist"}, "dataset", "describes named data; here data is passed as objects"),
        ({"bins": 5}, "bins", "no such field here; choose from dataset, .*ece_bins, seed"),
        ({"epochs": 5}, "epochs", "no such field here"),
        ({"ece_bins": 0}, "ece_bins", "must be at least 1"),
        ({"encoding": "zip"}, "encoding", "choose .*dense, sparse"),
        ({"encoding": ["dense"]}, "encoding", "must be a string"),
        ({"output": "classes"}, "output", "choose .*logits, probabilities"),
        ({"output": "softmax"}, "output", "choose .*logits, probabilities"),
        ({"output": None}, "output", "must be a string"),
        ({"formats": ["onnx"]}, "formats", "choose .*keras, .*saved_model"),
        ({"formats": []}, "formats", "choose .*keras, .*saved_model"),
        ({"formats": [["keras"]]}, "formats", "must be a string"),
        ({"formats": None}, "formats", "must be a string"),
        ({"scaled": "no way"}, "scaled", "must be true or false"),
        ({"reuse": 3}, "reuse", "must be true or false"),
        ({"seconds": -1}, "seconds", "must be a finite number, 0 or more"),
        ({"seconds": float("nan")}, "seconds", "must be a finite number, 0 or more"),
        ({"seconds": "long"}, "seconds", "must be a number"),
        ({"tolerance": 0.1}, "tolerance", "must be a lotcal_tf.Tolerance"),
        ({"tolerance": Tolerance}, "tolerance", "must be a lotcal_tf.Tolerance"),
        ({"progress": "bar"}, "progress", "must be a function"),
        ({"directory": 5}, "directory", "must be a path"),
        ({"ticket": None}, "ticket", "must be a path, a ticket, or the run"),
        ({"ticket": 5}, "ticket", "must be a path, a ticket, or the run"),
    ],
)
def test_arguments_that_are_not_valid_are_refused(digits_run, data, tmp_path, given, field, words):
    asked = {"ticket": digits_run, "directory": tmp_path / "out", **FLOAT, **given}
    with pytest.raises(FieldError, match=f"^{field}=.*: {words}"):
        api.export_ticket(test=data.test.data(), **asked)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["test", "validation", "train"])
def test_data_that_is_not_valid_is_refused(digits_run, data, tmp_path, name):
    inputs, labels = data.test.data()
    for wrong in (
        (inputs[:, :5], labels),
        (inputs, labels + 5),
        (inputs, labels[:-1]),
        (inputs, [str(label) for label in labels]),
        (inputs * np.nan, labels),
        ((), ()),
        (inputs, None),
        inputs,
        "digits",
        digits_run,
    ):
        given = {"test": (inputs, labels)} | {name: wrong}
        with pytest.raises(UsageError, match=name) as caught:
            api.export_ticket(digits_run.selected, tmp_path / "out", **given, **FLOAT)
        assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_the_card_of_a_ticket_describes_its_run(arrays_run, data, tmp_path):
    test = data.test.data()
    cards = []
    for place, given in enumerate((arrays_run, arrays_run.selected)):
        done = api.export_ticket(given, tmp_path / str(place), test, **FLOAT)
        cards.append(json.loads((done.directory / "model_card.json").read_text()))
        cards[-1].pop("sparsity_report")
    assert cards[0] == cards[1] and cards[1]["experiment"]["epochs"] == 2
    # Its files and its directory serve as well.
    path = arrays_run.selected.directory
    done = api.export_ticket(path, tmp_path / "path", test, **FLOAT)
    assert done.parity["ticket"] == arrays_run.selected.digest
    # A copy of one ticket is exported, too, but nothing is known of its run.
    copy = shutil.copytree(path, tmp_path / "run" / "tickets" / path.name)
    done = api.export_ticket(api.load_ticket(copy), tmp_path / "copy", test, **FLOAT)
    assert json.loads((done.directory / "model_card.json").read_text())["experiment"] == {}


def test_a_copy_of_a_ticket_has_its_names_of_classes(digits_run, data, tmp_path):
    copy = shutil.copytree(digits_run.ticket(1).directory, tmp_path / "level_01")
    done = api.export_ticket(copy, tmp_path / "out", data.test.data(), **FLOAT)
    assert (done.directory / "labels.txt").read_text().split() == list("0123456789")


def test_named_data_with_other_classes_is_refused(call, run, tmp_path):
    for number in range(3):
        (tmp_path / "data" / f"class_{number}").mkdir(parents=True)
        for place in range(20):
            image = np.full((8, 8, 1), 10 * number + place, "uint8")
            path = tmp_path / "data" / f"class_{number}" / f"{place}.png"
            tf_keras.utils.save_img(path, image, scale=False)
    flags = [f"--run={run}", f"--out={tmp_path / 'out'}", f"--data_dir={tmp_path / 'data'}"]
    done = call(*flags, "--dataset=folder", *QUICK)
    assert (done.code, done.out) == (2, "")
    assert "10 classes, the test data has 3 classes" in done.err[-1]


@pytest.mark.full
def test_a_network_that_tflite_lacks_is_exported_to_other_formats(tmp_path):
    layers = tf_keras.layers
    given = tf_keras.Input((3, 5, 2))
    x = layers.Flatten()(layers.ConvLSTM1D(2, 2, name="loop")(given))
    model = tf_keras.Model(given, layers.Dense(3)(x))
    draw = np.random.default_rng(0)
    examples = draw.normal(size=(40, 3, 5, 2)).astype("float32"), draw.integers(0, 3, 40)
    asked = {"epochs": 1, "levels": 1, "batch_size": 20, "plan": "graph", "progress": False}
    run = api.find_tickets(model, examples, out=tmp_path / "run", **asked)
    with pytest.raises(UsageError, match="^float32: .*'loop'"):
        api.export_ticket(run, tmp_path / "no", examples, **FLOAT)
    assert not (tmp_path / "no").exists()
    options = {"formats": ["keras", "saved_model"], "seconds": 0, "output": "probabilities"}
    done = api.export_ticket(run, tmp_path / "out", examples, **options)
    files = [row["file"] for row in done.sparsity_report["files"]]
    assert files == ["ticket.keras", "saved_model"]
    row = next(row for row in done.sparsity_report["layers"] if row["weight"] == "recurrent_kernel")
    assert (row["layer"], row["weights"], row["zeros"]) == ("loop", 32, 6)
    assert "loop/recurrent_kernel" in done.table()


def test_what_is_missing_is_named(digits_run, data, tmp_path):
    lone = dataclasses.replace(digits_run.selected, directory=None)
    with pytest.raises(UsageError, match="^directory is missing"):
        api.export_ticket(lone, test=data.test.data())
    with pytest.raises(UsageError, match="^test is missing"):
        api.export_ticket(lone, tmp_path / "out")
    with pytest.raises(FieldError, match="^run=.*: is not a run directory"):
        api.export_ticket(tmp_path, tmp_path / "out")
    with pytest.raises(UsageError, match="^test .*pair"):
        api.export_ticket(digits_run.selected, tmp_path / "out", data.test.data()[0], **FLOAT)
    assert not list(tmp_path.iterdir())
