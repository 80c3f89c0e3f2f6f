"""The TensorBoard log, read back as TensorBoard reads it."""

import collections
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata as hparams_metadata

from lotcal_tf.config.experiment import Experiment
from lotcal_tf.lottery.run_tables import selected_level
from lotcal_tf.lottery.search import Observer
from lotcal_tf.lottery.tensorboard import TensorBoardLog, hyperparameters
from lotcal_tf.metrics.reliability import reliability_diagram
from lotcal_tf.training.trainer import Epoch, Progress

pytestmark = pytest.mark.usefixtures("diagrams")

EPOCHS, BINS = 2, 5
EXPERIMENT = Experiment(epochs=EPOCHS, ece_bins=BINS, levels=2)
METRICS = ("accuracy", "ece", "nll", "brier")
RUNS = {"train": "train", "validation": "val", "test": "test"}
LAYERS = {"hidden/kernel": 48, "logits/kernel": 18}


class Log:
    """The log of a run directory."""

    def __init__(self, directory):
        self.runs = {
            path.name: EventAccumulator(str(path), size_guidance={"tensors": 0}).Reload()
            for path in Path(directory).iterdir()
            if any(path.glob("*tfevents*"))
        }

    def series(self, run, tag):
        """[(step, value), …]."""
        events = self.runs[run].Tensors(tag)
        return [(event.step, tf.make_ndarray(event.tensor_proto)) for event in events]

    def tags(self, run, plugin="scalars"):
        events = self.runs[run]
        known = events.summary_metadata.values()
        if plugin not in {metadata.plugin_data.plugin_name for metadata in known}:
            return set()
        return set(events.PluginTagToContent(plugin))

    def everything(self):
        """Every point of every series."""
        return {
            (run, tag): [(event.step, event.tensor_proto.SerializeToString()) for event in found]
            for run, events in self.runs.items()
            for tag in events.Tags()["tensors"]
            for found in [events.Tensors(tag)]
        }

    def hparams(self):
        content = self.runs["selected"].PluginTagToContent(hparams_metadata.PLUGIN_NAME)
        info = content[hparams_metadata.SESSION_START_INFO_TAG]
        return hparams_metadata.parse_session_start_info_plugin_data(info)


class Kept(Observer):
    """An observer that keeps each level's predictions."""

    def __init__(self):
        self.predictions = []

    def on_level(self, ticket, predictions):
        self.predictions.append(predictions)


def run(begin, directory, levels=2, observers=(), **fields):
    """A chain and its log."""
    board = TensorBoardLog(directory, dataclasses.replace(EXPERIMENT, levels=levels))
    return begin(
        directory, observers=[board, *observers], levels=levels, plan="graph", **fields
    ).run()


@pytest.fixture(scope="module")
def chain(begin, tmp_path_factory):
    kept = Kept()
    chain = run(begin, tmp_path_factory.mktemp("board") / "run7", observers=[kept])
    chain.predictions = kept.predictions
    return chain


@pytest.fixture(scope="module")
def log(chain):
    return Log(chain.store.directory)


def step_of(record):
    return round(1e6 * record["remaining"] / record["prunable"])


def of_levels(records, column):
    """The points of a column of metrics.csv, in the order of the steps."""
    return [(step_of(record), np.float32(record[column])) for record in reversed(records)]


def test_train_and_validation_share_the_tags_of_an_epoch(chain, log):
    epochs = [row for ticket in chain.tickets() for row in ticket.history]
    for run, prefix in (("train", "train"), ("validation", "val")):
        for name in ("loss", "accuracy"):
            expected = [(n, np.float32(row[f"{prefix}_{name}"])) for n, row in enumerate(epochs)]
            assert log.series(run, f"epoch/{name}") == expected


def test_what_else_a_strategy_logs_stands_with_an_epochs_scalars(tmp_path):
    board = TensorBoardLog(tmp_path, EXPERIMENT)
    board.on_start(1, [], [0], 0)
    board.on_progress(Progress(1, 0, 1, 2, Epoch(1, 1, 0.5, 0.25, 0.75, 0.0, {"cost": 0.125})))
    board.on_end()
    assert Log(tmp_path).series("train", "epoch/cost") == [(3, 0.125)]


