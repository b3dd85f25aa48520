"""Fits power laws y = c x^s by least squares on logarithms."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from memmeta_exp.utils.statistics import student_t


@dataclass(frozen=True)
class PowerLaw:
    """slope: s. ci95: its 95 % interval, s -+ t_{0.975, dof} times the standard error, which assumes that the
    points scatter independently around the line. points: their number."""

    slope: float
    ci95: tuple[float, float]
    points: int


def power_law(x: Sequence[float], y: Sequence[float], groups: Sequence[object] | None = None) -> PowerLaw:
    """Ordinary least squares of log y on log x with dof = points - groups - 1.

    groups: the group of each point; all groups share the slope, and each has its own constant c. None: one group.
    Raises ValueError for values without a logarithm, or if dof < 1.
    """
    keys: list[object] = list(groups) if groups is not None else [0] * len(x)
    if not all(value > 0 and math.isfinite(value) for value in (*x, *y)):
        raise ValueError("a power law needs values above 0, and finite ones")
    names = sorted(set(keys), key=str)
    dof = len(x) - len(names) - 1
    if dof < 1:
        raise ValueError(f"{len(x)} points in {len(names)} group(s) are too few for a slope with an interval")
    u, v = (_centred(np.log(np.asarray(values, float)), keys, names) for values in (x, y))
    spread = float(u @ u)
    if spread == 0:
        raise ValueError("all points have the same x")
    slope = float(u @ v) / spread
    error = math.sqrt(float(np.square(v - slope * u).sum()) / dof / spread)
    half = student_t(dof) * error
    return PowerLaw(slope, (slope - half, slope + half), len(x))


def _centred(values: np.ndarray, keys: list[object], names: list[object]) -> np.ndarray:
    """`values` minus the mean of their group."""
    result = values.copy()
    for name in names:
        mine = np.array([key == name for key in keys])
        result[mine] -= values[mine].mean()
    return result
