"""Losses against oracles in float64, figures worked out by hand, and finite differences.

The oracles follow the formulas line by line, in probabilities where those do not underflow.
"""

import inspect

import numpy as np
import pytest
import tensorflow as tf

import lotcal_tf
from lotcal_tf.calibration import losses
from lotcal_tf.calibration.losses import cross_entropy, soft_counts

# --- oracles: (loss, weight of the uniform's term, the largest term that weight multiplies) ---------


def log_softmax(z):
    shifted = z - z.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def log_mean(log_p, axis):
    """log of the mean probability; through the largest, as exp(-20 000) is 0 in float64 too."""
    largest = log_p.max(axis, keepdims=True)
    return np.squeeze(largest, axis) + np.log(np.exp(log_p - largest).mean(axis))


def from_uniform(log_p):
    """KL(U‖p) = −(1/K) Σ_k log p_k − log K."""
    classes = log_p.shape[-1]
    return -log_p.sum(-1) / classes - np.log(classes)


def picked(labels, log_p):
    return -log_p[..., np.arange(len(labels)), labels]


def vwcc(labels, z, alpha=None):
    log_p = log_softmax(z)
    p = np.exp(log_p)
    if alpha is None:
        coefficient = np.sqrt(p.mean(0) * p).sum(-1)
        alpha = 1 - coefficient.mean(0)
    uniform = from_uniform(log_p)
    return ((1 - alpha) * picked(labels, log_p) + alpha * uniform).mean(0), alpha, uniform.max()


def lwcc_of(labels, log_p, weight, beta, form):
    if beta is None:
        right = log_p.argmax(-1) == labels
        beta = 1 - right * np.exp(log_p).max(-1)
    uniform, likely = from_uniform(log_p), picked(labels, log_p)
    likely = likely - weight * beta * likely if form == "convex" else likely
    return likely + weight * beta * uniform, beta, uniform.max()


def lwcc(labels, z, beta=None, weight=0.3, form="additive"):
    return lwcc_of(labels, log_softmax(z), weight, beta, form)


def lwcc_si(labels, z, beta=None, weight=0.3, form="additive"):
    return lwcc_of(labels, log_mean(log_softmax(z), 0), weight, beta, form)


def mda(labels, z, frozen=None, weight=1.0, prior=None):
    log_p = log_softmax(z)
    q = np.full(z.shape[-1], 1 / z.shape[-1]) if prior is None else np.array(prior)
    terms = [share * (np.log(share) - log_mean(log_p, 0)[k]) for k, share in enumerate(q) if share]
    return picked(labels, log_p).mean() + weight * sum(terms), None, 0.0


def nba(labels, z, frozen=None, weight=0.3, bins=10, width=0.02):
    log_p = log_softmax(z)
    confidence = np.exp(log_p).max(-1)
    penalty = 0.0
    for m in range(bins):
        # tanh does not overflow where the logistic function's exp would.
        below = 1.0 if m == 0 else 0.5 + np.tanh((confidence - m / bins) / width / 2) / 2
        top = m + 1 == bins
        above = 0.0 if top else 0.5 + np.tanh((confidence - (m + 1) / bins) / width / 2) / 2
        centre = (m + 0.5) / bins
        penalty += (2 * centre - 1) ** 2 * np.sum(below - above) / len(labels)
    return picked(labels, log_p).mean() + weight * penalty, None, 0.0


def plain(labels, z, frozen=None):
    return picked(labels, log_softmax(z)), None, 0.0


ORACLES = {
    "cross_entropy": (plain, {}),
    "vwcc": (vwcc, {}),
    "mda": (mda, {"weight": 0.7}),
    "mda_prior": (mda, {"weight": 0.7, "prior": (0.5, 0.0, 0.3, 0.2)}),
    "lwcc": (lwcc, {"weight": 0.6}),
    "lwcc_si": (lwcc_si, {"weight": 0.6}),
    "lwcc_convex": (lwcc, {"weight": 0.6, "form": "convex"}),
    "lwcc_si_convex": (lwcc_si, {"weight": 0.6, "form": "convex"}),
    "nba": (nba, {"weight": 0.6, "bins": 7, "width": 0.05}),
}
STOCHASTIC = {"vwcc", "lwcc_si", "lwcc_si_convex"}
PER_EXAMPLE = {"cross_entropy", "vwcc", "lwcc", "lwcc_si", "lwcc_convex", "lwcc_si_convex"}
CLASSES, PASSES = 4, 3
each_loss = pytest.mark.parametrize("name", ORACLES)


def function(name):
    return getattr(losses, name.removesuffix("_prior").removesuffix("_convex"))


