"""Tickets made ready for other data, another strategy or a control; levels that start from them."""

import dataclasses

import numpy as np
import pytest

from lotcal_tf.calibration.strategies import CrossEntropy
from lotcal_tf.compat import keras
from lotcal_tf.config import registry
from lotcal_tf.config.experiment import Experiment
from lotcal_tf.config.sealed import seal, unseal
from lotcal_tf.data.arrays import from_arrays
from lotcal_tf.errors import FieldError, UsageError
from lotcal_tf.lottery.search import Search
from lotcal_tf.lottery.store import RunStore
from lotcal_tf.lottery.ticket import Ticket, architecture_of
from lotcal_tf.lottery.transfer import (
    Sources,
    Transfer,
    check_shape,
    with_classes,
    with_dropout,
    with_random_masks,
    with_range,
    with_redrawn_weights,
)
from lotcal_tf.models.build import build_model
from lotcal_tf.models.stateless_dropout import StatelessDropout, StrategyDropout
from lotcal_tf.pruning import masking
from lotcal_tf.pruning.criteria import Magnitude
from lotcal_tf.pruning.rewind import masked_start

HIDDEN, OUTPUT = "hidden/kernel", "logits/kernel"
FIELDS = {"epochs": 2, "batch_size": 10, "lr": 0.02, "plan": "graph", "seed": 5}


def bits(arrays):
    return {name: (value.dtype, value.shape, value.tobytes()) for name, value in arrays.items()}


@pytest.fixture(scope="module")
def run(begin, tmp_path_factory):
    """A finished run of levels 0 to 2; no test changes it."""
    directory = tmp_path_factory.mktemp("source") / "run"
    begin(directory, levels=2, plan="graph").run()
    return directory


@pytest.fixture(scope="module")
def ticket(run):
    """Level 2: 48 x 0.8 = 38.4 and 38 x 0.8 = 30.4 of the hidden, 18 - 2 - 2 of the output layer."""
    found = RunStore(run).read(2)
    assert {name: mask.sum() for name, mask in found.masks.items()} == {HIDDEN: 30, OUTPUT: 14}
    return found


@pytest.fixture(scope="module")
def other_data():
    """Four classes where the run had three."""
    draw = np.random.default_rng(1)
    data = [(draw.normal(size=(n, 8)), np.arange(n) % 4) for n in (60, 20, 20)]
    return from_arrays(*data, classes=4, validation_size=None, seed=0)


def transfer(run, data, **fields):
    return Transfer(Sources(str(run)), Experiment(ticket=str(run), **FIELDS | fields), data)


def search_from(run, data, out, **fields):
    experiment = Experiment(ticket=str(run), **FIELDS | {"levels": 2} | fields)
    store = RunStore(out)
    tickets = Transfer(Sources(str(run)), experiment, data)
    search = Search(experiment, tickets, data, CrossEntropy, Magnitude, store)
    store.begin({"run_id": "transfer"})
    return search


# --- the controls ----------------------------------------------------------------------------------


def test_random_masks_keep_each_tensors_count_and_move_the_survivors(ticket):
    control = with_random_masks(ticket, 0)
    assert list(control.masks) == list(ticket.masks)
    for name, mask in ticket.masks.items():
        assert control.masks[name].shape == mask.shape
        assert control.masks[name].dtype == bool
        assert control.masks[name].sum() == mask.sum()
        assert (control.masks[name] != mask).any()
    assert bits(control.rewind) == bits(ticket.rewind)
    assert control.density == ticket.density == 44 / 66


def test_random_masks_are_a_function_of_seed_and_level(ticket):
    masks = with_random_masks(ticket, 0).masks
    assert bits(with_random_masks(ticket, 0).masks) == bits(masks)
    for other in (
        with_random_masks(ticket, 1),
        with_random_masks(dataclasses.replace(ticket, level=1), 0),
    ):
        assert all((other.masks[name] != mask).any() for name, mask in masks.items())


def test_random_masks_are_uniform(ticket):
    """Every place survives as often: of 400 draws, 30/48 of them; five standard errors wide."""
    share = np.mean([with_random_masks(ticket, s).masks[HIDDEN] for s in range(400)], 0)
    p = 30 / 48
    assert np.abs(share - p).max() < 5 * np.sqrt(p * (1 - p) / 400)


def test_random_masks_need_weights_where_the_ticket_is_pruned(ticket):
    bare = dataclasses.replace(ticket, rewind=masked_start(ticket.rewind, ticket.masks))
    with pytest.raises(
        UsageError, match=r"control=random_mask: .* has no weights where it is prun"
    ):
        with_random_masks(bare, 0)


