"""Models of every kind, opened by one function; what is none, or damaged, is refused."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf.compat import keras
from lotcal_tf.errors import UsageError
from lotcal_tf.evaluation.open_model import (
    gives_probabilities,
    logits_of,
    open_model,
    recorded_experiment,
)
from lotcal_tf.formats import saved_model, tflite
from lotcal_tf.lottery.store import RunStore


@pytest.fixture(scope="module")
def run(ticket, make_ticket, tmp_path_factory):
    """A run of levels 0, 1, 2 by their validation NLL, with the export of one; no test changes it."""
    directory = tmp_path_factory.mktemp("reader") / "run"
    store = RunStore(directory)
    store.begin({"experiment": {"dataset": "blobs", "seed": 3}})
    for level, nll in enumerate([0.1, 0.5, 0.9]):
        record = {"level": level, "val_nll": nll, "val_nll_se": 0.01, "temperature": 2.5}
        drawn = make_ticket(level)
        store.save(
            type(drawn)(level, drawn.architecture, drawn.masks, drawn.rewind, drawn.trained, record)
        )
    (directory / "export").mkdir()
    saved_model.write(ticket.model(), directory / "export" / "saved_model")
    tflite.write_float32(ticket.model(), directory / "export" / "ticket.tflite")
    return directory


@pytest.mark.parametrize(
    ("place", "kind"),
    [("export/saved_model", "saved_model"), ("export/ticket.tflite", "tflite")],
)
def test_a_file_is_run_by_its_own_runtime(run, place, kind, inputs, logits):
    opened = open_model(run / place)
    assert (opened.path, opened.kind, opened.ticket) == (run / place, kind, None)
    assert (opened.runner.shape, opened.runner.classes) == ((4, 2), 3)
    assert opened.runner.output == "logits"
    np.testing.assert_allclose(opened.runner(inputs, 10), logits, rtol=1e-5, atol=1e-5)
    with pytest.raises(UsageError, match="only a ticket records a temperature"):
        opened.temperature()


def test_a_ticket_is_its_trained_network(run, make_ticket, inputs):
    opened = open_model(run / "tickets" / "level_02")
    assert (opened.kind, opened.ticket.level, opened.temperature()) == ("ticket", 2, 2.5)
    assert (opened.runner.shape, opened.runner.classes) == ((4, 2), 3)
    truth = make_ticket(2).model()(inputs).numpy()
    np.testing.assert_array_equal(opened.runner(inputs, 10), opened.runner(inputs))
    np.testing.assert_allclose(opened.runner(inputs), truth, rtol=1e-6, atol=1e-6)


def test_a_run_stands_for_its_best_level(run):
    # Level 0 does not compete, and level 2 is far from level 1.
    assert open_model(run).path == run / "tickets" / "level_01"


@pytest.mark.parametrize(
    "place", [".", "tickets/level_01", "export/ticket.tflite", "export/saved_model"]
)
def test_what_lies_in_a_run_finds_its_experiment(run, place, monkeypatch):
    assert recorded_experiment(run / place) == {"dataset": "blobs", "seed": 3}
    monkeypatch.chdir(run / "tickets")
    assert recorded_experiment(run.relative_to(run.parent).parent / "level_01")["seed"] == 3


def test_what_lies_elsewhere_finds_none(run, tmp_path):
    shutil.copy(run / "export" / "ticket.tflite", tmp_path)
    assert recorded_experiment(tmp_path / "ticket.tflite") == {}


# --- logits or probabilities ---------------------------------------------------------------------


class Named:
    def __init__(self, output="", step=0.0):
        self.output, self.step = output, step


SIMPLEX = np.array([[0.25, 0.75], [1.0, 0.0]], np.float32)


@pytest.mark.parametrize(
    ("runner", "outputs", "probable"),
    [
        (Named(), SIMPLEX, True),
        (Named("dense_1"), SIMPLEX, True),
        (Named("logits"), SIMPLEX, False),
        (Named("probabilities"), SIMPLEX * 0.9, True),
        (Named(), SIMPLEX * 0.99, False),
        (Named(), SIMPLEX + np.array([[0.0, 0.0], [0.0001, -0.0001]]), False),
        (Named(), SIMPLEX + np.array([[0.2, -0.2], [0.0, 0.0]]), True),
        # Two numbers of steps of 1/256, each off by half a step at most.
        (Named(step=1 / 256), SIMPLEX + 1 / 512, True),
        (Named(step=1 / 256), SIMPLEX + 1 / 128, False),
    ],
)
def test_the_name_tells_else_the_values(runner, outputs, probable):
    assert gives_probabilities(runner, np.asarray(outputs, np.float32)) is probable


def test_the_softmax_of_their_logarithm_is_the_probabilities():
    odds = np.exp(logits_of(SIMPLEX, 0.0))
    np.testing.assert_allclose(odds / odds.sum(1, keepdims=True), SIMPLEX, atol=1e-7)
    assert np.isfinite(logits_of(SIMPLEX, 0.0)).all()
    assert logits_of(SIMPLEX, 1 / 256)[1, 1] == pytest.approx(np.log(1 / 512))


def test_a_softmax_of_whole_numbers_is_read_as_probabilities(ticket, inputs, logits, tmp_path):
    model = keras.Sequential([ticket.model(), keras.layers.Softmax()])
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([x[None]] for x in inputs)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    (tmp_path / "int8.tflite").write_bytes(converter.convert())
    runner = open_model(tmp_path / "int8.tflite").runner
    assert runner.step == 1 / 256
    found = runner(inputs)
    assert gives_probabilities(runner, found)
    odds = np.exp(logits - logits.max(1, keepdims=True))
    wanted = odds / odds.sum(1, keepdims=True)
    # Eight bits a weight and an activation: near, and nearly always the same class.
    assert np.abs(found - wanted).mean() < 0.03
    assert (found.argmax(1) == wanted.argmax(1)).mean() > 0.8


# --- what is refused -----------------------------------------------------------------------------


def refused(path):
    with pytest.raises(UsageError) as caught:
        open_model(path)
    line = str(caught.value)
    assert "\n" not in line
    assert str(path) in line
    return line


def test_what_is_no_model_is_refused(tmp_path):
    assert "no such file or directory" in refused(tmp_path / "absent")
    (tmp_path / "text.tflite").write_text("not a flatbuffer at all, only a text")
    assert "no TFLite file" in refused(tmp_path / "text.tflite")
    (tmp_path / "empty.tflite").touch()
    assert "no TFLite file" in refused(tmp_path / "empty.tflite")
    (tmp_path / "directory").mkdir()
    assert "is no model: give a .tflite or .keras file, a SavedModel" in refused(
        tmp_path / "directory"
    )


def test_what_is_damaged_is_refused(run, tmp_path):
    whole = (run / "export" / "ticket.tflite").read_bytes()
    (tmp_path / "cut.tflite").write_bytes(whole[: len(whole) // 2])
    assert "no TFLite file" in refused(tmp_path / "cut.tflite")
    shutil.copytree(run / "export" / "saved_model", tmp_path / "saved_model")
    (tmp_path / "saved_model" / "saved_model.pb").write_bytes(b"no protocol buffer")
    assert "no SavedModel that can be loaded" in refused(tmp_path / "saved_model")
    copy = shutil.copytree(run, tmp_path / "run")
    tensors = copy / "tickets" / "level_01" / "trained.safetensors"
    content = tensors.read_bytes()
    tensors.unlink()  # it may be another level's file too
    tensors.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    for path in (copy / "tickets" / "level_01", copy):
        with pytest.raises(UsageError, match="is damaged: it does not match its checksum"):
            open_model(path)


def test_a_run_that_has_no_level_is_refused(tmp_path):
    RunStore(tmp_path / "run").begin({"experiment": {}})
    assert "is a run without a finished level" in refused(tmp_path / "run")
    (tmp_path / "run" / "experiment.json").write_text("{")
    with pytest.raises(UsageError, match=r"experiment\.json cannot be read"):
        recorded_experiment(tmp_path / "run")
    (tmp_path / "run" / "experiment.json").write_text(json.dumps({"run_id": "old"}))
    assert recorded_experiment(tmp_path / "run") == {}
