"""Carrying out an experiment by name: from data, model or tickets to a run, and its best ticket's files."""

import dataclasses
import json
import shutil
import sys

import numpy as np
import pytest

from lotcal_tf import metrics
from lotcal_tf.api import measure_model
from lotcal_tf.calibration.post_hoc import fit_temperature
from lotcal_tf.compat import keras
from lotcal_tf.config import registry
from lotcal_tf.config.recipes import resolve
from lotcal_tf.errors import DamagedTicket, FieldError, TakenOver, UsageError
from lotcal_tf.lottery import search
from lotcal_tf.lottery.lock import WriterLock
from lotcal_tf.lottery.run import predicted_seconds, run_experiment
from lotcal_tf.lottery.store import RunStore
from lotcal_tf.lottery.task import NamedTask
from lotcal_tf.training.time_estimate import TimeEstimate


def written(directory):
    return json.loads((directory / "experiment.json").read_text())


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """What the train command does with --model=lenet_10 --epochs=1 --levels=2, compiled whole."""
    out = tmp_path_factory.mktemp("digits") / "run"
    flags = {"model": "lenet_10", "epochs": "1", "levels": "2", "out": str(out)}
    return run_experiment(resolve(flags), progress=False)


def test_an_experiment_by_name(digits):
    assert digits.found == 0
    # 64 x 10 and 10 x 10; by hand: 640 - 128, 512 - 102.4; 100 - 10, 90 - 9.
    assert [r["remaining"] for r in digits.records] == [640 + 100, 512 + 90, 410 + 81]
    realised = written(digits.directory)["realised"]
    assert realised["examples"] == {"train": 1797 - 360 - 200, "val": 200, "test": 360}
    assert written(digits.directory)["experiment"]["model"] == "lenet_10"


def test_a_finished_experiment_loads_no_data(digits, monkeypatch, tree):
    before = tree(digits.directory)

    def fails(*_, **__):
        raise AssertionError("a finished run needs no data")

    monkeypatch.setattr("lotcal_tf.data.digits.load", fails)
    flags = {"model": "lenet_10", "epochs": 1, "levels": 2, "out": str(digits.directory)}
    for levels in (2, 1):
        again = run_experiment(resolve(flags | {"levels": levels}), progress=False)
        assert again.found == len(again.records) == 3
    assert tree(digits.directory) == before


def test_levels_hold_the_predictions_that_their_metrics_come_from(digits):
    for level, record in enumerate(digits.records):
        found = digits.ticket(level).predictions
        assert found.keys() == {"val/labels", "val/logits", "test/labels", "test/logits"}
        for split, count in (("val", 200), ("test", 360)):
            labels, logits = found[f"{split}/labels"], found[f"{split}/logits"]
            assert (labels.shape, logits.shape) == ((count,), (count, 10))
            for name, value in metrics.measure(labels, logits).items():
                assert record[f"{split}_{name}"] == value


def test_the_validation_split_is_at_hand(digits):
    inputs, labels = digits.validation
    assert inputs.shape == (200, 8, 8, 1)
    np.testing.assert_array_equal(labels, digits.selected.predictions["val/labels"])


def test_another_experiment_in_the_directory_is_refused_by_what_differs(digits):
    flags = {"model": "lenet_10", "epochs": 1, "levels": 2, "out": str(digits.directory)}
    other = resolve(flags | {"lr": 0.5, "calib": "lwcc"})
    with pytest.raises(FieldError, match="^out=") as caught:
        run_experiment(other, progress=False)
    line = str(caught.value)
    assert "lr is 0.5 here, default there" in line
    assert "calib is lwcc here, default there" in line
    assert "epochs" not in line


