"""Tickets, runs and files are opened by one function, which refuses all else."""

import dataclasses
import shutil

import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf.compat import keras
from lotcal_tf.errors import UsageError
from lotcal_tf.evaluation.open_model import open_model, temperature_of
from lotcal_tf.formats.outputs import gives_probabilities
from lotcal_tf.formats.saved_model import SavedModel
from lotcal_tf.formats.tflite import Float32
from lotcal_tf.lottery.store import RunStore


@pytest.fixture(scope="module")
def run(ticket, make_ticket, tmp_path_factory):
    """A run with levels 0, 1, 2 and an export of another ticket; no test changes it."""
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
    SavedModel().write(ticket.model(), directory / "export" / "saved_model")
    Float32().write(ticket.model(), directory / "export" / "ticket.tflite")
    return directory


@pytest.mark.parametrize(
    ("place", "kind"),
    [("export/saved_model", "saved_model"), ("export/ticket.tflite", "tflite")],
)
def test_a_file_is_run_by_its_own_runtime(run, place, kind, inputs, logits):
    opened = open_model(run / place, trust_saved_model=True)
    assert (opened.path, opened.kind, opened.ticket) == (run / place, kind, None)
    (spec,) = opened.runner.inputs.values()
    assert (spec.shape[1:], spec.dtype, opened.runner.classes) == ((4, 2), "float32", 3)
    assert opened.runner.output == "logits"
    np.testing.assert_allclose(opened.runner(inputs, 10), logits, rtol=1e-5, atol=1e-5)
    with pytest.raises(UsageError, match="only tickets have one"):
        opened.temperature()


def test_a_saved_model_of_others_is_not_loaded(run):
    with pytest.raises(UsageError, match=r"a program .*--trust_saved_model"):
        open_model(run / "export" / "saved_model")


def test_a_ticket_is_its_trained_network(run, make_ticket, inputs):
    opened = open_model(run / "tickets" / "level_02")
    assert (opened.kind, opened.ticket.level, opened.temperature()) == ("ticket", 2, 2.5)
    (spec,) = opened.runner.inputs.values()
    assert (spec.shape[1:], spec.dtype, opened.runner.classes) == ((4, 2), "float32", 3)
    truth = make_ticket(2).model()(inputs).numpy()
    np.testing.assert_array_equal(opened.runner(inputs, 10), opened.runner(inputs))
    np.testing.assert_allclose(opened.runner(inputs), truth, rtol=1e-6, atol=1e-6)


def test_a_run_stands_for_its_selected_level(run):
    # Level 0 does not compete, and level 2 is far from level 1.
    assert open_model(run).path == run / "tickets" / "level_01"


def test_an_integer_softmax_gives_probabilities(ticket, inputs, logits, tmp_path):
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


def test_unknown_files_are_refused(run, tmp_path):
    assert "no such file or directory" in refused(tmp_path / "absent")
    (tmp_path / "directory").mkdir()
    (tmp_path / "saved_model.pb").touch()
    (tmp_path / "directory.keras").mkdir()
    # A real TFLite file, without its suffix.
    shutil.copy(run / "export" / "ticket.tflite", tmp_path / "network.bin")
    accepted = (
        ".keras file",
        ".tflite file",
        "directory with saved_model.pb",
        "RUN/tickets/level_NN",
    )
    for name in ("directory", "saved_model.pb", "directory.keras", "network.bin"):
        line = refused(tmp_path / name)
        assert all(kind in line for kind in accepted)


def test_a_damaged_ticket_is_refused(run, tmp_path):
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


def test_a_temperature_is_in_the_record_of_the_ticket(ticket):
    assert temperature_of(ticket) == 2.5
    with pytest.raises(UsageError, match="level 2 has no temperature: use its raw logits"):
        temperature_of(dataclasses.replace(ticket, record={"level": 2}))
