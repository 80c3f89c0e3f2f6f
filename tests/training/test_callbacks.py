"""The user's Keras callbacks: which are accepted, and when they are called with what."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf.calibration.strategies import CrossEntropy
from lotcal_tf.compat import keras
from lotcal_tf.config.experiment import Experiment
from lotcal_tf.data.splits import Dataset, ResidentSplit
from lotcal_tf.errors import UsageError
from lotcal_tf.pruning import masking
from lotcal_tf.training.callbacks import check_callbacks, check_resumable, restore, states
from lotcal_tf.training.given_optimizer import take_objects
from lotcal_tf.training.trainer import Trainer

EPOCHS, STEPS = 3, 5  # 40 training examples in batches of 8


class Logging(CrossEntropy):
    """A strategy that logs one value more."""

    log_names = (*CrossEntropy.log_names, "count")

    def train_step(self, data):
        return super().train_step(data) | {"count": tf.cast(self.optimizer.iterations, tf.float32)}


def make_network():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4,))
    return masking.wrap(keras.Model(inputs, keras.layers.Dense(3, name="logits")(inputs)))


@pytest.fixture(scope="module")
def shared():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    inputs = (rng.normal(size=(60, 4)) + 2 * np.eye(4)[labels]).astype(np.float32)
    splits = ResidentSplit.of(inputs[:40], labels[:40]), ResidentSplit.of(inputs[40:], labels[40:])
    fields = {"optimizer": "sgd", "lr": 0.05, "plan": "graph", "batch_size": 8, "epochs": EPOCHS}
    return Trainer(Experiment(**fields), Logging, make_network(), Dataset(3, *splits, None))


@pytest.fixture
def trainer(shared):
    masking.assign(shared.network, masking.values(make_network()))
    return shared


def train(trainer, level, callbacks=(), **given):
    found = trainer.train(level, callbacks=callbacks, **given)
    return [progress.epoch for progress in found if progress.epoch]


class Recorder(keras.callbacks.Callback):
    """Records its calls."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def on_train_begin(self, logs=None):
        self.calls.append(("train begin", logs))

    def on_epoch_begin(self, epoch, logs=None):
        self.calls.append(("epoch begin", epoch, logs))

    def on_epoch_end(self, epoch, logs=None):
        self.calls.append(("epoch end", epoch, logs))

    def on_train_end(self, logs=None):
        self.calls.append(("train end", logs))


class StopsAfter(Recorder):
    """Ends its first level after an epoch."""

    def __init__(self, last):
        super().__init__()
        self.last, self.levels = last, 0

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self.levels += 1

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        if (self.levels, epoch) == (1, self.last):
            self.model.stop_training = True


def test_every_level_is_a_training_run_with_the_logs_of_keras(trainer):
    recorder, expected = Recorder(), []
    for level, first_step, epochs in ((0, 0, (0, 1, 2)), (1, 7, (1, 2))):
        expected += [("train begin", {})]
        rows = train(trainer, level, [recorder], first_step=first_step)
        assert [row.epoch for row in rows] == list(epochs)
        for row in rows:
            logs = {
                "loss": row.train_loss,
                "accuracy": row.train_accuracy,
                "count": row.logged["count"],
                "val_loss": row.val_loss,
                "val_accuracy": row.val_accuracy,
            }
            expected += [("epoch begin", row.epoch, {}), ("epoch end", row.epoch, logs)]
        expected += [("train end", logs)]
    assert recorder.calls == expected
    # Means of 1 to 5, 6 to 10, 11 to 15; of the late level 1 to 3 and 4 to 8.
    counts = [call[2]["count"] for call in recorder.calls if call[0] == "epoch end"]
    assert counts == [3, 8, 13, 2, 6]


def test_callbacks_know_the_strategy_and_the_schedule(trainer):
    recorder = Recorder()
    train(trainer, 0, [recorder])
    assert recorder.model is trainer.strategy
    assert recorder.params == {"epochs": EPOCHS, "steps": STEPS, "verbose": 0}


def test_an_epoch_is_reported_after_its_callbacks(trainer):
    """What a consumer of the progress sees, a callback has seen before."""
    recorder = Recorder()
    for progress in trainer.train(0, callbacks=[recorder]):
        last = recorder.calls[-1]
        number = (progress.step - 1) // STEPS
        ended = progress.epoch is not None or progress.take_state is not None
        assert last[:2] == (("epoch end" if ended else "epoch begin"), number)


