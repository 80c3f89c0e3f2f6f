"""Measuring a ticket or a file: the command, and `measure_model`, which it calls.

What is computed from a model's outputs is tested in tests/evaluation.
"""

import csv
import functools
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from lotcal_tf import api, evaluate
from lotcal_tf.compat import keras
from lotcal_tf.config.experiment import Experiment
from lotcal_tf.config.registry import CORRUPTIONS, SEVERITIES
from lotcal_tf.data import digits
from lotcal_tf.errors import FieldError, LotcalError, UsageError
from lotcal_tf.formats.saved_model import SavedModel
from lotcal_tf.lottery.conditions import read_conditions
from lotcal_tf.lottery.store import RunStore
from lotcal_tf.metrics import measure
from lotcal_tf.metrics.unseen import measure_unseen

METRICS = set(measure([0, 1], np.eye(2)))


@pytest.fixture
def run(exported_run):
    """A finished run on the digits, with an export."""
    return exported_run


def write_set(data_dir, name, count=40, shape=(8, 8, 1), splits=("test",), classes=10):
    """A TFDS data set, by default with a test split only, as cifar10_corrupted; values 0 … 255."""

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=shape),
                    "label": tfds.features.ClassLabel(num_classes=classes),
                }
            )
            return tfds.core.DatasetInfo(
                builder=self, features=features, supervised_keys=("image", "label")
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples() for split in splits}

        def _generate_examples(self):
            draw = np.random.default_rng(0)
            for number in range(count):
                image = draw.integers(0, 256, shape).astype(np.uint8)
                yield number, {"image": image, "label": number % classes}

    Builder.name = name
    Builder.__module__ = name
    Builder(data_dir=data_dir, file_format="tfrecord").download_and_prepare()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tfds")
    write_set(directory, "tiny_fog")
    write_set(directory, "tiny_cars", shape=(6, 6, 3), splits=("train", "test"))
    write_set(directory, "tiny_letters", classes=26)
    # As TFDS lays out a set with configurations.
    (directory / "tiny_corrupted").mkdir()
    shutil.copytree(directory / "tiny_fog", directory / "tiny_corrupted" / "fog_3")
    return directory


@pytest.fixture
def call(call_command):
    return functools.partial(call_command, evaluate)


@pytest.fixture
def measured(call):
    """What `--json` prints."""

    def measured(model, *flags):
        done = call(f"--model={model}", "--json", *flags)
        assert done.code == 0, done.err
        return json.loads(done.out)

    return measured


@pytest.fixture
def no_data(monkeypatch):
    """As where the data of a run is gone."""

    def fails(*_, **__):
        raise AssertionError("data was read")

    monkeypatch.setattr("lotcal_tf.data.digits.load", fails)


@pytest.fixture
def no_network(monkeypatch):
    """As where the layers of a ticket are not registered."""

    def fails(*_, **__):
        raise UsageError("is not registered")

    monkeypatch.setattr("lotcal_tf.lottery.ticket.Ticket.model", fails)


def recorded(run, level):
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))[level]


# The same metrics, whatever the model is


@pytest.mark.parametrize("split", ["test", "val"])
@pytest.mark.parametrize("level", [0, 2])
def test_stored_predictions_have_exactly_the_metrics_of_the_run(
    run, measured, no_data, no_network, split, level
):
    found = measured(run / "tickets" / f"level_{level:02d}", f"--split={split}")
    assert (found["kind"], found["output"], found["temperature"]) == ("ticket", "logits", 1.0)
    assert (found["data"], found["split"], found["ece_bins"]) == ("digits", split, 12)
    assert found["examples"] == {"test": 360, "val": 123}[split]
    assert found["stored"] is True
    row = recorded(run, level)
    assert found["metrics"] == {name: float(row[f"{split}_{name}"]) for name in METRICS}


