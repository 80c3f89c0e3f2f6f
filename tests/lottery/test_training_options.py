"""Every option of the training: a run that was interrupted ends as one that was not."""

import numpy as np
import pytest

import lotcal_tf
from lotcal_tf.compat import keras
from lotcal_tf.config.optimizers import OPTIMIZERS
from lotcal_tf.lottery import search
from lotcal_tf.models.precision import policy

EPOCHS, BATCH, EXAMPLES = 3, 10, 40


def blobs(count, seed):
    draw = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    return (2 * np.eye(6)[labels] + draw.normal(size=(count, 6))).astype("float32"), labels


DATA = {"train": blobs(EXAMPLES, 0), "validation": blobs(30, 1), "test": blobs(30, 2)}


def make_model():
    keras.utils.set_random_seed(3)
    x = inputs = keras.Input((6,), name="inputs")
    x = keras.layers.Dense(8, activation="relu", name="hidden")(x)
    x = keras.layers.BatchNormalization(name="norm")(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(x), name="tiny")


class Counting(keras.callbacks.Callback):
    """Stops every level one epoch earlier: what it counts over levels is its state."""

    def __init__(self):
        super().__init__()
        self.levels = 0

    def on_train_begin(self, logs=None):
        self.levels += 1

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = epoch + self.levels >= EPOCHS

    def state_dict(self):
        return {"levels": np.int64(self.levels)}

    def load_state_dict(self, state):
        self.levels = state["levels"]


class Patient(keras.callbacks.Callback):
    """Stops every level after two epochs: what it counts within a level is its state."""

    def on_train_begin(self, logs=None):
        self.epochs = 0

    def on_epoch_end(self, epoch, logs=None):
        self.epochs += 1
        self.model.stop_training = self.epochs == 2

    def state_dict(self):
        return {"epochs": getattr(self, "epochs", 0)}

    def load_state_dict(self, state):
        self.epochs = state["epochs"]


class Halving(keras.callbacks.Callback):
    """Sets the learning rate after each epoch; it carries nothing over levels."""

    def on_epoch_end(self, epoch, logs=None):
        rate = self.model.optimizer.learning_rate
        keras.backend.set_value(rate, 0.5 * keras.backend.get_value(rate))

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        assert state == {}


def clipped_sgd():
    return keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True, clipnorm=0.5, weight_decay=0.01)


def averaging_adamw():
    rate = keras.optimizers.schedules.ExponentialDecay(0.02, 4, 0.5)
    return keras.optimizers.AdamW(rate, weight_decay=0.05, beta_1=0.8, use_ema=True)


# Objects are made anew for each call, as in a new process.
OPTIONS = {
    **{name: {"optimizer": name, "lr": 0.02} for name in OPTIMIZERS},
    "adamw": {"optimizer": "adamw", "lr": 0.02, "weight_decay": 0.1},
    "decay": {"optimizer": "rmsprop", "momentum": 0.5, "weight_decay": 0.01},
    "decoupled": {"optimizer": "lion", "weight_decay": 0.1},
    "nesterov": {"optimizer": "sgd", "momentum": 0.9, "nesterov": True},
    "cosine": {"schedule": "cosine", "warmup_epochs": 0.5},
    "late": {"schedule": "cosine", "warmup_epochs": 1, "rewind": "step:6", "lr": 0.05},
    "warm-up": {"warmup_epochs": 1.5, "lr_drops": (2,), "schedule": "step"},
    "constant": {"schedule": "constant"},
    "clip_norm": {"clip_norm": 0.1, "weight_decay": 0.01},
    "clip_value": {"clip_value": 0.01, "optimizer": "sgd", "lr": 1.0},
    "ema": {"ema": 0.9, "lr": 0.05},
    "ema, late": {"ema": 0.5, "rewind": "epoch:1", "plan": "xla"},
    "early": {"early_stopping": 1, "lr": 0.5},
    "early, ema": {"early_stopping": 1, "lr": 0.5, "ema": 0.5},
    "instance": {"optimizer": clipped_sgd, "schedule": "cosine"},
    "instance, late": {"optimizer": averaging_adamw, "rewind": "step:5"},
    "schedule": {"lr": lambda: keras.optimizers.schedules.CosineDecay(0.1, 9)},
    "callback": {"callbacks": lambda: [Counting()]},
    "callback, within": {"callbacks": lambda: [Patient()]},
    "rate": {"callbacks": lambda: [Halving()], "lr": 0.05},
    "plateau": {"callbacks": lambda: [keras.callbacks.ReduceLROnPlateau(patience=1)], "lr": 0.5},
    "stream": {"memory_limit_mb": 0, "shuffle_buffer": 7},
    "mixed_float16": {"precision": "mixed_float16", "plan": "xla"},
    "mixed_bfloat16": {"precision": "mixed_bfloat16", "ema": 0.5},
}


