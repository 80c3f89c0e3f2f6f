"""The chain of levels: what is pruned, what it is rewound to, what is kept, how it goes on."""

import csv
import dataclasses
import functools
import itertools
import math

import numpy as np
import pytest
import safetensors.numpy
import scipy.special
import tensorflow as tf

import lotcal_tf
from lotcal_tf import metrics
from lotcal_tf.calibration import post_hoc
from lotcal_tf.calibration.strategies import CrossEntropy
from lotcal_tf.compat import keras
from lotcal_tf.config.arguments import ExportArguments
from lotcal_tf.config.experiment import Experiment
from lotcal_tf.data import splits
from lotcal_tf.deploy.examples import Examples
from lotcal_tf.deploy.export import export
from lotcal_tf.errors import FieldError, TrainingDiverged, UsageError
from lotcal_tf.lottery.search import Search
from lotcal_tf.lottery.store import RunStore
from lotcal_tf.lottery.ticket import Ticket, wrap_for_training
from lotcal_tf.metrics import conditional
from lotcal_tf.models import resnet
from lotcal_tf.pruning import masking
from lotcal_tf.pruning.criteria import Magnitude
from lotcal_tf.pruning.rewind import masked_start
from lotcal_tf.training.compiled_loop import MAX_STEPS_PER_CALL
from lotcal_tf.training.trainer import Trainer
from tests.cases import quick

HIDDEN, OUTPUT = "hidden/kernel", "logits/kernel"  # 8 x 6 and 6 x 3
KERNELS = {HIDDEN: 48, OUTPUT: 18}

# By hand, rate 0.2, rounded half up: 48 - 9.6, 38 - 7.6, 30 - 6.0 and, at half the rate,
# 18 - 1.8, 16 - 1.6, 14 - 1.4.
HIDDEN_LEFT, OUTPUT_LEFT = [48, 38, 30, 24], [18, 16, 14, 13]

GLOBAL = {"scope": "global", "exclude_output": True}
SGD = {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.01}
CHAINS = {
    "init": {"rewind": "init", "scope": "local", "plan": "graph"},
    "late": {"rewind": "step:4", **GLOBAL, "plan": "xla"},
    "random": {"rewind": "random", "scope": "local", "plan": "graph", **SGD},
    "none": {"rewind": "none", **GLOBAL, "plan": "graph"},
}
every_chain = pytest.mark.parametrize("kind", CHAINS)


@pytest.fixture(scope="module")
def chains(begin, tmp_path_factory):
    """Each kind of chain, run from level 0 to 3 without a stop; made when first asked for."""
    made = {}

    def chain(kind):
        if kind not in made:
            made[kind] = begin(tmp_path_factory.mktemp(kind) / "run", **CHAINS[kind]).run()
        return made[kind]

    return chain


def bits(arrays):
    """What tells -0.0 from 0.0 and one NaN from another."""
    return {name: (value.dtype.str, value.shape, value.tobytes()) for name, value in arrays.items()}


@pytest.mark.full
def test_figures_against_noise_and_truth_are_those_of_the_test_predictions(
    begin, network, dataset, tmp_path
):
    truth = np.random.default_rng(0).dirichlet(np.ones(3), dataset.test.count)
    noisy = (next(dataset.test.in_order(100))[1].numpy() + 1) % 3
    known = dataclasses.replace(dataset, truth=truth, noisy_test_labels=noisy)
    fields = {"epochs": 1, "batch_size": 10, "levels": 0, "ece_bins": 7}
    search = Search(
        Experiment(**fields), network, known, CrossEntropy, Magnitude, RunStore(tmp_path)
    )
    search.store.begin({"run_id": "tiny"})
    search.run()
    record = search.store.read(0).record
    logits = search.trainer.predict(known.test)[1]
    expected = {f"test_{n}": v for n, v in conditional.measure(truth, logits).items()} | {
        f"test_noisy_{n}": v for n, v in metrics.measure(noisy, logits, bins=7).items()
    }
    assert {name: record[name] for name in expected} == expected
    # Where nothing is known nothing is told.
    plain = begin(tmp_path / "plain", levels=0, epochs=1).run().tickets()[0].record
    assert plain.keys() == record.keys() - expected.keys()


