"""The train command: real processes where the process is what is tested, else the same call in this one."""

import csv
import dataclasses
import functools
import hashlib
import importlib.metadata
import itertools
import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import tensorflow_datasets as tfds

from lotcal_tf import export, train
from lotcal_tf.compat import keras as tf_keras
from lotcal_tf.config.recipes import resolve
from lotcal_tf.lottery.store import RunStore

ROOT = Path(__file__).resolve().parents[1]
COMMAND = [sys.executable, "-m", "lotcal_tf.train"]
FLAGS = {"model": "lenet_10", "epochs": "40", "plan": "graph"}
SMALL = [f"--{name}={value}" for name, value in FLAGS.items()]

# Digits, 64 inputs, 10 hidden units, 10 classes; a level takes round(0.2 n) of the 640 and
# round(0.1 n) of the output layer's 100: 640 512 410 328 and 100 90 81 73.
REMAINING = [740, 602, 491, 401]
SPLITS = {"train": 1797 - 360 - 200, "val": 200, "test": 360}
TENSORS = ("masks", "rewind", "trained", "predictions")


@dataclasses.dataclass(frozen=True)
class Ended:
    directory: Path
    code: int
    out: str
    err: str


def start(directory, *flags):
    """The real command, in a directory without anything of the package; it finds that by its path."""
    return subprocess.Popen(
        [*COMMAND, *SMALL, f"--out={directory}", *flags],
        cwd=directory.parent,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of four levels, never interrupted, by a process of its own."""
    directory = tmp_path_factory.mktemp("train") / "run"
    with start(directory, "--levels=3") as process:
        out, err = process.communicate(timeout=300)
    return Ended(directory, process.returncode, out, err)


@pytest.fixture
def call(call_command):
    return functools.partial(call_command, train)


@pytest.fixture
def one_file(monkeypatch):
    """The command exports one file only: most tests are not about exporting, which takes seconds."""
    monkeypatch.setattr(train, "FORMATS", ("keras",))


@pytest.fixture
def svhn(tmp_path):
    """A TFDS directory with a set of SVHN's name and shape: 300 and 20 images of noise."""

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("3.1.0")

        def _info(self):
            image, label = (
                tfds.features.Image(shape=(32, 32, 3)),
                tfds.features.ClassLabel(num_classes=10),
            )
            features = tfds.features.FeaturesDict({"image": image, "label": label})
            return tfds.core.DatasetInfo(
                builder=self, features=features, supervised_keys=("image", "label")
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(300), "test": self._generate_examples(20)}

        def _generate_examples(self, count):
            draw = np.random.default_rng(count)
            for number in range(count):
                pixels = draw.integers(0, 256, (32, 32, 3)).astype(np.uint8)
                yield number, {"image": pixels, "label": number % 10}

    Builder.name = "svhn_cropped"
    Builder.__module__ = (
        "svhn_cropped"  # of no package: TFDS looks for no checksums beside its code
    )
    Builder(data_dir=tmp_path / "tfds", file_format="tfrecord").download_and_prepare()
    return tmp_path / "tfds"


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def files(directory):
    return {p.relative_to(directory).as_posix(): p for p in directory.rglob("*") if p.is_file()}


def state(directory):
    """What writing would change: each file's number, time and content."""
    return {
        name: (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes())
        for name, path in files(directory).items()
    }


def same_results(one, other):
    """Checks that two runs' tickets and tables are identical, times aside."""
    names = [
        f"tickets/level_{level:02d}/{tensor}.safetensors"
        for level in range(len(REMAINING))
        for tensor in TENSORS
    ]
    for name in [*names, "history.csv"]:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    mine, theirs = (
        [{k: v for k, v in row.items() if k != "seconds"} for row in rows(run / "metrics.csv")]
        for run in (one, other)
    )
    assert mine == theirs
    assert len(mine) == len(REMAINING)


# A run


def test_a_run_ends_with_a_table_and_what_was_exported(finished):
    assert finished.code == 0, finished.err
    lines = finished.out.splitlines()
    table = [re.match(r"\s*(\d+)\s+([\d.]+) %\s+([\d,]+)\s+([\d.]+) % ", line) for line in lines]
    found = [row.groups() for row in table if row]
    metrics = rows(finished.directory / "metrics.csv")
    assert found == [
        (
            str(level),
            f"{100 * remaining / REMAINING[0]:.1f}",
            str(remaining),
            f"{100 * float(metrics[level]['test_accuracy']):.2f}",
        )
        for level, remaining in enumerate(REMAINING)
    ]
    assert lines[0] == "metrics of the test split before temperature scaling; ECE in 15 bins"
    (selected,) = [line.split()[0] for line in lines if line.endswith("<- selected")]
    assert any(line.startswith(f"selected: level {selected}, ") for line in lines)
    export = finished.directory / "export"
    assert {f"  {export / 'saved_model'}", f"  {export / 'ticket_float32.tflite'}"} <= set(lines)
    assert "exported, and verified against the ticket on 360 examples:" in lines
    assert (
        f"more formats, and their speed: python -m lotcal_tf.export --run={finished.directory} "
        "--formats=saved_model,float32,int8"
    ) in lines
    assert lines[-1] == f"TensorBoard: tensorboard --logdir {finished.directory}"


def test_standard_error_holds_a_line_a_level_and_no_start_up_notices(finished):
    lines = finished.err.splitlines()
    levels = [line for line in lines if line.startswith("level ")]
    assert [int(line.split(":")[0].split()[1]) for line in levels] == [0, 1, 2, 3]
    assert [line for line in lines if re.match(r"[IWEF]\d{4} |WARNING", line)] == []


def test_a_run_directory_has_the_files_that_the_readme_lists(finished):
    found = set(files(finished.directory))
    logs = {name for name in found if "tfevents" in name}
    assert {Path(name).parent.name for name in logs} == {"train", "validation", "test", "selected"}
    model = {name for name in found if name.startswith("export/saved_model/")}
    assert {"export/saved_model/saved_model.pb"} <= model
    tickets = {
        f"tickets/level_{level:02d}/{name}"
        for level in range(len(REMAINING))
        for name in ("ticket.json", *(f"{tensor}.safetensors" for tensor in TENSORS))
    }
    rest = {"experiment.json", "metrics.csv", "history.csv"}
    card = ("model_card.json", "README.md", "reliability.png")
    shown = ("ticket_float32.tflite", "parity.json", "sparsity_report.json", "labels.txt", *card)
    export = {f"export/{name}" for name in shown}
    assert found == tickets | rest | export | model | logs
    # Nothing beside the run, where the command stood.
    assert [path.name for path in finished.directory.parent.iterdir()] == ["run"]


def test_experiment_json_holds_fields_sizes_and_software(finished):
    record = json.loads((finished.directory / "experiment.json").read_text())
    experiment = resolve(FLAGS | {"levels": 3, "out": str(finished.directory)})
    assert record["experiment"] == experiment.as_dict()
    assert record["run_id"] == experiment.run_id()
    realised = record["realised"]
    assert realised["examples"] == SPLITS
    assert (realised["classes"], realised["input_shape"]) == (10, [8, 8, 1])
    assert (realised["prunable"], realised["kernels"], realised["parameters"]) == (740, 740, 760)
    assert realised["steps_per_epoch"] == SPLITS["train"] // 60
    for package in ("tensorflow", "tf-keras", "numpy"):
        assert record["software"][package] == importlib.metadata.version(package)
    assert {"git", "python", "lotcal_tf"} <= set(record["software"])


def test_tables_hold_a_row_a_level_and_a_row_an_epoch(finished):
    metrics = rows(finished.directory / "metrics.csv")
    assert list(metrics[0])[:7] == (
        ["level", "density", "remaining", "prunable", "weights", "epochs", "seconds"]
    )
    assert {
        *("train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_ece"),
        *("test_accuracy", "test_ece", "test_nll", "test_brier", "ece_bins"),
    } <= set(metrics[0])
    for level, (row, remaining) in enumerate(zip(metrics, REMAINING, strict=True)):
        assert (int(row["level"]), int(row["remaining"])) == (level, remaining)
        assert float(row["density"]) == remaining / 740
        assert (row["prunable"], row["epochs"], row["ece_bins"]) == ("740", "40", "15")
        correct = float(row["test_accuracy"]) * SPLITS["test"]
        assert correct == pytest.approx(round(correct), abs=1e-9)
        # A tenth would be right by chance.
        assert float(row["test_accuracy"]) > 0.5
    history = rows(finished.directory / "history.csv")
    places = [(int(row["level"]), int(row["epoch"])) for row in history]
    assert places == [(level, epoch) for level in range(4) for epoch in range(40)]


@pytest.mark.parametrize("level", range(len(REMAINING)))
def test_tickets_are_sparse_rewound_and_checked(finished, level):
    directory = finished.directory / "tickets" / f"level_{level:02d}"
    header = json.loads((directory / "ticket.json").read_text())
    content = {name: (directory / f"{name}.safetensors").read_bytes() for name in TENSORS}
    assert header["sha256"] == {n: hashlib.sha256(c).hexdigest() for n, c in content.items()}
    masks, rewind, trained, _ = (safetensors.numpy.load(content[name]) for name in TENSORS)
    assert sum(int(mask.sum()) for mask in masks.values()) == REMAINING[level]
    for name, mask in masks.items():
        assert not trained[name][~mask].any()
        assert trained[name][mask].all()
    first = finished.directory / "tickets" / "level_00" / "rewind.safetensors"
    assert content["rewind"] == first.read_bytes(), "rewinding to initialisation"
    assert {name: value.shape for name, value in rewind.items()} == {
        name: value.shape for name, value in trained.items()
    }


# The same command again


@pytest.mark.parametrize("levels", [3, 1])
def test_finished_run_says_so_and_writes_nothing(finished, call, levels):
    before = state(finished.directory)
    again = call(*SMALL, f"--levels={levels}", f"--out={finished.directory}")
    assert (again.code, again.err) == (0, [])
    said, *rest = again.out.splitlines()
    assert said == f"{finished.directory} is finished: 4 levels; more --levels extend it"
    assert rest == finished.out.splitlines()
    assert state(finished.directory) == before


@pytest.mark.full
@pytest.mark.usefixtures("one_file")
def test_a_convolutional_recipe_runs_through_to_its_export(call, svhn, tmp_path):
    """The recipe's batch of 250 leaves one step an epoch here; T = 5 passes, dropout after stages."""
    job = ["--dataset=svhn", "--calib=lwcc_si", "--model=vgg19_4", "--levels=1", "--epochs=1"]
    small = [
        "--plan=graph",
        f"--data_dir={svhn}",
        "--validation_size=50",
        f"--out={tmp_path / 'run'}",
    ]
    result = call(*job, *small)
    assert result.code == 0, result.err
    assert "exported, and verified against the ticket on 20 examples:" in result.out
    # Sixteen kernels 4 4 8 8 16·4 32·8, the output layer left whole.
    widths = [3, 4, 4, 8, 8, *[16] * 4, *[32] * 8]
    prunable = sum(9 * a * b for a, b in itertools.pairwise(widths))
    dense, sparse = rows(tmp_path / "run" / "metrics.csv")
    assert int(dense["remaining"]) == int(dense["prunable"]) == prunable
    assert int(sparse["remaining"]) == prunable - math.floor(0.2 * prunable + 0.5)
    kept = safetensors.numpy.load_file(tmp_path / "run/tickets/level_01/trained.safetensors")
    zeros = sum(int((v == 0).sum()) for n, v in kept.items() if "_conv_" in n)
    assert zeros == prunable - int(sparse["remaining"])


@pytest.mark.usefixtures("one_file")
def test_the_library_gives_the_same_run(digits_run, call, tmp_path):
    record = RunStore(digits_run.directory).experiment()
    changed = {n: v for n, v in record["identity"].items() if v != "digits"} | {"plan": "graph"}
    flags = [f"--{name}={value}" for name, value in changed.items()]
    result = call(*flags, "--levels=2", f"--out={tmp_path / 'run'}")
    assert result.code == 0, result.err
    store = RunStore(tmp_path / "run")
    assert store.experiment()["run_id"] == record["run_id"]
    for level in range(3):
        assert store.read(level).digest == digits_run.ticket(level).digest


@pytest.mark.full
@pytest.mark.usefixtures("one_file")
def test_more_levels_extend_a_run(finished, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call(*SMALL, "--levels=1").code == 0
    # Without --out, the run id names the place.
    run = tmp_path / "runs" / resolve(FLAGS).run_id()
    before = state(run / "tickets")
    assert {name.partition("/")[0] for name in before} == {"level_00", "level_01"}
    more = call(*SMALL, "--levels=3")
    assert more.code == 0
    assert more.err[0] == "2 finished levels found, going on at level 2"
    after = state(run / "tickets")
    assert {name: after[name] for name in before} == before
    same_results(run, finished.directory)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [run.name]


# tests/config/test_process.py tests both signals without a run.
@pytest.mark.full
@pytest.mark.usefixtures("one_file")
@pytest.mark.parametrize(
    ("number", "code", "how"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "ended by SIGTERM"),
    ],
)
def test_interrupted_run_keeps_its_levels_and_ends_bit_identical(
    finished, call, tmp_path, number, code, how
):
    run = tmp_path / "run"
    with start(run, "--levels=3") as process:
        first = next((line for line in process.stderr if line.startswith("level  0:")), None)
        process.send_signal(number)
        err, out = process.stderr.read(), process.stdout.read()
    assert first, "it ended before its first level did"
    assert (process.returncode, out) == (code, ""), err
    *levels, last = err.splitlines()
    assert last.startswith(f"train: {how}; run the same command again")
    assert all(line.startswith("level ") for line in levels)
    kept = state(run / "tickets")
    assert 1 <= len({name.partition("/")[0] for name in kept}) < len(REMAINING)
    assert not (run / "export").exists()
    assert not (run / ".writer").exists()

    again = call(*SMALL, "--levels=3", f"--out={run}")
    assert again.code == 0
    assert again.err[0].endswith(f"going on at level {1 + len(levels)}")
    after = state(run / "tickets")
    assert {name: after[name] for name in kept} == kept
    assert {path.name for path in (run / "tickets").iterdir()} == {
        f"level_{level:02d}" for level in range(len(REMAINING))
    }
    same_results(run, finished.directory)
    table = slice(1, 2 + len(REMAINING))
    assert again.out.splitlines()[table] == finished.out.splitlines()[table]


@pytest.mark.full
@pytest.mark.parametrize(
    "redirected",
    [">&- 2>&- <&-", "2>&1 | head -1", "> out 2> err < /dev/null"],
)
def test_a_run_ends_well_with_any_streams(finished, tmp_path, redirected):
    line = f"trap '' HUP; ({shlex.join([*COMMAND, *SMALL])} --out=run --levels=3) {redirected}"
    environment = {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii", "LANG": "C"}
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"], cwd=tmp_path, env=os.environ | environment
    )
    assert done.returncode == 0
    same_results(finished.directory, tmp_path / "run")
    assert (tmp_path / "run" / "export" / "parity.json").is_file()
    for path in tmp_path.glob("err"):
        assert "Traceback" not in path.read_text()


@pytest.mark.full
def test_a_second_process_ends_at_once_and_names_the_first(finished, call, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished.directory, run)
    process = start(run, "--levels=9")
    with process:
        assert process.stderr.readline().startswith("4 finished levels found")
        before = state(run / "export")
        for levels in (3, 9):
            result = call(*SMALL, f"--levels={levels}", f"--out={run}")
            assert (result.code, result.out) == (2, "")
            (line,) = result.err
            assert line.startswith(f"train: --out={run}: process {process.pid} on ")
            assert f"kill {process.pid}" in line
        assert state(run / "export") == before
        process.kill()
        process.communicate()
    assert (run / ".writer").exists()
    assert call(*SMALL, "--levels=3", "--takeover", f"--out={run}").code == 0
    assert not (run / ".writer").exists()


@pytest.mark.usefixtures("one_file")
def test_a_ticket_starts_another_run(finished, call, tmp_path):
    ticket = finished.directory / "tickets" / "level_02"
    run = tmp_path / "run"
    assert call(f"--ticket={ticket}", "--epochs=1", "--seed=1", f"--out={run}").code == 0
    (row,) = rows(run / "metrics.csv")
    assert (row["level"], row["remaining"], row["prunable"]) == ("0", str(REMAINING[2]), "740")
    record = json.loads((run / "experiment.json").read_text())
    assert record["experiment"]["ticket"] == str(ticket)
    assert record["content"]["ticket"]
    for name in ("masks", "rewind"):
        there, here = (d / f"{name}.safetensors" for d in (ticket, run / "tickets" / "level_00"))
        assert there.read_bytes() == here.read_bytes()


# What is refused or fails


def test_another_experiments_directory_is_never_written_into(finished, call):
    before = state(finished.directory)
    result = call(*SMALL, "--levels=5", "--seed=1", f"--out={finished.directory}")
    assert (result.code, result.out) == (2, "")
    (line,) = result.err
    assert line.startswith(f"train: --out={finished.directory}: holds another run, digits-")
    assert "seed is 1 here, default there" in line
    assert state(finished.directory) == before


def test_directory_of_something_else_is_never_written_into(call, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    before = state(tmp_path)
    for out in (tmp_path, tmp_path / "thesis.txt", tmp_path / "thesis.txt" / "run"):
        result = call(*SMALL, f"--out={out}")
        assert (result.code, result.out) == (2, "")
        assert [line.startswith(f"train: --out={out}: ") for line in result.err] == [True]
        assert state(tmp_path) == before


def test_an_export_that_cannot_be_written_is_refused_before_training(finished, call, tmp_path):
    run = shutil.copytree(finished.directory, tmp_path / "run")
    (run / "export" / "notes.txt").write_text("mine")
    before = state(tmp_path)
    result = call(*SMALL, "--levels=5", f"--out={run}")
    assert (result.code, result.out) == (2, "")
    assert result.err[-1].startswith("train: ") and "notes.txt" in result.err[-1]
    assert state(tmp_path) == before


@pytest.mark.parametrize("case", ["bicubic", "normalised"])
def test_levels_are_shown_if_the_export_fails_and_the_way_out_works(
    call, call_command, tmp_path, case
):
    layers = tf_keras.layers
    given = tf_keras.Input((8, 8, 1))
    x = layers.Resizing(4, 4, interpolation="bicubic")(given) if case == "bicubic" else given
    x = layers.Dense(10)(layers.Flatten()(layers.Rescaling(1 / 16)(x)))
    x = x if case == "bicubic" else layers.BatchNormalization(name="norm")(x)
    tf_keras.Model(given, x).save(tmp_path / "own.keras")
    run = tmp_path / "run"
    flags = [f"--model={tmp_path / 'own.keras'}", f"--out={run}", "--levels=0", "--plan=graph"]
    result = call(*flags, "--epochs=6", "--lr=0.001")
    assert result.code == 2
    assert "<- selected" in result.out and "selected: level 0, 100.0 %" in result.out
    given, command = result.err[-1].split("python -m lotcal_tf.export ")
    asked = shlex.split(command)
    assert ("--export_logits=raw" in given) == (case == "normalised")
    asked += ["--export_logits=raw"] if case == "normalised" else []
    done = call_command(export, *asked, "--seconds=0")
    assert done.code == 0, done.err
    assert (run / "export" / "ticket.keras").is_file()


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--batch_size=1238"], "--batch_size=1238: the training split has 1237 examples"),
        (["--validation_size=1437"], "--validation_size=1437: "),
        (["--rewind=epoch:40"], "--rewind=epoch:40: a level has 800 steps"),
        (["--input_mean=0,0", "--input_std=1,1"], "--input_mean=(0.0, 0.0): the inputs have 1 ch"),
        (["--model=vgg19_8"], "--model=vgg19_8: needs images of 16x16 or more"),
        (["--calib=no_such_module:Mine"], "--calib=no_such_module:Mine: cannot be imported"),
        (["--calib=os:getcwd"], "--calib=os:getcwd: must be a subclass of lotcal_tf.Strategy"),
        (["--dataset=mnist", "--data_dir=absent"], "--data_dir=absent: no such directory"),
        (["--data_dir=absent"], "--data_dir=absent: applies only with"),
        (
            ["--calib=mixup", "--calib_weight=1"],
            "--calib_weight=1: not a hyperparameter of calib=mix",
        ),
    ],
)
def test_request_that_cannot_work_leaves_nothing(call, tmp_path, monkeypatch, flags, line):
    monkeypatch.chdir(tmp_path)
    result = call(*SMALL, *flags)
    assert (result.code, result.out) == (2, "")
    (reported,) = result.err
    assert reported.startswith(f"train: {line}")
    assert list(tmp_path.iterdir()) == []


