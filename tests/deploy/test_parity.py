"""Parity: a file within tolerance passes; else the message names the metric, the limit and the flag."""

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
    assert dataclasses.astuple(Tolerance()) == (1e-4, 0.01, 0.005, 0.3)
    flags = {flag.name: flag.default for flag in export.FLAGS}
    names = ("float_tolerance", "accuracy_tolerance", "ece_tolerance", "logit_tolerance")
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
    loose = Tolerance(ece=1, logits=1)
    noise = np.linspace(0.4, 1.6, 200)[:, None]  # no logit is off by far more than the others
    for count in (3, 9):
        parity = compared(wrong(count) * noise, exact=False, tolerance=loose)
        difference = count / 200
        half = 2.5758293 * np.sqrt(difference * (1 - difference) / 200)
        found = parity.intervals["accuracy"]
        assert found.difference == pytest.approx(-difference)
        assert (found.low, found.high) == pytest.approx((-difference - half, -difference + half))
    with pytest.raises(
        ExportMismatch,
        match=r"0.05 in accuracy \(99 % interval 0.0103 to 0.0897\), more than 0.01 \(",
    ):
        compared(wrong(10) * noise, exact=False, tolerance=loose)
    compared(wrong(10) * noise, exact=False, tolerance=dataclasses.replace(loose, accuracy=0.011))


def classifier(generator, count, sharp=4.0):
    """Logits of a calibrated network of 10 classes, and labels; `sharp` 4: 74 % are right, 8: 87 %."""
    logits = generator.normal(size=(count, 10)) * sharp
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return (probabilities.cumsum(1) > generator.random((count, 1))).argmax(1), logits


def refused(labels, truth, found, tolerance=DEFAULT_TOLERANCE):
    """The message if a quantised file is refused; None if it is not."""
    try:
        compare("x.tflite", labels, truth, found, bins=15, exact=False, tolerance=tolerance)
    except ExportMismatch as error:
        return str(error)
    return None


@pytest.mark.parametrize("sets", [20, pytest.param(300, marks=pytest.mark.full)])
@pytest.mark.parametrize("temperature", [1.0, 1 / 1.3])
@pytest.mark.parametrize("sharp", [4.0, 8.0])
def test_few_examples_do_not_fail_on_an_ece_that_is_higher_by_chance(sharp, temperature, sets):
    """Rounding of logits changes confidences, but not how over-confident the network is."""
    generator, failed, rises = np.random.default_rng(0), 0, []
    for _ in range(sets):
        labels, truth = classifier(generator, 360, sharp)
        truth = truth / temperature
        found = truth + generator.normal(size=truth.shape) * sharp / 20
        failed += refused(labels, truth, found) is not None
        rises.append(metrics.ece(labels, found) - metrics.ece(labels, truth))
    assert failed <= 0.01 * sets
    # The tolerance of the difference itself would refuse many.
    assert np.mean(np.array(rises) > 0.01) > 0.1
    assert max(rises) > (0.03 if sets == 300 else 0.015)


# The factor of the logits that makes confidence exceed the accuracy by 0.01, of calibrated networks.
SURER = {4.0: 1.042, 8.0: 1.082}


# One data set of 10,000 examples takes half a second.
@pytest.mark.full
@pytest.mark.parametrize("sets", [8, 300])
@pytest.mark.parametrize("sharp", SURER)
@pytest.mark.parametrize("over_confident", [False, True])
def test_many_examples_fail_on_an_ece_that_is_higher_by_a_hundredth(sharp, over_confident, sets):
    """Of calibrated networks chance hides the rise of the ECE itself, but not that of the confidence."""
    failed, rises = 0, []
    for seed in range(5 if over_confident else sets):
        labels, truth = classifier(np.random.default_rng(seed), 10_000, sharp)
        truth = truth * 1.3 if over_confident else truth
        message = refused(labels, truth, truth * SURER[sharp]) or ""
        failed += "in confidence minus accuracy" in message or "in ECE" in message
        assert not message or "(ece_tolerance)" in message
        (_, before), (_, after) = map(metrics.confidence, (truth, truth * SURER[sharp]))
        rises.append(after.mean() - before.mean())
    assert np.mean(rises) == pytest.approx(0.01, abs=0.005 if over_confident else 0.001)
    assert failed >= (0.95 if sets == 300 else 0.8) * len(rises)