def test_stored_predictions_can_be_scaled_and_binned_otherwise(run, measured, no_data):
    level, row = run / "tickets" / "level_01", recorded(run, 1)
    found = measured(level, "--scaled")
    assert found["temperature"] == float(row["temperature"]) != 1
    assert found["metrics"]["nll"] == float(row["test_nll_scaled"])
    assert found["metrics"]["ece"] == float(row["test_ece_scaled"])
    rough = measured(level, "--ece_bins=3")
    assert (rough["ece_bins"], rough["stored"]) == (3, True)
    predictions = api.load_ticket(level).predictions
    wanted = measure(predictions["test/labels"], predictions["test/logits"], bins=3)
    assert rough["metrics"] == wanted


@pytest.mark.parametrize(
    ("split", "flag"),
    [
        ("test", "--dataset=digits"),
        ("val", "--dataset=digits"),
        ("val", "--source=digits"),
        ("test", "--seed=5"),
        ("test", "--memory_limit_mb=99"),
    ],
)
def test_a_field_of_the_data_runs_the_model(run, measured, flag, split):
    found = measured(run / "tickets" / "level_02", f"--split={split}", flag)
    row = recorded(run, 2)
    assert (found["stored"], found["ece_bins"]) == (False, 12)
    wanted = {name: float(row[f"{split}_{name}"]) for name in METRICS}
    assert found["metrics"] == pytest.approx(wanted, abs=1e-6)


def test_a_run_whose_data_was_moved_has_its_predictions_and_data_dir_says_where_it_is(
    data_dir, tmp_path, call, measured
):
    recipe, here, run = tmp_path / "cars.toml", tmp_path / "here", tmp_path / "run"
    recipe.write_text("source = 'tiny_cars'\nbatch_size = 10\n")
    shutil.copytree(data_dir / "tiny_cars", here / "tiny_cars")
    fields = {"epochs": 1, "levels": 0, "plan": "graph", "data_dir": here, "out": run}
    api.find_tickets("lenet_4", config=recipe, **fields, progress=False)
    here.rename(tmp_path / "there")
    stored = measured(run)
    assert (stored["data"], stored["examples"], stored["stored"]) == ("cars", 40, True)
    found = measured(run, f"--data_dir={tmp_path / 'there'}")
    assert found["stored"] is False
    assert found["metrics"] == pytest.approx(stored["metrics"], abs=1e-6)
    assert call(f"--model={run}", "--shift=blur").code == 2


def test_the_table_says_what_was_measured(run, call, no_data):
    title, data, *_ = call(f"--model={run}").out.splitlines()
    assert title.endswith("(ticket, stored predictions); logits before temperature scaling")
    assert data == "360 examples of digits, test split; ECE in 12 bins"
    scaled = call(f"--model={run}", "--scaled").out.splitlines()[0]
    assert "logits divided by the temperature" in scaled


def test_ticket_saved_model_and_tflite_agree(run, measured, data_dir, tmp_path):
    flags = ["--shift=all", "--severity=1,5", "--unseen=tiny_fog", f"--data_dir={data_dir}"]
    ticket = measured(run, *flags)
    level = json.loads((run / "export" / "parity.json").read_text())["level"]
    assert ticket["model"] == str(run / "tickets" / f"level_{level:02d}")
    assert ticket["stored"] is False
    row = recorded(run, level)
    wanted = {name: float(row[f"test_{name}"]) for name in METRICS}
    assert ticket["metrics"] == pytest.approx(wanted, abs=1e-6)
    # A file outside the run too, for which the data must be named.
    lone = shutil.copy(run / "export" / "ticket_float32.tflite", tmp_path / "lone.tflite")
    for file, kind in ((run / "export" / "saved_model", "saved_model"), (lone, "tflite")):
        named = [] if run in file.parents else ["--dataset=digits", "--ece_bins=12"]
        found = measured(file, *flags, *named)
        assert (found["kind"], found["output"]) == (kind, "logits")
        assert found["metrics"] == pytest.approx(ticket["metrics"], abs=1e-6)
        for mine, theirs in (
            *zip(found["shifts"], ticket["shifts"], strict=True),
            *zip(found["unseen"], ticket["unseen"], strict=True),
        ):
            assert mine == pytest.approx(theirs, abs=2e-6)


