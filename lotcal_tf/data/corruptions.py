"""Corruptions of test images, after Hendrycks & Dietterich 2019 (arXiv 1903.12261).

The severities are those that CIFAR-10-C was made with (github.com/hendrycks/robustness,
`make_cifar_c.py`); the libraries that hold them are unmaintained or ask for images of 32 pixels and
more. Unlike CIFAR-10-C the results are not cut down to whole bytes.

Every corruption is a function `(images, severity, first)`: images `(N, height, width, channels)` in
[0, 1], severity 1 … 5, `first` the number of the first image in its set. It gives images of the same
shape in [0, 1]; the same image of a set is always corrupted alike, whatever it is batched with.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from lotcal_tf.seeds import generator

Images = NDArray[np.float32]
Corruption = Callable[[Images, int, int], Images]

NOISE_DEVIATION = (0.04, 0.06, 0.08, 0.09, 0.10)
BLUR_SIGMA = (0.4, 0.6, 0.7, 0.8, 1.0)  # in pixels
CONTRAST_KEPT = (0.75, 0.5, 0.4, 0.3, 0.15)


def gaussian_noise(images: Images, severity: int, first: int = 0) -> Images:
    """Adds normal noise to every value, and cuts what leaves [0, 1]; each image has its own seed."""
    noise = np.stack(
        [
            generator(0, "gaussian_noise", severity, first + number).standard_normal(image.shape)
            for number, image in enumerate(images)
        ]
    )
    return np.clip(images + NOISE_DEVIATION[severity - 1] * noise, 0, 1).astype(np.float32)


def blur(images: Images, severity: int, first: int = 0) -> Images:
    """Filters each channel by a Gaussian over height and width; beyond the edge its pixels go on."""
    sigma = BLUR_SIGMA[severity - 1]
    blurred = gaussian_filter(images, sigma=(0, sigma, sigma, 0), mode="nearest", truncate=4.0)
    return np.clip(blurred, 0, 1)  # of what rounding adds


def contrast(images: Images, severity: int, first: int = 0) -> Images:
    """Draws values to the mean of their image's channel, of whose differences a share is kept."""
    means = images.mean(axis=(1, 2), keepdims=True)
    return np.clip(means + np.float32(CONTRAST_KEPT[severity - 1]) * (images - means), 0, 1)
