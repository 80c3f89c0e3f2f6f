"""A level's training against the same schedule, executed step by step."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf import metrics
from lotcal_tf.calibration.strategies import CrossEntropy
from lotcal_tf.compat import keras
from lotcal_tf.config.experiment import Experiment
from lotcal_tf.data.splits import Dataset, ResidentSplit, StreamedSplit, shuffle_seed
from lotcal_tf.errors import FieldError, TrainingDiverged
from lotcal_tf.models.stateless_dropout import StatelessDropout
from lotcal_tf.pruning import masking
from lotcal_tf.seeds import named_seed, step_seed
from lotcal_tf.training.compiled_loop import MAX_STEPS_PER_CALL
from lotcal_tf.training.optimizer import level_rate, make_optimizer
from lotcal_tf.training.trainer import Trainer

BATCH, EPOCHS, STEPS = 8, 3, 6  # of 50 training examples two are left over in each epoch
SCHEDULE = {
    "batch_size": BATCH,
    "epochs": EPOCHS,
    "optimizer": "sgd",
    "lr": 0.08,
    "momentum": 0.9,
    "weight_decay": 0.01,
    "lr_drops": (2,),
    "seed": 4,
    "plan": "graph",
}


def arrays(count, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count).astype(np.int32)
    inputs = rng.normal(size=(count, 6)) + 2 * np.eye(6)[labels]
    return inputs.astype(np.float32), labels


def make_dataset(train=None, validation=None):
    train = train or ResidentSplit.of(*arrays(50, 0))
    return Dataset(3, train, validation or ResidentSplit.of(*arrays(20, 1)), None)


def make_network():
    """6 → 5 → 3, masked, with dropout: what is drawn in a step belongs to the step."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6,))
    x = keras.layers.Dense(5, activation="relu", name="hidden")(inputs)
    x = StatelessDropout(0.2, name="dropout")(x)
    return masking.wrap(keras.Model(inputs, keras.layers.Dense(3, name="logits")(x)))


def make_trainer(dataset=None, network=None, **fields):
    experiment = Experiment(**(SCHEDULE | fields))
    return Trainer(experiment, CrossEntropy, network or make_network(), dataset or make_dataset())


def train(trainer, level, **given):
    """Trains a level to its end; its epochs."""
    return [p.epoch for p in trainer.train(level, **given) if p.epoch is not None]


@functools.cache
def _shared():
    return make_trainer()


@pytest.fixture
def trainer():
    """One for all tests, as a chain has one for all levels; its weights put back to the start."""
    masking.assign(_shared().network, masking.values(make_network()))
    return _shared()


@functools.cache
def by_hand(level=0, first=0, last=EPOCHS * STEPS):
    """Steps [first, last) of the schedule, one by one: the weights, and a row for every epoch."""
    network, dataset = make_network(), make_dataset()
    strategy = CrossEntropy(network)
    rate = level_rate(Experiment(**SCHEDULE), STEPS)
    optimizer = make_optimizer(Experiment(**SCHEDULE), rate)
    optimizer.build(network.trainable_variables)
    rate.begin(first)
    strategy.compile(optimizer=optimizer)
    rows, logs = [], []
    for step in range(first, last):
        epoch, place = divmod(step, STEPS)
        ((inputs, labels),) = dataset.train.shuffled(BATCH, STEPS, shuffle_seed(4, level, epoch))
        batch = slice(place * BATCH, (place + 1) * BATCH)
        draws = named_seed(4, "steps", level, epoch)
        with step_seed(tf.constant([draws[0], draws[1] + place])):
            logs.append(strategy.train_step((inputs[batch], labels[batch])))
        if place == STEPS - 1:
            row = {f"train_{name}": np.mean([log[name] for log in logs]) for name in logs[0]}
            rows.append({"level": level, "epoch": epoch} | row | validate(network, dataset))
            logs = []
    return masking.values(network), rows