def test_every_shift_at_every_severity_by_default(run, measured):
    found = measured(run, "--shift=all")
    assert [(row["shift"], row["severity"]) for row in found["shifts"]] == [
        (shift, severity) for shift in CORRUPTIONS for severity in SEVERITIES
    ]
    assert set(found["shifts"][0]) == {"shift", "severity", *METRICS}
    one = measured(run, "--shift=contrast", "--severity=5")
    assert one["shifts"] == found["shifts"][-1:]


# Which data


def test_the_bins_may_differ_from_those_of_the_run_and_the_splits_may_not(run, measured, call):
    level = run / "tickets" / "level_02"
    bins = measured(level, "--split=val", "--validation_size=123", "--ece_bins=3")
    assert (bins["examples"], bins["ece_bins"]) == (123, 3)
    assert bins["metrics"]["nll"] == pytest.approx(float(recorded(run, 2)["val_nll"]))
    for flag in ("--seed=6", "--validation_size=50"):
        done = call(f"--model={level}", "--split=val", flag)
        assert (done.code, done.out) == (2, "") and done.err[-1].startswith(f"evaluate: {flag}: is")


def test_a_recipe_with_the_data_of_a_run_measures_no_training_examples(
    run, call, measured, tmp_path
):
    recipe, level = tmp_path / "mine.toml", run / "tickets" / "level_02"
    recipe.write_text("source = 'digits'\n")
    found = measured(level, "--split=val", f"--config={recipe}")
    assert (found["examples"], found["stored"]) == (123, False)
    assert found["metrics"]["nll"] == pytest.approx(float(recorded(run, 2)["val_nll"]))
    recipe.write_text("source = 'digits'\nvalidation_size = 200\n")
    done = call(f"--model={level}", "--split=val", f"--config={recipe}")
    assert (done.code, done.out) == (2, "") and "validation_size" in done.err[0]


@pytest.fixture
def table_run(make_source, tmp_path):
    """A run on a table, which has no test split of its own."""
    data = {"dataset": "table", "data_dir": make_source("table"), "test_size": 30}
    fields = {"epochs": 1, "levels": 0, "batch_size": 20, "plan": "graph"}
    return api.find_tickets("lenet_4", **data, **fields, out=tmp_path / "run", progress=False)


def test_a_table_without_a_test_split_is_divided_as_in_the_run(table_run, call, measured, tmp_path):
    run, table = table_run.directory, tmp_path / "table.csv"
    stored, recipe = measured(run), tmp_path / "other.toml"
    assert (stored["examples"], stored["stored"]) == (30, True)
    for flags in (["--source=table"], ["--source=table", f"--data_dir={table}"]):
        found = measured(run, *flags)
        assert (found["examples"], found["stored"]) == (30, False)
        assert found["metrics"] == pytest.approx(stored["metrics"], abs=1e-6)
    recipe.write_text("source = 'table'\ntest_size = 60\n")
    copy = shutil.copy(table, tmp_path / "copy.csv")
    for place in (table, copy):
        done = call(f"--model={run}", f"--config={recipe}", f"--data_dir={place}")
        assert (done.code, done.out, len(done.err)) == (2, "", 1)
    # The data was moved, and no flag names other data.
    table.unlink()
    assert measured(run) == stored
    assert measured(run, f"--data_dir={copy}")["metrics"] == found["metrics"]
    done = call(f"--model={run}", "--source=table")
    assert done.code == 2 and "no such file or directory" in done.err[0]
    # Other rows of the same kind are other data.
    lines = copy.read_text().splitlines(keepends=True)
    copy.write_text("".join(lines[:60]))
    recipe.write_text("source = 'table'\ntest_size = 12\n")
    assert measured(run, f"--config={recipe}", f"--data_dir={copy}")["examples"] == 12