def test_confidence_that_moves_to_the_accuracy_is_no_fault():
    for seed in range(4):
        labels, truth = classifier(np.random.default_rng(seed), 2000)
        assert refused(labels, truth * 1.3, truth) is None
        assert refused(labels, truth / 1.3, truth) is None


def test_confidence_may_not_fall_either():
    labels, truth = classifier(np.random.default_rng(1), 2000)
    assert "in confidence minus accuracy" in refused(
        labels, truth, truth / 1.15, Tolerance(ece=0.02)
    ) or "in ECE" in refused(labels, truth, truth / 1.15, Tolerance(ece=0.02))
    assert refused(labels, truth, truth / 1.15, Tolerance(ece=0.1)) is None


def test_a_quantised_file_may_be_better_than_its_ticket():
    better = TRUTH + 2 * np.eye(4, dtype="float32")[LABELS]
    parity = compared(better, exact=False)
    assert parity.measured["accuracy"] > parity.ticket["accuracy"]
    assert parity.measured["nll"] < parity.ticket["nll"]


LOOSE = Tolerance(accuracy=1, ece=1)


def centred(logits):
    return logits - logits.mean(1, keepdims=True)


def test_logits_of_a_quantised_file_are_those_of_the_ticket_and_noise():
    """The error is relative: noise of 0.28 of the logits passes, of 0.32 not."""
    noise = centred(np.random.default_rng(5).normal(size=TRUTH.shape))
    truth = centred(TRUTH.astype("float64"))
    # Orthogonal to the ticket's logits, so that no factor reduces it.
    noise -= truth * (noise * truth).sum() / (truth**2).sum()
    noise *= np.sqrt((truth**2).mean() / (noise**2).mean())
    for temperature in (1.0, 5.0):
        for shift in (0.0, 100.0):  # the same for every class
            found = [(truth + share * noise) / temperature + shift for share in (0.28, 0.32)]
            assert refused(LABELS, truth, found[0], LOOSE) is None
            message = refused(LABELS, truth, found[1], LOOSE)
            assert "by 0.305 in logits" in message and "(logit_tolerance)" in message
            assert refused(LABELS, truth, found[1], dataclasses.replace(LOOSE, logits=0.31)) is None


@pytest.mark.parametrize("found", [-TRUTH, np.zeros_like(TRUTH), np.roll(TRUTH, 1, axis=0)])
def test_other_logits_are_refused_whatever_the_metrics(found):
    assert "in logits" in refused(LABELS, TRUTH, found, LOOSE)


def test_a_few_wrong_examples_among_many_right_ones_are_refused():
    """As a fault of the converter gives them: 2 % of the examples, whose classes stay the same."""
    found = TRUTH + np.random.default_rng(6).normal(size=TRUTH.shape) * 0.02
    assert refused(LABELS, TRUTH, found) is None
    best = np.arange(0, 200, 50), TRUTH[::50].argmax(1)
    found[best] += 2.5
    assert (found.argmax(1) == TRUTH.argmax(1)).mean() > 0.98
    assert "by 0.02 in the share of examples with wrong logits" in refused(LABELS, TRUTH, found)
    assert refused(LABELS, TRUTH, found, Tolerance(accuracy=0.021)) is None
    # One example is allowed, and noise that is larger everywhere is judged by its size.
    found[best[0][1:], best[1][1:]] -= 2.5
    assert refused(LABELS, TRUTH, found, Tolerance(accuracy=0)) is None


def test_tiny_probabilities_do_not_count():
    p = np.exp(TRUTH.astype("float64") * 20)
    p /= p.sum(1, keepdims=True)
    rounded = np.where(p < 1e-9, 1e-30, p)
    options = {"bins": 15, "exact": False, "tolerance": DEFAULT_TOLERANCE, "probabilities": True}
    assert compare("x.tflite", LABELS, p, rounded, **options).largest_difference < 1e-8


def test_equal_logits_for_all_classes_have_nothing_to_compare():
    assert refused(LABELS, np.zeros_like(TRUTH), TRUTH * 1e-6, LOOSE) is None


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
