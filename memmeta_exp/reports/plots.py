"""Figures of one run: `plot_run(run_dir)` reads its metrics.jsonl and writes plots/*.png."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from memmeta_exp.reports import sinusoid
from memmeta_exp.reports.plot_style import BLUE, DPI, GREEN, VERMILLION, drawing, plain_log_axis
from memmeta_exp.tracking.run_folder import read_metrics

SMOOTHING_WINDOWS = 30  # a curve is averaged over about 1/30 of the run
LETTERS_A_PANEL = 55  # characters of a title per panel

Series = tuple[np.ndarray, np.ndarray]


def plot_run(run_dir: Path, title: str | None = None) -> list[Path]:
    """Writes plots/training.png, plots/convergence.png and, for dataset=sinusoid, plots/sinusoid.png of a run.

    Returns the written files; a figure without data is not written. title: above each figure; None: the folder's name.
    Raises ValueError if `run_dir` has no metrics.jsonl.
    """
    if not (run_dir / "metrics.jsonl").is_file():
        raise ValueError(f"{run_dir} has no metrics.jsonl: give the folder of a run")
    rows = read_metrics(run_dir)
    title = title or run_dir.resolve().name
    written = []
    training = (_squared_error,) if any("val/mse" in row for row in rows) else (_loss, _accuracy)
    for name, panels in (("training", training), ("convergence", (_gradient_norm, _lower_level))):
        with drawing():
            figure = _figure(rows, panels, title)
            if figure is not None:
                written.append(_save(figure, run_dir / "plots" / f"{name}.png"))
    adapted = sinusoid.plot(run_dir, title)
    return written if adapted is None else [*written, adapted]


def series(rows: Sequence[dict[str, Any]], key: str) -> Series:
    """(iterations, values) of the rows that have a finite `key`."""
    points = [(row["iteration"], row[key]) for row in rows if row.get(key) is not None]
    table = np.array(points, dtype=float).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """The centred moving mean over `window` values, over fewer at the ends."""
    kernel = np.ones(min(window, len(values)))
    return np.convolve(values, kernel, "same") / np.convolve(np.ones(len(values)), kernel, "same")


def _figure(rows: list[dict[str, Any]], panels: Sequence[Any], title: str) -> Figure | None:
    """A figure with those `panels` that have data, in one row; None if none has."""
    found = [panel for panel in panels if panel(Figure().subplots(), rows)]
    if not found:
        return None
    size = (5 * len(found), 3.8)
    figure = Figure(figsize=size, layout="constrained")  # without pyplot: needs no display, has no global state
    for axis, panel in zip(figure.subplots(1, len(found), squeeze=False)[0], found, strict=True):
        panel(axis, rows)
        axis.set_xlabel("outer iteration t")
        axis.legend(frameon=True, framealpha=0.85, edgecolor="none")
    lines = textwrap.wrap(title, LETTERS_A_PANEL * len(found), break_on_hyphens=False)
    figure.suptitle("\n".join(lines), fontsize=11)
    return figure


def _save(figure: Figure, file: Path) -> Path:
    file.parent.mkdir(exist_ok=True)
    figure.savefig(file, dpi=DPI)
    return file


def _loss(axis: Axes, rows: list[dict[str, Any]]) -> bool:
    axis.set_ylabel("query loss (nats)")
    drawn = _smoothed(axis, *series(rows, "train/loss"), "training")
    return _validation(axis, rows, "val/loss", scale=1.0) or drawn


def _accuracy(axis: Axes, rows: list[dict[str, Any]]) -> bool:
    axis.set_ylabel("query accuracy (%)")
    steps, values = series(rows, "train/acc")
    drawn = _smoothed(axis, steps, 100 * values, "training")
    return _validation(axis, rows, "val/acc", scale=100.0) or drawn


def _squared_error(axis: Axes, rows: list[dict[str, Any]]) -> bool:
    axis.set_ylabel("query mean squared error")
    axis.set_yscale("log")
    plain_log_axis(axis.yaxis)
    drawn = _smoothed(axis, *series(rows, "train/loss"), "training")
    return _validation(axis, rows, "val/mse", scale=1.0) or drawn


def _smoothed(axis: Axes, steps: np.ndarray, values: np.ndarray, label: str) -> bool:
    """Draws the logged values, faint, and their moving mean."""
    if not len(steps):
        return False
    window = max(1, len(steps) // SMOOTHING_WINDOWS)
    if window > 1:
        axis.plot(steps, values, color=BLUE, alpha=0.25, linewidth=0.7)
        label = f"{label} (mean of {window} logged)"
    axis.plot(steps, smooth(values, window), color=BLUE, linewidth=1.6, label=label)
    return True


def _validation(axis: Axes, rows: list[dict[str, Any]], key: str, scale: float) -> bool:
    """Draws the validation points, with 95 % intervals if all of them were logged with one."""
    steps, values = series(rows, key)
    if not len(steps):
        return False
    _, half_widths = series(rows, f"{key}_ci95")
    errors = scale * half_widths if len(half_widths) == len(steps) else None
    label = "validation" if errors is None else "validation, 95 % interval"
    style = {"fmt": "o-", "markersize": 4.5, "linewidth": 1, "capsize": 2.5, "color": VERMILLION, "zorder": 3}
    axis.errorbar(steps, scale * values, yerr=errors, label=label, **style)
    return True


def _gradient_norm(axis: Axes, rows: list[dict[str, Any]]) -> bool:
    axis.set_ylabel(r"squared gradient norm $\|\nabla F(\theta)\|^2$")
    curves = [
        ("convergence/grad_norm_sq", "at iteration t", {"color": BLUE, "linewidth": 1, "marker": "o", "markersize": 3}),
        ("convergence/error", "convergence error: mean up to t", {"color": VERMILLION, "linewidth": 2}),
    ]
    return _log_curves(axis, rows, curves)


def _lower_level(axis: Axes, rows: list[dict[str, Any]]) -> bool:
    axis.set_ylabel("residuals and curvature (no unit)")
    lower = r"lower level: largest $\|\partial_\varphi g\|$"
    linear = r"linear system: largest $\|Hv - \partial_\varphi f\| \, / \, \|\partial_\varphi f\|$"
    curves = [
        ("inner/grad_norm_max", lower, {"color": BLUE, "linewidth": 1.2}),
        ("linear/residual_max", linear, {"color": VERMILLION, "linewidth": 1.2, "linestyle": "--"}),
        ("inner/L_g", r"smoothness constant $L_g$", {"color": GREEN, "linewidth": 1.8, "linestyle": "-."}),
    ]
    return _log_curves(axis, rows, curves)


def _log_curves(axis: Axes, rows: list[dict[str, Any]], curves: list[tuple[str, str, dict[str, Any]]]) -> bool:
    """Draws the positive values of each logged (key, label, line style) on a logarithmic axis."""
    drawn = False
    for key, label, style in curves:
        steps, values = series(rows, key)
        positive = values > 0
        if positive.any():
            axis.plot(steps[positive], values[positive], label=label, **style)
            drawn = True
    if drawn:
        axis.set_yscale("log")
    return drawn