@pytest.mark.full
@pytest.mark.parametrize("criterion", [name for name in registry.CRITERIA if name != "magnitude"])
def test_a_criterion_prunes_the_same_counts_and_resumes_to_the_bit(criterion, digits, tmp_path):
    flags = {"model": "lenet_10", "epochs": 1, "levels": 2, "criterion": criterion}
    whole = run_experiment(resolve(flags | {"out": str(tmp_path / "whole")}), progress=False)
    assert [r["remaining"] for r in whole.records] == [r["remaining"] for r in digits.records]
    assert whole.ticket(0).digest == digits.ticket(0).digest
    assert any((whole.ticket(1).masks[n] != m).any() for n, m in digits.ticket(1).masks.items())
    parts = shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    shutil.rmtree(parts / "tickets" / "level_02")
    assert run_experiment(resolve(flags | {"out": str(parts)}), progress=False).found == 2
    assert RunStore(parts).read(2).digest == whole.ticket(2).digest


class Interrupting(keras.callbacks.Callback):
    """Interrupts the training when its second epoch begins."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


@pytest.mark.full
@pytest.mark.parametrize("calib", registry.STRATEGIES)
def test_every_strategy_resumes_within_a_level_to_the_bit(calib, tmp_path):
    flags = {"epochs": 3, "levels": 0, "calib": calib, "augment": "crop_flip", "model": "lenet_10"}
    try:
        whole = run_experiment(resolve(flags | {"out": str(tmp_path / "whole")}), progress=False)
    except UsageError:  # It needs a network with BatchNorm.
        flags |= {"model": "resnet8_4"}
        whole = run_experiment(resolve(flags | {"out": str(tmp_path / "whole")}), progress=False)
    parts = resolve(flags | {"out": str(tmp_path / "parts")})
    with pytest.raises(KeyboardInterrupt):
        run_experiment(parts, callbacks=[Interrupting()], progress=False)
    (checkpoint,) = (tmp_path / "parts" / "checkpoints").iterdir()
    assert checkpoint.name == "level_00_epoch_0001"
    resumed = run_experiment(parts, progress=False)
    assert resumed.ticket(0).digest == whole.ticket(0).digest
    assert resumed.ticket(0).history == whole.ticket(0).history


CUSTOM = """
import dataclasses
import lotcal_tf

@dataclasses.dataclass(frozen=True)
class Smoothing:
    share: float = 0.1

class Smooth(lotcal_tf.Strategy):
    Hyperparameters = Smoothing

    def train_step(self, data):
        import tensorflow as tf
        inputs, labels = data
        with tf.GradientTape() as tape:
            logits = self(inputs, training=True)
            soft = (1 - self.hyper.share) * tf.one_hot(labels, 10) + self.hyper.share / 10
            loss = tf.reduce_mean(lotcal_tf.losses.cross_entropy(soft, logits))
        return self.descend(tape, loss, labels, logits)

class Smallest(lotcal_tf.Criterion):
    rounds = 2

    def scores(self, state):
        return {name: -abs(state.weights[name]) for name in state.masks}
"""


@pytest.fixture
def custom(tmp_path, monkeypatch):
    """Writes the module `mine_of_run`; gives the flags that name its classes."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(source=CUSTOM):
        (tmp_path / "mine_of_run.py").write_text(source)
        monkeypatch.delitem(sys.modules, "mine_of_run", raising=False)
        names = {"calib": "mine_of_run:Smooth", "criterion": "mine_of_run:Smallest"}
        return {"model": "lenet_10", "epochs": 1, "levels": 1, "plan": "graph", **names}

    return write


def test_a_custom_method_brings_its_hyperparameters_into_the_record(custom, tmp_path):
    flags = custom() | {"out": str(tmp_path / "run")}
    run = run_experiment(resolve(flags | {"share": "0.2"}), progress=False)
    record = written(run.directory)
    assert record["experiment"]["settings"] == {"share": 0.2}
    assert record["identity"]["share"] == 0.2
    assert record["content"].keys() == {"calib_source", "criterion_source"}
    # The smallest survive: half a level's weights in each of two rounds.
    masks, trained = run.ticket(1).masks, run.ticket(0).trained
    for name, mask in masks.items():
        sizes = abs(trained[name])
        assert sizes[mask].max() <= sizes[~mask].min()
    assert run_experiment(resolve(flags | {"share": "0.2"}), progress=False).found == 2
    with pytest.raises(FieldError, match="share is 0.3 here, 0.2 there"):
        run_experiment(resolve(flags | {"share": "0.3"}), progress=False)
    with pytest.raises(FieldError, match=r"^shore=1: .* have share"):
        run_experiment(resolve(flags | {"shore": "1"}), progress=False)


