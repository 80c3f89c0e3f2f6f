"""Paired intervals, compared with formulas and with simulations of known truth."""

import numpy as np
import pytest

from lotcal_tf import metrics
from lotcal_tf.metrics.intervals import LEVEL

DRAW = np.random.default_rng(5)
LOGITS = DRAW.normal(size=(300, 5)) * 2
LABELS = np.where(DRAW.random(300) < 0.7, LOGITS.argmax(1), DRAW.integers(0, 5, 300))
OTHERS = LOGITS * 1.1 + DRAW.normal(size=LOGITS.shape) * 0.3

BOOTSTRAPPED = ("ece", "debiased_ece", "mce", "classwise_ece", "adaptive_ece", "aurc")


def overconfidence(labels, logits):
    predicted, confidence = metrics.confidence(logits)
    return confidence.mean() - (predicted == labels).mean()


def test_differences_are_those_of_the_metrics():
    found = metrics.paired_intervals(LABELS, LOGITS, OTHERS, bins=7)
    assert list(found) == ["accuracy", "nll", "brier", "overconfidence", "ece"]
    for name, interval in found.items():
        options = {"bins": 7} if name == "ece" else {}
        metric = overconfidence if name == "overconfidence" else getattr(metrics, name)
        before, after = (metric(LABELS, z, **options) for z in (LOGITS, OTHERS))
        assert interval.difference == pytest.approx(after - before, abs=1e-12)
        middle = (interval.low + interval.high) / 2
        assert middle == pytest.approx(interval.difference, abs=1e-12)


def test_means_have_the_interval_of_paired_differences():
    def examples(logits):
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        truth = np.eye(5)[LABELS]
        return {
            "accuracy": logits.argmax(1) == LABELS,
            "nll": -np.log((p * truth).sum(1)),
            "brier": ((p - truth) ** 2).sum(1),
            "overconfidence": p.max(1) - (logits.argmax(1) == LABELS),
        }

    found = metrics.paired_intervals(LABELS, LOGITS, OTHERS)
    before, after = examples(LOGITS), examples(OTHERS)
    assert LEVEL == 0.99
    for name in before:
        changes = after[name].astype(float) - before[name]
        half = 2.5758293 * changes.std() / np.sqrt(300)
        assert found[name].high - found[name].difference == pytest.approx(half)


def test_the_ece_has_a_paired_bootstrap():
    draw = np.random.default_rng(8)
    rises = []
    for _ in range(1500):
        chosen = draw.integers(300, size=300)
        y, first, second = LABELS[chosen], LOGITS[chosen], OTHERS[chosen]
        rises.append(metrics.ece(y, second) - metrics.ece(y, first))
    found = metrics.paired_intervals(LABELS, LOGITS, OTHERS)["ece"]
    # Both estimate the same standard error, within 4 % of simulation error.
    assert (found.high - found.low) / 2 == pytest.approx(2.5758293 * np.std(rises), rel=0.1)


def test_equal_predictions_differ_by_nothing_and_results_repeat():
    same = metrics.paired_intervals(LABELS, LOGITS, LOGITS)
    assert {(one.difference, one.low, one.high) for one in same.values()} == {(0, 0, 0)}
    first, second = (metrics.paired_intervals(LABELS, LOGITS, OTHERS) for _ in range(2))
    assert first == second


def test_one_example_has_an_interval_without_width():
    found = metrics.paired_intervals(LABELS[:1], LOGITS[:1], OTHERS[:1])
    for interval in found.values():
        assert interval.low == pytest.approx(interval.difference) == pytest.approx(interval.high)


def test_a_shift_from_under_to_over_confidence_is_hardly_ever_taken_for_a_rise():
    """Confidence 0.97, then 0.99, of predictions that are right in 98 % of all cases: equal ECEs."""
    draw, refused = np.random.default_rng(2), 0

    def sure(confidence):
        return np.log(np.tile([confidence, 1 - confidence], (360, 1)))

    for _ in range(100):
        labels = (draw.random(360) >= 0.98).astype(int)
        refused += metrics.paired_intervals(labels, sure(0.97), sure(0.99))["ece"].low > 0.005
    assert refused <= 3