@pytest.mark.parametrize("source", ["tiny_fog", "tiny_corrupted/fog_3"])
def test_a_data_set_with_a_test_split_only_is_measured_on(
    run, measured, data_dir, source, tmp_path
):
    flag, recipe = [f"--source={source}"], tmp_path / "fog.toml"
    recipe.write_text(f"source = '{source}'\n")
    found = measured(run, *flag, f"--data_dir={data_dir}")
    assert (found["data"], found["split"], found["examples"]) == (source, "test", 40)
    again = measured(run, f"--config={recipe}", f"--data_dir={data_dir}")
    assert again == found | {"data": "fog"}


def test_unseen_data_is_recognised_by_confidence(run, measured, data_dir):
    found = measured(run, "--unseen=tiny_fog,tiny_letters", f"--data_dir={data_dir}")
    assert [(row["data"], row["examples"]) for row in found["unseen"]] == [
        ("tiny_fog", 40), ("tiny_letters", 40)
    ]  # fmt: skip
    fog, letters = found["unseen"]
    assert fog["known_confidence"] == letters["known_confidence"]
    known = found["metrics"]["accuracy"] + found["metrics"]["overconfidence"]
    assert fog["known_confidence"] == pytest.approx(known, abs=1e-12)
    assert 0 <= fog["auroc"] <= 1


def test_a_run_of_arrays_is_measured_where_data_is_named(arrays_run, call, measured):
    stored = measured(arrays_run.directory)
    assert (stored["examples"], stored["ece_bins"], stored["stored"]) == (360, 9, True)
    assert stored["metrics"] == api.measure_model(arrays_run).metrics
    done = call(f"--model={arrays_run.directory}", "--shift=blur")
    assert (done.code, done.out) == (2, "")
    assert "dataset is missing" in done.err[0] and "passed as objects" in done.err[0]
    found = measured(arrays_run.directory, "--dataset=digits")
    assert (found["data"], found["ece_bins"], found["stored"]) == ("digits", 9, False)
    record = arrays_run.selected.record
    wanted = {name: record[f"test_{name}"] for name in METRICS}
    assert found["metrics"] == pytest.approx(wanted, abs=1e-6)


# Every level of a run, for the report


@pytest.fixture
def sweep(run, tmp_path):
    """A directory with two runs."""
    for name in ("a", "b"):
        shutil.copytree(run, tmp_path / "sweep" / name)
    return tmp_path / "sweep"