def test_an_edited_strategy_never_continues_the_old_run(custom, tmp_path):
    flags = custom() | {"out": str(tmp_path / "run"), "levels": 0}
    run_experiment(resolve(flags), progress=False)
    custom(CUSTOM.replace("reduce_mean", "reduce_sum"))
    with pytest.raises(FieldError, match="calib_source differs"):
        run_experiment(resolve(flags | {"levels": 1}), progress=False)
    custom()
    assert run_experiment(resolve(flags), progress=False).found == 1


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"calib": "no_such_module:A"}, "^calib=no_such_module:A: cannot be imported"),
        (
            {"calib": "json:JSONDecoder"},
            "^calib=json:JSONDecoder: must be a subclass of lotcal_tf.Strategy",
        ),
        (
            {"criterion": "json:dumps"},
            "^criterion=json:dumps: must be a subclass of lotcal_tf.Criterion",
        ),
    ],
)
def test_a_class_that_is_no_method_is_refused(fields, line, tmp_path):
    with pytest.raises(FieldError, match=line):
        run_experiment(resolve(fields | {"out": str(tmp_path / "run")}), progress=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (
            "labels, logits)",
            "labels, {}['x'])",
            r"^calib=\S+ its method train_step raises KeyError: 'x' \(mine_of_run.py, line 19\)$",
        ),
        ("tf.reduce_mean(", "(", "train_step must return .* a scalar for 'loss'"),
        ("return self.descend(", "self.descend(", "train_step must return .* a scalar for 'loss'"),
        ("train_step", "train_steps", "must override train_step"),
        ("-abs(", "0 / 0 * abs(", r"scores raises ZeroDivisionError: .* line 25\)$"),
        ("-abs(state.weights[name])", "0", r"scores must be .* shape \(64, 10\)"),
        ("def scores", "def score", "^criterion=mine_of_run:Smallest: must override scores"),
    ],
)
def test_a_mistake_in_own_code_is_found_before_training(custom, tmp_path, old, new, line):
    flags = custom(CUSTOM.replace(old, new)) | {"out": str(tmp_path / "run")}
    with pytest.raises(FieldError, match=line):
        run_experiment(resolve(flags), progress=False)
    assert not (tmp_path / "run").exists()


def test_scores_need_not_be_finite_before_training(custom, tmp_path):
    moved = "(d := abs(state.weights[name] - state.rewind[name])) / d.max()"  # 0 / 0 at first
    flags = custom(CUSTOM.replace("-abs(state.weights[name])", moved)) | {"levels": 1}
    with np.errstate(invalid="ignore"):
        run = run_experiment(resolve(flags | {"out": str(tmp_path / "run")}), progress=False)
    assert len(run.records) == 2


def test_scores_that_cannot_be_ranked_end_the_run_after_the_level(custom, tmp_path):
    source = CUSTOM.replace("-abs(", "np.nan * abs(").replace("import", "import numpy as np, ", 1)
    flags = custom(source) | {"out": str(tmp_path / "run")}
    with pytest.raises(FieldError, match=r"^criterion=\S+ its scores of '\S+' must be finite"):
        run_experiment(resolve(flags), progress=False)
    assert RunStore(tmp_path / "run", writes=False).finished() == 1


def test_operations_are_deterministic_inside_a_run_only(digits, tmp_path):
    from tensorflow.python.framework import config

    from lotcal_tf.compat import deterministic

    before = config.is_op_determinism_enabled()
    with deterministic():
        assert config.is_op_determinism_enabled()
        with deterministic():
            pass
        assert config.is_op_determinism_enabled()
    assert config.is_op_determinism_enabled() == before
    seen = []
    flags = {"model": "lenet_10", "epochs": 1, "levels": 0, "out": str(tmp_path / "run")}

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(config.is_op_determinism_enabled())

    run_experiment(resolve(flags), callbacks=[Watch()], progress=False)
    assert seen == [True]
    assert config.is_op_determinism_enabled() == before


