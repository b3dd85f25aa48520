"""Mean and 95 % interval over tasks."""

import math
from collections.abc import Sequence


def mean(values: Sequence[float]) -> float:
    """Of one value or more."""
    return math.fsum(values) / len(values)


def mean_ci95(values: Sequence[float]) -> tuple[float, float]:
    """The mean of n values, two or more, and half the width of its 95 % interval, 1.96 s / sqrt(n)."""
    n, centre = len(values), mean(values)
    away = [value - centre for value in values]
    variance = math.fsum(a * a for a in away) / (n - 1)  # a ** 2 raises where a * a is infinite
    return centre, 1.96 * math.sqrt(variance / n)
