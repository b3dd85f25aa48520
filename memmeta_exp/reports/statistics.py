"""Validation curves of runs, and the paper's criterion for the time to a target accuracy."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from memmeta_exp.reports.runs import Run

TARGET = 0.9  # fraction of the best validation accuracy
WINDOW = 3  # validation points of the moving average
HOLDS_FOR = 5  # further points at which the moving average must stay at the target


@dataclass(frozen=True)
class Curve:
    """Validation points of a run: outer iterations, training tasks seen, seconds of training, accuracy (fraction), and
    the half-width of each point's 95 % interval over validation tasks."""

    iterations: np.ndarray
    tasks: np.ndarray
    seconds: np.ndarray
    accuracy: np.ndarray
    half_width: np.ndarray


def validation_curve(run: Run) -> Curve | None:
    """The validation curve of a run; None if it has no validation points.

    Seconds are of training iterations only, without validation and test. The iteration whose memory is measured on a
    CPU counts with the median of the others.
    """
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
    """Training tasks per iteration: from the run's summary, else batch_size."""
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
    """The index of the first validation point that reached the target, as in the paper's figures; None if none did.

    Point k has reached it if the mean of points k-2, k-1, k, and the means of the next HOLDS_FOR points, are at least
    TARGET times the highest single point. A curve that ends before all HOLDS_FOR points has not reached it.
    """
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
    """{"seconds", "tasks"} until the target; each None if it was not reached."""
    curve = validation_curve(run)
    index = None if curve is None else target_index(curve.accuracy.tolist())
    if curve is None or index is None:
        return {"seconds": None, "tasks": None}
    return {"seconds": float(curve.seconds[index]), "tasks": float(curve.tasks[index])}