def test_a_level_the_run_does_not_have(digits):
    for level in (-1, 3):
        with pytest.raises(UsageError, match=f"level={level}: the run has levels 0 … 2"):
            digits.ticket(level)


def test_a_ticket_of_another_run_brings_model_masks_and_rewind_weights(digits, tmp_path):
    source = digits.ticket(2)
    path = str(digits.directory / "tickets" / "level_02")
    fields = {"ticket": path, "epochs": 1, "seed": 3, "out": str(tmp_path / "run")}
    experiment = resolve(fields)
    assert experiment.levels == 0
    run = run_experiment(experiment, progress=False)
    (ticket,) = [run.ticket(level) for level in range(len(run.records))]
    assert ticket.architecture == source.architecture
    for brought in ("masks", "rewind"):
        found, expected = getattr(ticket, brought), getattr(source, brought)
        assert {n: v.tobytes() for n, v in found.items()} == {
            n: v.tobytes() for n, v in expected.items()
        }
    # Of the original network, not of what is left of it.
    assert ticket.density == run.records[0]["density"] == (410 + 81) / 740
    record = written(run.directory)
    assert record["content"] == {"ticket": source.digest}
    assert record["experiment"]["ticket"] == path
    assert record["experiment"]["model"] == "lenet_10"
    assert record["transfer"]["digests"] == [source.digest]
    assert (run.records[0]["source_level"], run.records[0]["source"]) == (2, source.digest)
    assert run_experiment(experiment, progress=False).found == 1
    # The same fields from another ticket are another experiment.
    other = resolve(fields | {"ticket": path.replace("level_02", "level_01")})
    with pytest.raises(FieldError, match="holds another run"):
        run_experiment(other, progress=False)


@pytest.mark.full
def test_every_level_of_a_run_is_transferred_and_followed(digits, tmp_path, capsys):
    fields = {"ticket": str(digits.directory), "epochs": 1, "seed": 3, "out": str(tmp_path / "run")}
    fields |= {"optimizer": "sgd", "momentum": 0.9, "plan": "graph"}
    first = run_experiment(resolve(fields | {"levels": 1}), progress=False)
    assert len(first.records) == 2
    run = run_experiment(resolve(fields))
    assert (run.found, len(run.records)) == (2, 3)
    for level in range(3):
        source, found = digits.ticket(level), run.ticket(level)
        assert found.density == source.density
        for name, mask in source.masks.items():
            np.testing.assert_array_equal(found.masks[name], mask)
            np.testing.assert_array_equal(found.rewind[name], source.rewind[name])
    head, *rows = run.table().splitlines()[1:]
    assert head.split()[:3] == ["level", "source", "kept"]
    assert [row.split()[:3] for row in rows] == [
        [str(level), str(level), f"{100 * remaining / 740:.1f}"]
        for level, remaining in enumerate([740, 602, 491])
    ]
    record = written(run.directory)
    assert record["experiment"]["control"] == "none"
    assert record["transfer"]["digests"] == [digits.ticket(level).digest for level in range(3)]
    assert "finished, and taken" not in capsys.readouterr().err
    assert run_experiment(resolve(fields), progress=False).found == 3
    # A control is a run of its own.
    with pytest.raises(FieldError, match="holds another run"):
        run_experiment(resolve(fields | {"control": "random_mask"}), progress=False)
    with pytest.raises(FieldError, match=r"levels=3: .* has 3 finished levels: at most 2"):
        run_experiment(resolve(fields | {"levels": 3}), progress=False)


