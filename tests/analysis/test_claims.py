"""The findings on each claim against hand calculation, and what is undecided."""

import dataclasses
import math
from pathlib import Path

import pytest

from lotcal_tf.analysis.claims import CLAIMS, Finding, judge, over_seeds, slope
from lotcal_tf.analysis.groups import group
from lotcal_tf.analysis.label_noise import studies
from lotcal_tf.analysis.runs import Source
from lotcal_tf.analysis.statistics import summarise

OURS, PUBLISHED = "(by validation)", "(by test, as published)"


@pytest.fixture
def noisy(sized):
    """noisy(best, …) → a run under label noise whose best ticket has `best` weights."""

    def make(best, start=1000, model="lenet_5", seed=0, classes=None, columns=None, **fields):
        run = sized(best, start=start, model=model, seed=seed, **(columns or {}))
        whole = {**run.fields, "dataset": "tiny", "label_noise": 0.2, "scope": "global"}
        whole |= fields
        directory = run.directory.with_name(f"{model}-{seed}-{best}-{len(fields)}-{classes}")
        return dataclasses.replace(run, fields=whole, classes=classes, directory=directory)

    return make


def findings(runs, claim, what=""):
    return [f for f in judge(studies(group(runs))) if f.claim == claim and what in f.what]


def test_verdicts():
    def verdict(values, limits=(0.5, 2.0)):
        return Finding("a", "", "", summarise(values), limits, "more").verdict

    assert verdict([1.0, 1.1, 1.0]) == "holds"
    assert verdict([3.0, 3.1, 3.0]) == verdict([0.1, 0.11]) == "does not hold"
    # t(0.975, 1) is 12.7: two seeds that differ by 0.5 have an interval of ± 3.2.
    assert verdict([1.0, 1.5]).startswith("undecided: needs more seeds")
    # Equal sizes of two seeds are no proof: sizes lie on a grid of levels.
    assert verdict([1.0, 1.0]).startswith("undecided: needs more seeds")
    assert verdict([1.0]) == "undecided: needs at least two seeds"
    assert verdict([]) == "undecided: needs more"
    assert verdict([1.0, 1.0], None) == ""


def test_a_seed_counts_once(noisy):
    runs = [noisy(100), noisy(400, model="lenet_6"), noisy(900, seed=1)]
    sizes = {run.directory: float(run.weights[3]) for run in runs}
    plain = over_seeds(runs, lambda run: sizes[run.directory])
    assert (plain.n, plain.mean) == (2, (250 + 900) / 2)
    ratios = over_seeds(runs, lambda run: sizes[run.directory], ratio=True)
    assert ratios.mean == pytest.approx(math.sqrt(200 * 900))


def test_a_compares_the_spreads_of_best_and_starting_sizes(noisy):
    runs = [
        noisy(100, seed=0),
        noisy(200, start=8000, model="lenet_40", seed=0),
        noisy(100, seed=1),
        noisy(202, start=8000, model="lenet_40", seed=1),
        # Too little for the first number: the starting sizes differ by a factor of 2 only.
        noisy(100, start=3000, model="lenet_3", seed=2, nu=0.5),
        noisy(100, start=6000, model="lenet_6", seed=2, nu=0.5),
        # Another architecture has a spread of its own; one width has none.
        noisy(9, start=500, model="lenet_5_100", seed=0),
    ]
    best, relative = findings(runs, "a", OURS)
    mean = math.sqrt(2 * 2.02)
    assert (best.found.n, best.found.mean, best.verdict) == (2, pytest.approx(mean), "holds")
    assert (relative.found.n, relative.found.mean) == (
        3,
        pytest.approx((mean**2 / 8**2 / 2) ** (1 / 3)),
    )


def test_b_takes_the_ratio_and_the_slope_of_errors(noisy):
    def run(start, full, best, seed):
        columns = {"test_accuracy": [1 - full, 0.5, 0.5, 1 - best, 0.4]}
        return noisy(100, start=start, model=f"lenet_{start}", seed=seed, columns=columns)

    errors = [(1000, 0.2, 0.1), (2000, 0.3, 0.1), (3000, 0.4, 0.1)]
    runs = [run(*one, 0) for one in errors]
    runs += [run(start, full, best + 0.001 * full, 1) for start, full, best in errors]
    for rule in (OURS, PUBLISHED):
        ratio, gradient = findings(runs, "b", rule)
        expected = [best / full + more for more in (0, 0.001) for _, full, best in errors]
        assert ratio.found.mean == pytest.approx(math.prod(expected) ** (1 / 6))
        assert gradient.found.mean == pytest.approx(0.0005)
        assert ratio.verdict == gradient.verdict == "holds"
    # By test, the best pruned network counts that is worse than the full one.
    runs = [run(1000, 0.2, best, seed) for seed, best in enumerate((0.3, 0.302))]
    ratio, _ = findings(runs, "b", PUBLISHED)
    mean = math.sqrt(0.3 * 0.302) / 0.2
    assert (ratio.found.mean, ratio.verdict) == (pytest.approx(mean), "does not hold")
    # No error among 1,000 test examples is half an error.
    runs = [run(1000, 0.2, 0.0, seed) for seed in (0, 1)]
    assert findings(runs, "b", PUBLISHED)[0].found is None
    runs = [dataclasses.replace(one, test_examples=1000) for one in runs]
    assert findings(runs, "b", PUBLISHED)[0].found.mean == pytest.approx(0.0005 / 0.2)
    assert slope([(0, 1), (1, 3), (2, 5)]) == pytest.approx(2)
    assert slope([(n, 0.1) for n in (0.1, 0.2, 0.7)]) == 0
    assert slope([(0, 1), (1, 3)]) is slope([(1, 1), (1, 2), (1, 3)]) is None


