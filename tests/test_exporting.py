"""Exporting a level by name; the command's tests are about its flags and its files."""

import json

import numpy as np
import pytest

from lotcal_tf import exporting
from lotcal_tf.config.recipes import resolve
from lotcal_tf.errors import UsageError
from lotcal_tf.formats.tflite import TFLiteRunner
from lotcal_tf.lottery.run import run_experiment


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("exporting") / "run"
    fields = {"model": "lenet_8", "epochs": 1, "levels": 1, "plan": "graph", "out": str(out)}
    return run_experiment(resolve(fields), progress=False)


def export(run, level, tmp_path, **fields):
    options = {"directory": tmp_path / "out", "formats": ["float32"], "encoding": "dense"}
    return exporting.export_level(run.directory, level, fields, seconds=0, **options)


def test_what_the_run_recorded_holds_unless_it_is_given(run, tmp_path):
    told = []
    done = exporting.export_level(
        run.directory, 1, {}, directory=tmp_path / "a", formats=["float32"], seconds=0,
        progress=told.append,
    )  # fmt: skip
    ticket = run.ticket(1)
    assert (done.parity["ticket"], done.parity["level"]) == (ticket.digest, 1)
    assert (done.parity["temperature"], done.parity["ece_bins"]) == (
        ticket.record["temperature"],
        15,
    )
    assert told[0] == "reading digits"
    other = export(run, 1, tmp_path, ece_bins=7, export_logits="raw")
    assert (other.parity["temperature"], other.parity["ece_bins"]) == (1, 7)
    inputs = np.random.default_rng(0).random((5, 8, 8, 1)).astype("float32") * 16
    found = TFLiteRunner(other.files["float32"])(inputs)
    np.testing.assert_allclose(found, ticket.model()(inputs), rtol=1e-4, atol=1e-5)


def test_the_card_tells_of_the_run(run, tmp_path):
    done = export(run, 0, tmp_path)
    card = json.loads((done.directory / "model_card.json").read_text())
    assert card["experiment"]["model"] == "lenet_8"
    assert card["data"]["classes"] == 10
    assert card["record"]["level"] == 0
    assert card["input"]["shape"] == [8, 8, 1]
    assert card["input"]["range"] == [0, 16]


def test_a_level_that_is_not_there_is_refused(run, tmp_path):
    with pytest.raises(UsageError, match="is no ticket"):
        export(run, 2, tmp_path)
    assert not list(tmp_path.iterdir())