@pytest.mark.full
def test_dropout_of_one_strategy_does_not_drop_in_another(tmp_path):
    flags = {"model": "lenet_8_6", "epochs": 1, "levels": 0, "plan": "graph", "calib": "vwcc"}
    found = run_experiment(resolve(flags | {"out": str(tmp_path / "found")}), progress=False)
    rates = {}
    for calib in ("none", "vwcc", "lwcc_si"):
        more = {"calib": calib, "plan": "graph", "epochs": 1, "ticket": str(found.directory)}
        more |= {"dropout_rate": 0.3} if calib == "lwcc_si" else {}
        out = tmp_path / calib
        run = run_experiment(resolve(more | {"out": str(out)}), progress=False)
        layers = run.ticket(0).network().layers
        rates[calib] = {layer.rate for layer in layers if "dropout" in layer.name}
        noted = written(out)["transfer"]["dropout"]
        assert (
            noted
            == {
                "none": "rates: [0.1, 0.1] → [0.0, 0.0]",
                "vwcc": "as in the ticket",
                "lwcc_si": "rates: [0.1, 0.1] → [0.3, 0.3]",
            }[calib]
        )
    assert rates == {"none": {0.0}, "vwcc": {0.1}, "lwcc_si": {0.3}}


def test_a_ticket_whose_tensors_do_not_fit_its_model_is_refused(digits, tmp_path, tree):
    """As a version that builds the same layers otherwise would see it: its checksums are right."""
    ticket = digits.ticket(1)
    wrong = ticket.architecture.replace('"units": 10', '"units": 9', 1)
    store = RunStore(tmp_path / "source")
    store.begin({"run_id": "r", "experiment": {"levels": 0}})
    store.save(dataclasses.replace(ticket, level=0, architecture=wrong))
    before = tree(tmp_path)
    for path in ("source", "source/tickets/level_00"):
        experiment = resolve({"ticket": str(tmp_path / path), "out": str(tmp_path / "run")})
        with pytest.raises(UsageError, match=r"do not fit its model: .*; .*; ") as caught:
            run_experiment(experiment, progress=False)
        assert "\n" not in str(caught.value)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("fields", [{"calib": "lwcc_si"}, {"mc_eval": "5"}])
def test_a_ticket_without_the_dropout_that_is_asked_for_is_refused_before_data_is_loaded(
    digits, tmp_path, monkeypatch, fields
):
    def fails(*_, **__):
        raise AssertionError("data was loaded")

    monkeypatch.setattr("lotcal_tf.data.digits.load", fails)
    path = str(digits.directory / "tickets" / "level_01")
    experiment = resolve({"ticket": path, "out": str(tmp_path / "run")} | fields)
    (name,) = fields
    with pytest.raises(FieldError, match=rf"^{name}=.*: needs dropout"):
        run_experiment(experiment, progress=False)
    assert not list(tmp_path.iterdir())


def test_a_stochastic_strategy_by_name_puts_dropout_where_it_is_asked_for(tmp_path):
    flags = {"model": "lenet_8_6", "epochs": 1, "levels": 0, "plan": "graph", "mc_eval": 2}
    flags |= {"calib": "vwcc", "passes": 3, "dropout_rate": 0.25, "dropout_at": "head"}
    out = tmp_path / "run"
    run = run_experiment(resolve(flags | {"out": str(out)}), progress=False)
    layers = run.ticket(0).network().layers
    (place,) = [place for place, layer in enumerate(layers) if "dropout" in layer.name]
    assert (layers[place].rate, layers[place + 1].name) == (0.25, "masked_logits")
    hyper = written(run.directory)["experiment"]["settings"]
    assert hyper == {"passes": 3, "dropout_rate": 0.25, "dropout_at": "head"}


def test_averages_over_passes_and_the_network_without_dropout_have_their_own_temperatures(tmp_path):
    flags = {"model": "lenet_8_6", "epochs": 2, "levels": 0, "plan": "graph", "mc_eval": 3}
    flags |= {"calib": "vwcc", "dropout_rate": 0.5, "out": str(tmp_path / "run")}
    run = run_experiment(resolve(flags), progress=False)
    ticket, (inputs, labels) = run.ticket(0), run.validation
    logits = ticket.model()(inputs, training=False).numpy()
    assert ticket.record["temperature"] == pytest.approx(fit_temperature(labels, logits), rel=1e-4)
    averages = ticket.predictions["val/labels"], ticket.predictions["val/logits"]
    own = fit_temperature(*averages)
    assert ticket.record["mc_temperature"] == pytest.approx(own, rel=1e-4)
    assert own != pytest.approx(ticket.record["temperature"], rel=0.1)
    scaled = measure_model(run, split="val", scaled=True, progress=False).metrics["nll"]
    assert scaled == pytest.approx(ticket.record["val_nll_scaled"], rel=1e-4)
    assert scaled == pytest.approx(metrics.nll(averages[0], averages[1] / own), rel=1e-4)


