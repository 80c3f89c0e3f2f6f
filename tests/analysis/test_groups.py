"""Which runs are compared, what the lines are called, and what each is compared with."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from lotcal_tf.analysis.groups import group
from lotcal_tf.analysis.runs import RecordedRun, Source


def recorded(number=0, source=None, content=None, levels=2, failed="", **fields):
    """A run of two levels with some fields."""
    names = ("level", "weights", "density", "train_accuracy", "val_accuracy", "test_accuracy")
    columns = {name: np.linspace(0.0 if name == "level" else 1.0, 0.5, levels) for name in names}
    columns["level"] = np.arange(levels)
    whole = {"dataset": "tiny", "source": "tiny", "model": "lenet_5", "seed": 0, "levels": 1}
    return RecordedRun(
        Path(f"run_{number}"), whole | fields, content or {}, {}, 100, columns, failed, source
    )


def labels(runs):
    return [[setting.label for setting in one.settings] for one in group(runs)]


def test_settings_are_called_after_what_differs_in_their_group():
    vwcc = {"calib": "vwcc", "settings": {"dropout_rate": 0.1, "passes": 5}}
    other = {"calib": "vwcc", "settings": {"dropout_rate": 0.2, "passes": 5}}
    plain = [recorded(seed=seed) for seed in (0, 1)]
    assert labels(plain) == [["calib=none"]]
    assert labels([recorded(**vwcc), *plain]) == [["calib=none", "calib=vwcc"]]
    assert labels([recorded(**vwcc), recorded(**other), plain[0]]) == [
        ["calib=none", "calib=vwcc, dropout_rate=0.1", "calib=vwcc, dropout_rate=0.2"]
    ]
    assert labels([plain[0], recorded(rewind="step:5")]) == [["rewind=init", "rewind=step:5"]]
    assert labels([plain[0], recorded(rewind="none", **vwcc)]) == [
        ["calib=none, rewind=init", "calib=vwcc, rewind=none"]
    ]


def test_a_setting_has_its_finished_runs_by_seed():
    runs = [recorded(0, seed=4), recorded(1, seed=2), recorded(2, seed=3, levels=1)]
    runs.append(recorded(3, seed=5, failed="out of memory"))
    (one,) = group(runs)
    (setting,) = one.settings
    assert {seed: run.directory.name for seed, run in setting.runs.items()} == {
        4: "run_0",
        2: "run_1",
    }
    assert len(one.runs) == 4


@pytest.mark.parametrize(
    ("fields", "title"),
    [
        ({"dataset": "other"}, "other, lenet_5"),
        ({"model": "lenet_9"}, "tiny, lenet_9"),
        ({"epochs": 3, "lr": 0.5}, "tiny, lenet_5, lr=0.5, epochs=3"),
        ({"half": "a"}, "tiny, lenet_5, half=a"),
        ({"label_noise": 0.2}, "tiny, label_noise=0.2, noise_kind=symmetric"),
        ({"of_a_later_version": 1}, "tiny, lenet_5, of_a_later_version=1"),
        ({"content": {"data": "ab12"}}, "tiny, lenet_5, data (digest)=ab12"),
        ({"source": Source("vwcc", {}, 0), "ticket": "x"}, "tiny, lenet_5, start=tickets"),
    ],
)
def test_runs_that_cannot_be_compared_are_in_groups_that_are_named(fields, title):
    first, second = group([recorded(), recorded(1), recorded(seed=1, **fields)])
    assert second.title == title
    assert first.title.startswith("tiny, lenet_5") and len(first.runs) == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"seed": 1},
        {"levels": 0},
        {"data_dir": "/there", "out": "elsewhere", "plan": "xla", "threads": 1},
        {"noise_kind": "uniform"},  # without label noise it means nothing
        {"content": {"calib_source": "ab12"}},
    ],
)
def test_runs_that_differ_in_nothing_else_are_compared(fields):
    assert len(group([recorded(), recorded(**fields)])) == 1


def test_under_label_noise_network_and_difficulty_vary():
    runs = [recorded(model=name, label_noise=0.2) for name in ("lenet_5", "lenet_9")]
    (one,) = group(runs)
    assert one.has_noise and one.title == "tiny"
    assert [setting.label for setting in one.settings] == ["model=lenet_5", "model=lenet_9"]


@pytest.mark.parametrize(
    ("fields", "title"),
    [
        ({"count": "openlth"}, "count=openlth"),
        ({"noise_kind": "uniform"}, "noise_kind=uniform"),
        ({"label_noise": 0.4}, "label_noise=0.4"),
        ({"exclude_output": True}, "exclude_output=True"),
        ({"prune_rate": 0.3}, "prune_rate=0.3"),
        ({"classes": [0, 1, 2]}, "classes=0,1,2"),
    ],
)
def test_studies_of_different_definitions_are_apart_and_the_field_is_named(fields, title):
    noise = {"label_noise": 0.2, "scope": "global"}
    runs = [recorded(n, model=f"lenet_{n}", **noise) for n in (5, 6)]
    first, second = group([*runs, recorded(9, model="lenet_5", **(noise | fields))])
    assert [len(one.runs) for one in (first, second)] == [2, 1]
    assert second.title == f"tiny, {title}"


def test_the_baseline_is_none_with_the_same_other_fields():
    (one,) = group(
        [
            recorded(),
            recorded(calib="vwcc", settings={"dropout_rate": 0.1}),
            recorded(calib="vwcc", criterion="random"),
            recorded(rewind="none"),
            recorded(calib="mixup", rewind="none"),
        ]
    )
    found = {s.label: one.baseline(s) for s in one.settings}
    assert {name: base and base.label for name, base in found.items()} == {
        "calib=none, criterion=magnitude, rewind=init": None,
        "calib=none, criterion=magnitude, rewind=none": None,
        "calib=vwcc, criterion=magnitude, rewind=init": "calib=none, criterion=magnitude, rewind=init",
        "calib=vwcc, criterion=random, rewind=init": None,
        "calib=mixup, criterion=magnitude, rewind=none": "calib=none, criterion=magnitude, rewind=none",
    }


def test_each_varied_field_has_a_baseline_with_its_plain_value_and_all_else_equal():
    (one,) = group(
        [
            recorded(),
            recorded(rewind="random"),
            recorded(criterion="random"),
            recorded(calib="vwcc", rewind="random", settings={"dropout_rate": 0.1}),
            recorded(calib="vwcc", settings={"dropout_rate": 0.2}),
            recorded(calib="mixup", rewind="random"),
            recorded(calib="mixup", criterion="module:Own", settings={"power": 1}),
            recorded(calib="mixup"),
        ]
    )
    found = {
        field: {s.label: base.label for s in one.settings if (base := one.baseline(s, field))}
        for field in ("rewind", "criterion", "control")
    }
    plain, mixup = "calib=none, criterion=magnitude", "calib=mixup, criterion=magnitude"
    assert found == {
        "rewind": {
            f"{plain}, rewind=random": f"{plain}, rewind=init",
            f"{mixup}, rewind=random": f"{mixup}, rewind=init",
        },
        "criterion": {
            "calib=none, criterion=random, rewind=init": f"{plain}, rewind=init",
            "calib=mixup, criterion=module:Own, rewind=init": f"{mixup}, rewind=init",
        },
        "control": {},
    }


def test_controls_are_compared_with_tickets_found_with_the_same_hyperparameters():
    def moved(control, rate):
        source = Source("vwcc", {"dropout_rate": rate}, 0)
        return recorded(source=source, content={"run": f"{rate}"}, control=control, ticket="x")

    (one,) = group([moved("none", 0.1), moved("none", 0.2), moved("random_mask", 0.2)])
    found = {s.label: one.baseline(s, "control") for s in one.settings}
    base = found.pop("control=random_mask, tickets' dropout_rate=0.2")
    assert base.label == "control=none, tickets' dropout_rate=0.2"
    assert set(found.values()) == {None}


def test_transfers_are_compared_by_the_strategy_that_found_the_tickets():
    def moved(calib, by, seed=0, control="none"):
        content = {"run": f"tiny-lenet-{by}-{seed}"}
        fields = {"calib": calib, "control": control, "ticket": "x"}
        return recorded(source=Source(by, {}, seed), content=content, **fields)

    (one,) = group([moved("none", by, seed) for by in ("none", "vwcc") for seed in (0, 1)])
    plain, vwcc = one.settings
    assert (plain.label, vwcc.label) == ("tickets=none", "tickets=vwcc")
    assert list(vwcc.runs) == [(0, 0), (0, 1)]
    assert one.is_transfer and one.baseline(vwcc) is plain
    # Each trained by the strategy that found it; a control has a control as its baseline.
    (same,) = group(
        [moved("none", "none"), moved("vwcc", "vwcc"), moved("none", "none", control="random_mask")]
    )
    plain, control, vwcc = same.settings
    assert vwcc.label == "tickets=vwcc, calib=vwcc, control=none"
    assert same.baseline(vwcc) is plain and same.baseline(control) is None
    (mixed,) = group([moved("mixup", "none"), moved("vwcc", "vwcc")])
    assert mixed.baseline(mixed.settings[1]) is None


def test_of_several_baselines_the_one_trained_alike_is_taken():
    def moved(calib, by, number):
        fields = {"calib": calib, "ticket": "x"}
        return recorded(number, source=Source(by, {}, 0), content={"run": f"{by}"}, **fields)

    runs = [moved(calib, by, 0) for calib in ("none", "vwcc") for by in ("none", "vwcc")]
    for order in (runs, runs[::-1]):
        (one,) = group(order)
        found = {s.label: one.baseline(s) for s in one.settings}
        assert found["tickets=vwcc, calib=vwcc"].label == "tickets=none, calib=vwcc"
        assert found["tickets=vwcc, calib=none"].label == "tickets=none, calib=none"


def test_tickets_of_different_searches_are_different_settings():
    def moved(by, criterion, seed, **more):
        source = Source(by, {"criterion": criterion, **more}, seed)
        content = {"run": f"{by}-{criterion}-{seed}-{more}"}
        return recorded(source=source, content=content, ticket="x", seed=seed)

    kinds = [("none", "random", {}), ("none", "magnitude", {}),
             ("vwcc", "magnitude", {"dropout_rate": 0.1})]  # fmt: skip
    (one,) = group([moved(by, c, s, **more) for by, c, more in kinds for s in (0, 1)])
    found = {setting.label: setting for setting in one.settings}
    named = {(by, c): f"tickets={by}, tickets' criterion={c}" for by, c, _ in kinds}
    assert {*found} == {*named.values()}
    assert all(list(setting.runs) == [(0, 0), (1, 1)] for setting in found.values())
    vwcc, plain = (found[named[by, "magnitude"]] for by in ("vwcc", "none"))
    assert one.baseline(vwcc) is plain
    assert one.baseline(found[named["none", "random"]]) is None


def test_single_tickets_are_compared_by_their_level():
    def moved(number, source_level):
        run = recorded(number, source=Source("none", {}, 0), ticket="x")
        columns = run.columns | {"source_level": np.array([source_level, np.nan])}
        return dataclasses.replace(run, columns=columns)

    assert labels([moved(0, 3.0), moved(1, 5.0)]) == [["ticket_level=3", "ticket_level=5"]]
    (one,) = group([moved(0, 3.0), moved(1, 3.0)])
    assert len(one.settings[0].runs) == 2, "no run is lost"


def test_the_baseline_has_the_same_hyperparameters_of_the_criterion():
    custom = {"criterion": "module:Own"}
    (one,) = group(
        [
            recorded(settings={"power": 1}, **custom),
            recorded(settings={"power": 2}, **custom),
            recorded(calib="vwcc", settings={"power": 2, "dropout_rate": 0.1}, **custom),
        ]
    )
    found = {s.label: one.baseline(s) for s in one.settings}
    assert found["calib=vwcc"].settings == {"power": 2}
    assert found["calib=none, power=1"] is found["calib=none, power=2"] is None


def test_the_source_of_an_own_class_is_named_only_if_it_has_several():
    def of(calib, source, number, **fields):
        content = {"calib_source": source} if source else {}
        return recorded(number, calib=calib, content=content, **fields)

    runs = [of("none", "", 0), of("mine:Own", "abc", 1), of("mine:Own", "abc", 2, seed=1)]
    assert labels(runs) == [["calib=none", "calib=mine:Own"]]
    # With other code, it is another setting, and so it is called.
    runs.append(of("mine:Own", "def", 3))
    found = ["calib=none", *(f"calib=mine:Own, calib_source={s}" for s in ("abc", "def"))]
    assert labels(runs) == [found]


def test_a_hyperparameter_of_the_criterion_is_named_for_every_strategy():
    def tried(calib, kind):
        settings = {"gradient_of": kind}
        return recorded(calib=calib, criterion="gradient", settings=settings)

    runs = [tried("none", "loss"), tried("none", "calibration"), tried("vwcc", "loss")]
    assert labels(runs) == [
        [
            "calib=none, gradient_of=loss",
            "calib=none, gradient_of=calibration",
            "calib=vwcc, gradient_of=loss",
        ]
    ]


def test_a_run_from_before_a_hyperparameter_existed_has_its_default():
    runs = [recorded(calib="lwcc", settings={"calib_weight": 0.3}),
            recorded(calib="lwcc", settings={"calib_weight": 0.3, "lwcc_form": "additive"}, seed=1)]  # fmt: skip
    assert labels(runs) == [["calib=lwcc"]]


def test_hyperparameters_of_the_run_that_found_the_tickets_are_in_the_name():
    runs = [
        recorded(source=Source("vwcc", {"dropout_rate": rate}, 0), ticket="x")
        for rate in (0.1, 0.2)
    ]
    assert labels(runs) == [
        ["tickets=vwcc, tickets' dropout_rate=0.1", "tickets=vwcc, tickets' dropout_rate=0.2"]
    ]


def of_model(seed, weights, number=0, **fields):
    """A run of a model that was passed as an object."""
    return recorded(number, seed=seed, content={"initial_weights": weights}, **fields)


def test_initial_weights_that_change_with_the_seed_are_replicates():
    vwcc = {"calib": "vwcc", "settings": {"dropout_rate": 0.1}}
    runs = [of_model(0, "a"), of_model(1, "b"), of_model(0, "a", **vwcc), of_model(1, "c", **vwcc)]
    (one,) = group(runs)
    assert [sorted(setting.runs) for setting in one.settings] == [[0, 1], [0, 1]]
    assert one.seeds_differ_in_weights  # "b" and "c"
    (alike,) = group(runs[:3])
    assert not alike.seeds_differ_in_weights


def test_models_that_differ_at_the_same_seed_are_apart():
    runs = [of_model(0, "a"), of_model(0, "b", 1), of_model(0, "a", 2, rewind="none")]
    first, second = group([*runs, recorded(3, epochs=9)])[:2]
    assert [len(one.runs) for one in (first, second)] == [2, 1]
    assert first.data == second.data
    assert "initial_weights (digest)=a" in first.title
    assert "initial_weights (digest)=b" in second.title