def test_every_level_of_each_run_is_measured_and_recorded_once(call, sweep, run, data_dir):
    flags = [
        "--shift=blur,contrast",
        "--severity=1,5",
        "--unseen=tiny_fog",
        f"--data_dir={data_dir}",
    ]
    done = call(f"--model={sweep}", "--record", *flags)
    assert done.code == 0, done.err
    levels = len(list((run / "tickets").glob("level_*")))
    assert [line.rpartition(", ")[2] for line in done.out.splitlines()] == [
        f"levels measured: {levels}"
    ] * 2
    for name in ("a", "b"):
        rows = read_conditions(sweep / name)
        assert [one["level"] for one in rows] == sorted([*range(levels)] * 5)
        one = api.measure_model(
            run / "tickets" / "level_01", shifts=["blur"], severities=[5], unseen=["tiny_fog"],
            data_dir=data_dir, progress=False,
        )  # fmt: skip
        (blur,) = (r for r in rows if (r["level"], r["shift"], r["severity"]) == (1, "blur", 5))
        (fog,) = (r for r in rows if (r["level"], r["unseen"]) == (1, "tiny_fog"))
        assert blur["ece"] == pytest.approx(one.shifts[0].metrics["ece"], abs=1e-6)
        assert fog["auroc"] == pytest.approx(one.unseen[0].metrics["auroc"], abs=1e-6)
    again = call(f"--model={sweep}", "--record", *flags).out.splitlines()
    assert [line.rpartition(", ")[2] for line in again] == ["nothing new to measure"] * 2
    shutil.rmtree(sweep / "a" / "tickets" / f"level_{levels - 1:02d}")
    assert len(read_conditions(sweep / "a")) == 5 * (levels - 1)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "--record needs --shift, --unseen, or both"),
        (["--shift=blur", "--json"], "leave out --json:"),
        (["--shift=blur", "--scaled"], "leave out --scaled:"),
        (["--shift=blur", "--split=val"], "leave out --split:"),
        (["--shift=blur", "--dataset=mnist"], "leave out --dataset:"),
        (["--shift=blur", "--config=x.toml"], "leave out --config:"),
        (["--shift=fog"], "--shift=fog: choose one of"),
        (["--unseen=tiny_cars", "--data_dir={data_dir}"], "(8, 8, 1), tiny_cars has (6, 6, 3)"),
    ],
)
def test_a_wrong_request_to_record_writes_nothing(call, sweep, data_dir, flags, words):
    given = [flag.format(data_dir=data_dir) for flag in flags]
    done = call(f"--model={sweep}", "--record", *given)
    assert (done.code, done.out) == (2, "")
    (line,) = done.err
    assert words in line
    assert not list(sweep.glob("*/conditions.csv"))


def test_runs_that_cannot_be_measured_are_left_out(call, run, arrays_run, tmp_path):
    sweep = tmp_path / "sweep"
    shutil.copytree(arrays_run.directory, sweep / "a")
    (sweep / "b").mkdir()
    for name in ("experiment.json", "metrics.csv"):  # tables only
        shutil.copy(run / name, sweep / "b")
    done = call(f"--model={sweep}", "--record", "--shift=blur", "--severity=1")
    assert (done.code, done.out) == (2, "")
    shutil.copytree(run, sweep / "c")
    done = call(f"--model={sweep}", "--record", "--shift=blur", "--severity=1")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert ["left out" in line for line in lines] == [True, True, False]
    assert [path.parent.name for path in sweep.glob("*/conditions.csv")] == ["c"]


def test_a_run_that_fails_stops_no_other(call, run, table_run, tmp_path):
    """A run on a table, between two on images."""
    sweep = tmp_path / "sweep"
    for name, directory in {"a": table_run.directory, "b": run, "c": table_run.directory}.items():
        shutil.copytree(directory, sweep / name)
    done = call(f"--model={sweep}", "--record", "--shift=blur", "--severity=1")
    assert done.code == 1
    lines, levels = done.out.splitlines(), len(list((run / "tickets").glob("level_*")))
    assert [str(sweep / name) in line for name, line in zip("abc", lines, strict=True)] == [
        True
    ] * 3
    assert f"levels measured: {levels}" in lines[1]
    assert all("needs images" in line for line in (lines[0], lines[2]))
    assert [len(read_conditions(sweep / name)) for name in "abc"] == [0, levels, 0]
    again = call(f"--model={sweep}", "--record", "--shift=blur", "--severity=1")
    assert again.code == 1 and "nothing new" in again.out.splitlines()[1]


def test_a_level_that_gives_nan_stops_no_other(call, run, tmp_path, monkeypatch):
    copy = shutil.copytree(run, tmp_path / "sweep" / "a")
    measure_opened = api.measure_opened

    def spoiled(opened, *given, **options):
        if opened.path == copy / "tickets" / "level_01":
            raise LotcalError("it gives NaN or infinity")
        return measure_opened(opened, *given, **options)

    monkeypatch.setattr(api, "measure_opened", spoiled)
    shutil.copytree(run, tmp_path / "sweep" / "b")
    done = call(f"--model={tmp_path / 'sweep'}", "--record", "--shift=blur", "--severity=1")
    assert done.code == 1
    first, second = done.out.splitlines()
    assert "gives NaN or infinity" in first and "levels measured: 3" in second
    assert [one["level"] for one in read_conditions(copy)] == [0, 2]