def test_what_is_no_ticket_is_refused(tmp_path):
    experiment = resolve({"ticket": str(tmp_path), "out": str(tmp_path / "run")})
    with pytest.raises(UsageError, match="is not a ticket: give RUN/tickets/level_NN"):
        run_experiment(experiment, progress=False)
    assert not list(tmp_path.iterdir())


# --- interrupted, damaged and shared runs ----------------------------------------------------------


@pytest.fixture
def copy(digits, tmp_path):
    """copy() continues a copy of the run, which a test may spoil."""
    directory = tmp_path / "copy"
    shutil.copytree(digits.directory, directory)
    flags = {"model": "lenet_10", "epochs": 1, "levels": 2, "out": str(directory)}

    def go_on(progress=False, takeover=False, **more):
        return run_experiment(resolve(flags | more), progress=progress, takeover=takeover)

    go_on.directory = directory
    return go_on


def without_times(directory):
    """The content of all files that do not depend on the time."""
    store = RunStore(directory)
    headers = [store.header(level) for level in range(store.finished())]
    for header in headers:
        del header["record"]["seconds"]
    found = directory.rglob("*.safetensors")
    tensors = {path.relative_to(directory): path.read_bytes() for path in found}
    return headers, tensors, (directory / "history.csv").read_bytes()


def test_a_missing_level_is_trained_again_and_the_others_stay(digits, copy, capfd):
    later = copy.directory / "tickets" / "level_02"
    kept = {path: path.stat().st_mtime_ns for path in later.iterdir()}
    shutil.rmtree(copy.directory / "tickets" / "level_01")
    assert len(copy(levels=0).records) == 1  # Level 0 does not need it.
    again = copy(progress=True)
    assert f"level_01 is missing in {copy.directory}; it is trained again" in capfd.readouterr().err
    assert [record["level"] for record in again.records] == [0, 1, 2]
    assert without_times(copy.directory) == without_times(digits.directory)
    assert {path: path.stat().st_mtime_ns for path in later.iterdir()} == kept


def test_rows_that_a_kill_cut_off_are_written_by_the_same_command(digits, copy):
    for name in ("metrics.csv", "history.csv"):
        path = copy.directory / name
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    copy()
    for name in ("metrics.csv", "history.csv"):
        assert (copy.directory / name).read_bytes() == (digits.directory / name).read_bytes()


def test_a_lost_record_is_written_by_the_same_command_only(digits, copy):
    (copy.directory / "experiment.json").write_bytes(b"{")
    with pytest.raises(UsageError, match=r"experiment\.json cannot be read"):
        copy(lr=0.5)
    copy()
    record = RunStore(copy.directory).experiment()
    assert record["run_id"] == RunStore(digits.directory).experiment()["run_id"]


@pytest.mark.parametrize("levels", [0, 2, 3])
def test_any_damaged_level_is_found_by_a_finished_and_by_an_extended_run(copy, levels):
    path = copy.directory / "tickets" / "level_01" / "trained.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(DamagedTicket, match=r"level_01/trained\.safetensors is damaged"):
        copy(levels=levels)


def test_a_directory_that_another_process_writes_is_refused_at_once(copy, monkeypatch, tree):
    def fails(*_, **__):
        raise AssertionError("no data is needed to refuse")

    monkeypatch.setattr("lotcal_tf.data.digits.load", fails)
    held = WriterLock(copy.directory)
    before = tree(copy.directory)
    for levels in (2, 3):
        with pytest.raises(FieldError, match="^out=.*another call in this process"):
            copy(levels=levels)
    assert tree(copy.directory) == before
    held.release()
    copy()
    assert not (copy.directory / ".writer").exists()


