"""Parity: a file within tolerance passes; else the message names the metric, the limit and the flag."""

import contextlib
import dataclasses

import numpy as np
import pytest

from lotcal_tf import export, metrics
from lotcal_tf.deploy.parity import COMPARED, DEFAULT_TOLERANCE, Tolerance, compare
from lotcal_tf.errors import ExportMismatch

DRAW = np.random.default_rng(3)
TRUTH = DRAW.normal(size=(200, 4)).astype("float32") * 3
LABELS = TRUTH.argmax(1)
LABELS[:50] = DRAW.integers(0, 4, 50)


def compared(found, *, truth=TRUTH, exact=True, tolerance=DEFAULT_TOLERANCE, **rest):
    return compare(
        "x.tflite", LABELS, truth, found, bins=15, exact=exact, tolerance=tolerance, **rest
    )


def wrong(count):
    """Logits by which `count` more of the right predictions go wrong, as sure as they were."""
    found, right = TRUTH.copy(), np.flatnonzero(TRUTH.argmax(1) == LABELS)
    found[right[:count]] = np.roll(found[right[:count]], 1, axis=1)
    return found


def test_the_tolerances_are_those_promised():
    assert dataclasses.astuple(Tolerance()) == (1e-4, 0.01, 0.005)
    flags = {flag.name: flag.default for flag in export.FLAGS}
    names = ("float_tolerance", "accuracy_tolerance", "ece_tolerance")
    assert dataclasses.astuple(Tolerance()) == tuple(float(flags[name]) for name in names)


def test_equal_files_differ_by_nothing():
    parity = compared(TRUTH)
    assert parity.largest_difference == 0
    measured = metrics.measure(LABELS, TRUTH, bins=15)
    assert parity.ticket == parity.measured == {name: measured[name] for name in COMPARED}


def test_metrics_of_both_are_returned():
    found = TRUTH + np.float32(5e-5) * np.sign(TRUTH)
    parity = compared(found)
    assert parity.largest_difference == np.abs(found - TRUTH).max()
    assert parity.measured["nll"] == metrics.nll(LABELS, found) != parity.ticket["nll"]


def test_a_logit_may_be_off_by_its_share_of_the_largest():
    largest = float(np.abs(TRUTH).max())
    assert largest > 1
    for share, fits in ((0.9, True), (1.1, False)):
        # The same for every class: only the logits change, no metric.
        found = TRUTH.astype("float64") + share * 1e-4 * largest
        if fits:
            assert compared(found).largest_difference == pytest.approx(share * 1e-4 * largest)
        else:
            with pytest.raises(ExportMismatch, match=r"in a logit, more than .* \(float_tolerance"):
                compared(found)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_never_passes(value):
    found = TRUTH.copy()
    found[7, 1] = value
    for exact in (True, False):
        with pytest.raises(ExportMismatch, match=r"x\.tflite gives NaN or infinity"):
            compared(found, exact=exact, tolerance=Tolerance(1e9, 1, 1))


def sure(confidence, count=200):
    """Logits of two classes, so sure of the first."""
    return np.log(np.tile([confidence, 1 - confidence], (count, 1)))


@pytest.mark.parametrize(
    ("labels", "truth", "found", "words", "limit"),
    [
        # Two examples of 201, where one may turn.
        (LABELS, TRUTH, wrong(2), "accuracy", "0.00498"),
        # Right three times of four; surer by 0.0003, in the same bin.
        ((np.arange(200) % 4 == 0).astype(int), sure(0.75), sure(0.7503), "ECE", "0.0001"),
        (LABELS, TRUTH, TRUTH * np.float32(1.05), "NLL", "0.0001"),
    ],
)
def test_every_metric_of_an_exact_file_is_compared(labels, truth, found, words, limit):
    # One huge logit, of an example that is right either way, so that no logit is off by too much.
    huge = np.eye(1, truth.shape[1], dtype="float32") * 1e6
    with pytest.raises(ExportMismatch, match=f"in {words}, more than {limit} "):
        compare(
            "x.tflite",
            np.append(labels, 0),
            np.concatenate([truth, huge]),
            np.concatenate([found, huge]),
            bins=15,
            exact=True,
            tolerance=DEFAULT_TOLERANCE,
        )