def test_a_directory_without_runs_is_refused(call, tmp_path):
    done = call(f"--model={tmp_path}", "--record", "--shift=blur")
    assert (done.code, done.out) == (2, "")
    assert "is not a run directory" in done.err[0]


# measure_model


def test_a_run_is_measured_on_arrays_and_pipelines(arrays_run):
    inputs, labels = digits.load(Experiment()).test.data()
    found = api.measure_model(arrays_run, (inputs, labels), unseen={"noise": 3 * inputs})
    selected = arrays_run.selected
    logits = selected.predictions["test/logits"]
    assert found.model.endswith(f"tickets/level_{selected.level:02d}")
    assert (found.examples, found.ece_bins, found.stored) == (360, 9, False)
    assert found.metrics == pytest.approx(measure(labels, logits, bins=9), abs=1e-6)
    far = selected.model()(3 * inputs).numpy()
    assert found.unseen[0].metrics == pytest.approx(measure_unseen(logits, far), abs=1e-6)
    pipeline = tf.data.Dataset.from_tensor_slices((inputs, labels))
    other = api.measure_model(str(arrays_run.directory), pipeline, ece_bins=4)
    assert other.metrics == pytest.approx(measure(labels, logits, bins=4), abs=1e-6)


def test_a_run_of_the_library_by_name_is_measured_by_its_predictions(digits_run, no_data):
    found, record = api.measure_model(digits_run, split="val"), digits_run.selected.record
    assert found.metrics == {name: record[f"val_{name}"] for name in METRICS}
    assert found.stored


def test_the_range_of_images_is_that_of_the_ticket_or_is_asked_for(digits_run, exported_run):
    data = digits_run.load().test.data()
    asked = {"shifts": ["blur"], "severities": [3], "progress": False}
    found = api.measure_model(digits_run, data, **asked)
    named = api.measure_model(digits_run, dataset="digits", **asked)
    assert found.shifts[0].metrics == pytest.approx(named.shifts[0].metrics, abs=1e-6)
    file = exported_run / "export" / "ticket_float32.tflite"
    with pytest.raises(UsageError, match="input_range"):
        api.measure_model(file, data, **asked)
    again = api.measure_model(file, data, input_range=16, **asked)
    assert again.shifts[0].metrics == pytest.approx(found.shifts[0].metrics, abs=1e-5)


def test_validation_data_of_a_noisy_run_has_the_noise_of_its_training(tmp_path):
    fields = {"epochs": 2, "levels": 0, "label_noise": 0.3, "plan": "graph", "out": tmp_path}
    (record,) = api.find_tickets("lenet_10", **fields, progress=False).records
    for split in ("val", "test"):
        found = api.measure_model(tmp_path, split=split, dataset="digits")
        assert found.metrics["accuracy"] == record[f"{split}_accuracy"]
    # 0.7 of the labels are right, and the network is not.
    assert record["val_accuracy"] < record["test_accuracy"]


@pytest.mark.parametrize(
    ("given", "field", "words"),
    [
        ({"bins": 5}, "bins", "no such field here; choose from dataset, .*ece_bins, seed"),
        ({"epochs": 5}, "epochs", "no such field here"),
        ({"ece_bins": 0}, "ece_bins", "must be at least 1"),
        ({"data_dir": "x"}, "data_dir", "applies only with"),
        ({"dataset": "absent"}, "dataset", "choose one of cifar10"),
        ({"test": True, "dataset": "digits"}, "dataset", "describes named data"),
    ],
)
def test_fields_that_are_not_valid_are_refused(digits_run, given, field, words):
    test = {"test": digits_run.validation} if given.pop("test", False) else {}
    with pytest.raises(FieldError, match=f"^{field}=.*: {words}"):
        api.measure_model(digits_run, **test, **given)