def test_callbacks_that_only_watch_change_nothing(trainer):
    start, found = masking.values(trainer.network), []
    for callbacks in ((), (Recorder(), keras.callbacks.Callback())):
        masking.assign(trainer.network, start)
        found.append((train(trainer, 0, callbacks), masking.values(trainer.network)))
    assert found[0][0] == found[1][0]
    for name, value in found[0][1].items():
        np.testing.assert_array_equal(found[1][1][name], value)


def test_stop_training_ends_the_level_after_the_epoch_and_not_the_next_one(trainer):
    stopping = StopsAfter(1)
    progress = list(trainer.train(0, callbacks=[stopping]))
    assert (progress[-1].step, progress[-1].epoch.epoch) == (2 * STEPS, 1)
    assert trainer.strategy.optimizer.iterations == 2 * STEPS
    assert [call[0] for call in stopping.calls[-2:]] == ["epoch end", "train end"]
    assert stopping.calls[-1][1] == stopping.calls[-2][2]
    assert [row.epoch for row in train(trainer, 1, [stopping])] == [0, 1, 2]
    assert [row.epoch for row in train(trainer, 2)] == [0, 1, 2]


def test_early_stopping_of_keras_restores_its_best_weights(trainer):
    """The loss falls: where the largest is the best, the first epoch is, and the second one ends it."""
    early = keras.callbacks.EarlyStopping(
        monitor="loss", mode="max", patience=1, restore_best_weights=True
    )
    weights = {}
    for progress in trainer.train(0, callbacks=[early]):
        if progress.epoch:
            weights[progress.epoch.epoch] = masking.values(trainer.network)
    assert list(weights) == [0, 1]
    for name, value in masking.values(trainer.network).items():
        np.testing.assert_array_equal(value, weights[0][name])


# Which are accepted


def with_method(name):
    return type("Mine", (keras.callbacks.Callback,), {name: lambda self, batch, logs=None: None})()


BATCH_METHODS = ("on_train_batch_begin", "on_train_batch_end", "on_batch_begin", "on_batch_end")


@pytest.mark.parametrize("name", BATCH_METHODS)
@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (with_method, "Mine"),
        (
            lambda name: keras.callbacks.LambdaCallback(**{name: lambda batch, logs: None}),
            "LambdaCallback",
        ),
    ],
)
def test_a_callback_that_must_be_called_at_every_batch_is_refused(make, kind, name):
    with pytest.raises(UsageError) as caught:
        check_callbacks([Recorder(), make(name)])
    assert str(caught.value) == (
        f"callbacks: {kind} has {name}, but training steps run inside one compiled function: "
        "use on_epoch_end"
    )


@pytest.mark.parametrize("name", ["on_test_batch_end", "on_epoch_end", "on_predict_batch_begin"])
def test_other_methods_are_accepted(name):
    check_callbacks([with_method(name)])


def test_a_lambda_callback_for_epochs_is_accepted(trainer):
    seen = []
    callback = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(epoch))
    check_callbacks([callback])
    train(trainer, 0, [callback])
    assert seen == [0, 1, 2]


def test_callbacks_of_keras_are_accepted_with_settings_per_epoch(tmp_path, trainer):
    kinds = keras.callbacks
    per_epoch = [
        kinds.EarlyStopping(monitor="val_loss"),
        kinds.CSVLogger(tmp_path / "log.csv"),
        kinds.ModelCheckpoint(str(tmp_path / "{epoch}.weights.h5"), save_weights_only=True),
        kinds.TensorBoard(tmp_path / "log"),
    ]
    check_callbacks(per_epoch)
    epochs = len(train(trainer, 0, per_epoch))
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert lines[0] == "epoch,accuracy,count,loss,val_accuracy,val_loss"
    assert len(lines) == 1 + epochs
    assert len(list(tmp_path.glob("*.weights.h5"))) == epochs
    for every_batch in (
        kinds.ModelCheckpoint(str(tmp_path / "checkpoint"), save_freq=10),
        kinds.TensorBoard(tmp_path / "log", write_steps_per_second=True),
    ):
        with pytest.raises(UsageError, match=f"^callbacks: {type(every_batch).__name__} has on_"):
            check_callbacks([every_batch])