def mixtures(noisy, **of_xor):
    linear = {"source": "mixture_linear", "nu": 0.6}
    xor = {"source": "mixture_xor", "nu": 0.6, "label_noise": 0.25, **of_xor}
    return [noisy(size, seed=s, **linear) for s, size in enumerate((100, 200))] + [
        noisy(size, seed=s, **xor) for s, size in enumerate((200, 400))
    ]


def test_c_pairs_the_mixtures_by_difficulty_network_and_seed(noisy):
    found = findings(mixtures(noisy), "c", OURS)
    assert [(f.found.n, f.found.mean, f.verdict) for f in found] == [(2, pytest.approx(2), "holds")]
    (found,) = findings(mixtures(noisy, nu=0.7), "c", OURS)
    assert found.found is None and "equal nu" in found.verdict


def test_c_compares_every_pair_of_label_noises_by_itself(noisy):
    """A second share of noise used to take the place of the first one."""
    runs = mixtures(noisy)
    other = {"source": "mixture_linear", "nu": 0.6, "label_noise": 0.1}
    runs += [noisy(size, seed=seed, **other) for seed, size in enumerate((20, 40))]
    found = findings(runs, "c", OURS)
    assert sorted(round(one.found.mean, 6) for one in found) == [2, 10]
    assert [one.found.n for one in found] == [2, 2] and len({one.where for one in found}) == 2


@pytest.mark.parametrize(
    "fields", [{"count": "openlth"}, {"prune_rate": 0.3}, {"noise_kind": "uniform"}]
)
def test_runs_of_different_definitions_are_not_compared_and_the_field_is_named(noisy, fields):
    (found,) = findings(mixtures(noisy, **fields), "c")
    assert found.found is None
    assert found.verdict.endswith(f"and agree in {next(iter(fields))}")


def test_transfers_of_tickets_with_other_hyperparameters_are_other_studies(noisy):
    runs = [
        dataclasses.replace(
            noisy(100, seed=seed, ticket="x"),
            source=Source("vwcc", {"dropout_rate": rate}, seed),
            content={"run": f"{rate}-{seed}"},
            directory=Path(f"{rate}-{seed}"),
        )
        for rate in (0.05, 0.2)
        for seed in (0, 1)
    ]
    found = studies(group(runs))
    assert [len(one.study.runs) for one in found] == [2, 2]
    assert len({one.title for one in found}) == 2


def test_titles_of_studies_differ_even_if_the_data_has_brackets(noisy):
    runs = [noisy(100, dataset="mix (a)", epochs=epochs) for epochs in (1, 2)]
    assert [one.title for one in studies(group(runs))] == ["mix (a)", "mix (a) (2)"]


def test_d_is_the_slope_over_the_number_of_classes(noisy):
    def run(number, size, seed, **fields):
        return noisy(size, seed=seed, classes=number, **fields)

    def over_subsets(size):
        subsets = [(5, (0, 1, 2, 3, 4)), (6, (0, 1, 2, 3, 4, 5)), (10, ())]
        found = [run(n, size(n) * (1 + s / 10), s, classes_=c) for s in (0, 1) for n, c in subsets]
        return [
            dataclasses.replace(one, fields={n.rstrip("_"): v for n, v in one.fields.items()})
            for one in found
        ]

    runs = over_subsets(lambda n: 10 * n)
    (found,) = findings(runs, "d", OURS)
    assert (found.found.n, found.found.mean) == (2, pytest.approx(10.5))
    assert found.verdict == "holds"
    (found,) = findings(over_subsets(lambda n: 1000 - 10 * n), "d", OURS)
    assert (found.found.mean, found.verdict) == (pytest.approx(-10.5), "does not hold")
    (found,) = findings(runs[:2], "d", OURS)
    assert "three numbers of classes" in found.verdict
    (found,) = findings(runs[:1], "d")
    assert "three numbers of classes" in found.verdict and found.where == ""