@pytest.mark.parametrize(
    ("given", "field", "words"),
    [
        ({"split": "train"}, "split", "choose .*test, val"),
        ({"split": 1}, "split", "must be a string"),
        ({"scaled": "a bit"}, "scaled", "must be true or false"),
        ({"shifts": 5}, "shifts", "must be a string"),
        ({"shifts": ["fog"]}, "shifts", "choose"),
        ({"shifts": ["blur"], "severities": [9]}, "severities", "choose .*1, 2, 3"),
        ({"shifts": ["blur"], "severities": None}, "severities", "must be an integer"),
        ({"input_range": 0}, "input_range", "must be a finite number above 0"),
        ({"input_range": "bytes"}, "input_range", "must be a number"),
        ({"progress": "bar"}, "progress", "must be true or false"),
    ],
)
def test_arguments_that_are_not_valid_are_refused(digits_run, given, field, words):
    asked = {"model": digits_run, "test": digits_run.validation, "progress": False, **given}
    with pytest.raises(FieldError, match=f"^{field}=.*: {words}"):
        api.measure_model(**asked)


@pytest.mark.parametrize(
    "unseen", ["digits", ["digits"], {"a": 5}, {"a": None}, {"a": [[1], [2, 3]]}]
)
def test_unseen_data_that_is_not_valid_is_refused(digits_run, unseen):
    with pytest.raises(UsageError, match=r"^(unseen|a inputs)"):
        api.measure_model(digits_run, digits_run.validation, unseen=unseen, progress=False)


@pytest.mark.parametrize("directory", [None, 5, "", "absent"])
def test_what_is_not_a_ticket_is_not_loaded(directory):
    with pytest.raises(UsageError, match="^(directory|absent)"):
        api.load_ticket(directory)


def test_inputs_of_another_shape_are_refused(digits_run):
    inputs, labels = digits_run.validation
    with pytest.raises(UsageError, match=r"inputs of shape \(8, 8, 1\), the data has \(8, 8\)"):
        api.measure_model(digits_run, (inputs[..., 0], labels))