def with_gradient(name, labels, logits, **settings):
    """The losses, and the gradient of their sum by the logits."""
    logits = tf.constant(logits, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        found = function(name)(tf.constant(labels), logits, **settings)
        total = tf.reduce_sum(found)
    return found, tape.gradient(total, logits).numpy()


def check(name, labels, logits):
    """One loss against its oracle; and its gradient is finite."""
    oracle, settings = ORACLES[name]
    logits = np.asarray(logits, np.float32)
    found, gradient = with_gradient(name, labels, logits, **settings)
    expected, _, uniform = oracle(labels, logits.astype(np.float64), **settings)
    assert found.dtype == tf.float32
    assert found.shape == ((len(labels),) if name in PER_EXAMPLE else ())
    # α and β, near 0 or 1, are known to some 1e-7 only, and that much of KL(U‖p) they carry.
    np.testing.assert_allclose(found, expected, rtol=5e-6, atol=2e-6 + 5e-7 * uniform)
    assert np.isfinite(gradient).all()


@each_loss
@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0, 1e4])
def test_random_logits(name, scale):
    rng = np.random.default_rng(int(scale))
    shape = (PASSES, 200, CLASSES) if name in STOCHASTIC else (200, CLASSES)
    labels, logits = rng.integers(0, CLASSES, 200), rng.normal(size=shape) * scale
    if name.startswith("lwcc_si"):
        # Sure passes that disagree give p̄ = (1/3, 1/3 − 1e-9, …): which is higher float32 cannot
        # tell. Equal to the last bit is another matter: then the lower class is meant.
        top = np.sort(np.exp(log_softmax(logits)).mean(0), -1)[:, -2:]
        clear = (np.diff(top)[:, 0] > 1e-6) | (scale == 1e4)
        assert clear.mean() > 0.8
        labels, logits = labels[clear], logits[:, clear]
    check(name, labels, logits)


# Every one of them with every label.
EXTREMES = np.array(
    [
        [0, 0, 0, 0],
        [1e4, 1e4, 1e4, 1e4],
        [-1e4, -1e4, -1e4, -1e4],
        [1e4, -1e4, -1e4, -1e4],
        [-1e4, -1e4, -1e4, 1e4],
        [1e4, 1e4, -1e4, -1e4],
        [0, 1e4, 1e4, 1e4],
        [1e4, 0, 0, -1e4],
        [3, 3, 1, 1],
    ]
)
EXTREME_LABELS = np.tile(np.arange(CLASSES), len(EXTREMES))
EXTREME_LOGITS = np.repeat(EXTREMES, CLASSES, 0)


@each_loss
def test_extreme_logits(name):
    if name not in STOCHASTIC:
        check(name, EXTREME_LABELS, EXTREME_LOGITS)
        for label, row in zip(EXTREME_LABELS, EXTREME_LOGITS, strict=True):
            check(name, np.array([label]), row[None])
        return
    check(name, EXTREME_LABELS, np.stack([EXTREME_LOGITS] * PASSES))
    for shift in range(1, len(EXTREMES)):  # Passes that disagree, some wholly.
        moved = np.roll(EXTREME_LOGITS, shift * CLASSES, 0)
        check(name, EXTREME_LABELS, np.stack([EXTREME_LOGITS, moved]))


@each_loss
def test_gradients_by_finite_differences_with_the_weight_held(name):
    """α and β are constants to the gradient: with them moving along, the differences are others."""
    oracle, settings = ORACLES[name]
    rng = np.random.default_rng(3)
    labels = rng.integers(0, CLASSES, 6)
    shape = (PASSES, 6, CLASSES) if name in STOCHASTIC else (6, CLASSES)
    logits = rng.normal(size=shape) * 2
    _, weight, _ = oracle(labels, logits, **settings)

    def differences(held):
        found, step = np.zeros_like(logits), 1e-6
        for place in np.ndindex(logits.shape):
            for side in (step, -step):
                moved = logits.copy()
                moved[place] += side
                found[place] += np.sum(oracle(labels, moved, held, **settings)[0]) / (2 * side)
        return found

    _, gradient = with_gradient(name, labels, logits, **settings)
    np.testing.assert_allclose(gradient, differences(weight), atol=3e-6)
    if weight is not None:
        assert np.abs(differences(None) - gradient).max() > 1e-2


# --- by hand --------------------------------------------------------------------------------------

BY_HAND = {
    "half": (0, [0.0, 0.0], np.log(2)),
    "a quarter": (1, np.log([0.5, 0.25, 0.25]), np.log(4)),
    "shifted": (1, np.log([0.5, 0.25, 0.25]) + 70, np.log(4)),
    "two alike on top": (0, [1e4, 1e4, -1e4], np.log(2)),
    "all at the bottom": (3, [-1e4, -1e4, -1e4, -1e4], np.log(4)),
    "sure and right": (0, [1e4, -1e4], 0.0),
    "sure and wrong": (1, [1e4, -1e4], 2e4),
}