class Interrupting(keras.callbacks.Callback):
    """Interrupts the level of this number, counted from the first in this call, after its first epoch."""

    def __init__(self, level=None):
        super().__init__()
        self.left, self.begun = level, []

    def on_train_begin(self, logs=None):
        self.left = None if self.left is None else self.left - 1

    def on_epoch_begin(self, epoch, logs=None):
        self.begun.append(epoch)
        if self.left == -1 and epoch == 1:
            raise KeyboardInterrupt


def find(directory, option, levels, callbacks=()):
    fields = {name: v() if callable(v) else v for name, v in OPTIONS[option].items()}
    fields["callbacks"] = [*fields.get("callbacks", ()), *callbacks]
    with policy(fields.pop("precision", "float32")):
        model = make_model()
    given = {"plan": "graph", "epochs": EPOCHS, "batch_size": BATCH, **fields}
    return lotcal_tf.find_tickets(
        model, **DATA, out=directory, levels=levels, progress=False, **given
    )


def outcome(run):
    rows = [{k: v for k, v in record.items() if k != "seconds"} for record in run.records]
    tickets = [run.ticket(level) for level in range(len(rows))]
    return rows, [t.digest for t in tickets], [t.history for t in tickets]


# Keras's own callbacks that count within a level begin it again.
BEGIN_AGAIN = ("plateau",)


@pytest.mark.full
@pytest.mark.parametrize("option", OPTIONS)
def test_a_run_that_was_interrupted_ends_as_one_that_was_not(tmp_path, option):
    straight = find(tmp_path / "straight", option, 1)
    find(tmp_path / "resumed", option, 0)
    resumed = find(tmp_path / "resumed", option, 1)
    assert resumed.found == 1
    assert outcome(resumed) == outcome(straight)
    for level in (0, 1):
        ticket = straight.ticket(level)
        for name, mask in ticket.masks.items():
            assert not ticket.trained[name][~mask].any()


@pytest.mark.full
@pytest.mark.parametrize("option", OPTIONS)
def test_a_run_that_was_interrupted_within_levels_ends_as_one_that_was_not(
    tmp_path, option, monkeypatch
):
    monkeypatch.setattr(search, "STATE_SECONDS", 0.0)  # The epochs are short.
    straight = find(tmp_path / "straight", option, 1)
    for level in (0, 1):
        with pytest.raises(KeyboardInterrupt):
            find(tmp_path / "resumed", option, 1, [Interrupting(level)])
        assert len(list((tmp_path / "resumed" / "tickets").iterdir())) == level
    watcher = Interrupting()
    resumed = find(tmp_path / "resumed", option, 1, [watcher])
    assert watcher.begun[0] == (option not in BEGIN_AGAIN)
    assert outcome(resumed) == outcome(straight)
    tables = [(tmp_path / run / "history.csv").read_bytes() for run in ("straight", "resumed")]
    assert tables[0] == tables[1]
    assert not (tmp_path / "resumed" / "checkpoints").exists()