# Wrong requests


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "--model is missing"),
        (["--model=absent.tflite"], "--model=absent.tflite: no such file or directory"),
        (["--model={run}", "--shift=fog"], "--shift=fog: choose one of gaussian_noise, blur, contrast"),
        (["--model={run}", "--shift=blur,"], "--shift=blur,: give names, with commas"),
        (["--model={run}", "--shift=blur", "--severity=6"], "--severity=6: give a list of 1, 2, 3, 4, 5"),
        (["--model={run}", "--shift=blur", "--severity=0"], "--severity=0: give a list of 1, 2, 3, 4, 5"),
        (["--model={run}", "--severity=3"], "--severity=3: applies only with --shift"),
        (["--model={run}", "--trust_saved_model"], "leave out --trust_saved_model: {run} is not"),
        (["--model={run}", "--severity=1.5"], "--severity=1.5: give a list of 1, 2, 3, 4, 5"),
        (["--model={run}", "--split=train"], "--split=train: choose one of test, val"),
        (["--model={run}", "--dataset=imagenet"], "--dataset=imagenet: choose one of cifar10"),
        (["--model={run}", "--data_dir={data_dir}"], "--data_dir={data_dir}: applies only with"),
        (["--model={lone}", "--source=digits", "--data_dir=x"], "--data_dir=x: applies only with"),
        (["--model={run}", "--epochs=3"], "'epochs'"),
        (["--model={run}", "--ece_bins=0"], "--ece_bins=0: must be at least 1"),
        (["--model={run}", "--json=maybe"], "json"),
        (["--model={run}/tickets"], "is not a model: give a .keras file"),
        (["--model={run}/metrics.csv"], "is not a model: give a .keras file"),
        (["--model={run}/export/ticket_float32.tflite", "--scaled"], "only tickets have one"),
        (["--model={lone}"], "dataset is missing"),
        (["--model={run}", "--unseen=tiny_cars", "--data_dir={data_dir}"], "(8, 8, 1), tiny_cars has (6, 6, 3)"),
        (["--model={lone}", "--source=tiny_cars", "--data_dir={data_dir}"], "(8, 8, 1), tiny_cars has (6, 6, 3)"),
        (["--model={run}", "--source=tiny_letters", "--data_dir={data_dir}"], "10 classes, tiny_letters has 26"),
        (["--model={run}", "--source=tiny_fog", "--data_dir={data_dir}", "--split=val"], "train, test"),
        (["--model={run}", "--unseen=none_such", "--data_dir={data_dir}"], "no TFDS set none_such"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_reported_in_one_line(call, run, data_dir, tmp_path, flags, words):
    lone = shutil.copy(run / "export" / "ticket_float32.tflite", tmp_path / "lone.tflite")
    places = {"run": run, "data_dir": data_dir, "lone": lone}
    done = call(*(flag.format(**places) for flag in flags))
    assert (done.code, done.out) == (2, "")
    (line,) = done.err
    assert line.startswith("evaluate: ")
    assert words.format(**places) in line


def test_a_damaged_ticket_is_refused(call, run, tmp_path):
    level = shutil.copytree(run / "tickets" / "level_01", tmp_path / "level_01")
    for name in ("masks", "predictions"):
        content = bytearray((level / f"{name}.safetensors").read_bytes())
        content[-1] ^= 1
        (level / f"{name}.safetensors").write_bytes(content)
        done = call(f"--model={level}", "--dataset=digits")
        assert (done.code, done.out) == (2, "")
        (line,) = done.err
        assert f"{name}.safetensors is damaged" in line
        shutil.copy(run / "tickets" / "level_01" / f"{name}.safetensors", level)


def test_a_ticket_without_a_temperature_says_what_to_do(call, digits_run, tmp_path):
    ticket = digits_run.ticket(0)
    store = RunStore(tmp_path / "old")
    store.begin({"experiment": {}})
    del ticket.record["temperature"]
    store.save(ticket)
    done = call(f"--model={tmp_path / 'old'}", "--dataset=digits", "--scaled")
    assert (done.code, done.out) == (2, "")
    assert "level 0 has no temperature" in done.err[0]


def test_a_model_that_gives_nan_fails(call, tmp_path):
    layers = keras.layers
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(10)])
    model.layers[-1].bias.assign(tf.fill([10], np.nan))
    SavedModel().write(model, tmp_path / "nan")
    done = call(f"--model={tmp_path / 'nan'}", "--dataset=digits", "--trust_saved_model")
    assert (done.code, done.out) == (1, "")
    assert "gives NaN or infinity, first for example 0" in done.err[0]


def test_interruption_is_130(call, run, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "measure_model", interrupt)
    done = call(f"--model={run}")
    assert (done.code, done.out, len(done.err)) == (130, "", 1)
    assert done.err[0].startswith("evaluate: interrupted; ")


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        (["--help"], 0),
        (["--model=setup.py"], 2),
        (["--model={run}", "--shift=fog"], 2),
        (["--model={run}", "--dataset=absent"], 2),
        (["--model=absent"], 2),
    ],
)
def test_answers_in_a_second_and_without_tensorflow(at_once, run, flags, code):
    done = at_once("lotcal_tf.evaluate", *(flag.format(run=run) for flag in flags))
    assert (done.code, len(done.err)) == (code, code == 2)
    for name in (*(flag.name for flag in evaluate.FLAGS), *evaluate.FIELDS, "config"):
        assert (f"\n  --{name}\n" in done.out) == (code == 0)