@pytest.mark.parametrize(
    ("callback", "problem"),
    [
        (Recorder, "Recorder is a class: give an instance"),
        (print, "builtin_function_or_method is not a Keras callback: .* tf_keras"),
        (
            type("Theirs", (), {"__module__": "keras.src.callbacks.callback"})(),
            "Theirs is a Keras 3 callback: derive it from tf_keras.callbacks.Callback",
        ),
    ],
)
def test_what_is_not_a_callback_of_this_keras_is_refused(callback, problem):
    with pytest.raises(UsageError, match=f"^callbacks: {problem}") as caught:
        check_callbacks([callback])
    assert "\n" not in str(caught.value)


# What changes the training, and its state


class SetsRate(keras.callbacks.Callback):
    """Sets the learning rate before epoch 1, and records it."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch_begin(self, epoch, logs=None):
        rate = self.model.optimizer.learning_rate
        self.seen.append(float(rate.numpy()))
        if epoch == 1:
            rate.assign(0.01)


def test_a_rate_that_a_callback_sets_holds_until_the_level_ends(trainer):
    """Against epochs that are trained by hand with that rate."""
    start = masking.values(trainer.network)
    setting = SetsRate()
    train(trainer, 0, [setting])
    assert setting.seen == pytest.approx([0.05, 0.05, 0.01])
    found = masking.values(trainer.network)
    masking.assign(trainer.network, start)
    for progress in trainer.train(0):
        if progress.step == STEPS and progress.epoch is None:
            trainer.rate.fixed.assign(0.01)
    for name, value in masking.values(trainer.network).items():
        np.testing.assert_array_equal(found[name], value)
    train(trainer, 1, [setting])
    assert setting.seen[3] == pytest.approx(0.05)  # The next level begins with the schedule.


def test_a_rate_that_is_set_before_the_level_holds(trainer):
    before = masking.values(trainer.network)
    nothing = keras.callbacks.Callback()
    nothing.on_train_begin = lambda logs=None: nothing.model.optimizer.learning_rate.assign(0.0)
    train(trainer, 0, [nothing])
    for name, value in masking.values(trainer.network).items():
        np.testing.assert_array_equal(before[name], value)


class Table(keras.optimizers.schedules.LearningRateSchedule):
    """A rate for each step of a level, and for no other."""

    def __call__(self, step):
        return tf.gather(tf.fill([EPOCHS * STEPS], 0.05), step)

    def get_config(self):
        return {}


def test_a_schedule_is_not_asked_for_steps_after_the_last(shared):
    _, given = take_objects({"lr": Table()})
    experiment = given.describe(shared.experiment)
    trainer = Trainer(experiment, Logging, make_network(), shared.dataset, given=given)
    assert len(train(trainer, 0, [Recorder()])) == EPOCHS


def test_callbacks_of_keras_that_set_the_rate_have_an_effect(trainer):
    seen = SetsRate()
    seen.on_epoch_begin = lambda epoch, logs=None: seen.seen.append(
        float(trainer.strategy.optimizer.learning_rate.numpy())
    )
    by_epoch = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    train(trainer, 0, [by_epoch, seen])
    assert seen.seen == pytest.approx([0.025, 0.0125, 0.00625])
    seen.seen.clear()
    plateau = keras.callbacks.ReduceLROnPlateau(
        "val_loss", factor=0.1, patience=1, min_delta=100, mode="min"
    )
    train(trainer, 0, [plateau, seen])
    assert seen.seen == pytest.approx([0.05, 0.05, 0.005])


@pytest.mark.parametrize("resumed", [False, True])
def test_a_callback_that_keeps_the_rate_keeps_it_where_the_schedule_drops(shared, resumed):
    """The rate that it sets is that of the last step; the schedule has a tenth of it for the next one."""
    fields = {"lr_drops": (1,), "lr_drop_factor": 0.1}
    experiment = dataclasses.replace(shared.experiment, **fields)
    trainer = Trainer(experiment, Logging, make_network(), shared.dataset)
    used = SetsRate()
    used.on_epoch_end = lambda epoch, logs=None: used.seen.append(
        float(trainer.rate(trainer.strategy.optimizer.iterations - 1))
    )
    used.on_epoch_begin = lambda epoch, logs=None: None
    train(trainer, 0, [used])
    assert used.seen == pytest.approx([0.05, 0.005, 0.005])
    used.seen.clear()
    keeps = keras.callbacks.LearningRateScheduler(lambda epoch: 0.05)
    if resumed:
        taken = [p.take_state() for p in trainer.train(0, callbacks=[keeps, used]) if p.take_state]
        used.seen.clear()
        train(trainer, 0, [keeps, used], state=taken[0])
        assert used.seen == pytest.approx([0.05, 0.05])
        return
    train(trainer, 0, [keeps, used])
    assert used.seen == pytest.approx([0.05, 0.05, 0.05])


class Stops(keras.callbacks.Callback):
    """Stops after some epochs over all levels."""

    def __init__(self):
        super().__init__()
        self.epochs = np.int64(0)

    def on_epoch_end(self, epoch, logs=None):
        self.epochs += 1
        if self.epochs == 4:
            self.model.stop_training = True


class StopsWithState(Stops):
    def state_dict(self):
        return {"epochs": self.epochs, "rates": [0.5, None]}

    def load_state_dict(self, state):
        self.epochs = state["epochs"]


class BadState(StopsWithState):
    def state_dict(self):
        return {"weights": np.ones(2)}


class Restores(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        def put_back():
            self.model.network.set_weights([])

        put_back()


class ReadsRate(keras.callbacks.Callback):
    """Logs what others change."""

    def on_epoch_end(self, epoch, logs=None):
        self.rate = float(self.model.optimizer.learning_rate.numpy())
        self.stopped = self.model.stop_training


@pytest.mark.parametrize(
    ("callback", "name"),
    [
        (Stops(), "stop_training"),
        (Restores(), "set_weights"),
        (SetsRate(), "assign"),
        (
            keras.callbacks.LambdaCallback(
                on_epoch_end=lambda epoch, logs: setattr(epoch, "x", keras.backend.set_value(1, 2))
            ),
            "set_value",
        ),
    ],
)
def test_a_callback_that_changes_the_training_without_state_cannot_continue(callback, name):
    check_callbacks([callback])
    with pytest.raises(UsageError, match=rf"{name}.*load_state_dict") as caught:
        check_resumable([ReadsRate(), callback], [], 2)
    assert "\n" not in str(caught.value)


def test_callbacks_that_begin_each_level_anew_or_watch_can_continue(tmp_path):
    kinds = keras.callbacks
    callbacks = [
        kinds.EarlyStopping(restore_best_weights=True),
        kinds.ReduceLROnPlateau(),
        kinds.LearningRateScheduler(lambda epoch, rate: rate),
        kinds.ModelCheckpoint(str(tmp_path / "best.weights.h5"), save_weights_only=True),
        kinds.CSVLogger(tmp_path / "log.csv"),
        ReadsRate(),
        Recorder(),
    ]
    check_resumable(callbacks, [], 1)


def test_a_state_comes_back_as_it_was():
    callbacks = [Recorder(), StopsWithState()]
    callbacks[1].epochs += 3
    stored = json.loads(json.dumps(states(callbacks)))
    fresh = [StopsWithState(), Recorder()]
    check_resumable(fresh, stored, 1)
    restore(fresh, stored)
    assert fresh[0].epochs == 3


@pytest.mark.parametrize("callbacks", [[], [StopsWithState(), StopsWithState()]])
def test_other_callbacks_with_state_cannot_continue(callbacks):
    with pytest.raises(UsageError, match="StopsWithState.* same callbacks"):
        check_resumable(callbacks, states([StopsWithState()]), 1)


class AssignsAttribute(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.lr = 1  # Its own.
        self.model.optimizer.learning_rate = 0.1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: BadState(), "JSON"),
        (lambda path: AssignsAttribute(), r"learning_rate.assign\("),
        (lambda path: keras.callbacks.BackupAndRestore(str(path)), "leave it out"),
        (
            lambda path: keras.callbacks.ModelCheckpoint(str(path), load_weights_on_restart=True),
            "load_weights_on_restart",
        ),
    ],
)
def test_what_would_change_a_level_unnoticed_is_refused(tmp_path, make, words):
    with pytest.raises(UsageError, match=f"^callbacks: .*{words}"):
        check_callbacks([make(tmp_path / "file")])