def test_redrawn_weights_are_new_and_the_masks_the_same(ticket, network):
    control = with_redrawn_weights(ticket, 0)
    assert bits(control.masks) == bits(ticket.masks)
    assert control.architecture == ticket.architecture
    for name in (HIDDEN, OUTPUT):
        assert (control.rewind[name] != ticket.rewind[name]).all()
    # BatchNorm's state and the biases begin as a fresh model's.
    fresh = {name: v for name, v in masking.values(network).items() if v.ndim == 1}
    assert bits({name: control.rewind[name] for name in fresh}) == bits(fresh)
    assert bits(with_redrawn_weights(ticket, 0).rewind) == bits(control.rewind)
    assert (with_redrawn_weights(ticket, 1).rewind[HIDDEN] != control.rewind[HIDDEN]).all()


def test_redrawn_weights_forget_batchnorms_state(ticket):
    moved = {n: v + (1 if n.startswith("norm/") else 0) for n, v in ticket.rewind.items()}
    control = with_redrawn_weights(dataclasses.replace(ticket, rewind=moved), 0)
    np.testing.assert_array_equal(control.rewind["norm/moving_mean"], np.zeros(6))
    np.testing.assert_array_equal(control.rewind["norm/moving_variance"], np.ones(6))


# --- other data ------------------------------------------------------------------------------------


def test_the_output_layer_is_drawn_anew_and_whole(ticket):
    other = with_classes(ticket, 5, seed=0)
    assert other.rewind[OUTPUT].shape == other.masks[OUTPUT].shape == (6, 5)
    assert other.masks[OUTPUT].all()
    # Glorot uniform, as the layer's own: within ±sqrt(6 / (6 + 5)).
    assert 0 < np.abs(other.rewind[OUTPUT]).max() <= np.sqrt(6 / 11)
    np.testing.assert_array_equal(other.rewind["logits/bias"], np.zeros(5))
    rest = {name for name in ticket.rewind if not name.startswith("logits/")}
    assert bits({n: other.rewind[n] for n in rest}) == bits({n: ticket.rewind[n] for n in rest})
    assert bits({HIDDEN: other.masks[HIDDEN]}) == bits({HIDDEN: ticket.masks[HIDDEN]})
    assert other.density == (30 + 30) / (48 + 30)
    assert other.network().output_shape == (None, 5)
    assert bits(with_classes(ticket, 5, seed=0).rewind) == bits(other.rewind)
    assert (with_classes(ticket, 5, seed=1).rewind[OUTPUT] != other.rewind[OUTPUT]).all()


def test_an_output_layer_that_is_not_masked_gets_no_mask(ticket):
    whole = dataclasses.replace(ticket, masks={HIDDEN: ticket.masks[HIDDEN]})
    assert list(with_classes(whole, 5, seed=0).masks) == [HIDDEN]


def test_as_many_classes_leave_the_ticket_as_it_is(ticket):
    assert with_classes(ticket, 3, seed=0) is ticket


def test_the_output_layer_of_a_nested_model(ticket):
    keras.utils.set_random_seed(0)
    inner = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3, name="last")], name="head")
    inputs = keras.Input((8,))
    model = keras.Model(inputs, inner(keras.layers.Dense(8, name="first")(inputs)))
    values = masking.values(model)
    masks = {"first/kernel": np.ones((8, 8), bool)}
    nested = Ticket(0, architecture_of(model), masks, values, values, {})
    other = with_classes(nested, 2, seed=0)
    assert other.rewind["head/last/kernel"].shape == (8, 2)
    assert other.network().output_shape == (None, 2)


def test_inputs_of_another_range_are_scaled_to_the_same_numbers():
    model = build_model(
        "lenet_4", (8, 8, 1), 3, seed=0, input_range=16.0, input_mean=(0.5,), input_std=(0.25,)
    )
    values = masking.values(model)
    found = Ticket(0, architecture_of(model), {}, values, values, {}, input_range=16.0)
    images = np.random.default_rng(0).uniform(0, 1, (5, 8, 8, 1)).astype("float32")
    other = with_range(found, 255.0)
    assert other.input_range == 255.0
    np.testing.assert_allclose(
        other.model()(255 * images), found.model()(16 * images), rtol=1e-4, atol=1e-5
    )
    for same in (16.0, None):
        assert with_range(found, same) is found
    unknown = dataclasses.replace(found, input_range=None)
    assert with_range(unknown, 255.0) is unknown


