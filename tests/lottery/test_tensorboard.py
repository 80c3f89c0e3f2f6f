"""The TensorBoard log, read back as TensorBoard reads it."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata as hparams_metadata

from lotcal_tf.lottery.tensorboard import TensorBoardLog
from lotcal_tf.metrics.reliability import reliability_diagram
from lotcal_tf.training.trainer import Epoch, Progress

HPARAMS = {"epochs": 2, "lr": 0.02, "rewind": "init", "lr_drops": [], "out": None, "sparse": True}


class Log:
    """A finished chain and its log."""

    def __init__(self, chain, directory):
        self.chain = chain
        self.events = EventAccumulator(str(directory), size_guidance={"tensors": 0})
        self.events.Reload()

    def series(self, tag):
        """[(step, value), …]."""
        return [
            (event.step, tf.make_ndarray(event.tensor_proto)) for event in self.events.Tensors(tag)
        ]

    def tags(self, plugin):
        return set(self.events.PluginTagToContent(plugin))


@pytest.fixture(scope="module")
def log(begin, tmp_path_factory):
    directory = tmp_path_factory.mktemp("board")
    boards = Kept(), TensorBoardLog(directory / "run7" / "tensorboard", HPARAMS, bins=5)
    chain = begin(directory / "run7", observers=boards, levels=2, plan="graph").run()
    chain.predictions = boards[0].predictions
    return Log(chain, directory / "run7" / "tensorboard")


class Kept:
    """An observer that keeps each level's predictions."""

    def __init__(self):
        self.predictions = []

    def on_start(self, total_steps, done, epochs): ...
    def on_time_estimate(self, seconds): ...
    def on_progress(self, progress): ...
    def on_end(self): ...

    def on_level(self, ticket, predictions):
        self.predictions.append(predictions)


def test_an_epochs_scalars_stand_at_epochs_counted_over_the_chain(log):
    epochs = [row for ticket in log.chain.tickets() for row in ticket.history]
    for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy"):
        expected = [(step, np.float32(row[name])) for step, row in enumerate(epochs)]
        assert log.series(f"epoch/{name}") == expected


def test_what_else_a_strategy_logs_stands_with_an_epochs_scalars(tmp_path):
    board = TensorBoardLog(tmp_path, HPARAMS, bins=5)
    board.on_start(1, [], 0)
    board.on_progress(Progress(1, 0, 1, 2, Epoch(1, 1, 0.5, 0.25, 0.75, 0.0, {"cost": 0.125})))
    board.on_end()
    assert Log(None, tmp_path).series("epoch/train_cost") == [(3, 0.125)]


def test_every_figure_of_a_level_stands_at_its_number(log):
    records = log.chain.store.records()
    figures = [name for name, value in records[0].items() if not isinstance(value, str)]
    assert {"density", "val_nll", "test_ece", "test_brier", "weights"} <= set(figures)
    for name in figures:
        expected = [(record["level"], np.float32(record[name])) for record in records]
        assert log.series(f"level/{name}") == expected
    epochs = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
    assert log.tags("scalars") == {f"level/{n}" for n in figures} | {f"epoch/{n}" for n in epochs}


def test_histograms_count_masks_and_surviving_weights(log):
    kernels = {"hidden/kernel": 48, "logits/kernel": 18}
    assert log.tags("histograms") == {f"{k}/{n}" for k in ("mask", "weight") for n in kernels}
    for name, size in kernels.items():
        masks, weights = log.series(f"mask/{name}"), log.series(f"weight/{name}")
        assert [step for step, _ in masks] == [step for step, _ in weights] == [0, 1, 2]
        for ticket, (_, mask), (_, weight) in zip(log.chain.tickets(), masks, weights, strict=True):
            left = ticket.masks[name].sum()
            ones = mask[:, 0] >= 0.5  # rows are (left edge, right edge, count)
            assert (mask[:, 2].sum(), mask[ones, 2].sum()) == (size, left)
            assert weight[:, 2].sum() == left
            survivors = ticket.trained[name][ticket.masks[name]]
            assert weight[0, 0] == pytest.approx(survivors.min())
            assert weight[-1, 1] == pytest.approx(survivors.max())