def test_a_model_file_that_xla_cannot_compile_is_trained_as_a_graph(call, tmp_path, one_file):
    """Or refused in one line, with nothing left, if it must be compiled."""
    layers = [tf_keras.layers.Resizing(4, 4, interpolation="bicubic"), tf_keras.layers.Flatten()]
    model = tf_keras.Sequential([tf_keras.Input((8, 8, 1)), *layers, tf_keras.layers.Dense(10)])
    model.save(tmp_path / "own.keras")
    out = tmp_path / "run"
    flags = [f"--model={tmp_path / 'own.keras'}", "--epochs=1", "--levels=0", f"--out={out}"]
    done = call(*flags, "--plan=xla")
    assert (done.code, done.out, len(done.err)) == (2, "", 1)
    assert "graph" in done.err[0] and not out.exists()
    done = call(*flags, "--plan=auto")
    assert done.code == 0, done.err
    assert json.loads((out / "experiment.json").read_text())["realised"]["plan"] == "graph"


def test_a_data_dir_without_the_data_shows_what_is_there_and_how_to_download(call, tmp_path):
    (tmp_path / "holiday.jpg").touch()
    result = call("--dataset=mnist", f"--data_dir={tmp_path}", f"--out={tmp_path / 'run'}")
    assert (result.code, result.out) == (2, "")
    (line,) = result.err
    for part in (
        f"--data_dir={tmp_path}: ",
        "mnist",
        "holiday.jpg",
        "tfds.load('mnist', data_dir=",
    ):
        assert part in line
    assert set(files(tmp_path)) == {"holiday.jpg"}