def test_the_metrics_of_a_level_stand_at_the_weights_kept_per_million(chain, log):
    records = chain.store.records()
    # Of 48 + 18 weights, less 10 + 2, less 8 + 2.
    assert [step_of(record) for record in records] == [1_000_000, 818_182, 666_667]
    for run, prefix in RUNS.items():
        for name in METRICS:
            assert log.series(run, f"level/{name}") == of_levels(records, f"{prefix}_{name}")
    assert log.series("train", "level/density") == of_levels(records, "density")
    assert log.series("validation", "level/temperature") == of_levels(records, "temperature")


def test_the_density_of_each_layer_stands_there_too(chain, log):
    for name in LAYERS:
        expected = [
            (step_of(ticket.record), np.float32(ticket.masks[name].mean()))
            for ticket in reversed(chain.tickets())
        ]
        assert log.series("train", f"layer_density/{name}") == expected


def test_there_are_few_charts(log):
    of_level = {f"level/{name}" for name in METRICS}
    of_epoch = {"epoch/loss", "epoch/accuracy"}
    layers = {f"layer_density/{name}" for name in LAYERS}
    assert log.tags("train") == of_level | of_epoch | layers | {"level/density"}
    assert log.tags("validation") == of_level | of_epoch | {"level/temperature"}
    assert log.tags("test") == of_level
    assert set(log.runs) == {"train", "validation", "test", "selected"}


def test_the_run_selected_has_the_metrics_of_the_selected_level(chain, log):
    records = chain.store.records()
    selected = records[selected_level(records)]
    names = [f"{split}_{name}" for split in ("val", "test") for name in METRICS]
    names += ["level", "density", "weights", "temperature"]
    assert log.tags("selected") == {f"selected/{name}" for name in names}
    for name in names:
        assert log.series("selected", f"selected/{name}") == [(3, np.float32(selected[name]))]


def test_they_are_not_those_of_the_last_level(tmp_path, chain):
    records = [record | {"val_nll": 0.5, "val_nll_se": 0.0} for record in chain.store.records()]
    records[2]["val_nll"] = 0.75
    board = TensorBoardLog(tmp_path, EXPERIMENT)
    board.on_start(1, records, [], 0)
    board.on_end()
    assert Log(tmp_path).series("selected", "selected/level") == [(3, 1.0)]


def test_histograms_count_surviving_weights(chain, log):
    assert log.tags("train", "histograms") == {f"weight/{name}" for name in LAYERS}
    for name in LAYERS:
        weights = log.series("train", f"weight/{name}")
        assert [step for step, _ in weights] == [0, 1, 2]
        for ticket, (_, weight) in zip(chain.tickets(), weights, strict=True):
            survivors = ticket.trained[name][ticket.masks[name]]
            assert weight.shape == (30, 3)  # rows are (left edge, right edge, count)
            assert weight[:, 2].sum() == survivors.size
            assert weight[0, 0] == pytest.approx(survivors.min())
            assert weight[-1, 1] == pytest.approx(survivors.max())


def test_the_reliability_diagram_is_an_image_of_the_test_split(chain, log):
    assert [log.tags(run, "images") for run in RUNS] == [set(), set(), {"reliability"}]
    images = log.series("test", "reliability")
    assert [step for step, _ in images] == [0, 1, 2]
    density = chain.tickets()[1].density
    expected = reliability_diagram(
        *chain.predictions[1]["test"],
        bins=BINS,
        title=f"level 1, {100 * density:.1f} % kept, test",
    )
    (_, (width, height, png)) = images[1]
    assert (int(width), int(height)) == (480, 480)
    np.testing.assert_array_equal(tf.io.decode_png(png).numpy(), expected)


def test_without_a_test_split_the_diagram_is_of_validation(chain, tmp_path):
    board = TensorBoardLog(tmp_path, EXPERIMENT)
    board.on_start(1, [], [0], 0)
    board.on_level(chain.store.read(0), {"val": chain.predictions[0]["val"]})
    board.on_end()
    assert Log(tmp_path).tags("validation", "images") == {"reliability"}


