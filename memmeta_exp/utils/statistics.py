"""Means and their 95 % confidence intervals, over tasks and over seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import stdtrit


def mean(values: Sequence[float]) -> float:
    """The mean of one value or more."""
    return math.fsum(values) / len(values)


def mean_ci95(values: Sequence[float]) -> tuple[float, float]:
    """For many tasks: the mean of n >= 2 values, and the half-width of its 95 % interval, 1.96 s / sqrt(n)."""
    return mean(values), 1.96 * _standard_error(values)


@dataclass(frozen=True)
class Mean:
    """The mean of n values. half_width: of its 95 % interval; None for a single value."""

    mean: float
    half_width: float | None
    n: int


def mean_interval(values: Sequence[float]) -> Mean:
    """For few seeds: half_width = t_{0.975, n - 1} s / sqrt(n), with Student's t. Raises ValueError for no values."""
    n = len(values)
    if not n:
        raise ValueError("the mean of no values is not defined")
    half_width = student_t(n - 1) * _standard_error(values) if n > 1 else None
    return Mean(mean(values), half_width, n)


def student_t(dof: int, level: float = 0.95) -> float:
    """t with P(|T| <= t) = `level` for Student's distribution with `dof` degrees of freedom. ValueError if dof < 1."""
    if dof < 1:
        raise ValueError(f"dof={dof} is out of range: an interval needs two values or more")
    return float(stdtrit(dof, (1 + level) / 2))


def _standard_error(values: Sequence[float]) -> float:
    n, centre = len(values), mean(values)
    away = [value - centre for value in values]
    variance = math.fsum(a * a for a in away) / (n - 1)  # a ** 2 would raise OverflowError; a * a becomes infinite
    return math.sqrt(variance / n)