@pytest.mark.parametrize("kind", ["init", "random"])
def test_local_pruning_leaves_the_counts_of_the_rule(chains, kind):
    tickets = chains(kind).tickets()
    assert [int(t.masks[HIDDEN].sum()) for t in tickets] == HIDDEN_LEFT
    assert [int(t.masks[OUTPUT].sum()) for t in tickets] == OUTPUT_LEFT
    for ticket, hidden, output in zip(tickets, HIDDEN_LEFT, OUTPUT_LEFT, strict=True):
        row = ticket.record
        assert (row["remaining"], row["prunable"]) == (hidden + output, 66)
        assert ticket.density == row["density"] == (hidden + output) / 66
        assert row["weights"] == hidden + output


@pytest.mark.parametrize("kind", ["late", "none"])
def test_global_pruning_neither_counts_nor_cuts_the_output_layer(chains, kind):
    tickets = chains(kind).tickets()
    assert [list(t.masks) for t in tickets] == [[HIDDEN]] * 4
    for ticket, hidden in zip(tickets, HIDDEN_LEFT, strict=True):
        row = ticket.record
        assert (row["remaining"], row["prunable"]) == (hidden, 48)
        assert ticket.density == row["density"] == hidden / 48
        assert row["weights"] == hidden + 18
        assert np.count_nonzero(ticket.trained[OUTPUT]) == 18


@every_chain
def test_the_smallest_survivors_go_and_none_comes_back(chains, kind):
    tickets = chains(kind).tickets()
    for before, after in itertools.pairwise(tickets):
        for name, kept in after.masks.items():
            was, size = before.masks[name], np.abs(before.trained[name])
            assert not (kept & ~was).any()
            assert size[was & ~kept].max() <= size[kept].min()


def test_initial_weights_are_what_every_level_starts_from(chains, network):
    chain = chains("init")
    initial = masking.values(network)
    assert bits(chain.starts[0]) == bits(initial)
    for level, ticket in enumerate(chain.tickets()):
        assert bits(chain.starts[level]) == bits(masked_start(initial, ticket.masks))
        assert bits(ticket.rewind) == bits(initial)
    assert set(chain.first_steps.values()) == {0}


def test_late_rewinding_goes_back_to_the_weights_after_step_four(
    chains, network, dataset, monkeypatch
):
    chain = chains("late")
    # Another trainer, which returns control every four steps without `pause_at`.
    monkeypatch.setitem(MAX_STEPS_PER_CALL, "xla", 4)
    alone = wrap_for_training(network, ["logits"])
    seen = {}
    trainer = Trainer(Experiment(epochs=1, batch_size=10, lr=0.02), CrossEntropy, alone, dataset)
    for progress in trainer.train(0):
        seen.setdefault(progress.step, masking.values(alone))
    assert list(seen) == [4, 8, 9]
    assert bits(chain.starts[0]) == bits(masking.values(network))
    for level, ticket in enumerate(chain.tickets()):
        assert bits(ticket.rewind) == bits(seen[4])
        if level:
            assert bits(chain.starts[level]) == bits(masked_start(seen[4], ticket.masks))
    # BatchNorm's state is of that step too, and the schedule goes on there.
    assert seen[4]["norm/moving_mean"].any()
    assert chain.first_steps == {0: 0, 1: 4, 2: 4, 3: 4}


def residual_network():
    """A ResNet-8 that takes the eight numbers of an example as an image of 2x2x2."""
    inputs = keras.Input((8,), name="inputs")
    image = keras.layers.Reshape((2, 2, 2), name="image")(inputs)
    draw = functools.partial(keras.initializers.GlorotNormal, seed=3)
    logits = resnet.build(image, 3, draw, lambda place, x: x, depth=8, width=2)
    return keras.Model(inputs, logits, name="residual")