def validate(network, dataset):
    inputs, labels = dataset.validation.inputs, dataset.validation.labels.numpy()
    logits = network(inputs).numpy().astype(np.float64)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    hits = logits.argmax(1) == labels
    loss = -log_p[np.arange(len(labels)), labels].mean()
    return {"val_loss": loss, "val_accuracy": hits.mean()}


def assert_weights(network, expected, tolerance=0.0):
    for name, value in masking.values(network).items():
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("level", [0, 2])
def test_a_level_is_its_schedule_step_by_step(trainer, level):
    assert (trainer.steps_per_epoch, trainer.total_steps) == (STEPS, EPOCHS * STEPS)
    weights, rows = by_hand(level)
    epochs = train(trainer, level)
    assert_weights(trainer.network, weights, 1e-6)
    assert [epoch.row for epoch in epochs] == [pytest.approx(row, rel=1e-4) for row in rows]


@pytest.mark.full
@pytest.mark.parametrize("first", [0, 6, 9])
def test_the_smaller_batch_is_a_step_of_the_schedule(first):
    """50 examples are 7 batches of which the last has two; the learning rate drops after 14 steps."""
    trainer = make_trainer(drop_remainder=False)
    assert (trainer.steps_per_epoch, trainer.total_steps) == (7, 21)
    epochs = train(trainer, 0, first_step=first)
    assert trainer.strategy.optimizer.iterations == 21 - first
    network, dataset = make_network(), make_dataset()
    strategy, rate = CrossEntropy(network), level_rate(Experiment(**SCHEDULE), 7)
    optimizer = make_optimizer(Experiment(**SCHEDULE), rate)
    optimizer.build(network.trainable_variables)
    rate.begin(first)
    strategy.compile(optimizer=optimizer)
    losses = {}
    for step in range(first, 21):
        epoch, place = divmod(step, 7)
        seed = shuffle_seed(4, 0, epoch)
        blocks = list(dataset.train.shuffled(BATCH, STEPS, seed, drop_remainder=False))
        inputs, labels = (tf.concat(parts, 0) for parts in zip(*blocks, strict=True))
        batch, draws = slice(place * BATCH, (place + 1) * BATCH), named_seed(4, "steps", 0, epoch)
        with step_seed(tf.constant([draws[0], draws[1] + place])):
            logs = strategy.train_step((inputs[batch], labels[batch]))
        losses.setdefault(epoch, []).extend([float(logs["loss"])] * len(labels[batch]))
    assert_weights(trainer.network, masking.values(network), 1e-6)
    expected = [np.mean(values) for values in losses.values()]
    assert [epoch.train_loss for epoch in epochs] == pytest.approx(expected, rel=1e-5)


def test_without_a_smaller_batch_nothing_changes():
    """Of 48 examples every batch is whole: the same weights to the bit."""
    dataset = make_dataset(ResidentSplit.of(*arrays(48, 0)))
    found = []
    for drop in (True, False):
        trainer = make_trainer(dataset, drop_remainder=drop)
        found.append((train(trainer, 0), masking.values(trainer.network)))
    assert found[0][0] == found[1][0]
    for name, value in found[0][1].items():
        np.testing.assert_array_equal(value, found[1][1][name])


def test_nothing_of_a_level_is_left_over_for_the_next(trainer):
    start = masking.values(trainer.network)
    first, again = [], []
    for level, results in ((1, first), (0, []), (1, again)):
        masking.assign(trainer.network, start)
        results += [train(trainer, level), masking.values(trainer.network)]
    assert first[0] == again[0]
    assert_weights(trainer.network, first[1])


