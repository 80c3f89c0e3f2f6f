"""Each metric against figures worked out by hand and against somebody else's implementation."""

import itertools
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import log_loss

from lotcal_tf import metrics

ALL_METRICS = [
    metrics.accuracy, metrics.nll, metrics.nll_standard_error, metrics.brier, metrics.ece,
    metrics.adaptive_ece, metrics.classwise_ece, metrics.mce, metrics.overconfidence,
    metrics.aurc, metrics.wrong_confident, metrics.measure, metrics.prediction_bins,
]  # fmt: skip

NEWER = ["adaptive_ece", "classwise_ece", "mce", "overconfidence", "aurc"]

# Three classes, four examples. Confidences .7 .5 .9 .5, correct: yes, no, yes, yes.
HAND_P = np.array([[0.7, 0.2, 0.1], [0.5, 0.2, 0.3], [0.05, 0.9, 0.05], [0.25, 0.25, 0.5]])
HAND_LABELS = np.array([0, 2, 1, 2])
HAND_LOGITS = np.log(HAND_P) + np.array([[3.0], [-40.0], [0.0], [900.0]])  # shifts change nothing


def synthetic(
    examples: int, classes: int, scale: float = 2.0, dtype: type = np.float64
) -> tuple[NDArray[np.int64], NDArray[np.floating]]:
    """Predictions that are too sure where they are sure and not sure enough elsewhere.

    With one sign everywhere the bins would add up to |accuracy - mean confidence| however drawn.
    """
    rng = np.random.default_rng([examples, classes])
    logits = rng.normal(size=(examples, classes)) * scale
    top = np.sort(logits, axis=1)[:, -2:]
    sharpness = np.where(top[:, 1] - top[:, 0] > 1.5, 0.3, 3.0)[:, None]
    labels = (logits * sharpness + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return labels, logits.astype(dtype)


def brute_force_ece(labels: NDArray[np.int64], logits: NDArray[np.floating], bins: int) -> float:
    """Guo et al. 2017, eq. 3, example by example and bin by bin, no array operation in it."""
    members: list[list[tuple[float, bool]]] = [[] for _ in range(bins)]
    for label, row in zip(labels.tolist(), logits.tolist(), strict=True):
        exponentials = [np.exp(value - max(row)) for value in row]
        probabilities = [value / sum(exponentials) for value in exponentials]
        confidence = max(probabilities)
        (m,) = [m for m in range(bins) if m / bins < confidence <= (m + 1) / bins]
        members[m].append((confidence, probabilities.index(confidence) == label))
    total = 0.0
    for bin_members in members:
        if bin_members:
            confidences, hits = zip(*bin_members, strict=True)
            gap = abs(sum(hits) / len(hits) - sum(confidences) / len(confidences))
            total += len(hits) / len(labels) * gap
    return total


@pytest.fixture(scope="module")
def tfp_stats():
    # In the other order TFP fails: TFMOT is what selects the legacy Keras that TFP looks for.
    pytest.importorskip("tensorflow_model_optimization")
    return pytest.importorskip("tensorflow_probability").stats


# By hand


def test_accuracy_by_hand():
    assert metrics.accuracy(HAND_LABELS, HAND_LOGITS) == 0.75


def test_nll_by_hand():
    expected = -(np.log(0.7) + np.log(0.3) + np.log(0.9) + np.log(0.5)) / 4
    assert metrics.nll(HAND_LABELS, HAND_LOGITS) == pytest.approx(expected, rel=1e-12)


def test_nll_standard_error_by_hand():
    # Losses log 2 and log 4: mean 1.5 log 2, each log 2 / 2 away from it. Variance with ddof 1:
    # (log 2)^2 / 2, deviation log 2 / sqrt 2, over sqrt 2 examples: log 2 / 2.
    logits = np.log([[0.5, 0.5], [0.25, 0.75]])
    error = metrics.nll_standard_error([0, 0], logits)
    assert error == pytest.approx(np.log(2) / 2, rel=1e-12)


def test_brier_by_hand():
    # .09+.04+.01 = .14;  .25+.04+.49 = .78;  .0025+.01+.0025 = .015;  .0625+.0625+.25 = .375
    expected = (0.14 + 0.78 + 0.015 + 0.375) / 4
    assert metrics.brier(HAND_LABELS, HAND_LOGITS) == pytest.approx(expected, rel=1e-12)


def test_ece_by_hand():
    # Five bins. (.4,.6]: two at .5, half right, gap 0. (.6,.8]: one at .7, right, gap .3.
    # (.8,1]: one at .9, right, gap .1. The other two bins are empty.
    expected = (2 * 0.0 + 1 * 0.3 + 1 * 0.1) / 4
    assert metrics.ece(HAND_LABELS, HAND_LOGITS, bins=5) == pytest.approx(expected, abs=1e-12)
    # One bin: accuracy .75 against a mean confidence of .65.
    assert metrics.ece(HAND_LABELS, HAND_LOGITS, bins=1) == pytest.approx(0.1, abs=1e-12)


def test_gaps_do_not_cancel_between_bins():
    # At .9 both wrong, gap .9; at .6 both right, gap .4. Signed they would leave .25.
    logits = np.log([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    assert metrics.ece([1, 1, 0, 0], logits) == pytest.approx(0.65, abs=1e-12)


def test_gaps_within_a_bin_do_cancel():
    # .81 right and .99 wrong share the bin (.8, 1]: accuracy .5, mean confidence .9.
    logits = np.log([[0.81, 0.19], [0.99, 0.01]])
    assert metrics.ece([0, 1], logits, bins=5) == pytest.approx(0.4, abs=1e-12)


def test_log_softmax_by_hand():
    np.testing.assert_allclose(metrics.log_softmax(HAND_LOGITS), np.log(HAND_P), rtol=1e-11)


def test_measure_is_the_metrics_by_name():
    labels, logits = synthetic(200, 4)
    assert metrics.measure(labels, logits, bins=7) == {
        "accuracy": metrics.accuracy(labels, logits),
        "nll": metrics.nll(labels, logits),
        "nll_se": metrics.nll_standard_error(labels, logits),
        "brier": metrics.brier(labels, logits),
        "ece": metrics.ece(labels, logits, bins=7),
        "adaptive_ece": metrics.adaptive_ece(labels, logits, bins=7),
        "classwise_ece": metrics.classwise_ece(labels, logits, bins=7),
        "mce": metrics.mce(labels, logits, bins=7),
        "overconfidence": metrics.overconfidence(labels, logits),
        "aurc": metrics.aurc(labels, logits),
        "wrong_confident": metrics.wrong_confident(labels, logits),
    }
    assert all(type(value) is float for value in metrics.measure(labels, logits).values())


def test_wrong_confident_by_hand():
    # Confidences 0.95, 0.8, 0.91, 0.95, 0.6; the first three are wrong, two of them confidently.
    logits = np.log([[0.95, 0.05], [0.8, 0.2], [0.09, 0.91], [0.95, 0.05], [0.4, 0.6]])
    assert metrics.wrong_confident([1, 1, 0, 0, 1], logits) == pytest.approx(2 / 3, abs=1e-15)
    assert metrics.wrong_confident([0, 0, 1, 0, 1], logits) == 0.0
    close = np.log([[0.9 - 1e-9, 0.1 + 1e-9], [0.9 + 1e-9, 0.1 - 1e-9]])
    assert metrics.wrong_confident([1, 1], close) == 0.5


def test_fifteen_bins_by_default():
    labels, logits = synthetic(1000, 10)
    assert metrics.DEFAULT_BINS == 15
    assert metrics.ece(labels, logits) == metrics.ece(labels, logits, bins=15)
    assert metrics.measure(labels, logits)["ece"] == metrics.ece(labels, logits, bins=15)
    assert abs(metrics.ece(labels, logits, bins=10) - metrics.ece(labels, logits)) > 0.001


def test_adaptive_ece_by_hand():
    # Two bins of two: at .5 half right, gap 0; .7 and .9 both right, gap .2.
    assert metrics.adaptive_ece(HAND_LABELS, HAND_LOGITS, bins=2) == pytest.approx(0.1, abs=1e-12)
    # As many bins as examples, and more than that: (.5 + .5 + .3 + .1) / 4.
    for bins in (4, 15):
        found = metrics.adaptive_ece(HAND_LABELS, HAND_LOGITS, bins=bins)
        assert found == pytest.approx(0.35, abs=1e-12)


def test_classwise_ece_by_hand():
    # Two bins. Class 0: .5 .05 .25 none true, .8 in all; .7 true, .3 off: (.8 + .3) / 4 = .275.
    # Class 1: .2 .2 .25 none true; .9 true: (.65 + .1) / 4 = .1875.
    # Class 2: .1 .3 .05 .5 are .95, two are true: 1.05 / 4 = .2625.
    expected = (0.275 + 0.1875 + 0.2625) / 3
    found = metrics.classwise_ece(HAND_LABELS, HAND_LOGITS, bins=2)
    assert found == pytest.approx(expected, abs=1e-12)


def test_mce_by_hand():
    # The gaps of five bins are 0, .3 and .1; of one bin, |.75 - .65|.
    assert metrics.mce(HAND_LABELS, HAND_LOGITS, bins=5) == pytest.approx(0.3, abs=1e-12)
    assert metrics.mce(HAND_LABELS, HAND_LOGITS, bins=1) == pytest.approx(0.1, abs=1e-12)


def test_overconfidence_by_hand():
    assert metrics.overconfidence(HAND_LABELS, HAND_LOGITS) == pytest.approx(-0.1, abs=1e-12)
    # Signed, it cancels where ECE does not: .9 wrong twice, .6 right twice.
    logits = np.log([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    assert metrics.overconfidence([1, 1, 0, 0], logits) == pytest.approx(0.25, abs=1e-12)


def test_aurc_by_hand():
    # .9 and .7 right: risks 0 and 0. The two at .5 share one error: .5/3, then 1/4.
    expected = (0 + 0 + 0.5 / 3 + 1 / 4) / 4
    logits = np.log([[0.5, 0.5], [0.9, 0.1], [0.5, 0.5], [0.7, 0.3]])
    assert metrics.aurc([1, 0, 0, 0], logits) == pytest.approx(expected, abs=1e-12)
    # The one error at the top of two, and at the bottom: (1 + 1/2) / 2 and (0 + 1/2) / 2.
    logits = np.log([[0.9, 0.1], [0.6, 0.4]])
    assert metrics.aurc([1, 0], logits) == pytest.approx(0.75, abs=1e-12)
    assert metrics.aurc([0, 1], logits) == pytest.approx(0.25, abs=1e-12)


def test_soft_labels_by_hand():
    # (.3, .7) against (.9, .1): -.3 log .9 - .7 log .1, and .36 + .36.
    soft, logits = [[0.3, 0.7], [1.0, 0.0]], np.log([[0.9, 0.1], [0.5, 0.5]])
    losses = np.array([-0.3 * np.log(0.9) - 0.7 * np.log(0.1), np.log(2)])
    assert metrics.nll(soft, logits) == pytest.approx(losses.mean(), rel=1e-12)
    error = abs(losses[0] - losses[1]) / 2
    assert metrics.nll_standard_error(soft, logits) == pytest.approx(error, rel=1e-12)
    assert metrics.brier(soft, logits) == pytest.approx((0.72 + 0.5) / 2, rel=1e-12)


@pytest.mark.parametrize("metric", [metrics.nll, metrics.nll_standard_error, metrics.brier])
def test_one_hot_labels_are_the_classes(metric: Callable):
    labels, logits = synthetic(100, 5)
    assert metric(np.eye(5)[labels], logits) == pytest.approx(metric(labels, logits), rel=1e-12)


@pytest.mark.parametrize("metric", [metrics.nll, metrics.nll_standard_error, metrics.brier])
@pytest.mark.parametrize("soft", [[[0.5, 0.6]], [[1.5, -0.5]], [[0.0, 0.0]], [[np.nan, 1.0]]])
def test_soft_labels_that_are_no_distribution(metric: Callable, soft: object):
    with pytest.raises(ValueError, match=r"^soft labels must be 0 or more and add up to 1"):
        metric(soft, [[0.0, 1.0]])


# Against other implementations


@pytest.mark.parametrize("bins", [1, 7, 15, 300])
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_adaptive_and_classwise_ece_and_mce_agree_with_loops(classes: int, bins: int):
    labels, logits = synthetic(301, classes)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    events = sorted(zip(p.max(1), p.argmax(1) == labels, strict=True))
    # The first 301 mod bins bins hold one example more.
    adaptive, start = 0.0, 0
    for m in range(bins):
        part = events[start : start + 301 // bins + (m < 301 % bins)]
        start += len(part)
        adaptive += abs(sum(hit - c for c, hit in part)) / 301
    assert start == 301
    assert metrics.adaptive_ece(labels, logits, bins=bins) == pytest.approx(adaptive, abs=1e-12)

    def gaps(pairs: list) -> list[tuple[int, float]]:
        members = [[q for q in pairs if m / bins < q[0] <= (m + 1) / bins] for m in range(bins)]
        return [
            (len(part), abs(sum(h - c for c, h in part)) / len(part)) for part in members if part
        ]

    expected = max(gap for _, gap in gaps(events))
    assert metrics.mce(labels, logits, bins=bins) == pytest.approx(expected, abs=1e-12)
    classwise = [
        sum(n * gap for n, gap in gaps(list(zip(p[:, k], labels == k, strict=True)))) / 301
        for k in range(classes)
    ]
    found = metrics.classwise_ece(labels, logits, bins=bins)
    assert found == pytest.approx(np.mean(classwise), abs=1e-12)


def test_aurc_is_the_mean_over_all_orders_of_what_is_tied():
    labels = np.array([0, 1, 0, 0, 1, 0, 1])
    # Margins in thirds of which some agree; predicted class 0.
    margins = [3, 3, 1, 1, 1, 0.5, 2]
    areas = []
    for order in itertools.permutations(range(7)):
        if all(margins[a] >= margins[b] for a, b in itertools.pairwise(order)):
            wrong = [labels[i] != 0 for i in order]
            areas.append(np.mean([sum(wrong[:n]) / n for n in range(1, 8)]))
    assert len(areas) == 2 * 6
    assert len(set(areas)) > 3
    found = metrics.aurc(labels, np.array([margins, np.zeros(7)]).T)
    assert found == pytest.approx(np.mean(areas), abs=1e-12)


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_nll_agrees_with_sklearn(classes: int):
    labels, logits = synthetic(1000, classes)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = log_loss(labels, p, labels=range(classes))
    assert metrics.nll(labels, logits) == pytest.approx(expected, rel=1e-12)


def test_nll_standard_error_is_the_spread_of_repeated_measurements():
    rng = np.random.default_rng(0)
    labels, logits = synthetic(400, 5)
    redrawn = [rng.integers(400, size=400) for _ in range(4000)]
    spread = np.std([metrics.nll(labels[rows], logits[rows]) for rows in redrawn])
    # 4000 bootstrap draws know a deviation to 1/sqrt(8000) = 1.1 %; four times that.
    assert metrics.nll_standard_error(labels, logits) == pytest.approx(spread, rel=0.045)


@pytest.mark.parametrize("classes", [2, 10])
def test_brier_is_tfp_plus_one(tfp_stats, classes: int):
    labels, logits = synthetic(1000, classes)
    expected = tfp_stats.brier_score(labels=labels, logits=logits).numpy().mean() + 1
    assert metrics.brier(labels, logits) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("bins", [1, 2, 10, 15, 100])
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_ece_agrees_with_a_loop_and_with_tfp(tfp_stats, classes: int, bins: int):
    labels, logits = synthetic(1000, classes, dtype=np.float32)
    ours = metrics.ece(labels, logits, bins=bins)
    wide = logits.astype(np.float64)
    assert ours == pytest.approx(brute_force_ece(labels, wide, bins), abs=1e-12)
    theirs = tfp_stats.expected_calibration_error(bins, logits=logits, labels_true=labels)
    assert ours == pytest.approx(float(theirs), abs=1e-6)  # TFP sums in float32


def test_tfp_closes_its_bins_on_the_left(tfp_stats):
    # .5 right and .9 wrong, two bins. Ours puts .5 below the edge: (.5 + .9) / 2. TFP puts it
    # above, beside .9, where the gaps cancel: |.5 - .7|. The one disagreement; it takes a tie.
    logits = np.log([[0.5, 0.5], [0.9, 0.1]]).astype(np.float32)  # all that TFP takes
    assert metrics.ece([0, 1], logits, bins=2) == pytest.approx(0.7, abs=1e-6)
    theirs = tfp_stats.expected_calibration_error(2, logits=logits, labels_true=np.array([0, 1]))
    assert float(theirs) == pytest.approx(0.2, abs=1e-6)


# Edges of the bins


@pytest.mark.parametrize("bins", [4, 5, 10, 15, 20, 30])
def test_logits_of_a_confidence_on_an_edge_are_in_the_lower_bin(bins: int):
    for m in range(1, bins):
        others = bins // m  # enough classes for m / bins to be the highest probability
        rest = (1 - m / bins) / others
        logits = np.log([m / bins] + [rest] * others)
        for shift in (0.0, 1.7, -300.0):
            counts = metrics.prediction_bins([0], [logits + shift], bins=bins).counts
            assert counts.argmax() == m - 1, (m, shift)


@pytest.mark.parametrize(("classes", "bins"), [(5, 5), (10, 10), (2, 4), (3, 15), (10, 20), (7, 7)])
def test_equal_logits_have_confidence_one_over_k_and_are_in_the_lower_bin(classes: int, bins: int):
    logits = np.full((1, classes), 2.5)
    assert metrics.confidence(logits)[1][0] == 1 / classes
    counts = metrics.prediction_bins([0], logits, bins=bins).counts
    assert counts.argmax() == bins // classes - 1


def test_confidence_exactly_one_is_in_the_last_bin_and_counts():
    logits = [[800.0, 0.0], [0.0, 800.0], [800.0, 0.0]]
    np.testing.assert_array_equal(metrics.confidence(logits)[1], [1.0, 1.0, 1.0])
    np.testing.assert_array_equal(metrics.prediction_bins([0, 1, 1], logits).counts, [0] * 14 + [3])
    assert metrics.ece([0, 1, 1], logits) == pytest.approx(1 / 3, abs=1e-15)
    assert metrics.ece([0, 1, 0], logits) == 0.0


# Other edge cases


def test_ties_go_to_the_lowest_class():
    logits = [[1.0, 1.0, 0.0], [0.0, 2.0, 2.0], [3.0, 3.0, 3.0]]
    predicted, highest = metrics.confidence(logits)
    np.testing.assert_array_equal(predicted, [0, 1, 0])
    np.testing.assert_allclose(highest, [1 / (2 + np.exp(-1)), 1 / (2 + np.exp(-2)), 1 / 3])
    assert metrics.accuracy([0, 1, 0], logits) == 1.0
    assert metrics.accuracy([1, 2, 2], logits) == 0.0


def test_one_example():
    result = metrics.measure([1], np.log([[0.25, 0.75]]))
    expected = {"accuracy": 1.0, "nll": -np.log(0.75), "nll_se": 0.0, "brier": 0.125, "ece": 0.25}
    expected |= {"adaptive_ece": 0.25, "classwise_ece": 0.25, "mce": 0.25}
    expected |= {"overconfidence": -0.25, "aurc": 0.0, "wrong_confident": 0.0}
    assert result == pytest.approx(expected, rel=1e-12)


def test_empty_bins_change_nothing():
    # All in one bin: a thousand bins, 999 of them empty, say the same as one.
    labels, logits = [0, 1, 0, 0], np.log([[0.8005, 0.1995]] * 4)
    assert metrics.prediction_bins(labels, logits, bins=1000).counts.max() == 4
    assert metrics.ece(labels, logits, bins=1000) == pytest.approx(0.0505, abs=1e-12)
    assert metrics.ece(labels, logits, bins=1) == pytest.approx(0.0505, abs=1e-12)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_huge_logits(dtype: type):
    logits = np.array([[1e4, -1e4], [1e4, -1e4], [-1e4, 1e4]], dtype=dtype)
    result = metrics.measure([0, 1, 1], logits)
    # Losses 0, 20000, 0 and squared errors 0, 2, 0; standard error 20000 / sqrt(3) / sqrt(3).
    # Confidence 1 throughout, one in three wrong, however it is binned or ranked.
    expected = {"accuracy": 2 / 3, "nll": 2e4 / 3, "nll_se": 2e4 / 3, "brier": 2 / 3, "ece": 1 / 3}
    expected |= dict.fromkeys(NEWER, 1 / 3) | {"wrong_confident": 1.0}
    assert result == pytest.approx(expected, rel=1e-12)


@pytest.mark.filterwarnings("error")
def test_extremes_of_every_metric():
    sure = [[1e4, -1e4]] * 2
    right, wrong = metrics.measure([0, 0], sure), metrics.measure([1, 1], sure)
    expected = {"accuracy": 1.0, "nll": 0.0, "nll_se": 0.0, "brier": 0.0, "ece": 0.0}
    assert right == expected | dict.fromkeys([*NEWER, "wrong_confident"], 0.0)
    expected = {"accuracy": 0.0, "nll": 2e4, "nll_se": 0.0, "brier": 2.0, "ece": 1.0}
    assert wrong == expected | dict.fromkeys([*NEWER, "wrong_confident"], 1.0)


def test_float32_logits_are_accumulated_in_float64():
    # A float32 sum of 2^24 + 1 is 2^24: the last example would be lost.
    logits = np.array([[0.0, 2.0**24], [0.0, -50.0], [0.0, 1.0]], dtype=np.float32)
    expected = (2.0**24 + np.log1p(np.exp(-50.0)) + np.log1p(np.e)) / 3
    assert metrics.nll([0, 0, 0], logits) == pytest.approx(expected, rel=1e-14)


def test_arguments_are_left_as_they_were():
    labels, logits = synthetic(50, 3)
    labels_before, logits_before = labels.copy(), logits.copy()
    metrics.measure(labels, logits)
    np.testing.assert_array_equal(labels, labels_before)
    np.testing.assert_array_equal(logits, logits_before)


# Bad arguments


@pytest.mark.parametrize("metric", ALL_METRICS)
@pytest.mark.parametrize(
    ("labels", "logits", "message"),
    [
        ([0], [1.0, 2.0], r"logits must have shape \(N, K\) with N >= 1 and K >= 2, got \(2,\)"),
        ([0], [[[1.0, 2.0]]], r"logits must have shape \(N, K\) .*, got \(1, 1, 2\)"),
        ([], np.zeros((0, 3)), r"logits must have shape \(N, K\) with N >= 1.*, got \(0, 3\)"),
        ([0, 0], np.zeros((2, 1)), r"logits must have shape .* K >= 2, got \(2, 1\)"),
        ([0], np.zeros((2, 3)), r"labels must have shape \(2,\) as logits \(2, 3\), got \(1,\)"),
        ([[0], [1]], np.zeros((2, 3)), r"labels must have shape \(2,\) .*, got \(2, 1\)"),
        ([0.0, 1.0], np.zeros((2, 3)), r"labels must be integers .*, got dtype float64"),
        ([True, False], np.zeros((2, 3)), r"labels must be integers .*, got dtype bool"),
        ([0, 3], np.zeros((2, 3)), r"labels must lie in \[0, 3\), got 0 to 3"),
        ([-1, 1], np.zeros((2, 3)), r"labels must lie in \[0, 3\), got -1 to 1"),
        ([0, 1], [[0.0, 1.0], [0.0, np.nan]], "logits must be finite, got inf or NaN in row 1"),
        ([0, 1], [[-np.inf, 1.0], [0.0, 1.0]], "logits must be finite, got inf or NaN in row 0"),
    ],
)
def test_bad_arguments(metric: Callable, labels: object, logits: object, message: str):
    with pytest.raises(ValueError, match=f"^{message}$"):
        metric(labels, logits)


@pytest.mark.parametrize("function", [metrics.log_softmax, metrics.confidence])
def test_bad_logits(function: Callable):
    with pytest.raises(ValueError, match=r"^logits must have shape \(N, K\) .*, got \(3,\)$"):
        function([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"^logits must be finite, got inf or NaN in row 0$"):
        function([[np.inf, 0.0]])


@pytest.mark.parametrize("metric", [metrics.ece, metrics.measure, metrics.prediction_bins])
@pytest.mark.parametrize("bins", [0, -3, 2.0, True, None])
def test_bad_bins(metric: Callable, bins: object):
    with pytest.raises(ValueError, match=f"^bins must be an integer >= 1, got {bins}$"):
        metric([0], [[0.0, 1.0]], bins=bins)


def test_importing_evaluation_is_light():
    program = (
        "import sys, lotcal_tf.metrics.classification, lotcal_tf.metrics.reliability;"
        "print(*{name.split('.')[0] for name in sys.modules} & {'tensorflow', 'matplotlib'})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_debiased_ece_by_hand():
    # Four predictions of confidence 0.8, two right: (0.3)^2 - 0.5 * 0.5 / 3, below 0 with three right.
    logits = np.log([[0.8, 0.2]] * 4)
    assert metrics.debiased_ece([0, 0, 1, 1], logits) == pytest.approx(np.sqrt(0.09 - 0.25 / 3))
    assert metrics.debiased_ece([0, 0, 0, 1], logits) == 0
    assert metrics.ece([0, 0, 0, 1], logits) == pytest.approx(0.05)
