"""The stability map: how training ends with each lower-level solver, outer step size and mu."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from memmeta_exp.reports import plot_style
from memmeta_exp.reports.grouping import section_of
from memmeta_exp.reports.runs import Run

STUDY = "stability/"  # prefix of the study's experiments
SMOOTHED = 25  # iterations over which training accuracy is averaged
OVER_TIME = (
    ("train/acc", "training accuracy (%)", 100.0, "linear"),
    ("inner/L_g", "bound on $L_g$, largest of the batch", 1.0, "log"),
    ("inner/grad_norm_max", r"$|d_\phi g|$ where the solver stopped", 1.0, "log"),
    ("linear/residual_max", r"$|H v - d_\phi f| / |d_\phi f|$", 1.0, "log"),
)


@dataclass(frozen=True)
class Cell:
    """One run. accuracy: its last validation accuracy; None if it failed."""

    solver: str
    lr: float
    mu: float
    accuracy: float | None
    run: Run


def cells(runs: Sequence[Run]) -> list[Cell]:
    """The runs of the study, ordered by solver, rate and mu; the first run of each combination."""
    found: dict[tuple[str, float, float], Cell] = {}
    for run in runs:
        if not run.overrides.get("experiment", "").startswith(STUDY) or run.state not in ("finished", "failed"):
            continue
        lr, mu = section_of(run.config, "optimizer").get("lr"), section_of(run.config, "algorithm").get("mu")
        if lr is None or mu is None:
            continue
        cell = Cell(solver_of(run.config), float(lr), float(mu), _last_accuracy(run), run)
        found.setdefault((cell.solver, cell.lr, cell.mu), cell)
    return [found[key] for key in sorted(found)]


def solver_of(config: dict[str, Any]) -> str:
    """The lower-level solver in words, and whether the algorithm differentiates through its steps."""
    a = section_of(config, "algorithm")
    if a.get("inner_solver") == "newton":
        return "solved (Newton)"
    step = "1/$L_g$" if a.get("inner_lr") is None else f"{a['inner_lr']:g}"
    steps = f"{a.get('inner_steps')} steps of {step}"
    return steps if a.get("name") == "proposed" else f"{steps}, differentiated"


def _last_accuracy(run: Run) -> float | None:
    if not run.finished:
        return None
    values = [row["val/acc"] for row in run.rows if row.get("val/acc") is not None]
    return float(values[-1]) if values else None


def draw(found: Sequence[Cell], stem: Path) -> list[Path]:
    """Draws the map. Top: one panel per mu, with the last validation accuracy by solver (rows) and rate (columns).
    Bottom: the quantities of `OVER_TIME` against iterations, for each solver at the rate and mu of `most_telling`."""
    mus = sorted({cell.mu for cell in found})
    lr, mu = most_telling(found)
    with plot_style.drawing():
        figure, _ = plot_style.panels(1, width=13.5, height=6.4)
        figure.clear()
        above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=[1.0, 1.25])[:, 0]
        maps = above.subplots(1, len(mus), squeeze=False, sharey=True)[0]
        for axis, value in zip(maps, mus, strict=True):
            _map(axis, [cell for cell in found if cell.mu == value], sorted({cell.solver for cell in found}))
            axis.set_title(f"$\\mu$ = {value:g}", fontsize=10)
            axis.set_xlabel("Adam's rate")
        above.suptitle("Validation accuracy (%) at the end", fontsize=10.5, x=0.01, ha="left")
        axes = below.subplots(1, len(OVER_TIME))
        lines = [cell for cell in found if (cell.lr, cell.mu) == (lr, mu)]
        for axis, (key, label, scale, kind) in zip(axes, OVER_TIME, strict=True):
            _over_time(axis, lines, key, scale)
            axis.set_yscale(kind)
            axis.set_ylabel(label)
            axis.set_xlabel("iterations")
        below.suptitle(f"Over time, at rate {lr:g} and $\\mu$ = {mu:g}", fontsize=10.5, x=0.01, ha="left")
        handles, labels = axes[0].get_legend_handles_labels()
        below.legend(handles, labels, loc="outside lower center", ncols=3)
        return plot_style.save(figure, stem)


def most_telling(found: Sequence[Cell]) -> tuple[float, float]:
    """The rate and mu with the largest difference between the best and the worst solver; a failed run counts as 0."""

    def spread(point: tuple[float, float]) -> float:
        values = [cell.accuracy or 0.0 for cell in found if (cell.lr, cell.mu) == point]
        return max(values) - min(values)

    return max(sorted({(cell.lr, cell.mu) for cell in found}), key=spread)


def _map(axis: Axes, found: Sequence[Cell], solvers: Sequence[str]) -> None:
    rates = sorted({cell.lr for cell in found})
    grid = np.full((len(solvers), len(rates)), math.nan)
    for cell in found:
        row, column = solvers.index(cell.solver), rates.index(cell.lr)
        grid[row, column] = math.nan if cell.accuracy is None else 100 * cell.accuracy
        text = "failed" if cell.accuracy is None else f"{100 * cell.accuracy:.1f}"
        dark = cell.accuracy is not None and cell.accuracy < 0.45
        axis.text(column, row, text, ha="center", va="center", fontsize=9.5, color="white" if dark else "black")
    axis.imshow(grid, cmap="cividis", vmin=20, vmax=70, aspect="auto")
    axis.set_facecolor("0.85")
    axis.grid(False)
    axis.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates])
    axis.set_yticks(range(len(solvers)), solvers)


def _over_time(axis: Axes, lines: Sequence[Cell], key: str, scale: float) -> None:
    looks = plot_style.line_styles(["proposed"] * len(lines))
    for cell, look in zip(lines, looks, strict=True):
        points = [(row["iteration"], row[key]) for row in cell.run.rows if row.get(key) is not None]
        x, y = np.array(points, float).reshape(-1, 2).T
        if key == "train/acc" and len(y) >= SMOOTHED:
            y, x = np.convolve(y, np.ones(SMOOTHED) / SMOOTHED, "valid"), x[SMOOTHED - 1 :]
        drawn = {"color": look["color"], "linestyle": look["linestyle"], "linewidth": 1.2}
        axis.plot(x, scale * y, label=cell.solver, **drawn)


def alt_text(found: Sequence[Cell]) -> str:
    """A text description of the map."""
    parts = [
        f"{cell.solver.replace('$', '')}, rate {cell.lr:g}, mu {cell.mu:g}: "
        + ("failed" if cell.accuracy is None else f"{100 * cell.accuracy:.1f} %")
        for cell in found
    ]
    return "Validation accuracy at the end. " + "; ".join(parts) + "."
