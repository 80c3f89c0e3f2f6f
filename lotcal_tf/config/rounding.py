"""Rounds shares to counts, by the same rule for pruned weights and noisy labels."""

import math


def half_up(value: float) -> int:
    """Rounds a value of 0 or more to the nearest integer, halves up."""
    # Products such as 0.29 * 50 are smaller than 14.5 by a rounding error only, and count as 14.5.
    return math.floor(value * (1 + 1e-15) + 0.5)
