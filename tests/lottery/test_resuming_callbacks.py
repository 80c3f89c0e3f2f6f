"""Runs with callbacks and optimizers as objects: identity, records, and what cannot be continued."""

import json

import numpy as np
import pytest

import lotcal_tf
from lotcal_tf.compat import keras
from lotcal_tf.errors import FieldError, UsageError


def blobs(count, seed):
    draw = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    return (2 * np.eye(6)[labels] + draw.normal(size=(count, 6))).astype("float32"), labels


DATA = {"train": blobs(40, 0), "validation": blobs(30, 1)}


def find(directory, levels, **given):
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, name="logits")], name="tiny")
    given = {"epochs": 2, "batch_size": 10, "plan": "graph", "progress": False} | given
    return lotcal_tf.find_tickets(model, **DATA, out=directory, levels=levels, **given)


class Stops(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = True


class StopsWithState(Stops):
    def state_dict(self):
        return {"level": 1}

    def load_state_dict(self, state):
        self.state = state


def test_a_callback_without_state_cannot_continue_a_run_and_changes_nothing(tmp_path, tree):
    find(tmp_path / "run", 0, callbacks=[Stops()])
    before = tree(tmp_path)
    with pytest.raises(UsageError, match="Stops .*stop_training.*load_state_dict"):
        find(tmp_path / "run", 1, callbacks=[Stops()])
    assert tree(tmp_path) == before
    assert find(tmp_path / "run", 0, callbacks=[Stops()]).found == 1  # Nothing is left to train.


def test_a_state_is_stored_with_each_level_and_set_before_the_next(tmp_path):
    run = find(tmp_path / "run", 0, callbacks=[StopsWithState()])
    (stored,) = run.ticket(0).callbacks
    assert stored["state"] == {"level": 1}
    with pytest.raises(UsageError, match="same callbacks"):
        find(tmp_path / "run", 1)
    again = StopsWithState()
    find(tmp_path / "run", 1, callbacks=[again])
    assert again.state == {"level": 1}


def test_the_record_of_a_run_names_the_optimizer_that_was_passed(tmp_path):
    optimizer = keras.optimizers.AdamW(0.02, weight_decay=0.1)
    find(tmp_path / "run", 0, optimizer=optimizer, schedule="cosine")
    record = json.loads((tmp_path / "run" / "experiment.json").read_text())
    fields = {name: record["experiment"][name] for name in ("optimizer", "lr", "weight_decay")}
    assert fields == {"optimizer": "adamw", "lr": 0.02, "weight_decay": 0.1}
    config = json.loads(record["identity"]["optimizer_config"])
    assert config["class_name"] == "AdamW"
    with pytest.raises(FieldError, match="out=.*optimizer_config"):
        find(tmp_path / "run", 0, optimizer=keras.optimizers.AdamW(0.02), schedule="cosine")
    assert find(tmp_path / "run", 0, optimizer=optimizer, schedule="cosine").found == 1


MODULE = """
from tf_keras.optimizers import SGD

class Negative(SGD):
    def update_step(self, gradient, variable):
        super().update_step({}gradient, variable)
"""


def test_a_custom_optimizer_by_name_is_another_run_after_an_edit(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    ids = []
    for number, sign in enumerate(("", "-")):
        name = f"own_optimizer_{number}"
        (tmp_path / f"{name}.py").write_text(MODULE.format(sign))
        run = find(tmp_path / name, 0, optimizer=f"{name}:Negative", lr=0.5, weight_decay=0.01)
        record = json.loads((run.directory / "experiment.json").read_text())
        ids.append((record["identity"]["optimizer_source"], run.records[0]["val_nll"]))
    assert ids[0][0] != ids[1][0]
    assert ids[0][1] < ids[1][1]
    with pytest.raises(FieldError, match="optimizer=json:JSONDecoder: .*tf_keras"):
        find(tmp_path / "other", 0, optimizer="json:JSONDecoder")


def test_pretrained_weights_are_rewound_to_as_initial_ones(tmp_path):
    found = [find(tmp_path / rewind, 1, rewind=rewind) for rewind in ("init", "pretrained")]
    assert found[0].ticket(1).digest == found[1].ticket(1).digest


def test_early_stopping_before_the_step_to_rewind_to_is_refused(tmp_path):
    fields = {"epochs": 6, "early_stopping": 2}
    with pytest.raises(FieldError, match="rewind=step:13: .*early_stopping=2.* step 12"):
        find(tmp_path / "run", 1, rewind="step:13", **fields)
    assert not (tmp_path / "run").exists()
    run = find(tmp_path / "run", 1, rewind="step:12", lr=0.5, **fields)
    for record, level in zip(run.records, range(2), strict=True):
        losses = [e["val_loss"] for e in run.ticket(level).history]
        first = run.ticket(level).history[0]["epoch"]
        assert record["epochs"] == first + len(losses)
        assert record["kept_epoch"] == first + losses.index(min(losses))
        assert record["val_nll"] == pytest.approx(min(losses), rel=1e-5)
