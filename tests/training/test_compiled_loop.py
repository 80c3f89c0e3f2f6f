"""The compiled loop against the same steps in a plain Python loop."""

import numpy as np
import pytest
import tensorflow as tf

from lotcal_tf.calibration.strategies import (
    CrossEntropy,
    MarginalDistributionAlignment,
    Mixup,
)
from lotcal_tf.compat import keras
from lotcal_tf.config.experiment import Experiment
from lotcal_tf.data.augment import crop_flip, draw
from lotcal_tf.data.splits import ResidentSplit, StreamedSplit
from lotcal_tf.errors import FieldError
from lotcal_tf.models.stateless_dropout import Passes, StatelessDropout
from lotcal_tf.pruning import masking
from lotcal_tf.seeds import draw_seed, named_seed, step_seed
from lotcal_tf.training.compiled_loop import (
    MAX_STEPS_PER_CALL,
    CompiledLoop,
    choose_plan,
    step_ranges,
)
from lotcal_tf.training.distributed.cluster import Cluster
from lotcal_tf.training.distributed.distribution import ONE_DEVICE, Distribution
from lotcal_tf.training.optimizer import level_rate, make_optimizer
from lotcal_tf.training.predictor import Predictor

BATCH, COUNT = 4, 30  # seven steps an epoch, two examples over
SHUFFLE, SEED = (1, 2), (30, 40)

both_plans = pytest.mark.parametrize("plan", ["xla", "graph"])
both_kinds = pytest.mark.parametrize("kind", ["resident", "streamed"])


def make_split(kind="resident", inputs=None, labels=None):
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, 9, (COUNT, 6)), rng.integers(0, 3, COUNT)
    inputs = np.float32(drawn[0] if inputs is None else inputs)
    labels = np.int32(drawn[1] if labels is None else labels)
    if kind == "resident":
        return ResidentSplit.of(inputs, labels)
    return StreamedSplit(tf.data.Dataset.from_tensor_slices((inputs, labels)), labels, buffer=10)