@pytest.mark.full
@pytest.mark.parametrize("rewind", ["init", "step:4"])
def test_batchnorms_statistics_are_rewound_with_the_weights(
    begin, dataset, tmp_path, monkeypatch, rewind
):
    network = residual_network()
    fields = {"levels": 1, "epochs": 1, "scope": "global", "exclude_output": True} | SGD
    fields |= {"exclude": ("*_shortcut",)}
    chain = begin(tmp_path, start=network, rewind=rewind, **fields).run()
    norms = [name for name in chain.starts[1] if "moving_" in name]
    assert len(norms) == 2 * (7 + 2)  # A mean and a variance of each convolution, shortcuts too.
    if rewind == "init":
        expected = {
            name: np.full_like(v, "variance" in name) for name, v in chain.starts[1].items()
        }
    else:
        monkeypatch.setitem(MAX_STEPS_PER_CALL, "graph", 4)
        alone, seen = wrap_for_training(network, ["*_shortcut"], ["logits"]), {}
        experiment = Experiment(epochs=1, batch_size=10, lr=0.02, **SGD)
        for progress in Trainer(experiment, CrossEntropy, alone, dataset).train(0):
            seen.setdefault(progress.step, masking.values(alone))
        expected = seen[4]
    first, second = chain.tickets()
    for name in norms:
        assert bits({name: chain.starts[1][name]}) == bits({name: expected[name]})
        assert bits({name: second.rewind[name]}) == bits({name: expected[name]})
        # What training makes of it is kept as well, and is not what the next level starts from.
        assert not np.array_equal(first.trained[name], expected[name])
    # Stem 9·2·2, stages 2·9·2·2, 9·2·4 + 9·4·4 and 9·4·8 + 9·8·8; of 1188 a fifth goes.
    assert [t.record["remaining"] for t in (first, second)] == [1188, 1188 - 238]
    assert not any("shortcut" in name or "logits" in name for name in second.masks)


def test_random_rewinding_draws_every_level_anew(chains, network):
    chain = chains("random")
    starts = [masking.values(network), *(t.rewind for t in chain.tickets()[1:])]
    for name in KERNELS:
        assert len({start[name].tobytes() for start in starts}) == 4
    for level, ticket in enumerate(chain.tickets()):
        assert bits(chain.starts[level]) == bits(masked_start(ticket.rewind, ticket.masks))
    # Everything is drawn anew, not the kernels alone: BatchNorm is as it is at first.
    assert all((start["norm/gamma"] == 1).all() for start in starts)
    assert not any(start["norm/moving_mean"].any() for start in starts)


def test_random_rewinding_depends_on_the_seed_alone(chains, begin, tmp_path):
    fields = CHAINS["random"] | {"levels": 1, "epochs": 1}
    again = begin(tmp_path / "again", **fields).run()
    other = begin(tmp_path / "other", **fields, seed=1).run()
    there = chains("random").store.read(1)
    assert bits(again.store.read(1).rewind) == bits(there.rewind)
    for name in KERNELS:
        assert not np.array_equal(other.store.read(1).rewind[name], there.rewind[name])


def test_no_rewinding_goes_on_from_the_trained_weights(chains):
    chain = chains("none")
    tickets = chain.tickets()
    for before, after in itertools.pairwise(tickets):
        assert bits(chain.starts[after.level]) == bits(masked_start(before.trained, after.masks))
        assert bits(after.rewind) == bits(before.trained)


def assert_pruned_is_zero(values, masks):
    """Exactly +0 where a mask is False, and a mask that prunes something."""
    for name, mask in masks.items():
        pruned = values[name][~mask]
        assert pruned.size and not pruned.any() and not np.signbit(pruned).any()


@every_chain
def test_a_pruned_weight_is_zero_wherever_it_is_kept(chains, kind):
    store = chains(kind).store
    for level in (1, 2, 3):
        directory = store.tickets / f"level_{level:02d}"
        ticket = lotcal_tf.load_ticket(directory)
        on_disk = safetensors.numpy.load_file(directory / "trained.safetensors")
        for values in (on_disk, ticket.trained, masking.values(ticket.model())):
            assert_pruned_is_zero(values, ticket.masks)