@pytest.mark.parametrize("first", [1, 6, 8, 13, 17])
def test_a_late_start_takes_exactly_the_remaining_steps(trainer, first):
    weights, _ = by_hand(1, first)
    epochs = train(trainer, 1, first_step=first)
    assert trainer.strategy.optimizer.iterations == EPOCHS * STEPS - first
    assert [epoch.epoch for epoch in epochs] == list(range(first // STEPS, EPOCHS))
    assert_weights(trainer.network, weights, 1e-6)


@pytest.mark.parametrize("after", [1, 6, 8, 12, 17])
def test_a_pause_shows_the_weights_after_exactly_its_step(trainer, after):
    seen = {}
    for progress in trainer.train(0, pause_at=[after]):
        trainer.fetch()
        seen.setdefault(progress.step, masking.values(trainer.network))
    expected, _ = by_hand(last=after)
    for name, value in seen[after].items():
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=1e-6, err_msg=name)
    assert_weights(trainer.network, by_hand()[0], 1e-6)


def test_rewound_to_the_middle_a_level_ends_where_it_ended():
    # Without momentum an optimizer carries nothing over: the rest of the way is the same again.
    trainer = make_trainer(momentum=0.0)
    for progress in trainer.train(0, pause_at=[8]):
        if progress.step == 8:
            middle = masking.values(trainer.network)
    end = masking.values(trainer.network)
    masking.assign(trainer.network, middle)
    train(trainer, 0, first_step=8)
    assert_weights(trainer.network, end)


def test_progress_is_yielded_after_every_call_and_at_every_epochs_end(trainer, monkeypatch):
    monkeypatch.setitem(MAX_STEPS_PER_CALL, "graph", 4)
    found = list(trainer.train(3, first_step=5))
    assert {(progress.level, progress.first_step) for progress in found} == {(3, 5)}
    steps = [
        (progress.step, progress.epoch and progress.epoch.epoch)
        for progress in found
        if progress.take_state is None
    ]
    assert steps == [
        (6, None), (6, 0), (10, None), (12, None), (12, 1), (16, None), (18, None), (18, 2),
    ]  # fmt: skip
    # The state follows the results of every epoch but the last.
    states = [(n, p.step, p.take_state().epochs) for n, p in enumerate(found) if p.take_state]
    assert states == [(2, 6, 1), (6, 12, 2)]


def test_nothing_happens_before_the_iteration(trainer):
    before = masking.values(trainer.network)
    trainer.train(0)
    assert_weights(trainer.network, before)


@pytest.mark.parametrize("stop", [(4, None), (6, None), (6, 0), (10, None)])
def test_an_abandoned_level_has_no_effect_on_the_next(trainer, stop, monkeypatch):
    monkeypatch.setitem(MAX_STEPS_PER_CALL, "graph", 4)
    start, found = masking.values(trainer.network), []
    for abandoned in (False, True):
        for progress in trainer.train(1) if abandoned else ():
            if (progress.step, progress.epoch and progress.epoch.epoch) == stop:
                break
        else:
            assert not abandoned
        masking.assign(trainer.network, start)
        found.append((train(trainer, 2, first_step=3), masking.values(trainer.network)))
    assert found[0][0] == found[1][0]
    assert_weights(trainer.network, found[0][1])  # to the bit


def test_the_last_validation_is_not_computed_again_until_weights_change(monkeypatch):
    trainer = make_trainer()
    predicted, batches = [], trainer.predictor.batches
    monkeypatch.setattr(
        trainer.predictor, "batches", lambda split: predicted.append(split) or batches(split)
    )
    ended = [p.epoch for p in trainer.train(2) if p.epoch is not None][-1]
    done = len(predicted)
    labels, logits = trainer.predict(trainer.dataset.validation)
    assert len(predicted) == done
    assert metrics.nll(labels, logits) == ended.val_loss
    variable = next(iter(masking.mask_variables(trainer.network).values()))
    variable.assign(tf.zeros_like(variable))
    assert not np.array_equal(trainer.predict(trainer.dataset.validation)[1], logits)
    trainer.predict(trainer.dataset.train)
    assert len(predicted) == done + 2


def test_training_pauses_at_any_step_of_the_level(trainer, monkeypatch):
    monkeypatch.setitem(MAX_STEPS_PER_CALL, "graph", 4)
    found = trainer.train(0, pause_at=[1, 6, 9, 99])
    steps = [p.step for p in found if p.epoch is p.take_state is None]
    assert steps == [1, 4, 6, 9, 10, 12, 16, 18]
    assert_weights(trainer.network, by_hand()[0], 1e-6)


# Augmentation


def image_trainer(**fields):
    """Images of 4 x 4, brighter on the right in class 1, so that mirrored ones mislead."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 99, (40, 4, 4, 1)).astype(np.uint8), np.arange(40) % 2
    images[labels == 1, :, 2:] += 99
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4, 4, 1))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    network = masking.wrap(keras.Model(inputs, keras.layers.Dense(2, name="logits")(x)))
    splits = ResidentSplit.of(images, labels), ResidentSplit.of(images[:16], labels[:16])
    return make_trainer(Dataset(2, *splits, None), network, **fields)


def kernel(trainer):
    return masking.values(trainer.network)["logits/kernel"]


def test_only_training_is_augmented():
    trainer = image_trainer(augment="crop_flip")
    plain = image_trainer()
    (*_, row), _ = train(trainer, 0), train(plain, 0)
    assert (kernel(trainer) != kernel(plain)).any()
    # What was measured is what the network says of the images as they are.
    for split in (trainer.dataset.validation, trainer.dataset.train):
        labels, logits = trainer.predict(split)
        np.testing.assert_array_equal(labels, split.labels)
        images = tf.cast(split.inputs, tf.float32)
        np.testing.assert_allclose(logits, trainer.network(images), atol=1e-5)
    expected = validate(trainer.network, trainer.dataset)
    assert row.val_loss == pytest.approx(expected["val_loss"], rel=1e-5)
    assert row.val_accuracy == expected["val_accuracy"]


def test_augmented_steps_are_the_same_however_training_came_to_them():
    trainer = image_trainer(augment="crop_flip")
    start, found = masking.values(trainer.network), []
    for level in (1, 0, 1):
        masking.assign(trainer.network, start)
        train(trainer, level)
        found.append(kernel(trainer))
    np.testing.assert_array_equal(found[2], found[0])
    assert (found[1] != found[0]).any()


def test_what_is_no_image_is_not_augmented():
    with pytest.raises(
        FieldError, match=r"^augment=crop_flip: needs images.*shape \(6,\)"
    ) as error:
        make_trainer(augment="crop_flip")
    assert "\n" not in str(error.value)


# What may go wrong


def poisoned(count, seed, number):
    inputs, labels = arrays(count, seed)
    inputs[number, 0] = np.inf
    return ResidentSplit.of(inputs, labels)


def test_a_loss_that_is_not_finite_is_told_with_its_level_epoch_and_step():
    numbered = ResidentSplit.of(np.zeros((50, 1)), np.arange(50))
    orders = [
        next(numbered.shuffled(BATCH, STEPS, shuffle_seed(4, 2, epoch)))[1].numpy().tolist()
        for epoch in (0, 1)
    ]
    # An example that epoch 0 of level 2 leaves over, and epoch 1 does not.
    bad = next(number for number in orders[1] if number not in orders[0])
    # Linear: an activation could hide the infinity.
    inputs = keras.Input((6,))
    linear = masking.wrap(keras.Model(inputs, keras.layers.Dense(3)(inputs)))
    trainer = make_trainer(make_dataset(poisoned(50, 0, bad)), linear)
    epochs = []
    step = STEPS + orders[1].index(bad) // BATCH
    with pytest.raises(TrainingDiverged, match=f"level 2, epoch 1, step {step}: ") as error:
        epochs.extend(p.epoch.epoch for p in trainer.train(2) if p.epoch)
    assert (error.value.level, error.value.epoch, error.value.step) == (2, 1, step)
    assert "\n" not in str(error.value)
    assert epochs == [0]
    assert trainer.strategy.optimizer.iterations == step + 1


def test_weights_that_are_not_finite_are_told_where_the_loss_hides_them():
    # A graph's fused ReLU makes 0 of NaN: with NaN in the first kernel every loss is log 3.
    trainer = make_trainer()
    kernel = trainer.network.get_layer("masked_hidden").layer.kernel
    kernel.assign(tf.fill(kernel.shape, np.nan))
    with pytest.raises(TrainingDiverged, match="level 0, epoch 0, step "):
        train(trainer, 0)


def test_logits_of_validation_data_that_are_not_finite_are_told_too():
    trainer = make_trainer(make_dataset(validation=poisoned(20, 1, 7)))
    with pytest.raises(TrainingDiverged, match="level 1, epoch 0, step 6: "):
        train(trainer, 1)


def test_a_batch_larger_than_the_split_is_refused():
    with pytest.raises(FieldError, match=r"^batch_size=51: the training split has 50 ") as error:
        make_trainer(batch_size=51)
    assert error.value.field == "batch_size"
    assert make_trainer(batch_size=50).steps_per_epoch == 1


# Masks, and both kinds of data


@pytest.mark.parametrize(
    "fields", [{"plan": "xla"}, {"optimizer": "adam", "momentum": 0.0}], ids=["sgd", "adam"]
)
def test_pruned_weights_are_zero_after_every_step(fields, monkeypatch):
    trainer = make_trainer(**fields)
    monkeypatch.setitem(MAX_STEPS_PER_CALL, trainer.plan, 1)
    network, start = trainer.network, masking.values(trainer.network)
    rng, seen = np.random.default_rng(0), []
    masks = {name: np.ones(m.shape, bool) for name, m in masking.mask_variables(network).items()}

    for level in range(3):
        masking.assign_masks(network, masks)
        rewound = {n: np.where(masks[n], v, 0) if n in masks else v for n, v in start.items()}
        masking.assign(network, rewound)
        for progress in trainer.train(level):
            values = masking.values(network)
            seen.append(progress.step)
            for name, mask in masks.items():
                assert (values[name][~mask] == 0).all(), (name, progress.step)
        for name, mask in masks.items():
            assert (masking.values(network)[name] != rewound[name])[mask].any(), name
        masks = {name: mask & (rng.random(mask.shape) < 0.6) for name, mask in masks.items()}
    # Every step, every epoch's end, and the state after every epoch but the last.
    assert len(seen) == 3 * (EPOCHS * (STEPS + 2) - 1)
    assert trainer.loop.compilations == 1


def test_a_stream_trains_as_memory_does_in_the_same_order(monkeypatch):
    monkeypatch.setitem(MAX_STEPS_PER_CALL, "graph", 4)  # a stream's blocks: 32 and 16 examples
    pairs = tf.data.Dataset.from_tensor_slices(arrays(50, 0))
    stream = StreamedSplit(pairs, np.int32(arrays(50, 0)[1]), buffer=10)
    seed = shuffle_seed(4, 0, 0)
    inputs, labels = (
        np.concatenate(parts) for parts in zip(*stream.shuffled(BATCH, 4, seed), strict=True)
    )
    # Put so that memory's own order for this epoch gives what the stream's gives.
    numbered = ResidentSplit.of(np.zeros((50, 1)), np.arange(50))
    ((_, places),) = numbered.shuffled(BATCH, 4, seed)
    # Two that the epoch leaves over stay 0.
    placed = np.zeros((50, 6), np.float32), np.zeros(50, np.int32)
    placed[0][places], placed[1][places] = inputs, labels
    trainers = [
        make_trainer(make_dataset(split), epochs=1, lr_drops=())
        for split in (stream, ResidentSplit.of(*placed))
    ]
    rows = [train(trainer, 0) for trainer in trainers]
    assert_weights(trainers[0].network, masking.values(trainers[1].network))
    assert rows[0][0].row == pytest.approx(rows[1][0].row, rel=1e-6)


# Moving averages and early stopping


@pytest.mark.full
@pytest.mark.parametrize("plan", ["graph", "xla"])
def test_averages_are_measured_and_stay_and_the_training_goes_on_without_them(plan):
    """Against a level without averages, of whose weights after each step the average is taken."""
    fields = {"lr_drops": (), "plan": plan}
    plain, averaging = make_trainer(**fields), make_trainer(ema=0.75, **fields)
    start = {name: v.numpy() for name, v in masking.weight_variables(plain.network).items()}
    every, average, averages = range(1, EPOCHS * STEPS), dict(start), []
    for progress in plain.train(0, pause_at=every):
        if progress.epoch is progress.take_state is None:
            weights = masking.values(plain.network)
            average = {n: 0.75 * average[n] + 0.25 * w for n, w in weights.items()}
            if progress.step % STEPS == 0:
                averages.append(average)
    network, found, rows = make_network(), [], []
    for progress in averaging.train(0):
        if progress.epoch is not None:
            found.append(masking.values(averaging.network))
            rows.append(progress.epoch)
    assert len(found) == EPOCHS
    found[-1] = masking.values(averaging.network)  # After the level, they stay.
    for mine, expected, row in zip(found, averages, rows, strict=True):
        for name, value in expected.items():
            np.testing.assert_allclose(mine[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
        masking.assign(network, mine)
        measured = validate(network, averaging.dataset)
        assert row.val_loss == pytest.approx(measured["val_loss"], rel=1e-4)


def test_from_the_state_after_any_epoch_early_stopping_ends_at_the_same_one():
    fields = {"lr": 0.5, "lr_drops": (), "epochs": 12, "momentum": 0.0, "early_stopping": 2}
    whole, states = make_trainer(**fields), []
    for progress in whole.train(0):
        states += [progress.take_state()] if progress.take_state else []
    assert any(state.stopping["wait"] == 1 for state in states)
    resumed = make_trainer(**fields)
    for state in states:
        assert resumed.accepts(state)
        steps = [p.step for p in resumed.train(0, state=state)]
        assert (steps[0] > state.epochs * STEPS, steps[-1]) == (True, progress.step)
        assert_weights(resumed.network, masking.values(whole.network))


def test_a_state_of_another_trainer_is_not_accepted():
    training = make_trainer(momentum=0.9).train(0)
    state = next(p.take_state() for p in training if p.take_state)
    assert make_trainer(momentum=0.9).accepts(state)
    for other in ({"optimizer": "adam"}, {"early_stopping": 1}, {"ema": 0.5}):
        assert not make_trainer(**other).accepts(state)


def test_early_stopping_keeps_the_epoch_with_the_lowest_validation_nll():
    fields = {"lr": 0.5, "lr_drops": (), "epochs": 12, "momentum": 0.0}
    plain = [p.epoch.val_loss for p in make_trainer(**fields).train(0) if p.epoch is not None]
    patience = 2
    best = next(e for e in range(12) if all(v >= plain[e] for v in plain[e + 1 : e + 1 + patience]))
    last = min(best + patience, 11)
    assert last < 11, "the case must stop early"
    trainer, weights, losses = make_trainer(early_stopping=patience, **fields), [], []
    for progress in trainer.train(0):
        if progress.epoch is not None:
            losses.append(progress.epoch.val_loss)
            weights.append(masking.values(trainer.network))
    assert losses == plain[: last + 1]
    assert (progress.step, progress.last_step) == ((last + 1) * STEPS, 12 * STEPS)
    for name, value in masking.values(trainer.network).items():
        np.testing.assert_array_equal(value, weights[best][name])
    assert len(list(trainer.train(1))) > 0  # The next level is not affected.