@pytest.mark.parametrize("flags", [["--ticket=absent"], ["--ticket=."]])
def test_what_is_not_a_ticket_is_refused(call, tmp_path, monkeypatch, flags):
    monkeypatch.chdir(tmp_path)
    result = call(*flags)
    assert (result.code, result.out) == (2, "")
    assert len(result.err) == 1
    assert "is not a ticket: give RUN/tickets/level_NN" in result.err[0]
    assert list(tmp_path.iterdir()) == []


def test_transfer_that_cannot_work_leaves_nothing(finished, call, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(finished.directory / "tickets", source / "tickets")
    shutil.copy(finished.directory / "experiment.json", source)
    path = source / "tickets" / "level_02" / "rewind.safetensors"
    content = path.read_bytes()
    path.unlink()  # It may share its file with level 0.
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    (tmp_path / "new" / "tickets").mkdir(parents=True)
    before = state(tmp_path)
    run = f"--out={tmp_path / 'run'}"
    good = finished.directory
    for flags, line in [
        (["--control=random_mask"], "--control=random_mask: applies only with --ticket"),
        ([f"--ticket={source}"], f"--ticket={path.parent}: {path} is damaged: "),
        ([f"--ticket={path.parent}"], f"--ticket={path.parent}: {path} is damaged: "),
        ([f"--ticket={tmp_path / 'new'}"], f"--ticket={tmp_path / 'new'}: this run has no finish"),
        (
            [f"--ticket={good}", "--levels=4"],
            f"--levels=4: {good} has 4 finished levels: at most 3",
        ),
        ([f"--ticket={good}", "--rewind=none"], "--rewind=none: every level starts from a ticket"),
        ([f"--ticket={good}", "--control=mask"], "--control=mask: choose one of none, random_mask"),
    ]:
        result = call(*flags, run)
        assert (result.code, result.out) == (2, ""), flags
        (reported,) = result.err
        assert reported.startswith(f"train: {line}")
    assert state(tmp_path) == before


def test_loss_that_is_not_finite_stops_the_run(call, tmp_path):
    run = tmp_path / "run"
    result = call(*SMALL, "--optimizer=sgd", "--lr=1e30", f"--out={run}")
    assert (result.code, result.out) == (1, "")
    (line,) = result.err
    # The first step's loss is that of the initial weights; its update ruins them.
    assert line.startswith("train: the loss is not finite at level 0, epoch 0, step 1: ")
    assert list((run / "tickets").iterdir()) == []


FAILING = """
import tensorflow as tf
from lotcal_tf.calibration.strategies import CrossEntropy

class FailsWhenPruned(CrossEntropy):
    def train_step(self, data):
        kernels = [w for w in self.network.trainable_weights if w.shape.rank == 2]
        pruned = tf.reduce_any([tf.reduce_any(w == 0.0) for w in kernels])
        logs = super().train_step(data)
        return logs | {"loss": tf.where(pruned, float("nan"), logs["loss"])}
"""


@pytest.mark.usefixtures("one_file")
def test_finished_levels_stay_when_a_later_one_fails(call, tmp_path, monkeypatch):
    (tmp_path / "my_strategies.py").write_text(FAILING)
    monkeypatch.syspath_prepend(tmp_path)
    run = tmp_path / "run"
    flags = ["--calib=my_strategies:FailsWhenPruned", "--epochs=2", f"--out={run}"]
    result = call(*SMALL, *flags, "--levels=2")
    assert (result.code, result.out) == (1, "")
    predicted, first, last = result.err
    assert predicted.startswith("predicted: ")
    assert first.startswith("level  0: 100.0 % kept")
    assert "not finite at level 1, epoch 0, step 0: " in last
    assert "finished levels are kept" in last
    assert [path.name for path in (run / "tickets").iterdir()] == ["level_00"]
    assert [row["level"] for row in rows(run / "metrics.csv")] == ["0"]
    # What is there is a run by itself.
    assert call(*SMALL, *flags, "--levels=0").code == 0
    assert (run / "export" / "ticket.keras").is_file()