def test_a_pruned_weight_is_zero_in_the_exported_files(chains, dataset, tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    ticket = chains("init").store.read(3)
    formats = ("saved_model", "float32")
    options = ExportArguments(formats=formats, encoding="dense", seconds=0)
    files = export(ticket, tmp_path / "export", lambda: Examples.of(dataset), options).files
    loaded = tf.saved_model.load(str(files["saved_model"]))
    variables = {v.name.partition(":")[0]: v.numpy() for v in loaded.variables_of_model}
    assert_pruned_is_zero(variables, ticket.masks)

    interpreter = Interpreter(str(files["float32"]))
    interpreter.allocate_tensors()
    tensors = [d for d in interpreter.get_tensor_details() if d["shape"].size == 2]
    for name, mask in ticket.masks.items():
        # The converter stores kernels transposed, and may fold BatchNorm's scale into them.
        (place,) = [d["index"] for d in tensors if tuple(d["shape"]) == mask.T.shape]
        kernel = interpreter.get_tensor(place).T
        assert_pruned_is_zero({name: kernel}, {name: mask})
        assert np.array_equal(kernel != 0, mask)


@every_chain
def test_the_loop_is_compiled_once_for_all_levels(chains, kind):
    assert chains(kind).search.trainer.loop.compilations == 1


def test_every_figure_is_that_of_the_stored_ticket(chains, dataset):
    chain = chains("init")
    splits = {"train": dataset.train, "val": dataset.validation, "test": dataset.test}
    for ticket in chain.tickets():
        model = ticket.model()
        for name, split in splits.items():
            labels, logits = split.labels.numpy(), model(split.inputs, training=False).numpy()
            assert ticket.record[f"{name}_accuracy"] == metrics.accuracy(labels, logits)
            for figure in ("nll", "brier", "ece"):
                expected = getattr(metrics, figure)(labels, logits)
                assert ticket.record[f"{name}_{figure}"] == pytest.approx(expected, abs=1e-5)
        assert ticket.record["val_loss"] == ticket.record["val_nll"]
        assert ticket.record["ece_bins"] == 15


def test_figures_of_many_training_examples_are_those_of_a_sample(
    begin, dataset, tmp_path, monkeypatch
):
    monkeypatch.setattr(splits, "TRAIN_SAMPLE", 20)
    sampled = dataclasses.replace(dataset)
    (ticket,) = begin(tmp_path, dataset=sampled, levels=0, epochs=1).run().tickets()
    part = sampled.measured_splits["train"]
    labels, logits = part.labels.numpy(), ticket.model()(part.inputs, training=False).numpy()
    assert labels.shape == (20,)
    assert ticket.record["train_accuracy"] == metrics.accuracy(labels, logits)
    assert ticket.record["train_nll"] == pytest.approx(metrics.nll(labels, logits), abs=1e-5)


def test_the_temperature_is_fitted_on_validation_data_and_its_figures_are_of_scaled_logits(
    begin, dataset, tmp_path, monkeypatch
):
    monkeypatch.setattr(post_hoc, "LEAST_EXAMPLES", 30)  # as many as there are
    splits = {"train": dataset.train, "val": dataset.validation, "test": dataset.test}
    for ticket in begin(tmp_path).run().tickets():
        model, record = ticket.model(), ticket.record
        found = {
            name: (split.labels.numpy(), model(split.inputs, training=False).numpy())
            for name, split in splits.items()
        }
        labels, logits = found["val"]
        grid = np.geomspace(0.01, 100, 4001)
        p = [scipy.special.softmax(logits / t, -1)[np.arange(30), labels] for t in grid]
        best = grid[np.argmin([-np.log(row).mean() for row in p])]
        temperature = record["temperature"]
        assert temperature == pytest.approx(best, rel=0.003)  # The grid's step is 0.23 %.
        for name, (labels, logits) in found.items():
            p = scipy.special.softmax(logits.astype(np.float64) / temperature, -1)
            nll = -np.log(p[np.arange(len(labels)), labels]).mean()
            assert record[f"{name}_nll_scaled"] == pytest.approx(nll, abs=1e-5)
            confidence, hits = p.max(-1), p.argmax(-1) == labels
            bins = np.ceil(confidence * 15)
            gaps = [abs((hits - confidence)[bins == m].sum()) for m in range(1, 16)]
            ece = sum(gaps) / len(labels)
            assert record[f"{name}_ece_scaled"] == pytest.approx(ece, abs=1e-5)
        assert record["val_nll_scaled"] < record["val_nll"]


def test_tables_hold_a_row_a_level_and_a_row_an_epoch(chains):
    chain = chains("init")
    with (chain.store.directory / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    # The contract's columns (docs: run directory), and each measurement of each split.
    promised = (
        "level density remaining prunable weights epochs seconds train_loss train_accuracy val_loss "
        "val_accuracy val_ece test_accuracy test_ece test_nll test_brier ece_bins "
        "temperature"
    )
    assert set(promised.split()) <= set(rows[0])
    for split in ("train", "val", "test"):
        assert {f"{split}_{m}" for m in ("accuracy", "loss", "ece", "nll", "brier")} <= set(rows[0])
    assert [int(row["level"]) for row in rows] == [0, 1, 2, 3]
    with (chain.store.directory / "history.csv").open() as file:
        epochs = list(csv.DictReader(file))
    assert [(int(e["level"]), int(e["epoch"])) for e in epochs] == [
        (level, epoch) for level in range(4) for epoch in range(2)
    ]
    for row in rows:
        last = epochs[2 * int(row["level"]) + 1]
        assert row["train_loss"] == last["train_loss"]
        assert float(last["val_accuracy"]) == float(row["val_accuracy"])


def test_ties_go_in_model_order_whatever_order_a_file_gave_the_tensors_in(begin, tmp_path):
    widths = {"z": 3, "a": 2, "out": 3}
    x = inputs = keras.Input((8,))
    for name, width in widths.items():
        x = keras.layers.Dense(width, kernel_initializer="ones", name=name)(x)
    search = begin(
        tmp_path, start=keras.Model(inputs, x), scope="global", exclude_output=True
    ).search
    backwards = dict(reversed(search.initial_masks.items()))
    assert list(backwards) == ["a/kernel", "z/kernel"]
    equal = Ticket(0, search.architecture, backwards, search.initial, search.initial, record={})
    masks = search.pruner.prune(equal).masks
    # round(0.2 x (24 + 6)) = 6 of equal size go: the first six places of the first tensor.
    assert masks["a/kernel"].all()
    assert np.flatnonzero(~masks["z/kernel"].ravel()).tolist() == [0, 1, 2, 3, 4, 5]


class Recorder:
    """An observer that records its calls and may raise in the middle."""

    def __init__(self, stop_at=None):
        self.stop_at, self.events, self.moved = stop_at, [], {}

    def on_start(self, total_steps, done, left, epochs):
        self.events.append(("start", total_steps, [record["level"] for record in done]))

    def on_time_estimate(self, seconds):
        self.events.append(("estimate", seconds))

    def on_progress(self, progress):
        self.moved[progress.level] = progress.step - progress.first_step
        ended = progress.epoch is not None and (progress.level, progress.epoch.epoch)
        if self.stop_at and ended == self.stop_at:
            raise KeyboardInterrupt

    def on_level(self, ticket, predictions):
        self.events.append(("level", ticket.level, sorted(predictions)))

    def on_end(self):
        self.events.append(("end",))


def outcome(store):
    """All that a run leaves behind, but for the seconds it took."""
    tickets = []
    for level in range(store.finished()):
        ticket = store.read(level)
        record = {name: value for name, value in ticket.record.items() if name != "seconds"}
        arrays = [bits(part) for part in (ticket.masks, ticket.rewind, ticket.trained)]
        tickets.append((ticket.architecture, record, ticket.history, arrays))
    return tickets, (store.directory / "history.csv").read_text()


@every_chain
def test_a_killed_run_that_goes_on_ends_as_if_never_stopped(chains, begin, tmp_path, kind):
    bomb = Recorder(stop_at=(2, 0))
    with pytest.raises(KeyboardInterrupt):
        begin(tmp_path, **CHAINS[kind], observers=[bomb]).run()
    skipped = 4 if kind == "late" else 0
    all_four = 4 * 18 - 3 * skipped
    assert bomb.events == [
        ("start", all_four, []),
        ("level", 0, ["test", "train", "val"]),
        ("level", 1, ["test", "train", "val"]),
        ("end",),
    ]
    history = (tmp_path / "history.csv").read_text().splitlines()
    assert len(history) == 1 + 5 and history[-1].startswith("2,0,")  # written as it happens
    second = Recorder()
    resumed = begin(tmp_path, **CHAINS[kind], observers=[second]).run()
    assert list(resumed.starts) == [2, 3]
    assert second.events[0] == ("start", 2 * (18 - skipped), [0, 1])
    assert sum(second.moved.values()) == 2 * (18 - skipped)
    assert outcome(resumed.store) == outcome(chains(kind).store)


# How a level starts is nothing that the estimate could change; `late` also pauses.
@pytest.mark.parametrize("kind", quick(CHAINS, "late"))
def test_a_run_with_a_time_estimate_ends_as_one_without(chains, begin, tmp_path, kind):
    """Stopped in the middle, so that the resumed run has an estimate too."""
    bomb, second = Recorder(stop_at=(2, 0)), Recorder()
    with pytest.raises(KeyboardInterrupt):
        begin(tmp_path, **CHAINS[kind], observers=[bomb], estimate_time=True).run()
    resumed = begin(tmp_path, **CHAINS[kind], observers=[second], estimate_time=True).run()
    for observer in (bomb, second):
        assert [event[0] for event in observer.events[:3]] == ["start", "estimate", "level"]
        assert observer.events[1][1] > 0
    assert outcome(resumed.store) == outcome(chains(kind).store)


def test_the_time_is_estimated_before_the_first_step(begin, tmp_path, monkeypatch):
    watching, rows = Recorder(), []
    monkeypatch.setattr(watching, "on_time_estimate", lambda _: rows.append(dict(watching.moved)))
    chain = begin(tmp_path, levels=0, plan="graph", observers=[watching], estimate_time=True)
    monkeypatch.setattr(chain.store, "append_epoch", rows.append)
    chain.run()
    assert rows[0] == {}  # no progress was reported, no row written
    assert len(rows) == 1 + 2


def test_more_levels_extend_a_run_and_fewer_do_nothing(chains, begin, tmp_path):
    begin(tmp_path, **CHAINS["init"] | {"levels": 1}).run()
    extended = begin(tmp_path, **CHAINS["init"]).run()
    assert list(extended.starts) == [2, 3]
    assert outcome(extended.store) == outcome(chains("init").store)
    before = {path: path.stat().st_mtime_ns for path in extended.store.tickets.rglob("*")}
    idle = begin(tmp_path, **CHAINS["init"] | {"levels": 2}).run()
    assert idle.starts == {}
    assert {path: path.stat().st_mtime_ns for path in extended.store.tickets.rglob("*")} == before


class StopsAfterFirstEpoch(keras.callbacks.Callback):
    """Stops one of its training runs after the first epoch, and records all epochs' logs."""

    def __init__(self, stopped):
        super().__init__()
        self.stopped, self.runs, self.logs = stopped, [], []

    def on_train_begin(self, logs=None):
        self.runs.append("begun")

    def on_epoch_end(self, epoch, logs=None):
        self.logs.append((len(self.runs) - 1, epoch, logs["loss"], logs["val_accuracy"]))
        self.model.stop_training = len(self.runs) - 1 == self.stopped

    def on_train_end(self, logs=None):
        self.runs[-1] = "ended"


def test_callbacks_see_every_level_and_can_end_one(begin, tmp_path):
    callback = StopsAfterFirstEpoch(1)
    chain = begin(tmp_path, levels=2, plan="graph", callbacks=[callback], estimate_time=True).run()
    tickets = chain.tickets()
    assert callback.runs == ["ended"] * 3
    assert [ticket.record["epochs"] for ticket in tickets] == [2, 1, 2]
    rows = [row for ticket in tickets for row in ticket.history]
    columns = ("level", "epoch", "train_loss", "val_accuracy")
    assert callback.logs == [tuple(row[name] for name in columns) for row in rows]
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 1 + 5


def test_level_0_must_reach_the_step_to_rewind_to(begin, tmp_path):
    fields = {"plan": "graph", "levels": 1, "callbacks": [StopsAfterFirstEpoch(0)]}
    chain = begin(tmp_path / "early", rewind="step:10", **fields)
    problem = "rewind=step:10: a callback stopped level 0 at step 9, before that step"
    with pytest.raises(FieldError, match=f"^{problem}$"):
        chain.run()
    assert chain.tickets() == []
    # The last step that is reached is soon enough.
    fields["callbacks"] = [StopsAfterFirstEpoch(0)]
    first, second = begin(tmp_path / "late", rewind="step:9", **fields).run().tickets()
    assert (first.record["epochs"], second.record["epochs"]) == (1, 2)
    assert bits(second.rewind) == bits(first.trained)


def test_a_callback_that_cannot_be_called_is_refused_before_anything_is_written(begin, tmp_path):
    every_batch = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: None)
    with pytest.raises(UsageError, match=r"^callbacks: LambdaCallback has on_train_batch_end"):
        begin(tmp_path / "run", callbacks=[every_batch])
    assert not (tmp_path / "run").exists()


class DivergesWhenSparse(CrossEntropy):
    """Its loss is not finite once less than 75 % of the weights are left: at level 2."""

    def penalty(self):
        masks = masking.mask_variables(self.network).values()
        left = tf.add_n([tf.reduce_sum(m) for m in masks]) / 66.0
        return tf.where(left < 0.75, math.inf, 0.0)


def test_a_run_that_diverges_keeps_its_finished_levels(begin, tmp_path):
    watching = Recorder()
    chain = begin(tmp_path, strategy=DivergesWhenSparse, plan="graph", observers=[watching])
    with pytest.raises(TrainingDiverged, match="level 2, epoch 0, step 0") as caught:
        chain.run()
    assert (caught.value.level, caught.value.epoch, caught.value.step) == (2, 0, 0)
    assert watching.events[-1] == ("end",)
    assert [ticket.level for ticket in chain.tickets()] == [0, 1]
    assert {path.name for path in chain.store.tickets.iterdir()} == {"level_00", "level_01"}
    assert chain.store.experiment()["failed"] == str(caught.value)
    again = begin(tmp_path, strategy=DivergesWhenSparse, plan="graph")
    assert "failed" not in again.store.experiment()


def test_rewinding_past_the_end_of_a_level_is_refused_before_anything_is_written(begin, tmp_path):
    with pytest.raises(FieldError, match=r"rewind=epoch:2: a level has 18 steps"):
        begin(tmp_path / "run", rewind="epoch:2")
    assert not (tmp_path / "run").exists()


def test_a_network_with_nothing_to_prune_is_refused(begin, tmp_path):
    with pytest.raises(UsageError, match="nothing is left to prune"):
        begin(tmp_path / "run", **GLOBAL, exclude=("hidden",))
    assert not (tmp_path / "run").exists()


def test_a_ticket_starts_a_chain_where_it_stood(chains, begin, tmp_path):
    source = chains("random").store.read(2)
    chain = begin(tmp_path, start=[source], levels=1, plan="graph").run()
    first, second = chain.tickets()
    assert bits(first.masks) == bits(source.masks)
    assert bits(first.rewind) == bits(source.rewind)
    assert bits(chain.starts[0]) == bits(masked_start(source.rewind, source.masks))
    assert first.architecture == source.architecture
    # Of the original network's 66: the levels go on where the source's left off.
    assert [first.record["remaining"], second.record["remaining"]] == [30 + 14, 24 + 13]
    assert second.density == 37 / 66


def test_global_pruning_of_a_ticket_from_a_local_run_leaves_its_output_layer(
    chains, begin, tmp_path
):
    source = chains("init").store.read(1)
    chain = begin(tmp_path, start=[source], levels=1, **GLOBAL, plan="graph").run()
    after = chain.store.read(1)
    assert bits({OUTPUT: after.masks[OUTPUT]}) == bits({OUTPUT: source.masks[OUTPUT]})
    assert after.masks[HIDDEN].sum() == 30  # 38 - round(7.6)
