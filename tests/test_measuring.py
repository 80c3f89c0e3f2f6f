"""Measuring by the library, on data of one's own; the command's tests measure data that has a name."""

import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf import api, measuring, metrics
from lotcal_tf.compat import keras
from lotcal_tf.config.recipes import resolve
from lotcal_tf.errors import UsageError
from lotcal_tf.lottery.run import run_experiment
from lotcal_tf.metrics.unseen import measure_unseen

DRAW = np.random.default_rng(0)
INPUTS, LABELS = DRAW.normal(size=(90, 8)).astype("float32"), DRAW.integers(0, 3, 90)
TEST = INPUTS[60:], LABELS[60:]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    model = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(6, "relu"), keras.layers.Dense(3)]
    )
    out = tmp_path_factory.mktemp("run") / "run"
    data = (INPUTS[:60], LABELS[:60]), TEST
    settings = {"epochs": 1, "levels": 2, "batch_size": 10, "plan": "graph", "progress": False}
    return api.find_tickets(model, *data, out=out, **settings)


def test_a_run_is_measured_by_its_best_ticket_on_ones_own_data(run):
    best = run.best
    logits = best.model()(TEST[0]).numpy()
    found = measuring.measure_model(run.directory, TEST, bins=5, unseen={"noise": 9 * TEST[0]})
    assert found.metrics == pytest.approx(metrics.measure(TEST[1], logits, bins=5), abs=1e-6)
    assert (found.examples, found.ece_bins) == (len(TEST[1]), 5)
    assert found.model.endswith(f"tickets/level_{best.level:02d}")
    far = best.model()(9 * TEST[0]).numpy()
    assert found.unseen[0].metrics == pytest.approx(measure_unseen(logits, far), abs=1e-6)
    streamed = measuring.measure_model(
        run.directory, tf.data.Dataset.from_tensor_slices(TEST), bins=5
    )
    assert streamed.metrics == found.metrics


def test_validation_of_a_noisy_run_has_the_noise_of_its_training(tmp_path):
    flags = {"dataset": "digits", "model": "lenet_10", "epochs": 2, "levels": 0, "label_noise": 0.3}
    experiment = resolve(flags | {"out": str(tmp_path)})
    record = run_experiment(experiment, progress=False).records[0]
    for split in ("val", "test"):
        found = measuring.evaluate_model(tmp_path, resolve({}), {}, split=split)
        assert found.metrics["accuracy"] == record[f"{split}_accuracy"]
    # 0.7 of the labels are right, and the network is not.
    assert record["val_accuracy"] < record["test_accuracy"]


def test_inputs_of_another_shape_are_refused(run):
    with pytest.raises(UsageError, match=r"inputs of shape \(8\), the data has \(4\)"):
        measuring.measure_model(run.directory, (TEST[0][:, :4], TEST[1]))