@pytest.mark.parametrize(("label", "logits", "loss"), BY_HAND.values(), ids=BY_HAND)
def test_cross_entropy_by_hand(label, logits, loss):
    found, gradient = with_gradient("cross_entropy", [label], [logits])
    assert float(found[0]) == pytest.approx(loss, rel=1e-6, abs=1e-7)
    p = np.exp(np.float64(logits) - np.max(logits))
    np.testing.assert_allclose(gradient[0], p / p.sum() - np.eye(len(logits))[label], atol=1e-5)


def test_soft_labels_of_cross_entropy():
    """−Σ y log p: of (.3, .7) against (.5, .5), log 2; against (.9, .1), −.3 log .9 − .7 log .1."""
    soft = tf.constant([[0.3, 0.7], [0.3, 0.7]])
    found = cross_entropy(soft, np.log([[0.5, 0.5], [0.9, 0.1]]))
    np.testing.assert_allclose(found, [0.693147, 0.3 * 0.105361 + 0.7 * 2.302585], atol=1e-6)
    one_hot = np.eye(CLASSES, dtype=np.float32)[EXTREME_LABELS]
    logits = tf.constant(EXTREME_LOGITS, tf.float32)
    np.testing.assert_array_equal(
        cross_entropy(one_hot, logits), cross_entropy(EXTREME_LABELS, logits)
    )


def test_vwcc_by_hand():
    """Passes (.9, .1) and (.1, .9): p̄ = (.5, .5), BC = √.45 + √.05 = .894427 for both.

    α = .105573; CE of the two 1.203973 on average, KL(U‖p) = 1.203973 − log 2 = .510826.
    """
    logits = np.log([[[0.9, 0.1]], [[0.1, 0.9]]])
    expected = 0.894427 * 1.203973 + 0.105573 * 0.510826
    assert float(losses.vwcc([0], logits)[0]) == pytest.approx(expected, abs=2e-6)


def test_lwcc_by_hand():
    """(.8, .2): KL(U‖p) = log 1.25. Label 0: β = .2. Label 1: β = 1."""
    logits = np.log([[0.8, 0.2], [0.8, 0.2]])
    expected = [0.223144 + 0.3 * 0.2 * 0.223144, 1.609438 + 0.3 * 0.223144]
    np.testing.assert_allclose(losses.lwcc([0, 1], logits, weight=0.3), expected, atol=1e-6)
    # (.9, .1) and (.7, .3) have just that mean.
    passes = np.log([[[0.9, 0.1]] * 2, [[0.7, 0.3]] * 2])
    np.testing.assert_allclose(losses.lwcc_si([0, 1], passes, weight=0.3), expected, atol=1e-6)


def test_lwcc_convex_by_hand():
    """As above; the cross-entropy counts 1 - 0.5 * 0.2 for label 0, and 1 - 0.5 for label 1."""
    logits = np.log([[0.8, 0.2], [0.8, 0.2]])
    expected = [0.9 * 0.223144 + 0.1 * 0.223144, 0.5 * 1.609438 + 0.5 * 0.223144]
    found = losses.lwcc([0, 1], logits, weight=0.5, form="convex")
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("prior", "distance"),
    [
        ((), 0.5 * np.log(0.5 / 0.7) + 0.5 * np.log(0.5 / 0.3)),
        ((0.2, 0.8), 0.2 * np.log(0.2 / 0.7) + 0.8 * np.log(0.8 / 0.3)),
        ((1.0, 0.0), -np.log(0.7)),
    ],
)
def test_mda_by_hand(prior, distance):
    """p̄ = (.7, .3); CE .105361 and .693147."""
    found = losses.mda([0, 1], np.log([[0.9, 0.1], [0.5, 0.5]]), weight=2.0, prior=prior)
    assert float(found) == pytest.approx((0.105361 + 0.693147) / 2 + 2 * distance, abs=2e-6)


def test_nba_by_hand():
    """Three bins weigh 4/9, 0, 4/9: confidence .9 is in the last, .6 in the middle one."""
    found = losses.nba([0, 0], np.log([[0.9, 0.1], [0.4, 0.6]]), weight=0.6, bins=3, width=1e-3)
    assert float(found) == pytest.approx((0.105361 + 0.916291) / 2 + 0.6 * 4 / 9 / 2, abs=2e-6)


# --- limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_identical_passes_make_vwcc_cross_entropy(scale):
    rng = np.random.default_rng(0)
    one = (rng.normal(size=(50, CLASSES)) * scale).astype(np.float32)
    labels = rng.integers(0, CLASSES, 50)
    found, gradient = with_gradient("vwcc", labels, np.stack([one] * 5))
    uniform = from_uniform(log_softmax(one.astype(np.float64))).max()
    # α is 0 to float32's rounding, which can only make it greater.
    expected = cross_entropy(labels, one)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=5e-7 * max(1, uniform))
    _, expected_gradient = with_gradient("cross_entropy", labels, one)
    np.testing.assert_allclose(gradient.sum(0), expected_gradient, atol=1e-5)