def test_a_model_without_the_scaling_layer_is_refused_for_another_range(ticket):
    known = dataclasses.replace(ticket, input_range=1.0)
    with pytest.raises(UsageError, match=r"inputs of 0 … 1, the data has 0 … 255, .*`scaling`"):
        with_range(known, 255.0)


def test_inputs_of_another_shape_are_refused_with_every_tensor_that_differs(ticket):
    check_shape(ticket, (8,))
    line = (
        r"takes inputs of shape \(8,\), the data has \(5,\); "
        r"hidden/kernel is \(8, 6\), the model's \(5, 6\)$"
    )
    with pytest.raises(UsageError, match=line):
        check_shape(ticket, (5,))


# --- another strategy ------------------------------------------------------------------------------


def with_both_kinds():
    x = inputs = keras.Input((8,), name="inputs")
    x = StrategyDropout(0.3, name="dropout_1")(keras.layers.Dense(6, name="hidden")(x))
    x = keras.layers.Dropout(0.4, name="own")(StatelessDropout(0.2, name="mine")(x))
    model = keras.Model(inputs, keras.layers.Dense(3, name="logits")(x))
    values = masking.values(model)
    masks = {HIDDEN: np.ones((8, 6), bool)}
    return Ticket(0, architecture_of(model), masks, values, values, {})


def test_a_strategys_dropout_is_set_and_ones_own_stays():
    found = with_both_kinds()
    for rate in (0.0, 0.1):
        network = with_dropout(found, rate).network()
        rates = {name: network.get_layer(name).rate for name in ("dropout_1", "mine", "own")}
        assert rates == {"dropout_1": rate, "mine": 0.2, "own": 0.4}
    assert with_dropout(found, 0.3).architecture == found.architecture


def test_what_a_strategy_puts_into_a_catalog_model_is_its_own():
    model = build_model("lenet_4_3", (8, 8, 1), 3, seed=0, dropout_rate=0.1)
    found = [layer for layer in model.layers if isinstance(layer, StatelessDropout)]
    assert [type(layer) for layer in found] == [StrategyDropout] * 2


# --- every model of the catalog --------------------------------------------------------------------


@pytest.mark.full
@pytest.mark.parametrize("family", registry.MODELS)
def test_a_ticket_of_every_model_moves_to_other_data_and_strategies(family):
    name = registry.MODELS[family].example or family
    model = build_model(name, (32, 32, 3), 3, seed=0, input_range=255.0, dropout_rate=0.1)
    output, values = masking.output_layer(model), masking.values(model)
    draw = np.random.default_rng(0)
    network = masking.wrap(model, whole=(output,))
    masks = {n: draw.random(m.shape) < 0.5 for n, m in masking.mask_variables(network).items()}
    found = Ticket(2, architecture_of(model), masks, values, values, {}, input_range=255.0)
    check_shape(found, (32, 32, 3))
    with pytest.raises(UsageError, match=r"takes inputs of shape \(32, 32, 3\), the data has"):
        check_shape(found, (32, 32, 1))
    moved = with_range(with_classes(with_dropout(found, 0.0), 5, seed=0), 1.0)
    drawn = {n for n, v in moved.rewind.items() if v.tobytes() != values.get(n, v).tobytes()}
    assert drawn == {n for n in values if n.rpartition("/")[0] == output}
    assert moved.network().output_shape == (None, 5)
    assert not any(getattr(layer, "rate", 0) for layer in moved.network().layers)
    for control in (with_random_masks(moved, 0), with_redrawn_weights(moved, 0)):
        counts = {name: int(mask.sum()) for name, mask in control.masks.items()}
        assert counts == {name: int(mask.sum()) for name, mask in masks.items()}
        control.network()  # It fits.


# --- sources ---------------------------------------------------------------------------------------


def test_one_ticket_or_all_of_a_run(run):
    every, one = Sources(str(run)), Sources(str(run / "tickets" / "level_01"))
    tickets = [RunStore(run).read(level) for level in range(3)]
    assert every.digests == [ticket.digest for ticket in tickets]
    assert one.digests == [tickets[1].digest]
    assert (every.every_level, one.every_level) == (True, False)
    assert one.content == {"ticket": tickets[1].digest}
    assert every.content == {"run": f"tiny/{tickets[0].digest}"}
    every.check_levels(2)
    one.check_levels(7)
    with pytest.raises(FieldError, match=r"levels=3: .* has 3 finished levels: at most 2"):
        every.check_levels(3)