def test_intervals_of_one_classifier_are_around_its_metrics():
    found = metrics.metric_intervals(LABELS, LOGITS, bins=7)
    assert {"accuracy", "nll", *BOOTSTRAPPED} <= found.keys()
    for name, one in found.items():
        options = {"bins": 7} if "ece" in name or name == "mce" else {}
        assert one.value == pytest.approx(
            getattr(metrics, name)(LABELS, LOGITS, **options), abs=1e-12
        )
        assert one.low < one.value < one.high


def test_means_have_the_interval_of_a_mean():
    p = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
    nll = -np.log(p[np.arange(300), LABELS])
    one = metrics.metric_intervals(LABELS, LOGITS)["nll"]
    half = 1.959964 * nll.std() / np.sqrt(300)
    assert (one.value - one.low, one.high - one.value) == pytest.approx((half, half))


@pytest.mark.parametrize("right", [0, 3, 40])
def test_the_accuracy_has_wilsons_interval(right):
    """Its ends p solve |p − right / N| = 1.96 sqrt(p (1 − p) / N)."""
    labels = (np.arange(40) < right).astype(int)
    one = metrics.metric_intervals(labels, np.tile([0.0, 1.0], (40, 1)))["accuracy"]
    assert one.value == right / 40
    for end in {one.low, one.high} - {0.0, 1.0}:
        distance = 1.959964 * np.sqrt(end * (1 - end) / 40)
        assert abs(end - right / 40) == pytest.approx(distance, rel=1e-5)
    assert one.high - one.low > 0.08


@pytest.mark.full
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("name", BOOTSTRAPPED)
def test_other_metrics_have_a_bootstrap(name, ties):
    # Rounded logits of two classes give many examples the same confidence.
    logits, labels = (LOGITS[:, :2].round(), np.minimum(LABELS, 1)) if ties else (LOGITS, LABELS)
    draw = np.random.default_rng(9)
    values = []
    for _ in range(1500):
        chosen = draw.integers(300, size=300)
        values.append(getattr(metrics, name)(labels[chosen], logits[chosen]))
    one = metrics.metric_intervals(labels, logits, names=[name])[name]
    # 200 draws: the standard error of a standard deviation is 5 %; three of them.
    assert one.high - one.value == pytest.approx(1.959964 * np.std(values), rel=0.15)


def test_draws_are_measured_as_the_metrics_do():
    """Each of the draws, with the metric's own function."""
    generator = np.random.default_rng(0)
    chosen = [generator.integers(300, size=300) for _ in range(200)]
    for logits in (LOGITS, LOGITS.round()):
        found = metrics.metric_intervals(LABELS, logits, bins=7)
        for name in ("ece", "debiased_ece", "mce", "classwise_ece"):
            own = [getattr(metrics, name)(LABELS[c], logits[c], bins=7) for c in chosen]
            expected = found[name].value + 1.959964 * np.std(own)
            assert found[name].high == pytest.approx(min(expected, 1), abs=1e-5), name


def test_intervals_stay_in_the_range_of_the_metric():
    labels = np.array([0, 1, 0])
    perfect = metrics.metric_intervals(labels, 20 * np.eye(2)[labels])
    # 3 of 3 are right: N / (N + 1.96²) to 1.
    expected = (3 / (3 + 1.959964**2), 1)
    assert (perfect["accuracy"].low, perfect["accuracy"].high) == pytest.approx(expected)
    wrong = metrics.metric_intervals(labels, np.log([[0.6, 0.4], [0.6, 0.4], [0.2, 0.8]]))
    assert all(one.low >= 0 for name, one in wrong.items() if name != "overconfidence")
    assert wrong["accuracy"].high <= 1
