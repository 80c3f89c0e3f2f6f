"""How shares become counts: the same rule for weights that are pruned and labels that are noisy."""

import math


def half_up(value: float) -> int:
    """`value`, 0 or more, rounded to the nearest whole number, halves up."""
    # 0.29 * 50 and the like: a product a rounding error below a half is meant as the half.
    return math.floor(value * (1 + 1e-15) + 0.5)