def make_network():
    """6 → 5 → 3, masked, with dropout: steps that draw must draw the same everywhere."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6,))
    x = keras.layers.Dense(5, activation="relu", name="hidden")(inputs)
    x = StatelessDropout(0.3, name="dropout")(x)
    return masking.wrap(keras.Model(inputs, keras.layers.Dense(3, name="logits")(x)))


def make_strategy():
    strategy = CrossEntropy(make_network())
    settings = Experiment(optimizer="sgd", lr=0.05, momentum=0.9, weight_decay=0.01)
    optimizer = make_optimizer(settings, level_rate(settings, 7))
    optimizer.build(strategy.network.trainable_variables)
    strategy.compile(optimizer=optimizer)
    return strategy


@pytest.fixture(scope="module")
def loops():
    return {plan: CompiledLoop(make_strategy(), BATCH, plan) for plan in ("xla", "graph")}


@pytest.fixture
def loop(loops, plan):
    """The loop of the plan, reset; one for all tests, since compiling takes seconds."""
    return reset(loops[plan])


def reset(loop):
    network = loop.strategy.network
    masking.assign(network, masking.values(make_network()))
    for variable in masking.mask_variables(network).values():
        variable.assign(tf.ones_like(variable))
    for variable in loop.strategy.optimizer.variables:
        variable.assign(tf.zeros_like(variable))
    return loop


def weights(strategy):
    return masking.values(strategy.network)


def assert_weights(found, expected, tolerance=0.0):
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=tolerance, err_msg=name)


def epoch(loop, split, shuffle=SHUFFLE, first=0, pause_at=()):
    """The progress after every call of one epoch."""
    return list(loop.epoch(split, shuffle, SEED, first, pause_at))


def epoch_by_hand(strategy, split, shuffle=SHUFFLE, first=0):
    """The same epoch, a step at a time. What every step logged."""
    blocks = list(split.shuffled(BATCH, 1000, shuffle))
    inputs, labels = (tf.concat(parts, 0) for parts in zip(*blocks, strict=True))
    logs = []
    for step in range(first, split.count // BATCH):
        rows = slice(step * BATCH, (step + 1) * BATCH)
        with step_seed(tf.constant([SEED[0], SEED[1] + step])):
            data = tf.cast(inputs[rows], tf.float32), labels[rows]
            logs.append({name: float(v) for name, v in strategy.train_step(data).items()})
    return logs


# Ranges of steps


@pytest.mark.parametrize(
    ("first", "last", "most", "pause_at", "expected"),
    [
        (0, 10, 4, (), [(0, 4), (4, 8), (8, 10)]),
        (0, 8, 4, (), [(0, 4), (4, 8)]),
        (0, 3, 128, (), [(0, 3)]),
        (3, 10, 4, (), [(3, 4), (4, 8), (8, 10)]),
        (4, 10, 4, (), [(4, 8), (8, 10)]),
        (9, 10, 4, (), [(9, 10)]),
        (0, 10, 4, (5,), [(0, 4), (4, 5), (5, 8), (8, 10)]),
        (0, 10, 4, (8,), [(0, 4), (4, 8), (8, 10)]),
        (0, 10, 20, (3, 7), [(0, 3), (3, 7), (7, 10)]),
        (5, 10, 20, (3, 5, 10, 12), [(5, 10)]),
        (0, 3, 1, (), [(0, 1), (1, 2), (2, 3)]),
    ],
)
def test_step_ranges(first, last, most, pause_at, expected):
    assert step_ranges(first, last, most, pause_at) == expected


# The loop


@both_plans
@both_kinds
def test_it_computes_what_a_plain_loop_computes(loop, plan, kind, monkeypatch):
    monkeypatch.setitem(MAX_STEPS_PER_CALL, plan, 3)  # several calls, or blocks
    split, by_hand = make_split(kind), make_strategy()
    start = weights(by_hand)
    for shuffle in (SHUFFLE, (3, 4)):
        logs = epoch_by_hand(by_hand, split, shuffle)
        last = epoch(loop, split, shuffle)[-1]
        assert last.step == len(logs) == 7
        assert list(last.means) == ["loss", "accuracy"]
        for name in ("loss", "accuracy"):
            expected = np.mean([step[name] for step in logs])
            assert last.means[name] == pytest.approx(expected, rel=1e-5), name
    assert_weights(weights(loop.strategy), weights(by_hand), 1e-6)
    assert max(np.abs(weights(by_hand)[name] - start[name]).max() for name in start) > 0.1


@both_plans
@both_kinds
def test_a_late_first_step_takes_exactly_the_rest(loop, plan, kind, monkeypatch):
    monkeypatch.setitem(MAX_STEPS_PER_CALL, plan, 3)
    split, by_hand = make_split(kind), make_strategy()
    logs = epoch_by_hand(by_hand, split, first=4)
    last = epoch(loop, split, first=4)[-1]
    assert (last.step, len(logs)) == (7, 3)
    assert last.means["loss"] == pytest.approx(np.mean([step["loss"] for step in logs]), rel=1e-5)
    assert_weights(weights(loop.strategy), weights(by_hand), 1e-6)


@pytest.mark.full
@both_plans
@both_kinds
@pytest.mark.parametrize(("most", "pause_at"), [(1, ()), (3, (2, 5))])
def test_the_number_of_calls_changes_nothing(loop, plan, kind, most, pause_at, monkeypatch):
    found = []
    for most_steps, pauses in ((3, ()), (most, pause_at)):
        monkeypatch.setitem(MAX_STEPS_PER_CALL, plan, most_steps)
        calls = epoch(reset(loop), make_split(kind), pause_at=pauses)
        found.append((calls, weights(loop.strategy)))
    (calls, values), (other_calls, other_values) = found
    assert len(other_calls) > len(calls)
    assert_weights(other_values, values)  # to the bit
    assert other_calls[-1].means == pytest.approx(calls[-1].means, rel=1e-6)


@pytest.mark.parametrize("plan", ["graph"])
def test_control_returns_at_the_steps_asked_for(loop, plan, monkeypatch):
    monkeypatch.setitem(MAX_STEPS_PER_CALL, plan, 3)
    split = make_split()
    assert [part.step for part in epoch(loop, split, pause_at=(5,))] == [3, 5, 6, 7]
    assert [part.step for part in epoch(loop, split, first=4, pause_at=(2, 5))] == [5, 6, 7]
    assert loop.strategy.optimizer.iterations == 7 + 3


@pytest.mark.parametrize("plan", ["graph"])
@both_kinds
def test_an_abandoned_epoch_takes_no_more_steps(loop, plan, kind, monkeypatch):
    monkeypatch.setitem(MAX_STEPS_PER_CALL, plan, 3)
    for part in loop.epoch(make_split(kind), SHUFFLE, SEED):
        assert part.step == 3
        break
    assert loop.strategy.optimizer.iterations == 3
    # The next epoch is complete.
    assert [part.step for part in epoch(loop, make_split(kind))] == [3, 6, 7]


@both_plans
def test_new_masks_count_at_once_and_are_not_compiled_anew(loop, plan):
    by_hand, split = make_strategy(), make_split()
    epoch(loop, split)
    epoch_by_hand(by_hand, split)
    compilations = loop.compilations
    kept = np.arange(30).reshape(6, 5) % 3 > 0
    for strategy in (by_hand, loop.strategy):
        masks = masking.mask_variables(strategy.network)
        masks["hidden/kernel"].assign(kept)
    before = weights(loop.strategy)["hidden/kernel"]
    for shuffle in ((5, 6), (7, 8)):
        epoch(loop, split, shuffle)
        epoch_by_hand(by_hand, split, shuffle)
    assert_weights(weights(loop.strategy), weights(by_hand), 1e-6)
    assert (weights(loop.strategy)["hidden/kernel"] != before)[kept].any()
    assert loop.compilations == compilations


@both_plans
@both_kinds
@pytest.mark.parametrize("bad", [0, 4, 6])
def test_it_stops_at_the_first_loss_that_is_not_finite(loop, plan, kind, bad, monkeypatch):
    monkeypatch.setitem(MAX_STEPS_PER_CALL, plan, 3)
    # Where the order puts each example: with numbers for labels.
    numbered = make_split(kind, labels=np.arange(COUNT)).shuffled(BATCH, 3, SHUFFLE)
    order = np.concatenate([labels for _, labels in numbered])
    inputs = np.ones((COUNT, 6))
    # The whole batch: dropout may take one example's infinities away.
    inputs[order[bad * BATCH : (bad + 1) * BATCH], 0] = np.inf
    *before, last = epoch(loop, make_split(kind, inputs))
    assert all(part.finite for part in before) and not last.finite
    assert last.step == loop.strategy.optimizer.iterations == bad + 1
    assert not np.isfinite(last.means["loss"])


@both_plans
def test_bytes_are_fed_as_numbers(loop, plan):
    split = make_split()
    as_bytes = ResidentSplit.of(split.inputs.numpy().astype(np.uint8), split.labels.numpy())
    by_hand = make_strategy()
    epoch_by_hand(by_hand, split)
    epoch(loop, as_bytes)
    assert_weights(weights(loop.strategy), weights(by_hand), 1e-6)


@pytest.mark.full
@both_plans
def test_a_stream_whose_last_block_is_shorter_is_compiled_once(loop, plan, monkeypatch):
    monkeypatch.setitem(MAX_STEPS_PER_CALL, plan, 5)  # blocks of 5 and of 2 steps
    before = loop.compilations
    assert epoch(loop, make_split("streamed"))[-1].step == 7
    assert loop.compilations == before + 1


# The last, smaller batch


def normalised_network():
    """With BatchNorm, which computes with the statistics of the batch."""
    keras.utils.set_random_seed(1)
    x = inputs = keras.Input((6,))
    x = keras.layers.Dense(5, activation="relu", name="hidden")(x)
    x = keras.layers.BatchNormalization(momentum=0.9, name="norm")(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(x))


def remainder_loop(plan, strategy=CrossEntropy, augmentation=None, **given):
    made = strategy(masking.wrap(normalised_network()), **given)
    settings = Experiment(optimizer="sgd", lr=0.05, momentum=0.9)
    optimizer = make_optimizer(settings, level_rate(settings, 8))
    optimizer.build(made.network.trainable_variables)
    made.compile(optimizer=optimizer)
    return CompiledLoop(made, BATCH, plan, augmentation, drop_remainder=False)


def epoch_in_keras(model, optimizer, split, kind):
    """A plain loop of TensorFlow over all examples, in batches of which the last has two."""
    blocks = split.shuffled(BATCH, 100, SHUFFLE, drop_remainder=False)
    inputs, labels = (tf.concat(parts, 0) for parts in zip(*blocks, strict=True))
    assert len(labels) == COUNT
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    losses = []
    for start in range(0, COUNT, BATCH):
        x, y = inputs[start : start + BATCH], labels[start : start + BATCH]
        with tf.GradientTape() as tape:
            logits = model(x, training=True)
            loss = loss_of(y, logits)
            total = loss
            if kind is MarginalDistributionAlignment:  # by its definition, over this batch
                mean = tf.reduce_mean(tf.nn.softmax(logits), 0)
                total = loss + 0.5 * tf.reduce_sum(tf.math.log(1 / 3 / mean) / 3)
        gradients = tape.gradient(total, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        losses += [float(total)] * len(y)
    return np.mean(losses)


@pytest.mark.full
@pytest.mark.parametrize(
    ("plan", "kind", "batch_wide", "most"),
    [
        ("xla", "resident", True, 100),
        ("xla", "streamed", False, 3),
        ("graph", "resident", False, 3),
        ("graph", "streamed", True, 3),  # The last batch is behind another in its block,
        ("graph", "streamed", False, 7),  # or alone,
        ("graph", "streamed", False, 100),  # or behind all others.
    ],
)
def test_the_smaller_batch_is_that_of_a_plain_keras_loop(plan, kind, batch_wide, most, monkeypatch):
    strategy = MarginalDistributionAlignment if batch_wide else CrossEntropy
    given = {"calib_weight": 0.5} if batch_wide else {}
    monkeypatch.setitem(MAX_STEPS_PER_CALL, plan, most)
    loop, split = remainder_loop(plan, strategy, **given), make_split(kind)
    model = normalised_network()
    optimizer = keras.optimizers.SGD(0.05, momentum=0.9)
    expected = epoch_in_keras(model, optimizer, split, strategy)
    last = epoch(loop, split)[-1]
    assert last.step == loop.strategy.optimizer.iterations == 8
    assert last.means["loss"] == pytest.approx(expected, rel=1e-5)
    assert_weights(weights(loop.strategy), masking.values(model), 1e-5)


@pytest.mark.full
@pytest.mark.parametrize("plan", ["graph"])
def test_the_smaller_batch_is_compiled_once_and_alone_after_a_late_first_step(plan):
    loop, split = remainder_loop(plan), make_split()
    for _ in range(3):
        epoch(loop, split)
    assert loop.compilations == 2
    whole, rest = remainder_loop(plan), remainder_loop(plan)
    *_, last = whole.epoch(split, SHUFFLE, SEED, pause_at=(7,))
    masking.assign(rest.strategy.network, weights(whole.strategy))
    (only,) = epoch(rest, split, first=7)
    assert (only.step, rest.strategy.optimizer.iterations) == (8, 1)
    *_, whole_batches = CompiledLoop.epoch(reset_to(whole, split), split, SHUFFLE, SEED)
    assert last.means == pytest.approx(whole_batches.means, rel=1e-6)


def reset_to(loop, split):
    """The loop at its start."""
    masking.assign(loop.strategy.network, masking.values(masking.wrap(normalised_network())))
    for variable in loop.strategy.optimizer.variables:
        variable.assign(tf.zeros_like(variable))
    return loop


@pytest.mark.full
@pytest.mark.parametrize("plan", ["graph"])
def test_strategies_that_draw_and_augmentation_take_the_smaller_batch(plan):
    loop = remainder_loop(plan, Mixup, mixup_a=0.3)
    assert epoch(loop, make_split())[-1].step == 8
    changed = []

    def augment(images, draws):
        changed.append((images.shape[0], draws.shape[0]))
        return images

    epoch(remainder_loop(plan, augmentation=augment), make_split())
    assert sorted(set(changed)) == [(2, 2), (4, 4)]


@pytest.mark.parametrize("plan", ["graph"])
def test_a_loss_of_the_smaller_batch_that_is_not_finite_ends_the_epoch(plan):
    numbered = make_split(labels=np.arange(COUNT)).shuffled(BATCH, 3, SHUFFLE, drop_remainder=False)
    *_, (_, places) = numbered
    inputs = np.ones((COUNT, 6))
    inputs[places.numpy(), 0] = np.inf
    last = epoch(remainder_loop(plan), make_split(inputs=inputs))[-1]
    assert (last.step, last.finite) == (8, False)


# Augmentation


SECOND_OF_TWO = Distribution(None, Cluster({"worker 0": "a:1", "worker 1": "b:1"}, "worker 1"))


@pytest.mark.full
@pytest.mark.parametrize(
    ("plan", "kind", "devices", "own"),
    [
        ("xla", CrossEntropy, ONE_DEVICE, slice(0, 4)),
        ("graph", Mixup, ONE_DEVICE, slice(0, 4)),
        ("graph", CrossEntropy, SECOND_OF_TWO, slice(2, 4)),
    ],
)
@pytest.mark.parametrize("split_kind", ["resident", "streamed"])
def test_images_are_changed_before_the_step_by_draws_of_its_own(
    plan, kind, devices, own, split_kind, monkeypatch
):
    """A process that shares batches takes its rows, changed as they are in the whole batch."""
    monkeypatch.setitem(MAX_STEPS_PER_CALL, plan, 3)
    images = np.random.default_rng(5).integers(0, 256, (COUNT, 4, 3, 2)).astype(np.uint8)
    split = make_split(split_kind, images, np.arange(COUNT) % 3)
    loops, changed = [], []
    for augmentation in (crop_flip, None):
        keras.utils.set_random_seed(1)
        network = masking.wrap(
            keras.Sequential(
                [
                    keras.Input((4, 3, 2)),
                    keras.layers.Rescaling(1 / 255),
                    keras.layers.Flatten(),
                    keras.layers.Dense(3, name="logits"),
                ]
            )
        )
        strategy = kind(network, **({"mixup_a": 0.2} if kind is Mixup else {}))
        settings = Experiment(optimizer="sgd", lr=0.05)
        optimizer = make_optimizer(settings, level_rate(settings, 7))
        optimizer.build(network.trainable_variables)
        strategy.compile(optimizer=optimizer)
        loops.append(CompiledLoop(strategy, BATCH, plan, augmentation, devices))
    with_it, by_hand = loops
    epoch(with_it, split, first=2)  # as after late rewinding
    inputs, labels = (tf.concat(p, 0) for p in zip(*split.shuffled(BATCH, 3, SHUFFLE), strict=True))
    for step in range(2, 7):
        rows = slice(step * BATCH, (step + 1) * BATCH)
        with step_seed(tf.constant([SEED[0], SEED[1] + step])):
            batch = crop_flip(inputs[rows], draw(draw_seed("augment"), BATCH))
            by_hand.strategy.train_step((tf.cast(batch, tf.float32)[own], labels[rows][own]))
        changed.append((batch.numpy() != inputs[rows].numpy()).any((1, 2, 3)))
    assert_weights(weights(with_it.strategy), weights(by_hand.strategy), 1e-6)
    assert np.mean(changed) > 0.8  # 1 of 162 ways leaves an image alone


# The plan


def convolutional(nested=False, layer=None):
    inputs = keras.Input((4, 4, 1))
    part = keras.Model(inputs, (layer or keras.layers.Conv2D(2, 3))(inputs))
    if nested:
        outer = keras.Input((4, 4, 1))
        part = keras.Model(outer, part(outer))
    return masking.wrap(part)


def test_dense_networks_are_compiled_and_convolutional_and_recurrent_ones_are_not_on_cpus(
    monkeypatch,
):
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [])
    assert choose_plan("auto", make_network()) == "xla"
    for network in (convolutional(), convolutional(nested=True)):
        assert choose_plan("auto", network) == "graph"
    assert choose_plan("auto", convolutional(layer=keras.layers.DepthwiseConv2D(3))) == "graph"
    for layer in (keras.layers.GRU(2), keras.layers.Bidirectional(keras.layers.LSTM(2))):
        inputs = keras.Input((4, 3))
        assert choose_plan("auto", masking.wrap(keras.Model(inputs, layer(inputs)))) == "graph"
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [kind])
    assert choose_plan("auto", convolutional()) == "xla"


@both_plans
def test_the_plan_can_be_overridden(plan):
    assert choose_plan(plan, make_network()) == plan
    assert choose_plan(plan, convolutional()) == plan


def test_what_xla_cannot_compile_runs_as_a_graph():
    images = [keras.Input((4, 4, 1)), keras.layers.RandomZoom(0.5, name="zoom")]
    network = keras.Sequential([*images, keras.layers.Flatten(), keras.layers.Dense(3)])
    for plan in ("auto", "graph"):
        assert choose_plan(plan, network) == "graph"
    with pytest.raises(FieldError, match=r"plan=xla: .*'zoom' \(RandomZoom\).*graph"):
        choose_plan("xla", network)


NOT_COMPILED = {
    "Resizing": lambda: keras.layers.Resizing(2, 2, interpolation="bicubic", name="odd"),
    "Lambda": lambda: keras.layers.Lambda(
        lambda x: tf.ensure_shape(tf.numpy_function(np.negative, [x], tf.float32), x.shape),
        name="odd",
    ),
    "RandomHeight": lambda: keras.layers.RandomHeight(0.5, name="odd"),
}


@pytest.mark.parametrize("kind", NOT_COMPILED)
@pytest.mark.parametrize("nested", [False, True])
def test_a_layer_whose_operations_xla_lacks_is_found_wherever_it_is(kind, nested):
    inputs = keras.Input((4, 4, 1))
    part = keras.Model(inputs, NOT_COMPILED[kind]()(inputs), name="inner")
    x = part(inputs) if nested else NOT_COMPILED[kind]()(inputs)
    x = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(x))
    network = masking.wrap(keras.Model(inputs, x))
    assert choose_plan("auto", network) == "graph"
    with pytest.raises(FieldError, match=rf"plan=xla: .*'odd' \({kind}\).*graph"):
        choose_plan("xla", network)
    # That the layer is not refused in vain: XLA compiles no prediction either, or trains.
    with pytest.raises(tf.errors.InvalidArgumentError):
        tf.function(network, jit_compile=True)(tf.zeros([2, 4, 4, 1]), training=True)


def test_a_layer_that_xla_lacks_is_found_behind_inputs_of_any_size():
    inputs = keras.Input((None, 4))
    for kind, plan in [("Lambda", "graph"), (None, "xla")]:
        x = NOT_COMPILED[kind]()(inputs) if kind else keras.layers.Softmax()(inputs)
        x = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling1D()(x))
        assert choose_plan("auto", masking.wrap(keras.Model(inputs, x))) == plan


@pytest.mark.parametrize("layer", [keras.layers.Softmax, keras.layers.LayerNormalization])
def test_other_layers_that_xla_compiles_are_compiled(layer):
    inputs = keras.Input((4,))
    network = keras.Model(inputs, layer()(keras.layers.Dense(3)(inputs)))
    assert choose_plan("auto", masking.wrap(network)) == "xla"


def test_a_step_that_xla_cannot_compile_is_refused_before_it_is_taken():
    class Foreign(CrossEntropy):
        def train_step(self, data):
            logs = super().train_step(data)
            loss = tf.numpy_function(np.negative, [logs["loss"]], tf.float32)
            return logs | {"loss": tf.ensure_shape(loss, ())}

    for plan in ("graph", "xla"):
        known = make_strategy()
        strategy = Foreign(known.network)
        strategy.compile(optimizer=known.optimizer)
        loop = CompiledLoop(strategy, BATCH, plan)
        if plan == "graph":
            assert set(loop.traced(make_split())) >= {"loss"}
        else:
            with pytest.raises(FieldError, match=r"plan=xla: .*choose graph"):
                loop.traced(make_split())


@both_plans
def test_the_plan_is_what_is_run(plan):
    loop = CompiledLoop(make_strategy(), BATCH, plan)
    traced = loop.run_steps.get_concrete_function(
        (tf.zeros([8, 6]), tf.zeros([8], tf.int32)), tf.constant([0, 1, 0]), tf.constant([0, 0])
    )
    assert traced.function_def.attr["_XlaMustCompile"].b == (plan == "xla")


# Prediction


@both_plans
@both_kinds
@pytest.mark.parametrize("batch_size", [7, COUNT, 1000])  # a smaller last batch, one, none full
def test_predictions_are_the_networks(plan, kind, batch_size):
    network, split = make_network(), make_split(kind)
    labels, logits = Predictor(network, plan, batch_size=batch_size)(split)
    ((inputs, expected),) = split.in_order(COUNT)
    np.testing.assert_array_equal(labels, expected)
    assert (labels.dtype, logits.dtype) == (np.int32, np.float32)
    theirs = network.predict(tf.cast(inputs, tf.float32), verbose=0)
    np.testing.assert_allclose(logits, theirs, atol=1e-5)


@both_plans
def test_the_predictor_is_compiled_once_and_sees_new_weights(plan):
    network, split = make_network(), make_split()
    predict = Predictor(network, plan, batch_size=10)
    predict(split)
    bias = network.get_layer("masked_logits").layer.bias
    before = predict(split)[1]
    bias.assign_add([1.0, 2.0, 3.0])
    moved = predict(split)[1] - before
    np.testing.assert_allclose(moved, np.tile([1.0, 2.0, 3.0], (COUNT, 1)), atol=1e-5)
    assert predict.logits.experimental_get_tracing_count() == 1


@both_plans
def test_stochastic_predictions_are_the_mean_probabilities_of_the_passes(plan):
    network, split = make_network(), make_split()
    labels, logits = Predictor(network, plan, passes=3, seed=7, batch_size=COUNT)(split)
    ((inputs, expected),) = split.in_order(COUNT)
    np.testing.assert_array_equal(labels, expected)
    # The whole split is one batch here: masks go by place.
    with step_seed(tf.constant(named_seed(7, "mc_eval"), tf.int32)):
        passes = Passes(network, 3)(tf.cast(inputs, tf.float32)).numpy().astype(np.float64)
    p = np.exp(passes) / np.exp(passes).sum(-1, keepdims=True)
    assert np.abs(p - p.mean(0)).max() > 0.01
    np.testing.assert_allclose(np.exp(logits), p.mean(0), atol=1e-6)
    np.testing.assert_array_equal(
        Predictor(network, plan, passes=3, seed=7, batch_size=COUNT)(split)[1], logits
    )
    assert (Predictor(network, plan, passes=3, seed=8, batch_size=COUNT)(split)[1] != logits).any()


@both_plans
def test_stochastic_predictions_leave_the_network_as_it_was(plan):
    """BatchNorm's averages too, and a batch filled up with zeros moves nothing."""
    inputs = keras.Input((6,))
    x = StatelessDropout(0.5, name="drop")(keras.layers.BatchNormalization()(inputs))
    network = masking.wrap(keras.Model(inputs, keras.layers.Dense(3)(x)))
    before, split = masking.values(network), make_split()
    Predictor(network, plan, passes=2)(split)
    for name, value in masking.values(network).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)
