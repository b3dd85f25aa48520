"""Means with intervals over seeds, and the paper's rule for when a run has learned."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from memmeta_exp.reports.runs import Run

TARGET = 0.9  # of the best validation accuracy
WINDOW = 3  # validation points of the moving average
HOLDS_FOR = 5  # further points at which it must not be below the target


@dataclass(frozen=True)
class Mean:
    """Mean of n values and half the 95 % interval: Student's t over seeds, s / sqrt(n) t_{0.975, n - 1}; half_width is
    None for a single value."""

    mean: float
    half_width: float | None
    n: int


def mean_interval(values: Sequence[float]) -> Mean:
    """Raises ValueError for no values."""
    if not len(values):
        raise ValueError("the mean of no values is not defined")
    n, mean = len(values), float(np.mean(values))
    if n == 1:
        return Mean(mean, None, 1)
    return Mean(mean, student_t(n - 1) * float(np.std(values, ddof=1)) / math.sqrt(n), n)


def student_t(dof: int, level: float = 0.95) -> float:
    """t with P(|T| <= t) = `level` for Student's distribution with an integer `dof` >= 1: the finite series of
    Abramowitz and Stegun (1964), 26.7.3 and 26.7.4, inverted by bisection to rounding."""
    if dof < 1:
        raise ValueError(f"dof={dof} is out of range: an interval needs two values or more")
    low, high = 0.0, math.pi / 2  # the angle atan(t / sqrt(dof))
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _central_mass(middle, dof) < level else (low, middle)
    return math.sqrt(dof) * math.tan((low + high) / 2)


def _central_mass(angle: float, dof: int) -> float:
    cosine_sq = math.cos(angle) ** 2
    odd = dof % 2
    term, total = 1.0, 0.0
    for j in range(odd, dof - 1, 2):
        total += term
        term *= cosine_sq * (j + 1) / (j + 2)
    if not odd:
        return math.sin(angle) * total
    return 2 / math.pi * (angle + math.sin(angle) * math.cos(angle) * total)


@dataclass(frozen=True)
class Curve:
    """Validation points of a run: upper iterations, training tasks seen, seconds of training, accuracy (fraction), and
    half of each point's own 95 % interval over validation tasks."""

    iterations: np.ndarray
    tasks: np.ndarray
    seconds: np.ndarray
    accuracy: np.ndarray
    half_width: np.ndarray


def validation_curve(run: Run) -> Curve | None:
    """None for a run without validation points. Seconds are those of the training iterations so far: no validation, no
    test; the iteration whose memory is metered on a CPU counts as long as the median of the others."""
    rows = [row for row in run.rows if row.get("val/acc") is not None]
    if not rows:
        return None
    seconds = _seconds_by_iteration(run)
    iterations = np.array([row["iteration"] for row in rows], float)
    return Curve(
        iterations=iterations,
        tasks=iterations * tasks_per_iteration(run),
        seconds=np.array([seconds.get(row["iteration"], math.nan) for row in rows]),
        accuracy=np.array([row["val/acc"] for row in rows], float),
        half_width=np.array([row.get("val/acc_ci95") or math.nan for row in rows], float),
    )


def tasks_per_iteration(run: Run) -> float:
    """What the run says that it saw, else batch_size."""
    seen, iterations = run.summary.get("tasks_seen"), run.summary.get("iterations")
    return seen / iterations if seen and iterations else float(run.config.get("batch_size", math.nan))


def _seconds_by_iteration(run: Run) -> dict[int, float]:
    steps = [row for row in run.rows if row.get("time/step_seconds") is not None]
    metered = run.summary.get("memory/kind") == "cpu-tensors"
    plain = [r["time/step_seconds"] for r in steps if not (metered and "memory/peak_mib" in r)]
    median = float(np.median(plain)) if plain else math.nan
    total, found = 0.0, {0: 0.0}
    for row in steps:
        total += median if metered and plain and "memory/peak_mib" in row else row["time/step_seconds"]
        found[row["iteration"]] = total
    return found


def target_index(accuracy: Sequence[float]) -> int | None:
    """The first validation point that reached the target, as in the paper's figures: the mean of this point and the two
    before it, and those of the next HOLDS_FOR points, are not below TARGET times the highest single point. None where
    there is none; a curve that ends before all HOLDS_FOR have been seen has not reached it. The first mean is that of
    points 0, 1, 2."""
    values = np.asarray(accuracy, float)
    if len(values) < WINDOW + HOLDS_FOR:
        return None
    means = np.convolve(values, np.ones(WINDOW) / WINDOW, "valid")
    holds = means >= TARGET * values.max()
    for i in range(len(means) - HOLDS_FOR):
        if holds[i : i + HOLDS_FOR + 1].all():
            return i + WINDOW - 1
    return None


def reached(run: Run) -> dict[str, Any]:
    """{"seconds", "tasks"} to the target; None each where it was not reached."""
    curve = validation_curve(run)
    index = None if curve is None else target_index(curve.accuracy.tolist())
    if curve is None or index is None:
        return {"seconds": None, "tasks": None}
    return {"seconds": float(curve.seconds[index]), "tasks": float(curve.tasks[index])}