def test_a_log_that_is_continued_has_each_point_once(begin, chain, log, tmp_path):
    """By levels, then after a kill within a level, with epochs of it that are trained again."""
    directory = tmp_path / "run7"
    run(begin, directory, levels=1)
    board = TensorBoardLog(directory, EXPERIMENT)
    board.on_start(1, chain.store.records()[:2], [2], 0)
    for number in range(EPOCHS):  # of the level that was killed
        lost = Epoch(2, number, 9.0, 9.0, 9.0, 9.0)
        board.on_progress(Progress(2, 0, 1, 2, lost if number else first_epoch(chain)))
    board.on_end()
    resumed = TensorBoardLog(directory, EXPERIMENT)
    resumed.on_start(1, chain.store.records()[:2], [2], 1)
    ticket = chain.store.read(2)
    resumed.on_progress(Progress(2, 0, 1, 2, Epoch.of(ticket.history[1])))
    resumed.on_level(ticket, chain.predictions[2])
    resumed.on_end()
    assert Log(directory).everything() == log.everything()


def test_a_level_in_the_middle_takes_nothing_from_those_after_it(chain, log, tmp_path):
    """Its points come to stand before theirs, since TensorBoard drops what is out of order."""
    directory = tmp_path / "run7"
    shutil.copytree(chain.store.directory, directory)
    first, ticket, last = (chain.store.read(level) for level in range(3))
    board = TensorBoardLog(directory, EXPERIMENT)
    board.on_start(1, [first.record, last.record], [1], 0)
    for row in ticket.history:
        board.on_progress(Progress(1, 0, 1, 2, Epoch.of(row)))
    board.on_level(ticket, chain.predictions[1])
    board.on_end()
    found, expected = Log(directory).everything(), log.everything()
    assert found.keys() == expected.keys()
    selected = {key for key in found if key[0] == "selected"}
    assert all(found[key] == expected[key] for key in found.keys() - selected)
    assert [step for step, _ in found["train", "epoch/loss"]] == [0, 1, 2, 3, 4, 5]


def test_a_kill_between_the_new_file_and_the_removal_of_the_old_doubles_nothing(
    chain, log, tmp_path
):
    directory = tmp_path / "run7"
    shutil.copytree(chain.store.directory, directory)
    for path in directory.glob("*/events.out.tfevents.log.*"):
        shutil.copy(path, path.with_suffix(f".{int(path.suffix[1:]) + 1:06d}"))
    board = TensorBoardLog(directory, EXPERIMENT)
    board.on_start(0, chain.store.records(), [], 0)
    board.on_end()
    assert Log(directory).series("train", "epoch/loss") == log.series("train", "epoch/loss")


def first_epoch(chain):
    return Epoch.of(chain.store.read(2).history[0])


def test_a_finished_level_that_the_log_lacks_is_added(chain, tmp_path):
    """The process was killed before it wrote; or an older version had another log."""
    board = TensorBoardLog(tmp_path, EXPERIMENT)
    records = chain.store.records()
    board.on_start(1, records, [], 0)
    board.on_end()
    assert Log(tmp_path).series("validation", "level/nll") == of_levels(records, "val_nll")


@pytest.mark.full
@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_level_that_is_trained_again_replaces_its_points(begin, tmp_path, level):
    directory = tmp_path / "run"
    first = run(begin, directory)
    shutil.rmtree(directory / "tickets" / f"level_0{level}")
    before = Log(directory).everything()
    run(begin, directory)
    after = Log(directory).everything()
    hparams = [key for key in after if key[1].startswith("_hparams_")]
    assert before.keys() == after.keys() and hparams  # they hold the time
    assert [key for key in before.keys() - set(hparams) if before[key] != after[key]] == []
    assert first.store.finished() == 3


def test_files_do_not_grow_in_number_with_the_levels(chain):
    found = chain.store.directory.glob("*/*tfevents*")
    assert collections.Counter(path.parent.name for path in found) == {
        "train": 2, "validation": 2, "test": 2, "selected": 1
    }  # fmt: skip


def test_a_level_of_mnists_size_writes_less_than_two_megabytes(chain, tmp_path):
    draw = np.random.default_rng(0)
    shapes = {"a/kernel": (784, 300), "b/kernel": (300, 100), "c/kernel": (100, 10)}
    trained = {name: draw.normal(size=shape).astype("float32") for name, shape in shapes.items()}
    masks = {name: draw.random(shape) < 0.8 for name, shape in shapes.items()}
    ticket = dataclasses.replace(chain.store.read(1), trained=trained, masks=masks)
    logits = draw.normal(size=(10_000, 10)).astype("float32")
    board = TensorBoardLog(tmp_path, EXPERIMENT)
    board.on_start(1, [], [0], 0)
    for epoch in range(160):
        board.on_progress(Progress(1, 0, 1, 2, Epoch(1, epoch, 0.5, 0.25, 0.75, 0.0)))
    board.on_level(ticket, {"test": (draw.integers(0, 10, 10_000), logits)})
    board.on_end()
    assert 10_000 < sum(path.stat().st_size for path in tmp_path.glob("*/*")) < 2_000_000


