"""Corruptions against the formulas they stand for, at every published severity."""

import math

import numpy as np
import pytest

from lotcal_tf.config.registry import CORRUPTIONS, SEVERITIES
from lotcal_tf.data.corruptions import blur, contrast, gaussian_noise

# Hendrycks & Dietterich's constants for CIFAR-10-C, severity 1 to 5.
SIGMA = {1: 0.04, 2: 0.06, 3: 0.08, 4: 0.09, 5: 0.10}
WIDTH = {1: 0.4, 2: 0.6, 3: 0.7, 4: 0.8, 5: 1.0}
KEPT = {1: 0.75, 2: 0.5, 3: 0.4, 4: 0.3, 5: 0.15}

every_severity = pytest.mark.parametrize("severity", SEVERITIES)


@pytest.fixture
def images():
    return np.random.default_rng(3).random((6, 9, 7, 3)).astype("float32")


@pytest.mark.parametrize("name", CORRUPTIONS)
@every_severity
def test_every_corruption_gives_images_and_leaves_what_it_was_given(name, severity, images):
    before = images.copy()
    images[0, 0, :, 0] = [0, 1, 0, 1, 0, 1, 1]  # what noise drives out of [0, 1]
    before[0, 0, :, 0] = images[0, 0, :, 0]
    found = CORRUPTIONS[name].load()(images, severity, 0)
    assert (found.shape, found.dtype) == (images.shape, np.float32)
    assert found.min() >= 0 and found.max() <= 1
    assert not np.array_equal(found, images)
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_image_is_corrupted_alike_whatever_it_is_batched_with(name, images):
    corrupt = CORRUPTIONS[name].load()
    whole = corrupt(images, 3, 10)
    parts = [corrupt(images[:2], 3, 10), corrupt(images[2:5], 3, 12), corrupt(images[5:], 3, 15)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


@every_severity
def test_noise_has_the_deviation_of_its_severity(severity):
    # Grey, so that nothing is cut: 0.5 is five deviations from the edge even at the strongest.
    grey = np.full((40, 16, 16, 3), 0.5, np.float32)
    noise = gaussian_noise(grey, severity).astype(np.float64) - 0.5
    count = noise.size
    # Of a normal sample: the mean's standard error is s/sqrt(n), the variance's s^2 sqrt(2/(n-1)).
    assert abs(noise.mean()) < 5 * SIGMA[severity] / math.sqrt(count)
    error = SIGMA[severity] ** 2 * math.sqrt(2 / (count - 1))
    assert abs(noise.var(ddof=1) - SIGMA[severity] ** 2) < 5 * error


def test_noise_is_drawn_anew_for_each_image_and_severity():
    grey = np.full((3, 16, 16, 1), 0.5, np.float32)
    draws = [
        gaussian_noise(grey, s, first)[n] - 0.5
        for s in (1, 5)
        for first in (0, 3)
        for n in range(3)
    ]
    assert len(draws) == 12
    for i, one in enumerate(draws):
        for other in draws[:i]:
            # 256 independent pairs: a correlation's standard error is 1/16.
            assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 5 / 16


@every_severity
def test_contrast_by_hand(severity):
    image = np.array([[[0.0, 0.2], [1.0, 0.2]], [[1.0, 0.6], [1.0, 0.6]]])  # means .75 and .4
    c = KEPT[severity]
    expected = [
        [[0.75 - 0.75 * c, 0.4 - 0.2 * c], [0.75 + 0.25 * c, 0.4 - 0.2 * c]],
        [[0.75 + 0.25 * c, 0.4 + 0.2 * c], [0.75 + 0.25 * c, 0.4 + 0.2 * c]],
    ]
    # A black image beside it: each is drawn to its own mean.
    pair = np.stack([image, np.zeros_like(image)]).astype("float32")
    np.testing.assert_allclose(contrast(pair, severity), [expected, 0 * image], atol=1e-6)


@every_severity
def test_blur_is_the_convolution_with_a_gaussian(severity, images):
    sigma = WIDTH[severity]
    radius = round(4 * sigma)
    kernel = [math.exp(-(d**2) / (2 * sigma**2)) for d in range(-radius, radius + 1)]
    total = sum(kernel) ** 2
    height, width = images.shape[1:3]
    expected = np.zeros(images.shape)
    for y in range(height):
        for x in range(width):
            for i, vertical in enumerate(kernel):
                for j, horizontal in enumerate(kernel):
                    # Beyond the edge the pixel at the edge goes on.
                    row = min(max(y + i - radius, 0), height - 1)
                    column = min(max(x + j - radius, 0), width - 1)
                    share = vertical * horizontal / total
                    expected[:, y, x] += share * images[:, row, column]
    np.testing.assert_allclose(blur(images, severity), expected, atol=2e-6)
