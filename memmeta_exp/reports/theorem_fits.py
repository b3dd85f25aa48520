"""Fits of the studies of the paper's theorems: measured points, fitted slopes and expected slopes (docs/theory.md).

A fit is a dictionary:
name, x_label, y_label: text. x, y: all points. used: which points are in the fit. rule: how these were selected.
slope, slope_ci95, points: the fitted slope, its 95 % interval and its number of points. expected: the theorem's slope.
reached, reached_at_most: optional, the final value of the runs and the theorem's bound.
groups, group_label: optional, if the points belong to several curves with a common slope: the group of each point, and
what groups differ in.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from memmeta_exp.config import flat
from memmeta_exp.reports.power_law import PowerLaw, power_law
from memmeta_exp.tracking.run_folder import read_metrics, read_status
from memmeta_exp.utils.reading import Plain, read_yaml

NORM, ERROR, GRADIENTS = "convergence/grad_norm_sq", "convergence/error", "cost/gradient_evaluations"
GRID = 20  # points of a curve, evenly on a logarithmic axis
LAST_DECADE = (0.1, 1.0)  # part of T in which the start has no effect, and a floor or a slower rate is visible
MIDDLE_DECADE = (0.01, 0.1)  # for random batches: the start has little effect, and so has the noise of the floor
EXACT = 1e-20  # |grad F|^2 of an exact solution in float64

Row = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """A finished run: its resolved configuration and its rows."""

    config: dict[str, Any]
    rows: list[Row]

    def get(self, key: str) -> Any:
        """The value of a dotted key of the configuration."""
        return flat(self.config).get(key)

    def column(self, key: str) -> np.ndarray:
        """(iteration, value) of the n rows that have `key`: [n, 2]."""
        found = [(row["iteration"], row[key]) for row in self.rows if row.get(key) is not None]
        return np.array(found, float).reshape(-1, 2)


def study_fits(name: str, sweep_dir: Path) -> list[Row]:
    """The fits of the study `name` from the finished jobs of its sweep folder; empty if `name` is no theorem's study.
    Raises a one-line ValueError if a fit cannot be made."""
    if name not in STUDIES:
        return []
    jobs = _finished(Path(sweep_dir))
    if not jobs:
        raise ValueError(f"{sweep_dir} has no finished job")
    return STUDIES[name](jobs)


def _finished(sweep_dir: Path) -> list[Job]:
    folders = [f for f in sorted((sweep_dir / "jobs").glob("*/")) if read_status(f).get("state") == "finished"]
    return [Job(read_yaml(folder / "config.yaml", Plain), read_metrics(folder)) for folder in folders]


def batch_size(jobs: Sequence[Job]) -> list[Row]:
    """Theorem 1: the error floor against the batch size B."""
    floors = {size: _mean([_floor(job) for job in some]) for size, some in _by(jobs, "batch_size")}
    return [
        _fit(
            name="error floor against B",
            x=list(floors),
            y=list(floors.values()),
            labels=("batch size B (tasks)", "mean of |grad F|^2 over the second half of the run"),
            expected=-1.0,
            rule="a point is the mean of |grad F|^2 over iterations t > T/2 and over seeds; all points are in the fit",
        )
    ]


def iterations(jobs: Sequence[Job]) -> list[Row]:
    """Theorem 2, and the first term of Theorem 1: the running mean of |grad F|^2 against T. The T in the fit depend
    only on the length of the runs: a rule that depends on the curve could make any curve look straight."""
    fits = []
    for sampling, some in _by(jobs, "sampling"):
        count, error, _ = _mean_curve(some)
        grid = _log_grid(count)
        x, y = count[grid], error[grid]
        label = "convergence error: mean of |grad F|^2 over t < T"
        more: Row = {}
        if sampling == "random":
            decade = MIDDLE_DECADE
            y = y - _mean([_floor(job) for job in some])
            label += ", less its floor"
        else:
            decade = LAST_DECADE
            more = {"reached": float(max(job.column(NORM)[-1, 1] for job in some)), "reached_at_most": EXACT}
        low, high = (share * count[-1] for share in decade)
        used = (x >= low) & (x <= high) & (y > 0)
        rule = f"the points from {decade[0]:g} to {decade[1]:g} of the length of the runs"
        if sampling == "random":
            rule += "; floor: the mean of |grad F|^2 over the second half"
        fits.append(
            _fit(
                name="error against T, all tasks" if sampling == "all" else "error against T, random batches",
                x=x.tolist(),
                y=y.tolist(),
                labels=("outer iterations T", label),
                expected=-1.0,
                rule=f"{rule}; mean over seeds; the points are of one curve, so they are not independent",
                used=used.tolist(),
                **more,
            )
        )
    return fits


def inner_accuracy(jobs: Sequence[Job]) -> list[Row]:
    """The conditions of Theorem 2: steps K and N for a fixed accuracy, against kappa."""
    solvers = (
        ("K", "inner/steps", "inner/grad_norm_max", "algorithm.inner_tolerance", 1.0, "|d_phi g| <= {:g}"),
        (
            "N",
            "linear/steps",
            "linear/residual_max",
            "algorithm.linear_tolerance",
            0.5,
            "|Hv - d_phi f| <= {:g} |d_phi f|",
        ),
    )
    fits = []
    for letter, key, residual, tolerance, expected, condition in solvers:
        asked = jobs[0].get(tolerance)
        for job in jobs:
            if job.get(tolerance) != asked or job.column(residual)[:, 1].max() > asked:
                raise ValueError(f"{tolerance} is missed, or differs between jobs: {letter} is not defined")
        steps = {
            kappa: _mean([job.column(key)[:, 1].mean() for job in some]) for kappa, some in _by(jobs, "dataset.kappa")
        }
        fits.append(
            _fit(
                name=f"{letter} against kappa",
                x=list(steps),
                y=list(steps.values()),
                labels=("condition number kappa = L_g / mu", f"steps {letter} to {condition.format(asked)}"),
                expected=expected,
                rule="a point is the mean of the steps taken over tasks, iterations and seeds; all are in the fit",
            )
        )
    return fits


def inner_accuracy_evaluations(jobs: Sequence[Job]) -> list[Row]:
    """Theorem 2: gradient evaluations until the running mean is eps, against 1/eps and against kappa."""
    curves = {kappa: _evaluations(some) for kappa, some in _by(jobs, "dataset.kappa")}
    low = max(error[-1] for error, _ in curves.values())
    high = min(error[0] for error, _ in curves.values())
    if not low < high:
        raise ValueError("the errors of the runs do not overlap in their last decade")
    eps = np.geomspace(high, low, GRID // 2)
    needed = {kappa: _first(error, cost, eps) for kappa, (error, cost) in curves.items()}
    label = "gradient evaluations, all tasks"
    rule = (
        f"{GRID // 2} values of eps from the error at a tenth of the runs' length to that at their end, where all "
        "kappa have them; evaluations are those counted when the error, mean over seeds, is first at most eps"
    )
    groups = [kappa for kappa in needed for _ in eps]
    geometric = np.exp(np.mean([np.log(values) for values in needed.values()], 0))
    fits = [
        _fit(
            name="evaluations against 1/eps",
            x=[1 / value for _ in needed for value in eps],
            y=[float(value) for values in needed.values() for value in values],
            labels=("1 / eps", label),
            expected=1.0,
            rule=f"{rule}; the line is through the geometric mean over kappa, for F, and so the error, is one function "
            "for all kappa; its points are of one curve, so they are not independent",
            law=_law("evaluations against 1/eps", (1 / eps).tolist(), geometric.tolist()),
            groups=groups,
            group_label="kappa",
        )
    ]
    if len(needed) > 2:
        fits.append(
            _fit(
                name="evaluations against kappa",
                x=list(needed),
                y=[float(values[-1]) for values in needed.values()],
                labels=("condition number kappa = L_g / mu", f"{label}, to eps = {eps[-1]:.3g}"),
                expected=1.0,
                rule="evaluations to the least of those eps; all points are in the fit",
            )
        )
    return fits


STUDIES: dict[str, Callable[[Sequence[Job]], list[Row]]] = {
    "batch_size": batch_size,
    "iterations": iterations,
    "inner_accuracy": inner_accuracy,
    "inner_accuracy_evaluations": inner_accuracy_evaluations,
}


def _by(jobs: Sequence[Job], key: str) -> list[tuple[Any, list[Job]]]:
    """The jobs by value of `key`, in ascending order of the values."""
    found: dict[Any, list[Job]] = defaultdict(list)
    for job in jobs:
        found[job.get(key)].append(job)
    return sorted(found.items())


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _floor(job: Job) -> float:
    """The mean of |grad F|^2 over the second half of the run."""
    column = job.column(NORM)
    return float(column[column[:, 0] > column[-1, 0] / 2, 1].mean())


def _mean_curve(jobs: Sequence[Job]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(T = 1, 2, ..; the mean of |grad F|^2 over t = 0..T-1; |grad F|^2 at T-1), averaged over `jobs`."""
    errors, norms = ([job.column(key) for job in jobs] for key in (ERROR, NORM))
    length = len(errors[0])
    if any(not np.array_equal(column[:, 0], np.arange(length)) for column in errors):
        raise ValueError("the error is not measured at every iteration of every job: set convergence_every=1 and one T")
    return np.arange(1, length + 1), np.mean([c[:, 1] for c in errors], 0), np.mean([c[:, 1] for c in norms], 0)


