"""Carrying out an experiment by name: from data, model or tickets to a run, and its best ticket's files."""

import dataclasses
import json

import numpy as np
import pytest

from lotcal_tf.config.recipes import resolve
from lotcal_tf.errors import FieldError, UsageError
from lotcal_tf.lottery.run import export_best, run_experiment
from lotcal_tf.lottery.store import RunStore


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


def test_a_finished_experiment_loads_no_data_and_exports_once(digits, monkeypatch, tree):
    done = export_best(digits)
    assert done.examples == 360
    before = tree(digits.directory)

    def fails(*_, **__):
        raise AssertionError("a finished run needs no data")

    monkeypatch.setattr("lotcal_tf.data.digits.load", fails)
    flags = {"model": "lenet_10", "epochs": 1, "levels": 2, "out": str(digits.directory)}
    for levels in (2, 1):
        again = run_experiment(resolve(flags | {"levels": levels}), progress=False)
        assert again.found == len(again.records) == 3
        assert export_best(again) == done
    assert tree(digits.directory) == before


def test_a_level_the_run_does_not_have(digits):
    for level in (-1, 3):
        with pytest.raises(UsageError, match=f"level {level}: the run has levels 0 … 2"):
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
    with pytest.raises(FieldError, match="holds another experiment"):
        run_experiment(other, progress=False)


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
    with pytest.raises(FieldError, match="holds another experiment"):
        run_experiment(resolve(fields | {"control": "random_mask"}), progress=False)
    with pytest.raises(FieldError, match=r"levels=3: .* has 3 finished levels: at most 2"):
        run_experiment(resolve(fields | {"levels": 3}), progress=False)


def test_dropout_of_one_strategy_does_not_drop_in_another(tmp_path):
    flags = {"model": "lenet_8_6", "epochs": 1, "levels": 0, "plan": "graph", "calib": "vwcc"}
    found = run_experiment(resolve(flags | {"out": str(tmp_path / "found")}), False)
    rates = {}
    for calib in ("none", "vwcc", "lwcc_si"):
        more = {"calib": calib, "plan": "graph", "epochs": 1, "ticket": str(found.directory)}
        more |= {"dropout_rate": 0.3} if calib == "lwcc_si" else {}
        out = tmp_path / calib
        run = run_experiment(resolve(more | {"out": str(out)}), progress=False)
        layers = run.ticket(0).network().layers
        rates[calib] = {layer.rate for layer in layers if "dropout" in layer.name}
        told = written(out)["transfer"]["dropout"]
        assert (
            told
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
    line = rf"^{name}=.*: needs dropout, and the ticket's network would have none: take a strategy that"
    with pytest.raises(FieldError, match=line):
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
    hyper = written(run.directory)["realised"]["hyperparameters"]
    assert hyper == {"passes": 3, "dropout_rate": 0.25, "dropout_at": "head"}


def test_the_best_ticket_is_exported_raw_or_scaled(digits):
    assert export_best(digits, scaled=False).parity["temperature"] == 1
    done = export_best(digits)
    assert done.parity["temperature"] == digits.best.record["temperature"] != 1
    assert export_best(digits) == done


def test_what_is_no_ticket_is_refused(tmp_path):
    experiment = resolve({"ticket": str(tmp_path), "out": str(tmp_path / "run")})
    with pytest.raises(UsageError, match="is no ticket: give RUN/tickets/level_NN"):
        run_experiment(experiment, progress=False)
    assert not list(tmp_path.iterdir())