def test_a_run_in_progress_says_so(begin, tmp_path):
    begin(tmp_path, levels=0, plan="graph").run()
    assert Sources(str(tmp_path)).notes == ()
    path = tmp_path / "experiment.json"
    path.write_bytes(seal(unseal(path) | {"experiment": {"levels": 4}}))
    (note,) = Sources(str(tmp_path)).notes
    assert f"{tmp_path}: 1 of its 5 levels are finished" in note


def test_no_ticket_no_level_and_damage_are_told(run, tmp_path):
    (tmp_path / "empty" / "tickets").mkdir(parents=True)
    for path, line in {
        tmp_path: "is not a ticket: give RUN/tickets/level_NN, or RUN",
        run / "tickets": "is not a ticket: give RUN/tickets/level_NN, or RUN",
        tmp_path / "empty": "no finished level yet",
    }.items():
        with pytest.raises(FieldError, match=line):
            Sources(str(path))


def test_damage_to_any_level_is_told_before_the_first_is_trained(begin, tmp_path):
    begin(tmp_path, levels=1, plan="graph").run()
    path = tmp_path / "tickets" / "level_01" / "masks.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x02")
    with pytest.raises(FieldError, match=r"ticket=.*level_01: .*masks.safetensors is damaged"):
        Sources(str(tmp_path))


def test_levels_of_different_models_are_refused(begin, tmp_path, ticket):
    begin(tmp_path, levels=0, plan="graph").run()
    other = ticket.architecture.replace('"relu"', '"tanh"')
    RunStore(tmp_path).save(dataclasses.replace(ticket, level=1, architecture=other))
    with pytest.raises(FieldError, match="level_01 holds another model than level_00"):
        Sources(str(tmp_path))


# --- a run of it -----------------------------------------------------------------------------------


def test_every_level_starts_from_its_ticket(run, dataset, tmp_path):
    search_from(run, dataset, tmp_path).run()
    for level in range(3):
        source, found = RunStore(run).read(level), RunStore(tmp_path).read(level)
        assert bits(found.masks) == bits(source.masks)
        assert bits(found.rewind) == bits(source.rewind)
        assert bits(found.trained) != bits(source.trained)
        assert found.record["source_level"] == level
        assert found.record["source"] == source.digest
        assert found.record["density"] == source.record["density"]


@pytest.mark.full
@pytest.mark.parametrize("control", ["none", "random_mask", "redrawn_weights"])
def test_a_killed_transfer_goes_on_and_ends_alike(run, other_data, tmp_path, control):
    whole = tmp_path / "whole"
    search_from(run, other_data, whole, control=control).run()
    search_from(run, other_data, tmp_path / "cut", control=control, levels=1).run()
    search_from(run, other_data, tmp_path / "cut", control=control).run()
    for level in range(3):
        one, other = (RunStore(tmp_path / name).read(level) for name in ("whole", "cut"))
        for part in ("masks", "rewind", "trained"):
            assert bits(getattr(one, part)) == bits(getattr(other, part))
    # Four classes: the output layer is whole, 6 x 4; the hidden one keeps the source's counts.
    remaining = [r["remaining"] for r in RunStore(whole).records()]
    assert remaining == [48 + 24, 38 + 24, 30 + 24]


def test_after_a_single_ticket_levels_are_pruned_from_the_one_before(run, dataset, tmp_path):
    one = run / "tickets" / "level_01"
    search_from(one, dataset, tmp_path, levels=1).run()
    first, second = RunStore(tmp_path).records()
    assert (first["source_level"], first["remaining"]) == (1, 38 + 16)
    assert "source" not in second and second["remaining"] == 30 + 14


def test_the_record_says_what_was_changed(run, dataset, other_data):
    told = transfer(run, other_data, control="random_mask", levels=1).describe()
    assert told["output_layer"] == "redrawn: 3 → 4 classes"
    assert told["control"] == "random_mask"
    assert told["tickets"] == [str(run / "tickets" / f"level_0{n}") for n in range(2)]
    assert told["digests"] == Sources(str(run)).digests[:2]
    same = transfer(run, dataset, levels=2).describe()
    assert (same["output_layer"], same["dropout"]) == ("as in the ticket", "as in the ticket")
    assert len(same["tickets"]) == 3


def test_a_level_trained_from_another_ticket_is_told(run):
    sources = Sources(str(run))
    rows = [{"level": level, "source": digest} for level, digest in enumerate(sources.digests)]
    sources.check_same(rows)
    rows[1]["source"] = "0123456789"
    with pytest.raises(FieldError, match="level 1 was trained from another ticket"):
        sources.check_same(rows)