def _log_grid(count: np.ndarray) -> np.ndarray:
    """Indices of at most GRID values of `count`, as even as possible on a logarithmic axis."""
    wanted = np.geomspace(count[0], count[-1], GRID)
    return np.unique(np.abs(count[None] - wanted[:, None]).argmin(1))


def _evaluations(jobs: Sequence[Job]) -> tuple[np.ndarray, np.ndarray]:
    """The mean of |grad F|^2 over t < T, and the gradient evaluations of these T iterations, for every T of the last
    decade; averaged over `jobs`."""
    count, error, _ = _mean_curve(jobs)
    cost = np.mean([job.column(GRADIENTS)[:, 1] for job in jobs], 0)  # after iterations 1, 2, ..
    kept = (count >= LAST_DECADE[0] * len(cost))[: len(cost)]
    return error[: len(cost)][kept], cost[kept]


def _first(error: np.ndarray, cost: np.ndarray, eps: np.ndarray) -> np.ndarray:
    """The cost at which the error is first at most eps, for each eps."""
    return np.array([cost[np.argmax(error <= value * (1 + 1e-12))] for value in eps])


def _fit(
    name: str,
    x: list[float],
    y: list[float],
    labels: tuple[str, str],
    expected: float,
    rule: str,
    used: list[bool] | None = None,
    groups: list[Any] | None = None,
    law: PowerLaw | None = None,
    **more: Any,
) -> Row:
    used = used or [True] * len(x)
    kept = [i for i, keep in enumerate(used) if keep]
    law = law or _law(name, [x[i] for i in kept], [y[i] for i in kept])
    return {
        "name": name,
        "x": [float(value) for value in x],
        "y": y,
        "used": used,
        "x_label": labels[0],
        "y_label": labels[1],
        "slope": law.slope,
        "slope_ci95": list(law.ci95),
        "expected": expected,
        "rule": rule,
        "points": law.points,
        **({"groups": groups} if groups else {}),
        **more,
    }


def _law(name: str, x: list[float], y: list[float]) -> PowerLaw:
    try:
        return power_law(x, y)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
