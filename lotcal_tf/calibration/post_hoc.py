"""Temperature scaling: one number that calibrates predictions, fitted on validation data."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from lotcal_tf import metrics

# Bounds of the temperature, reached for example if all predictions are right.
LOWEST, HIGHEST = 0.01, 100.0
# A temperature that is fitted to fewer validation examples is chance.
LEAST_EXAMPLES = 100


def chosen_temperature(labels: NDArray[np.integer], logits: NDArray[np.floating]) -> float:
    """The temperature to divide the logits of a network by.

    Args:
      labels, logits: of the validation split, see `fit_temperature`.

    Returns:
      That of `fit_temperature`; but 1, so that the logits stay as they are, with fewer than
      `LEAST_EXAMPLES` examples, and if all predictions are right: the lowest NLL is then that of a
      confidence of 1 for every example, which says nothing about other examples.
    """
    right = np.argmax(logits, axis=1) == labels
    return 1.0 if len(labels) < LEAST_EXAMPLES or right.all() else fit_temperature(labels, logits)


def fit_temperature(labels: NDArray[np.integer], logits: NDArray[np.floating]) -> float:
    """Fits the temperature T for which softmax(logits / T) has the lowest NLL.

    Guo et al. 2017 (arXiv 1706.04599), section 4.2.

    Args:
      labels: `(N,)` labels of the validation split.
      logits: `(N, K)` logits of the validation split.

    Returns:
      T in [0.01, 100].
    """
    logits = np.asarray(logits, np.float64)
    # NLL is convex in 1/T, so it has a single minimum in log T, where the tolerance is relative to T.
    found = minimize_scalar(
        lambda log_t: metrics.nll(labels, logits / math.exp(log_t)),
        bounds=(math.log(LOWEST), math.log(HIGHEST)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return math.exp(float(found.x))
