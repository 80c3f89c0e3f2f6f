"""Gradients over whole splits, against the formulas worked out in NumPy and finite differences."""

import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from lotcal_tf.compat import keras
from lotcal_tf.lottery.gradients import Gradients
from lotcal_tf.metrics.bins import bin_index
from lotcal_tf.pruning import masking
from lotcal_tf.training.predictor import Predictor

BINS = 4


@pytest.fixture(scope="module")
def network():
    """A linear classifier of eight inputs, every other weight pruned."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((8,))
    model = keras.Model(inputs, keras.layers.Dense(3, name="logits")(inputs))
    network = masking.wrap(model)
    mask = np.arange(24).reshape(8, 3) % 2 == 0
    masking.assign_masks(network, {"logits/kernel": mask})
    return network


@pytest.fixture(scope="module")
def gradients(network, dataset):
    return Gradients(network, dataset, Predictor(network, "graph"), BINS)


def data_of(split):
    inputs, labels = next(split.in_order(split.count))
    return inputs.numpy().astype(np.float64), labels.numpy()


def kernel_and_bias(network):
    values = masking.values(network)
    mask = masking.mask_variables(network)["logits/kernel"].numpy()
    return values["logits/kernel"].astype(np.float64), values["logits/bias"], mask


@pytest.mark.parametrize(("of", "part"), [("loss", "train"), ("validation_nll", "validation")])
def test_cross_entropys_gradient_by_hand(network, gradients, dataset, of, part):
    x, y = data_of(getattr(dataset, part))
    kernel, bias, mask = kernel_and_bias(network)
    p = scipy.special.softmax(x @ (kernel * mask) + bias, axis=1)
    # d mean CE / dW = xᵀ (p − onehot) / N; a pruned weight's is 0.
    expected = x.T @ (p - np.eye(3)[y]) / len(y) * mask
    np.testing.assert_allclose(gradients(of)["logits/kernel"], expected, atol=1e-6)


def test_the_calibration_errors_gradient_is_that_of_finite_differences(network, gradients, dataset):
    x, y = data_of(dataset.validation)
    kernel, bias, mask = kernel_and_bias(network)

    def probabilities(kernel):
        return scipy.special.softmax(x @ (kernel * mask) + bias, axis=1)

    start = probabilities(kernel)
    classes = start.argmax(1)
    places = bin_index(start.max(1), BINS)

    def squared_error(kernel):
        """Σ_m n_m/N (conf_m − acc_m)², bins and predicted classes held fixed."""
        confidence = probabilities(kernel)[np.arange(len(y)), classes]
        total = 0.0
        for m in range(BINS):
            inside = places == m
            if inside.any():
                gap = confidence[inside].mean() - np.mean(classes[inside] == y[inside])
                total += inside.mean() * gap**2
        return total

    expected = np.zeros_like(kernel)
    for place in np.ndindex(kernel.shape):
        step = np.zeros_like(kernel)
        step[place] = 1e-5
        difference = squared_error(kernel + step) - squared_error(kernel - step)
        expected[place] = difference / 2e-5
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(gradients("calibration")["logits/kernel"], expected, atol=1e-6)


def test_a_kernel_behind_a_stopped_gradient_has_none(dataset):
    inputs = keras.Input((8,))
    fixed = tf.stop_gradient(keras.layers.Dense(4, name="below")(inputs))
    network = masking.wrap(keras.Model(inputs, keras.layers.Dense(3, name="logits")(fixed)))
    found = Gradients(network, dataset, Predictor(network, "graph"), BINS)("loss")
    np.testing.assert_array_equal(found["below/kernel"], np.zeros((8, 4)))
    assert found["logits/kernel"].any()


def test_an_unknown_objective_is_refused(gradients):
    with pytest.raises(ValueError, match="choose one of loss, calibration, validation_nll"):
        gradients("accuracy")
