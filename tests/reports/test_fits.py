"""Power laws by least squares."""

import math

import numpy as np
import pytest

from memmeta_exp.reports.power_law import power_law


def test_an_exact_law() -> None:
    law = power_law([1, 2, 5, 10], [3 * x**-1.5 for x in (1, 2, 5, 10)])
    assert law.slope == pytest.approx(-1.5, abs=1e-12)
    assert law.ci95 == pytest.approx((-1.5, -1.5), abs=1e-10)
    assert law.points == 4


def test_by_hand() -> None:
    """log x = 0, 1, 2, log y = 0, 2, 1: slope 1/2, residuals -1/2, 1, -1/2, s^2 = 3/2, error sqrt(3/4)."""
    law = power_law([1, math.e, math.e**2], [1, math.e**2, math.e])
    assert law.slope == pytest.approx(0.5)
    half = 12.7062 * math.sqrt(0.75)
    assert law.ci95 == pytest.approx((0.5 - half, 0.5 + half), rel=1e-5)


def test_the_interval_holds_the_slope_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    x = np.geomspace(1, 100, 6)
    hits = 0
    for _ in range(1000):
        low, high = power_law(x.tolist(), (x**-1 * np.exp(0.3 * generator.standard_normal(6))).tolist()).ci95
        hits += low <= -1 <= high
    assert 0.93 < hits / 1000 < 0.97


def test_groups_share_the_slope_and_not_the_constant() -> None:
    x, groups = [1.0, 2.0, 4.0] * 2, ["a"] * 3 + ["b"] * 3
    y = [value * (5 if group == "a" else 700) for value, group in zip(x, groups, strict=True)]
    assert power_law(x, y, groups).slope == pytest.approx(1, abs=1e-12)
    staggered = [value * (1 if group == "a" else 8) for value, group in zip(x, groups, strict=True)]
    constant = [1.0] * 3 + [1e6] * 3
    assert power_law(staggered, constant, groups).slope == pytest.approx(0, abs=1e-12)
    assert power_law(staggered, constant).slope > 3


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        ([1, 2], [1, 2], "too few"),
        ([1, 2, 3], [1, 0, 2], "above 0"),
        ([1, 2, 3], [1, math.nan, 2], "finite"),
        ([2, 2, 2], [1, 2, 3], "same x"),
    ],
)
def test_what_is_no_line_is_refused(x: list[float], y: list[float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        power_law(x, y)