def test_a_log_leaves_no_file_open(chain, tmp_path):
    def opened():
        links = Path("/proc/self/fd").iterdir()
        return [path for path in map(os.path.realpath, links) if str(tmp_path) in path]

    board = TensorBoardLog(tmp_path, EXPERIMENT)
    board.on_start(1, [], [0], 0)
    board.on_progress(Progress(0, 0, 1, 2, Epoch(0, 1, 0.5, 0.25, 0.75, 0.0)))
    board.on_level(chain.store.read(0), {"val": chain.predictions[0]["val"]})
    board.on_progress(Progress(1, 0, 1, 2, Epoch(1, 1, 0.5, 0.25, 0.75, 0.0)))
    board.on_end()
    assert len([*tmp_path.glob("*/*")]) == 6
    assert opened() == []


def test_the_hparams_plugin_has_the_hyperparameters_and_the_name_of_the_run(log):
    session = log.hparams()
    found = {n: getattr(v, v.WhichOneof("kind")) for n, v in session.hparams.items()}
    assert found == hyperparameters(EXPERIMENT)
    assert session.group_name == "run7"


def test_hyperparameters_are_those_that_apply_and_have_a_value():
    plain = hyperparameters(Experiment.of(calib="none", source="digits"))
    assert (plain["lr"], plain["batch_size"], plain["exclude_output"]) == (1.2e-3, 60, False)
    assert (plain["calib"], plain["seed"]) == ("none", 0)
    # Without a value, without a meaning here, and without an effect on results.
    absent = {
        "clip_norm",
        "class_weight",
        "momentum",
        "nu",
        "levels",
        "out",
        "threads",
    }
    assert not absent & plain.keys()
    given = {"calib": "vwcc", "optimizer": "sgd", "momentum": 0.9, "lr_drops": (20, 30)}
    other = hyperparameters(Experiment.of(**given, clip_norm=1.0))
    assert (other["lr_drops"], other["momentum"], other["clip_norm"]) == ("20,30", 0.9, 1.0)
    assert other["passes"] == 5 and "passes" not in plain
    for found in (plain, other):
        assert {type(value) for value in found.values()} <= {bool, int, float, str}
        assert "None" not in json.dumps(found)


def test_a_run_goes_on_without_a_log_that_cannot_be_written(begin, tmp_path, capfd):
    directory = tmp_path / "run"
    directory.mkdir()
    (directory / "train").write_text("a file where the directory should be")
    assert len(run(begin, directory, levels=1).tickets()) == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if "TensorBoard" in line]
    assert len(lines) == 1 and str(directory) in lines[0]


def test_a_run_goes_on_when_a_library_that_draws_fails(begin, tmp_path, capfd, monkeypatch):
    def fails(*_):
        raise ValueError("no such font")

    monkeypatch.setattr(TensorBoardLog, "write_level", fails)
    assert len(run(begin, tmp_path / "run", levels=1).tickets()) == 2
    assert "the run goes on: no such font" in capfd.readouterr().err


INTERRUPTED = """
import pathlib, sys, threading
from lotcal_tf.config.experiment import Experiment
from lotcal_tf.lottery.search import Observer
from lotcal_tf.lottery.tensorboard import TensorBoardLog

start = threading.Thread.start
def interrupted(thread):
    start(thread)
    threading.Thread.start = start
    raise KeyboardInterrupt
threading.Thread.start = interrupted
directory = pathlib.Path(sys.argv[1])
try:
    TensorBoardLog(directory / "a", Experiment()).on_start(10, (), [0], 0)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.full
def test_a_process_ends_if_a_signal_comes_while_the_thread_starts(tmp_path):
    """The pool of threads does not know such a thread: the process waited for it for ever."""
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(tmp_path)], capture_output=True, text=True, timeout=120
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (0, "interrupted\n"), ended.stderr