@pytest.mark.parametrize(
    ("sizes", "compared"), [((500, 600, 1000), True), ((500, 500, 500), False)]
)
def test_d_compares_equal_numbers_of_examples_per_class(noisy, sizes, compared):
    runs = [
        noisy(10 * number + seed, seed=seed, classes=number, train_size=size)
        for seed in (0, 1)
        for number, size in zip((5, 6, 10), sizes, strict=True)
    ]
    subsets = [{**run.fields, "classes": list(range(run.classes))} for run in runs]
    pairs = zip(runs, subsets, strict=True)
    found, *_ = findings([dataclasses.replace(run, fields=own) for run, own in pairs], "d")
    assert (found.found is not None) == compared


def test_other_data_is_not_named_as_a_difference(noisy):
    runs = [noisy(100, classes=10), noisy(50, classes=2, source="other", count="openlth")]
    (found,) = findings(runs, "d")
    assert found.found is None and "agree in" not in found.verdict


def test_e_compares_architectures_whose_training_may_differ(noisy):
    runs = [
        *(noisy(100, seed=seed) for seed in (0, 1)),
        *(noisy(400, model="lenet_50", start=9000, seed=seed) for seed in (0, 1)),
        *(noisy(300 + seed, model="resnet8_2", start=600, seed=seed, lr=0.5) for seed in (0, 1)),
    ]
    (found,) = findings(runs, "e", OURS)
    assert found.what == f"best size, resnet8_W / lenet_W {OURS}"
    assert found.found.mean == pytest.approx(math.sqrt(300 * 301) / 200)
    assert found.verdict == "holds"
    other = [
        dataclasses.replace(one, fields={**one.fields, "count": "openlth"}) for one in runs[-2:]
    ]
    (found,) = findings([*runs[:-2], *other], "e")
    assert found.verdict.endswith("agree in count")


def test_e_compares_every_training_of_an_architecture_by_itself(noisy):
    runs = [
        *(noisy(100, seed=seed) for seed in (0, 1)),
        *(noisy(25, seed=seed, lr=0.01) for seed in (0, 1)),
        *(noisy(100, model="resnet8_2", seed=seed, lr=0.5) for seed in (0, 1)),
    ]
    found = findings(runs, "e", OURS)
    assert sorted(round(one.found.mean, 6) for one in found) == [1, 4]


def test_f_compares_the_best_ticket_with_the_full_and_the_small_dense_network(noisy):
    kl = "test_kl_true"
    # The test error is lowest at level 2, the validation error at level 3.
    accuracy = {"test_accuracy": [0.7, 0.7, 0.9, 0.8, 0.5]}
    narrow = accuracy | {kl: [0.2, 1, 1, 0.2, 1]}
    wide = accuracy | {kl: [0.9, 1, 0.3, 0.1, 1]}
    runs = [noisy(90, start=1000, seed=seed, columns=narrow) for seed in (0, 1)]
    runs += [noisy(100, start=9000, model="lenet_45", seed=seed, columns=wide) for seed in (0, 1)]
    full, small, full_by_test, small_by_test = findings(runs, "f", "KL")
    assert full.found.mean == pytest.approx(math.sqrt(1 * 1 / 9))
    assert small.found.mean == pytest.approx(0.5)
    assert full_by_test.found.mean == pytest.approx(math.sqrt(1 / 0.2 * 0.3 / 0.9))
    assert small_by_test.found.mean == pytest.approx(0.3 / 0.2)
    full, small, *_ = findings(runs, "f", "½ Σ |p* − p|")
    assert full.found is small.found is None and "known conditionals" in full.verdict


def test_g_locates_the_lowest_ece_relative_to_the_best_size(noisy):
    columns = {"test_ece": [0.1, 0.2, 0.3, 0.4, 0], "test_noisy_ece": [0.3, 0.2, 0.01, 0.1, 0.5]}
    runs = [noisy(size, seed=seed, columns=columns) for seed, size in enumerate((320, 322))]
    clean, noisy_labels = (f for f in findings(runs, "g") if OURS in f.what)
    best = math.sqrt(320 * 322)
    assert (clean.found.mean, clean.verdict) == (pytest.approx(1000 / best), "")
    assert (noisy_labels.found.mean, noisy_labels.verdict) == (pytest.approx(600 / best), "holds")


def test_every_claim_has_a_finding_even_without_any_best_ticket(recorded_run):
    run = recorded_run([1000, 800, 600])
    run = dataclasses.replace(run, fields={**run.fields, "dataset": "tiny", "label_noise": 0.2})
    found = judge(studies(group([run])))
    assert list(dict.fromkeys(f.claim for f in found)) == list(CLAIMS)
    assert all(f.verdict.startswith("undecided: needs") for f in found)
