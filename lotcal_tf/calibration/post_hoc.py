"""Temperature scaling: one number that makes confidence fit, found on validation data."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from lotcal_tf import metrics

# Beyond these a fit says nothing but "never" or "always": perfectly separated validation data.
LOWEST, HIGHEST = 0.01, 100.0


def fit_temperature(labels: NDArray[np.integer], logits: NDArray[np.floating]) -> float:
    """The T > 0 for which softmax(logits / T) has the lowest NLL (Guo et al. 2017, sec. 4.2).

    Args:
      labels: `(N,)`, of the validation split.
      logits: `(N, K)`.

    Returns:
      T in [0.01, 100]; the bounds are reached only where no finite T is best.
    """
    logits = np.asarray(logits, np.float64)
    # In log T: scale does not matter, and NLL has one valley in 1/T and so in log T.
    found = minimize_scalar(
        lambda log_t: metrics.nll(labels, logits / math.exp(log_t)),
        bounds=(math.log(LOWEST), math.log(HIGHEST)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return math.exp(float(found.x))
