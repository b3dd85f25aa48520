"""Intervals and the 0.9 rule against worked examples."""

import math
from pathlib import Path

import numpy as np
import pytest

from memmeta_exp.reports.runs import read_run
from memmeta_exp.reports.statistics import reached, target_index, validation_curve
from memmeta_exp.utils.statistics import mean_interval, student_t
from tests.reports.folders import SATURATING, config, write_run


@pytest.mark.parametrize(
    ("dof", "t"), [(1, 12.7062), (2, 4.30265), (3, 3.18245), (4, 2.77645), (9, 2.26216), (30, 2.04227), (1000, 1.96234)]
)
def test_students_t_is_that_of_the_tables(dof: int, t: float) -> None:
    assert student_t(dof) == pytest.approx(t, abs=6e-6)


def test_other_levels_and_no_degrees_of_freedom() -> None:
    assert student_t(5, level=0.99) == pytest.approx(4.03214, abs=6e-6)
    with pytest.raises(ValueError, match="dof=0"):
        student_t(0)


def test_the_mean_over_seeds_by_hand() -> None:
    found = mean_interval([1.0, 2.0, 3.0])
    assert (found.mean, found.n) == (2.0, 3)
    assert found.half_width == pytest.approx(4.30265 / math.sqrt(3), abs=1e-5)
    assert mean_interval([5.0]).half_width is None
    with pytest.raises(ValueError, match="no values"):
        mean_interval([])


def test_the_interval_covers_the_mean_nineteen_times_in_twenty() -> None:
    draws = np.random.default_rng(0).standard_normal((2000, 4))
    inside = [abs(found.mean) <= found.half_width for row in draws if (found := mean_interval(row.tolist()))]  # type: ignore[operator]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.015)


def test_the_target_is_reached_where_the_mean_of_three_stays_above() -> None:
    rise = [0.0, 0.3, 0.6, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert target_index(rise) == 5  # means 0.867 at 4, 1.0 at 5; 0.9 is the target
    dip = [*rise[:8], 0.0, *[1.0] * 10]
    assert target_index(dip) == 11, "the dip at 8 takes the means of 8, 9 and 10 below the target"
    assert target_index([0.0, 0.0, *[1.0] * 7]) is None, "point 4 has four points after it, not five"
    assert target_index([0.0, 0.0, *[1.0] * 8]) == 4
    assert target_index([0.5] * 7) is None
    assert target_index([0.5] * 8) == 2


def test_seconds_are_those_of_training_without_the_metered_step(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "a", config(batch_size=4), SATURATING))
    curve = validation_curve(run)
    assert curve is not None
    assert curve.iterations.tolist() == list(range(0, 24, 2))
    assert curve.tasks.tolist() == [4 * t for t in range(0, 24, 2)]
    assert curve.seconds.tolist() == [0.5 * t for t in range(0, 24, 2)], "the 9 s of the metered step count as 0.5"
    index = target_index(curve.accuracy.tolist())
    assert index is not None
    assert reached(run) == {"seconds": curve.seconds[index], "tasks": curve.tasks[index]}


def test_a_metered_step_on_a_gpu_counts_as_it_is(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "a", config(), SATURATING, memory__kind="cuda"))
    curve = validation_curve(run)
    assert curve is not None
    assert curve.seconds[1] == 9.5


def test_a_run_without_validation_has_no_curve(tmp_path: Path) -> None:
    path = write_run(tmp_path / "a", config())
    (path / "metrics.jsonl").write_text('{"iteration": 1, "train/loss": 1.0}\n')
    assert validation_curve(read_run(path)) is None
    assert reached(read_run(path)) == {"seconds": None, "tasks": None}