def test_a_directory_of_a_dead_process_elsewhere_can_be_taken_over(copy):
    owner = {"host": "another-host", "machine": "m", "pid": 1, "since": "today", "token": "t"}
    (copy.directory / ".writer").write_text(json.dumps(owner))
    with pytest.raises(FieldError, match="process 1 on another-host .*takeover=True"):
        copy()
    assert copy(takeover=True).found == 3


def test_two_experiments_started_together_never_mix(tmp_path, monkeypatch):
    """The other one begins, and even ends, between this one's first check and its first write."""
    flags = {"model": "lenet_10", "epochs": 1, "levels": 0, "out": str(tmp_path / "run")}
    load = NamedTask.load
    other = RunStore(tmp_path / "run")
    left = []

    def meanwhile(self):
        if not left:
            other.lock()
            other.begin({"run_id": "theirs", "identity": {}})
        left.append(1)
        return load(self)

    monkeypatch.setattr(NamedTask, "load", meanwhile)
    with pytest.raises(FieldError, match="another call in this process"):
        run_experiment(resolve(flags), progress=False)
    other.close()
    with pytest.raises(FieldError, match="holds another run, theirs"):
        run_experiment(resolve(flags), progress=False)
    shutil.rmtree(tmp_path / "run")
    left.clear()
    monkeypatch.setattr(other, "lock", lambda: None)  # It has ended by then.
    with pytest.raises(FieldError, match="holds another run, theirs"):
        run_experiment(resolve(flags), progress=False)
    assert RunStore(tmp_path / "run").experiment()["run_id"] == "theirs"
    assert RunStore(tmp_path / "run").finished() == 0
    assert not (tmp_path / "run" / ".writer").exists()


def test_a_run_that_is_taken_over_stops_and_keeps_its_levels(copy, monkeypatch):
    save = RunStore.save

    def taken_over(self, ticket):
        target = save(self, ticket)
        path = copy.directory / ".writer"
        path.write_text(path.read_text().replace('"token": "', '"token": "other'))
        return target

    monkeypatch.setattr(RunStore, "save", taken_over)
    with pytest.raises(TakenOver, match="finished levels are kept"):
        copy(levels=4)
    assert RunStore(copy.directory).finished() == 4
    assert (copy.directory / ".writer").exists()


def test_the_time_of_a_run_is_predicted_and_nothing_is_written(tmp_path, monkeypatch):
    """By the same search as the run's: after a level is done, the prediction is for those left."""
    found = TimeEstimate(step=1.0, example=0.01, metrics=0.0)
    monkeypatch.setattr(search, "estimate_time", lambda trainer, measure: found)
    experiment = resolve(
        {"dataset": "digits", "epochs": 2, "levels": 0, "out": str(tmp_path / "run")}
    )
    longer = dataclasses.replace(experiment, levels=2)
    steps, examples = 2 * (1237 // 60), 1237 + 2 * 200 + 360
    level = predicted_seconds(experiment)
    assert level == pytest.approx(steps + 0.01 * examples)
    assert predicted_seconds(longer) == pytest.approx(3 * level)
    assert not (tmp_path / "run").exists()
    run_experiment(experiment, progress=False)
    assert predicted_seconds(experiment) == 0.0
    assert predicted_seconds(longer) == pytest.approx(2 * level)


def test_a_time_is_not_predicted_for_the_directory_of_another_run(tmp_path):
    experiment = resolve(
        {"dataset": "digits", "epochs": 1, "levels": 0, "out": str(tmp_path / "run")}
    )
    run_experiment(experiment, progress=False)
    with pytest.raises(FieldError, match="epochs is 2 here"):
        predicted_seconds(dataclasses.replace(experiment, epochs=2))


@pytest.mark.full
@pytest.mark.parametrize("fields", [{"label_noise": 0.2}, {"dataset": "mixture_linear"}])
def test_the_time_of_runs_with_noisy_test_labels_or_known_truth_is_predicted(tmp_path, fields):
    small = {"model": "lenet_4", "epochs": 2, "levels": 1, "out": str(tmp_path / "run")}
    assert predicted_seconds(resolve({"dataset": "digits", **small, **fields})) > 0