def test_beta_is_zero_where_sure_and_right_and_one_where_wrong():
    """Read off what a weight adds: w·β·KL(U‖p)."""
    sure = tf.constant([[90.0, 0.0], [90.0, 0.0], [0.2, 0.0]])
    labels = [0, 1, 1]
    added = losses.lwcc(labels, sure, weight=1.0) - cross_entropy(labels, sure)
    uniform = from_uniform(log_softmax(sure.numpy().astype(np.float64)))
    assert uniform[0] > 40
    np.testing.assert_allclose(added, [0.0, uniform[1], uniform[2]], rtol=1e-6, atol=3e-7)


@pytest.mark.parametrize("prior", [(), (0.5, 0.3, 0.2), (0.6, 0.4, 0.0)])
def test_the_penalty_of_mda_is_least_at_the_prior_where_it_is_zero(prior):
    q = np.array(prior or (1 / 3, 1 / 3, 1 / 3))

    def penalty(p):
        """Of predictions that are the classes themselves, so often that their mean is p."""
        counts = np.round(np.array(p) * 60).astype(int)
        rows = np.repeat(np.eye(3), counts, 0) * 200
        labels = np.zeros(len(rows), int)
        with_term = losses.mda(labels, rows, weight=1.0, prior=prior)
        return float(with_term - losses.mda(labels, rows, weight=0.0, prior=prior))

    # The difference of two losses of up to 200: float32 leaves 1e-5 of it each.
    assert penalty(q) == pytest.approx(0.0, abs=5e-5)
    for away in ((0.8, 0.1, 0.1), (0.1, 0.1, 0.8), (0.4, 0.4, 0.2)):
        used = q > 0
        expected = np.sum(q[used] * np.log(q[used] / np.array(away)[used]))
        assert penalty(away) == pytest.approx(expected, abs=5e-5)
        assert penalty(away) > 0.01


CONFIDENCES = np.random.default_rng(2).random(500).astype(np.float32)


@pytest.mark.parametrize("bins", [1, 2, 10])
@pytest.mark.parametrize("width", [1e-4, 0.02, 0.5, 10.0])
def test_soft_counts_add_up_to_n(bins, width):
    edges = np.arange(bins + 1, dtype=np.float32) / bins
    counts = soft_counts(tf.concat([CONFIDENCES, edges], 0), bins=bins, width=width)
    assert counts.shape == (bins,)
    assert (counts.numpy() >= 0).all()
    assert counts.numpy().sum() == pytest.approx(500 + bins + 1, rel=1e-6)


def test_soft_counts_follow_the_histogram_as_the_width_goes_to_zero():
    hard, _ = np.histogram(CONFIDENCES, bins=10, range=(0, 1))
    errors = [
        np.abs(soft_counts(CONFIDENCES, bins=10, width=width) - hard).max()
        for width in (0.3, 0.03, 0.003, 1e-7)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 20
    assert errors[-1] < 1e-3


def test_a_confidence_on_an_edge_is_shared():
    np.testing.assert_allclose(soft_counts(tf.constant([0.5]), bins=2, width=0.1), [0.5, 0.5])


# --- signatures -----------------------------------------------------------------------------------

HYPERPARAMETERS = {
    "cross_entropy": [],
    "vwcc": [],
    "mda": ["weight", "prior", "example_weights"],
    "lwcc": ["weight", "form"],
    "lwcc_si": ["weight", "form"],
    "nba": ["weight", "bins", "width", "example_weights"],
}


@pytest.mark.parametrize("name", HYPERPARAMETERS)
def test_public_signatures(name):
    found = getattr(lotcal_tf.losses, name)
    parameters = inspect.signature(found).parameters
    assert list(parameters) == ["labels", "logits", *HYPERPARAMETERS[name]]
    for hyperparameter in HYPERPARAMETERS[name]:
        assert parameters[hyperparameter].kind is inspect.Parameter.KEYWORD_ONLY
        assert parameters[hyperparameter].default is not inspect.Parameter.empty


@each_loss
@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float64])
def test_other_types_are_computed_in_float32(name, dtype):
    # Exact in each of them.
    logits = tf.constant([[1.0, 3.0, 0.5, -8.0], [2.0, -1.0, 0.0, 2.0]], dtype)
    if name in STOCHASTIC:
        logits = tf.stack([logits, -logits])
    oracle, settings = ORACLES[name]
    found = function(name)([0, 1], logits, **settings)
    assert found.dtype == tf.float32
    expected = oracle(np.array([0, 1]), logits.numpy().astype(np.float64), **settings)[0]
    np.testing.assert_allclose(found, expected, rtol=3e-6)
