"""Corruptions of test images, after Hendrycks & Dietterich 2019 (arXiv 1903.12261).

The severities are those of CIFAR-10-C (github.com/hendrycks/robustness, `make_cifar_c.py`). They are
implemented here because the libraries that offer them are unmaintained or need images of at least 32
pixels. Unlike in CIFAR-10-C, results are not rounded to 8 bits.

Every corruption is a function `(images, severity, first)` of images `(N, H, W, C)` in [0, 1], a
severity 1 … 5 and the number of the first image in its data set. It returns images of the same shape
in [0, 1]. The corruption of an image depends on its number only, not on the batch.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from lotcal_tf.seeds import generator

Images = NDArray[np.float32]

NOISE_DEVIATION = (0.04, 0.06, 0.08, 0.09, 0.10)
BLUR_SIGMA = (0.4, 0.6, 0.7, 0.8, 1.0)  # In pixels.
CONTRAST_KEPT = (0.75, 0.5, 0.4, 0.3, 0.15)


def gaussian_noise(images: Images, severity: int, first: int = 0) -> Images:
    """Adds Gaussian noise and clips to [0, 1]; each image has its own seed."""
    noise = np.stack(
        [
            generator(0, "gaussian_noise", severity, first + number).standard_normal(image.shape)
            for number, image in enumerate(images)
        ]
    )
    return np.clip(images + NOISE_DEVIATION[severity - 1] * noise, 0, 1).astype(np.float32)


def blur(images: Images, severity: int, first: int = 0) -> Images:
    """Applies a Gaussian filter to each channel; the nearest pixels extend the image at its edges."""
    sigma = BLUR_SIGMA[severity - 1]
    blurred = gaussian_filter(images, sigma=(0, sigma, sigma, 0), mode="nearest", truncate=4.0)
    return np.clip(blurred, 0, 1)  # Rounding may leave [0, 1].


def contrast(images: Images, severity: int, first: int = 0) -> Images:
    """Scales the differences from the mean of each image's channel."""
    means = images.mean(axis=(1, 2), keepdims=True)
    return np.clip(means + np.float32(CONTRAST_KEPT[severity - 1]) * (images - means), 0, 1)
