"""Means, intervals, paired differences and the ranking against hand calculation."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from lotcal_tf.analysis.comparison import (
    SELECTED,
    Place,
    curve,
    places,
    rank,
    worse_on_validation,
)
from lotcal_tf.analysis.groups import group
from lotcal_tf.analysis.runs import RecordedRun
from lotcal_tf.analysis.sections import ranking

DENSITIES = [1.0, 0.5, 0.22, 0.1]
# Student's t with 1 and 2 degrees of freedom, 97.5 %.
T_1, T_2 = 12.706204736, 4.302652730


def run(seed=0, calib="none", densities=DENSITIES, settings=None, **columns):
    """A finished run of four levels; its columns are 0.5 where none are given."""
    names = ("train_accuracy", "val_accuracy", "test_accuracy", "val_nll", "val_nll_se")
    found = {name: [0.5] * len(densities) for name in (*names, "val_ece", "test_nll", "test_ece")}
    found |= {"level": range(len(densities)), "weights": [1000 * d for d in densities]}
    found |= {"density": densities} | columns
    fields = {"dataset": "tiny", "source": "tiny", "seed": seed, "calib": calib}
    fields |= {"levels": len(densities) - 1, "settings": settings or {}}
    arrays = {name: np.array(list(values), float) for name, values in found.items()}
    return RecordedRun(Path(f"{calib}-{seed}"), fields, {}, {}, 100, arrays)


def only(*runs):
    (one,) = group(runs)
    return one


def test_the_nearest_level_within_a_tenth_stands_for_a_density():
    one = run(val_nll=[0.1, 0.4, 0.3, 0.5], val_nll_se=[0.01] * 4)
    assert [Place(d).level(one) for d in (1.0, 0.21, 0.2, 0.135, 0.11, 0.46)] == [
        *(0, 2, 2, None, 3, 1)
    ]
    assert SELECTED.level(one) == 2
    found = places(only(one), None)
    assert [place.title for place in found] == ["100 %", "21 %", "selected"]
    assert [place.title for place in places(only(one), [0.5, 0.3])] == ["50 %", "selected"]
    assert Place(0.036).title == "3.6 %"


def test_curves_are_means_with_t_intervals():
    nll = [[0.5, 0.3, 0.2, 0.1], [0.7, 0.3, 0.4, 0.3], [0.9, 0.3, 0.6, 0.8]]
    others = [DENSITIES, DENSITIES, [1.0, 0.5, 0.22, 0.4]]
    one = only(
        *(run(n, test_nll=v, densities=d) for n, (v, d) in enumerate(zip(nll, others, strict=True)))
    )
    (setting,) = one.settings
    found = curve(setting, "test_nll")
    assert found.mean == pytest.approx([0.7, 0.3, 0.4, 0.4])
    half = T_2 * 0.2 / np.sqrt(3)  # standard deviation 0.2
    assert (found.low[0], found.high[0]) == pytest.approx((0.7 - half, 0.7 + half))
    assert (found.low[1], found.high[1]) == pytest.approx((0.3, 0.3))
    assert found.density == pytest.approx([1, 0.5, 0.22, (0.1 * 0.1 * 0.4) ** (1 / 3)])
    alone = curve(only(run()).settings[0], "test_nll")
    assert np.isnan(alone.low).all() and alone.mean == pytest.approx([0.5] * 4)
    assert curve(setting, "test_of_later") is None


def test_levels_that_only_some_seeds_have_are_averaged_over_these():
    runs = [run(n, test_nll=[0.5, 0.3, 0.2, 0.1]) for n in (0, 1)]
    short = {name: values[:3] for name, values in runs[1].columns.items()}
    short |= {"test_nll": np.array([0.7] * 3)}
    fields = runs[1].fields | {"levels": 2}
    one = only(runs[0], dataclasses.replace(runs[1], columns=short, fields=fields))
    found = curve(one.settings[0], "test_nll")
    assert found.mean == pytest.approx([0.6, 0.5, 0.45, 0.1])
    assert runs[1].metric("test_nll", 4) is None


def test_a_column_that_an_older_run_lacks_is_averaged_over_the_others():
    one = only(run(0, test_brier=[0.4] * 4), run(1))
    found = curve(one.settings[0], "test_brier")
    assert found.mean == pytest.approx([0.4] * 4) and np.isnan(found.low).all()


def warned(*runs, densities=(1.0, 0.5)):
    one = only(*runs)
    return worse_on_validation(one, places(one, densities))


def test_a_strategy_that_is_worse_on_validation_data_is_named_with_intervals():
    """ECE: differences 0.10 and 0.12 (means over two densities); NLL: 0.2 and 0.2."""
    plain = [run(seed, val_ece=[0.1] * 4, val_nll=[1.0] * 4) for seed in (0, 1)]
    vwcc = [
        run(0, "vwcc", val_ece=[0.1, 0.3, 0, 0], val_nll=[1.1, 1.3, 0, 0]),
        run(1, "vwcc", val_ece=[0.2, 0.24, 0, 0], val_nll=[1.2, 1.2, 0, 0]),
    ]
    (line,) = warned(*plain, *vwcc)
    half = T_1 * np.std([0.1, 0.12], ddof=1) / np.sqrt(2)
    assert f"0.1100 [−{half - 0.11:.4f}, {0.11 + half:.4f}] and 0.2000 [0.2000, 0.2000]" in line
    assert line.startswith("calib=vwcc has a higher validation ECE and NLL than calib=none")
    assert "2 densities and 2 seeds" in line and "includes 0" in line
    (line,) = warned(plain[0], vwcc[0])
    assert (
        "by 0.1000 and 0.2000, mean over 2 densities and 1 seed. One seed has no interval" in line
    )


def test_a_strategy_with_one_lower_metric_is_not_named():
    plain = run(0, val_ece=[0.1] * 4, val_nll=[1.0] * 4)
    better = run(0, "vwcc", val_ece=[0.2] * 4, val_nll=[0.9] * 4)
    assert warned(plain, better) == []
    assert warned(better) == []


def test_a_strategy_that_is_worse_beyond_chance_is_named_so():
    runs = [run(seed, val_ece=[0.1] * 4, val_nll=[1.0] * 4) for seed in range(3)]
    runs += [run(s, "nba", val_ece=[0.2] * 4, val_nll=[1.2] * 4) for s in range(3)]
    (line,) = warned(*runs)
    assert line.endswith("It makes calibration worse here.")


def test_settings_are_ranked_by_validation_data_at_the_pruned_densities():
    def tried(calib, nll, accuracy, seed=0, **settings):
        # The dense level and the one of 10 % are not among the densities.
        return run(seed, calib, val_nll=[9.0, nll, nll + 0.2, 9.0],
                   val_accuracy=[0.1, accuracy, accuracy, 0.1], settings=settings)  # fmt: skip

    one = only(
        tried("none", 0.30, 0.950, seed=0),
        tried("none", 0.40, 0.950, seed=1),
        tried("vwcc", 0.20, 0.947, dropout_rate=0.3),  # too inaccurate by 0.1 points
        tried("vwcc", 0.25, 0.948, dropout_rate=0.1),  # just accurate enough
        tried("vwcc", 0.26, 0.960, dropout_rate=0.2),
        tried("mixup", 0.60, 0.950),
    )
    settings = [(one, setting) for setting in one.settings]
    found = rank(settings, "val_nll", [1.0, 0.5, 0.22])
    assert [(r.setting.label, round(r.value.mean, 6), r.verdict) for r in found] == [
        ("calib=vwcc, dropout_rate=0.3", 0.30, "accuracy too low"),
        ("calib=vwcc, dropout_rate=0.1", 0.35, "best"),
        ("calib=vwcc, dropout_rate=0.2", 0.36, ""),
        ("calib=none", 0.45, "best"),
        ("calib=mixup", 0.70, "best"),
    ]
    plain = found[3]
    half = T_1 * np.std([0.4, 0.5], ddof=1) / np.sqrt(2)
    assert (plain.value.n, plain.value.low) == (2, pytest.approx(0.45 - half))
    assert found[0].value.low is None
    by_accuracy = rank(settings, "val_accuracy", [0.5, 0.22])
    assert by_accuracy[0].setting.label == "calib=vwcc, dropout_rate=0.2"
    # Only the dense level: it counts if there is no other.
    assert rank(settings, "val_nll", [1.0])[0].value.mean == 9.0
    assert rank(settings, "val_aurc", None) == []


def test_the_accuracy_that_a_setting_may_lose_is_paired_by_seed():
    """Seed 0 has a lower accuracy with every strategy; `vwcc` was run with this seed only."""
    accuracies = {0: 0.90, 1: 0.95}
    plain = [run(seed, val_accuracy=[a] * 4) for seed, a in accuracies.items()]
    one = only(*plain, run(0, "vwcc", val_accuracy=[0.90] * 4))
    found = rank([(one, setting) for setting in one.settings], "val_nll", [0.5])
    assert [ranked.verdict for ranked in found] == ["best", "best"]


def test_a_run_with_more_levels_hides_neither_warnings_nor_the_default_ranking():
    longer = [1.0, 0.5, 0.21, 0.135]
    plain = [run(0, densities=longer), run(1, densities=longer[:3])]
    worse = {"val_ece": [0.6] * 3, "val_nll": [0.7] * 3}
    runs = [*plain, *(run(seed, "vwcc", longer[:3], **worse) for seed in (0, 1))]
    (line,) = warned(*runs, densities=None)
    assert "by 0.1000 [0.1000, 0.1000] and 0.2000" in line and "2 densities" in line
    _, rows = ranking(group(runs), "val_nll", None)
    assert {(row.setting, row.n, row.at) for row in rows} == {
        ("calib=none", 2, "21 %"),
        ("calib=vwcc", 2, "21 %"),
    }


def test_mixtures_of_another_difficulty_are_ranked_apart():
    def mixture(calib, nu, nll):
        made = run(0, calib, val_nll=[nll] * 4)
        more = {"source": "mixture_linear", "nu": nu, "label_noise": 0.2}
        return dataclasses.replace(made, fields={**made.fields, **more})

    runs = [mixture(c, nu, nu + n) for nu in (0.1, 0.3) for n, c in enumerate(("none", "vwcc"))]
    chapter, _ = ranking(group(runs), "val_nll", None)
    assert [section.title[-8:] for section in chapter.sections] == [", nu=0.1", ", nu=0.3"]
    assert all(len(section.parts[0].rows) == 3 for section in chapter.sections)


def test_groups_that_differ_in_augmentation_are_ranked_together():
    other = run(val_nll=[0.4] * 4)
    other = dataclasses.replace(other, fields={**other.fields, "augment": "crop_flip"})
    chapter, rows = ranking(group([run(), other]), "val_nll", None)
    assert len(chapter.sections) == 1 and len(rows) == 2


def test_a_ranking_without_finished_runs_says_so():
    short = run()
    short = dataclasses.replace(short, fields={**short.fields, "levels": 9})
    chapter, _ = ranking(group([short]), "val_nll", None)
    assert "No run is finished" in chapter.about[0].lines[0]


def test_groups_with_other_densities_are_ranked_in_tables_of_their_own():
    """A mean over 50 and 22 % says nothing about one over 50 % alone."""
    short = run(val_nll=[9.0, 0.1], densities=[1.0, 0.5])
    short = dataclasses.replace(short, fields={**short.fields, "epochs": 9})
    long = [run(val_nll=[9.0, 0.2, 0.4, 0.4])]
    long.append(dataclasses.replace(run(), fields={**run().fields, "epochs": 8}))
    chapter, rows = ranking(group([short, *long]), "val_nll", [1.0, 0.5, 0.22])
    found = {(row.at, round(row.value, 6)) for row in rows}
    assert found == {("50 %", 0.1), ("50 %+22 %", 0.3), ("50 %+22 %", 0.5)}
    assert len(chapter.sections) == 2


def test_a_setting_that_lacks_a_density_is_named_and_not_ranked():
    runs = [run(val_nll=[9.0, 0.2, 0.4, 0.4]), run(0, "vwcc", [1.0, 0.5], val_nll=[9.0, 0.1])]
    chapter, rows = ranking(group(runs), "val_nll", [1.0, 0.5, 0.22])
    assert [row.setting for row in rows] == ["calib=none"]
    (section,) = chapter.sections
    assert "calib=vwcc" in section.parts[1].lines[0]
