"""Validation curves of runs, and the paper's criterion for when a run has reached its target accuracy."""

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
class Curve:
    """Validation points of a run: outer iterations, training tasks seen, seconds of training, accuracy (fraction), and
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