def test_an_exact_file_may_turn_what_the_last_digit_decides():
    # Ten examples of two classes: one a hair above 3/5, an edge of the 15 bins, wrong, beside a right
    # one above it, and one all but a tie.
    def logits(hair):
        first = [[c, 1 - c] for c in (0.6 + hair, 0.62, 0.5 + hair, *[0.95] * 7)]
        return np.log(first).astype("float32")

    def verify(truth, found, labels):
        return compare(
            "x.tflite", np.array(labels), truth, found, bins=15, exact=True,
            tolerance=DEFAULT_TOLERANCE,
        )  # fmt: skip

    parity = verify(logits(1e-6), logits(-1e-6), [1, *[0] * 9])
    assert parity.ticket["accuracy"] - parity.measured["accuracy"] == pytest.approx(0.1)
    # Together (0.6 - 0) + (0.62 - 1) = 0.22; apart 0.6 + 0.38. The tie: 0.5 either way.
    assert parity.measured["ece"] - parity.ticket["ece"] == pytest.approx(
        (0.98 - 0.22) / 10, abs=1e-5
    )
    # Two ties that turn are no rounding any more.
    ties = [np.log([[0.5 + h, 0.5 - h]] * 2 + [[0.95, 0.05]] * 8) for h in (1e-6, -1e-6)]
    with pytest.raises(ExportMismatch, match=r"by 0\.2 in accuracy, more than 0\.1 "):
        verify(*ties, [0] * 10)


def test_a_quantised_file_may_lose_what_chance_explains():
    # `count` of 200 right predictions go wrong. The lower end of the 99 % interval of the difference
    # d = count / 200 is d - 2.5758 * sqrt(d * (1 - d) / 200): below 0.01 up to 9, above it from 10 on.
    loose = Tolerance(ece=1)
    for count in (3, 9):
        parity = compared(wrong(count), exact=False, tolerance=loose)
        difference = count / 200
        half = 2.5758293 * np.sqrt(difference * (1 - difference) / 200)
        found = parity.intervals["accuracy"]
        assert found.difference == pytest.approx(-difference)
        assert (found.low, found.high) == pytest.approx((-difference - half, -difference + half))
    with pytest.raises(
        ExportMismatch,
        match=r"0.05 in accuracy \(99 % interval 0.0103 to 0.0897\), more than 0.01 \(",
    ):
        compared(wrong(10), exact=False, tolerance=loose)
    compared(wrong(10), exact=False, tolerance=Tolerance(accuracy=0.011, ece=1))


def classifier(generator, count):
    """Logits of a network of 10 classes that is over-confident by a temperature of 1.3, and labels."""
    logits = generator.normal(size=(count, 10)) * 4
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (probabilities.cumsum(1) > generator.random((count, 1))).argmax(1)
    return labels, logits * 1.3


def test_few_examples_do_not_fail_on_an_ece_that_is_higher_by_chance():
    generator, rises = np.random.default_rng(0), []
    for _ in range(60):
        labels, truth = classifier(generator, 360)
        # Rounding of logits changes confidences, but not how over-confident the network is.
        found = truth + generator.normal(size=truth.shape) * 0.2
        with contextlib.suppress(ExportMismatch):
            parity = compare(
                "x.tflite", labels, truth, found, bins=15, exact=False, tolerance=Tolerance()
            )
            rises.append(parity.intervals["ece"].difference)
    assert len(rises) >= 59
    assert (
        sum(rise > 0.01 for rise in rises) >= 10
    )  # the tolerance of the difference itself, before


def test_many_examples_fail_on_an_ece_that_is_higher_by_a_hundredth():
    for seed in range(3):
        labels, truth = classifier(np.random.default_rng(seed), 10_000)
        rise = metrics.ece(labels, truth * 1.06) - metrics.ece(labels, truth)
        assert 0.008 < rise < 0.015
        with pytest.raises(ExportMismatch, match=r"in ECE \(99 % interval .*\(ece_tolerance\)"):
            compare(
                "x.tflite", labels, truth, truth * 1.06, bins=15, exact=False,
                tolerance=Tolerance(accuracy=1),
            )  # fmt: skip


def test_a_quantised_file_may_be_better_than_its_ticket():
    better = np.eye(4, dtype="float32")[LABELS] * 40
    parity = compared(better, exact=False)
    assert (parity.measured["accuracy"], parity.ticket["accuracy"]) != (1, 1)
    assert parity.measured["accuracy"] == 1


def test_probabilities_are_compared_as_probabilities():
    def softmax(logits):
        weights = np.exp(logits.astype("float64") - logits.max(1, keepdims=True))
        return (weights / weights.sum(1, keepdims=True)).astype("float32")

    truth = softmax(TRUTH)
    parity = compared(truth, truth=truth, probabilities=True)
    whole = compared(TRUTH).ticket
    assert parity.ticket == {name: pytest.approx(whole[name], abs=1e-6) for name in COMPARED}
    found = truth.copy()
    found[0] += np.float32(2e-4) * np.array([1, -1, 0, 0], "float32")
    with pytest.raises(ExportMismatch, match=r"in a probability, more than 0\.0001"):
        compared(found, truth=truth, probabilities=True)
