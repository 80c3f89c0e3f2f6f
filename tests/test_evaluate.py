"""The command that measures, whole: one tiny run on the digits, and all that came of it."""

import csv
import json
import shutil
import types
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from lotcal_tf import api, evaluate, measuring
from lotcal_tf.config.recipes import resolve
from lotcal_tf.config.registry import CORRUPTIONS, SEVERITIES
from lotcal_tf.lottery.run import export_best, run_experiment
from lotcal_tf.metrics import measure

# See conftest.
pytestmark = pytest.mark.usefixtures("determinism")

ROOT = Path(__file__).resolve().parents[1]
# Not the defaults: the validation split must be cut as the run cut it.
FLAGS = {"model": "lenet_10", "epochs": 2, "levels": 2, "seed": 5, "validation_size": 123}
FIGURES = set(measure([0, 1], np.eye(2)))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run with its export; no test changes it."""
    out = tmp_path_factory.mktemp("evaluate") / "run"
    found = run_experiment(
        resolve({**FLAGS, "ece_bins": 12, "plan": "graph", "out": str(out)}), progress=False
    )
    export_best(found, scaled=False)
    return found.directory


def write_set(data_dir, name, count=40, shape=(8, 8, 1), splits=("test",), classes=10):
    """A TFDS set of one split, as cifar10_corrupted has one; values 0 … 255."""

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
def call(capsys):
    def call(*flags):
        with pytest.raises(SystemExit) as left:
            evaluate.run([str(flag) for flag in flags])
        out, err = capsys.readouterr()
        return types.SimpleNamespace(code=left.value.code, out=out, err=err.splitlines())

    return call


@pytest.fixture
def measured(call):
    """What `--json` prints."""

    def measured(model, *flags):
        done = call(f"--model={model}", "--json", *flags)
        assert done.code == 0, done.err
        return json.loads(done.out)

    return measured


def recorded(run, level):
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))[level]


# --- the same figures, whatever the model is -----------------------------------------------------


@pytest.mark.parametrize("split", ["test", "val"])
@pytest.mark.parametrize("level", [0, 2])
def test_a_ticket_has_the_figures_its_run_recorded(run, measured, split, level):
    found = measured(run / "tickets" / f"level_{level:02d}", f"--split={split}")
    assert (found["kind"], found["output"], found["temperature"]) == ("ticket", "logits", 1.0)
    assert (found["data"], found["split"], found["ece_bins"]) == ("digits", split, 12)
    assert found["examples"] == {"test": 360, "val": 123}[split]
    row = recorded(run, level)
    assert found["metrics"] == pytest.approx(
        {name: float(row[f"{split}_{name}"]) for name in FIGURES}, abs=1e-6
    )


def test_scaled_figures_are_those_the_run_recorded(run, measured):
    found, row = measured(run / "tickets" / "level_01", "--scaled"), recorded(run, 1)
    assert found["temperature"] == float(row["temperature"]) != 1
    assert found["metrics"]["nll"] == pytest.approx(float(row["test_nll_scaled"]), abs=1e-6)
    assert found["metrics"]["ece"] == pytest.approx(float(row["test_ece_scaled"]), abs=1e-6)


def test_ticket_saved_model_and_tflite_agree(run, measured, data_dir, tmp_path):
    flags = ["--shift=all", "--severity=1,5", "--unseen=tiny_fog", f"--data_dir={data_dir}"]
    ticket = measured(run, *flags)
    level = json.loads((run / "export" / "parity.json").read_text())["level"]
    assert ticket["model"] == str(run / "tickets" / f"level_{level:02d}")
    # Outside the run too, where the data must be named.
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


def test_every_shift_at_every_severity_by_default(run, measured, call):
    found = measured(run, "--shift=all")
    assert [(row["shift"], row["severity"]) for row in found["shifts"]] == [
        (shift, severity) for shift in CORRUPTIONS for severity in SEVERITIES
    ]
    assert set(found["shifts"][0]) == {"shift", "severity", *FIGURES}
    one = measured(run, "--shift=contrast", "--severity=5")
    assert one["shifts"] == found["shifts"][-1:]
    table = call(f"--model={run}", "--shift=contrast", "--severity=5").out.splitlines()
    assert [line.split()[0] for line in table[3:]] == ["clean", "contrast"]


# --- whose data ----------------------------------------------------------------------------------


def test_a_flag_comes_before_what_the_run_recorded(run, measured):
    level = run / "tickets" / "level_02"
    cut = {
        name: measured(level, "--split=val", *flags)
        for name, flags in {
            "run": [],
            "dataset": ["--dataset=digits"],
            "seed": ["--seed=6"],
            "size": ["--validation_size=50", "--ece_bins=3"],
        }.items()
    }
    assert cut["dataset"] == cut["run"]
    assert cut["seed"]["examples"] == 123
    assert cut["seed"]["metrics"]["nll"] != cut["run"]["metrics"]["nll"]
    assert (cut["size"]["examples"], cut["size"]["ece_bins"]) == (50, 3)


@pytest.mark.parametrize("source", ["tiny_fog", "tiny_corrupted/fog_3"])
def test_a_set_with_a_test_split_only_is_measured_on(run, measured, data_dir, source, tmp_path):
    flag, recipe = [f"--source={source}"], tmp_path / "fog.toml"
    recipe.write_text(f"source = '{source}'\n")
    found = measured(run, *flag, f"--data_dir={data_dir}")
    assert (found["data"], found["split"], found["examples"]) == (source, "test", 40)
    again = measured(run, f"--config={recipe}", f"--data_dir={data_dir}")
    assert again == found | {"data": "fog"}


def test_unseen_sets_are_told_apart_by_confidence(run, measured, data_dir):
    found = measured(run, "--unseen=tiny_fog,tiny_letters", f"--data_dir={data_dir}")
    assert [(row["data"], row["examples"]) for row in found["unseen"]] == [
        ("tiny_fog", 40), ("tiny_letters", 40)
    ]  # fmt: skip
    fog, letters = found["unseen"]
    assert fog["known_confidence"] == letters["known_confidence"]
    known = found["metrics"]["accuracy"] + found["metrics"]["overconfidence"]
    assert fog["known_confidence"] == pytest.approx(known, abs=1e-12)
    assert 0 <= fog["auroc"] <= 1


# --- wrong requests ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "--model is missing"),
        (["--model=absent.tflite"], "--model=absent.tflite: no such file or directory"),
        (["--model={run}", "--shift=fog"], "--shift=fog: choose of gaussian_noise, blur, contrast"),
        (["--model={run}", "--shift=blur,"], "--shift=blur,: give names, with commas"),
        (["--model={run}", "--shift=blur", "--severity=6"], "--severity=6: choose of 1, 2, 3, 4, 5"),
        (["--model={run}", "--shift=blur", "--severity=0"], "--severity=0: choose of 1, 2, 3, 4, 5"),
        (["--model={run}", "--severity=1.5"], "--severity=1.5: choose of 1, 2, 3, 4, 5"),
        (["--model={run}", "--split=train"], "--split=train: choose one of test, val"),
        (["--model={run}", "--dataset=imagenet"], "--dataset=imagenet: no recipe of that name"),
        (["--model={run}", "--epochs=3"], "'epochs'"),
        (["--model={run}", "--ece_bins=0"], "--ece_bins=0: must be at least 1"),
        (["--model={run}", "--json=maybe"], "json"),
        (["--model={run}/tickets"], "is not a model: give a .keras file"),
        (["--model={run}/metrics.csv"], "is not a model: give a .keras file"),
        (["--model={run}/export/ticket_float32.tflite", "--scaled"], "only tickets have one"),
        (["--model={lone}"], "--dataset is missing"),
        (["--model={run}", "--unseen=tiny_cars", "--data_dir={data_dir}"], "(8, 8, 1), tiny_cars has (6, 6, 3)"),
        (["--model={lone}", "--source=tiny_cars", "--data_dir={data_dir}"], "(8, 8, 1), tiny_cars has (6, 6, 3)"),
        (["--model={run}", "--source=tiny_letters", "--data_dir={data_dir}"], "10 classes, tiny_letters has 26"),
        (["--model={run}", "--source=tiny_fog", "--data_dir={data_dir}", "--split=val"], "it must have train, test"),
        (["--model={run}", "--unseen=none_such", "--data_dir={data_dir}"], "no TFDS set none_such"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_told_in_one_line(call, run, data_dir, tmp_path, flags, words):
    lone = shutil.copy(run / "export" / "ticket_float32.tflite", tmp_path / "lone.tflite")
    places = {"run": run, "data_dir": data_dir, "lone": lone}
    done = call(*(flag.format(**places) for flag in flags))
    assert (done.code, done.out) == (2, "")
    (line,) = done.err
    assert line.startswith("evaluate: ")
    assert words in line


def test_a_damaged_ticket_is_refused(call, run, tmp_path):
    level = shutil.copytree(run / "tickets" / "level_01", tmp_path / "level_01")
    content = bytearray((level / "masks.safetensors").read_bytes())
    content[-1] ^= 1
    (level / "masks.safetensors").write_bytes(content)
    done = call(f"--model={level}", "--dataset=digits")
    assert (done.code, done.out) == (2, "")
    (line,) = done.err
    assert "masks.safetensors is damaged" in line


def test_a_ticket_without_a_temperature_says_what_to_do(call, run, tmp_path):
    from lotcal_tf.lottery.store import RunStore

    ticket = RunStore(run).read(0)
    store = RunStore(tmp_path / "old")
    store.begin({"experiment": {}})
    del ticket.record["temperature"]
    store.save(ticket)
    done = call(f"--model={tmp_path / 'old'}", "--dataset=digits", "--scaled")
    assert (done.code, done.out) == (2, "")
    assert "level 0 has no temperature: use its raw logits" in done.err[0]


def test_data_of_ones_own_must_be_named(call, tmp_path):
    from lotcal_tf.compat import keras

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    x, y = np.random.default_rng(0).normal(size=(30, 4)), np.arange(30) % 3
    out = tmp_path / "own"
    api.find_tickets(
        model, (x, y), epochs=1, levels=0, batch_size=10, plan="graph", out=out, progress=False
    )
    done = call(f"--model={out}")
    assert done.code == 2
    assert "was found on data of your own: give --dataset" in done.err[0]
    found = measuring.measure_model(out, (x, y), bins=4)
    truth = api.load_ticket(out / "tickets" / "level_00").model()(x).numpy()
    assert found.metrics == pytest.approx(measure(y, truth, bins=4), abs=1e-6)


def test_a_model_that_gives_nan_fails(call, tmp_path):
    from lotcal_tf.compat import keras
    from lotcal_tf.formats.saved_model import SavedModel

    model = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)]
    )
    model.layers[-1].bias.assign(tf.fill([10], np.nan))
    SavedModel().write(model, tmp_path / "nan")
    done = call(f"--model={tmp_path / 'nan'}", "--dataset=digits")
    assert (done.code, done.out) == (1, "")
    assert "gives NaN or infinity, first for example 0" in done.err[0]


def test_interruption_is_130(call, run, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(measuring, "evaluate_model", interrupt)
    done = call(f"--model={run}")
    assert (done.code, done.out, done.err) == (130, "", ["evaluate: interrupted"])


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        (["--help"], 0),
        (["--model=setup.py", "--shift=fog"], 2),
        (["--model=setup.py", "--dataset=absent"], 2),
        (["--model=absent"], 2),
    ],
)
def test_answers_in_a_second_and_without_tensorflow(at_once, flags, code):
    done = at_once("evaluate", *flags)
    assert (done.code, len(done.told)) == (code, code == 2)
    for name in (*(flag.name for flag in evaluate.FLAGS), *evaluate.FIELDS, "config"):
        assert (f"\n  --{name}\n" in done.out) == (code == 0)