def test_the_reliability_diagram_is_an_image_of_the_test_split(log):
    assert log.tags("images") == {"reliability/test"}
    images = log.series("reliability/test")
    assert [step for step, _ in images] == [0, 1, 2]
    ticket = log.chain.store.read(1)
    expected = reliability_diagram(
        *log.chain.predictions[1]["test"],
        bins=5,
        title=f"level 1, {100 * ticket.density:.1f} % kept, test",
    )
    (_, (width, height, png)) = images[1]
    assert (int(width), int(height)) == (480, 480)
    np.testing.assert_array_equal(tf.io.decode_png(png).numpy(), expected)


def test_each_level_has_a_file_of_its_own(log):
    files = sorted((log.chain.store.directory / "tensorboard").iterdir())
    assert [path.suffix for path in files] == [".level_00", ".level_01", ".level_02"]
    for level, path in enumerate(files):
        events = EventAccumulator(str(path), size_guidance={"tensors": 0})
        events.Reload()
        assert [event.step for event in events.Tensors("level/density")] == [level]
        epochs = [event.step for event in events.Tensors("epoch/val_loss")]
        assert epochs == [2 * level, 2 * level + 1]


def test_the_file_of_a_level_of_mnists_size_has_at_most_two_megabytes(log, tmp_path):
    draw = np.random.default_rng(0)
    shapes = {"a/kernel": (784, 300), "b/kernel": (300, 100), "c/kernel": (100, 10)}
    trained = {name: draw.normal(size=shape).astype("float32") for name, shape in shapes.items()}
    masks = {name: draw.random(shape) < 0.8 for name, shape in shapes.items()}
    ticket = dataclasses.replace(log.chain.store.read(1), trained=trained, masks=masks)
    logits = draw.normal(size=(10_000, 10)).astype("float32")
    board = TensorBoardLog(tmp_path / "tensorboard", HPARAMS, bins=15)
    board.on_start(1, [], 0)
    for epoch in range(160):
        board.on_progress(Progress(1, 0, 1, 2, Epoch(1, epoch, 0.5, 0.25, 0.75, 0.0)))
    board.on_level(ticket, {"test": (draw.integers(0, 10, 10_000), logits)})
    board.on_end()
    (file,) = (tmp_path / "tensorboard").iterdir()
    assert file.stat().st_size < 2_000_000


def test_a_log_leaves_no_file_open(log, tmp_path):
    def opened():
        links = Path("/proc/self/fd").iterdir()
        return [path for path in map(os.path.realpath, links) if str(tmp_path) in path]

    board = TensorBoardLog(tmp_path, HPARAMS, bins=5)
    board.on_start(1, [], 0)
    board.on_progress(Progress(0, 0, 1, 2, Epoch(0, 1, 0.5, 0.25, 0.75, 0.0)))
    board.on_level(log.chain.store.read(0), {"val": log.chain.predictions[0]["val"]})
    board.on_progress(Progress(1, 0, 1, 2, Epoch(1, 1, 0.5, 0.25, 0.75, 0.0)))
    board.on_end()
    assert len(list(tmp_path.iterdir())) == 2
    assert opened() == []


def test_without_a_test_split_the_diagram_is_of_validation(log, tmp_path):
    board = TensorBoardLog(tmp_path / "tensorboard", HPARAMS, bins=5)
    board.on_start(1, [], 0)
    board.on_level(log.chain.store.read(0), {"val": log.chain.predictions[0]["val"]})
    board.on_end()
    assert Log(None, tmp_path / "tensorboard").tags("images") == {"reliability/val"}


def test_the_hparams_plugin_has_every_field(log):
    content = log.events.PluginTagToContent(hparams_metadata.PLUGIN_NAME)
    session = hparams_metadata.parse_session_start_info_plugin_data(
        content[hparams_metadata.SESSION_START_INFO_TAG]
    )
    found = {n: getattr(v, v.WhichOneof("kind")) for n, v in session.hparams.items()}
    assert found == HPARAMS | {"lr_drops": "[]", "out": "None"}
    assert session.group_name == "run7"


def test_a_run_goes_on_without_a_log_that_cannot_be_written(begin, tmp_path, capfd):
    (tmp_path / "tensorboard").write_text("a file where the directory should be")
    board = TensorBoardLog(tmp_path / "tensorboard" / "log", HPARAMS, bins=5)
    assert len(begin(tmp_path / "run", observers=[board], levels=1).run().tickets()) == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if "TensorBoard" in line]
    assert len(lines) == 1 and str(tmp_path / "tensorboard") in lines[0]
