"""Accuracy figures: validation accuracy against tasks and seconds, and test accuracy next to the paper's."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from memmeta_exp.reports import paper_results, plot_style
from memmeta_exp.reports.grouping import Configuration
from memmeta_exp.reports.runs import Run
from memmeta_exp.reports.statistics import Curve, validation_curve
from memmeta_exp.utils.statistics import mean_interval

MOST_LINES = 10


def mean_curve(configuration: Configuration) -> tuple[Curve, int] | None:
    """The mean validation curve of the runs, and the number of runs; None if no run has a curve.

    Point k is the mean over seeds of tasks, seconds and accuracy at the k-th validation, up to the shortest curve.
    half_width: of the interval over seeds; for a single seed, over its validation tasks.
    """
    curves = [curve for run in configuration.runs if (curve := _curve(run)) is not None]
    return mean_of_curves(curves) if curves else None


def mean_of_curves(curves: Sequence[Curve]) -> tuple[Curve, int]:
    """The mean of one curve or more, as `mean_curve` defines it."""
    if len(curves) == 1:
        return curves[0], 1
    shared = min(len(curve.accuracy) for curve in curves)
    stacked = {
        name: np.stack([getattr(curve, name)[:shared] for curve in curves])
        for name in ("iterations", "tasks", "seconds", "accuracy")
    }
    half = [mean_interval(column.tolist()).half_width or 0.0 for column in stacked["accuracy"].T]
    means = {name: values.mean(axis=0) for name, values in stacked.items()}
    return Curve(**means, half_width=np.array(half)), len(curves)


def _curve(run: Run) -> Curve | None:
    try:
        return validation_curve(run)
    except ValueError:  # metrics.jsonl is damaged; the report lists it
        return None


def draw_validation(drawn: Sequence[tuple[str, str, Curve, int]], title: str, stem: Path) -> list[Path]:
    """Draws validation accuracy against tasks and against seconds. drawn: (label, algorithm, curve, seeds) per line."""
    with plot_style.drawing():
        figure, axes = plot_style.panels(2, height=4.0, share_y=True)
        looks = plot_style.line_styles([algorithm for _, algorithm, _, _ in drawn])
        for axis, name in zip(axes, ("tasks", "seconds"), strict=True):
            for (label, _, curve, seeds), look in zip(drawn, looks, strict=True):
                _band(axis, getattr(curve, name), curve, look, f"{label} ({seeds} seed{'s' if seeds > 1 else ''})")
        axes[0].set_ylabel("validation accuracy (%)")
        axes[0].set_xlabel("training tasks seen")
        axes[1].set_xlabel("training time (s), validation excluded")
        figure.suptitle(title, fontsize=10.5, x=0.01, ha="left")
        plot_style.legend_below(figure, *axes[0].get_legend_handles_labels(), columns=2 if len(drawn) > 3 else 3)
        return plot_style.save(figure, stem)


def _band(axis: Axes, x: np.ndarray, curve: Curve, look: dict[str, object], label: str) -> None:
    percent, half = 100 * curve.accuracy, 100 * np.nan_to_num(curve.half_width)
    every = max(1, math.ceil(len(x) / 12))  # at most about 12 markers per line
    axis.plot(x, percent, **look, markevery=every, label=label, zorder=3)  # type: ignore[arg-type]
    low, high = (np.clip(edge, 0, 100) for edge in (percent - half, percent + half))  # accuracies are within 0 to 100 %
    axis.fill_between(x, low, high, color=str(look["color"]), alpha=0.15, linewidth=0)


def best_first(configurations: Sequence[Configuration]) -> list[tuple[str, str, Curve, int]]:
    """The input of `draw_validation` for the MOST_LINES configurations with the highest validation accuracy, in the
    order of the report."""
    found = [(c.label, c.algorithm, *mean) for c in configurations if (mean := mean_curve(c)) is not None]
    best = sorted(found, key=lambda line: -line[2].accuracy.max())[:MOST_LINES]
    return [line for line in found if any(line is other for other in best)]


def draw_test(configurations: Sequence[Configuration], title: str, stem: Path) -> list[Path]:
    """Draws the test accuracy of each configuration with its 95 % interval, and the paper's mean and standard
    deviation."""
    with plot_style.drawing():
        figure, (axis,) = plot_style.panels(1, width=7.0, height=1.4 + 0.42 * len(configurations))
        looks = plot_style.line_styles([c.algorithm for c in configurations])
        published = False
        for row, (configuration, look) in enumerate(zip(configurations, looks, strict=True)):
            mean, half, _ = accuracy(configuration)
            axis.errorbar(mean, row, xerr=half, color=look["color"], marker=look["marker"], capsize=3, zorder=3)
            if (theirs := paper_results.accuracy_percent(configuration.config)) is not None:
                offset, faint = row + 0.22, {"color": plot_style.GREY, "marker": "x", "markersize": 5, "capsize": 2}
                axis.errorbar(theirs[0], offset, xerr=theirs[1], linewidth=1, zorder=2, **faint)
                published = True
        axis.set_yticks(range(len(configurations)), [c.label for c in configurations])
        axis.set_ylim(len(configurations) - 0.4, -0.6)
        axis.grid(False, axis="y")
        note = "\n(grey crosses: the paper's mean and standard deviation)" if published else ""
        axis.set_xlabel(f"test accuracy (%), 95 % interval{note}")
        axis.set_title(title, fontsize=10.5, loc="left")
        return plot_style.save(figure, stem)


def accuracy(configuration: Configuration) -> tuple[float, float | None, str]:
    """`mean_of` the test accuracy, in percent."""
    return mean_of(configuration, "test/acc", 100.0)


def mean_of(configuration: Configuration, key: str, scale: float = 1.0) -> tuple[float, float | None, str]:
    """Mean of the test result `key` times `scale`, the half-width of its 95 % interval, and what the interval is over:
    seeds, or the test tasks of a single seed. Raises ValueError if no run was tested."""
    there = [run.summary for run in configuration.runs if tested_at(run, key) is not None]
    found = mean_interval([scale * summary[key] for summary in there])
    if found.n > 1:
        return found.mean, found.half_width, f"{found.n} seeds"
    own = there[0].get(f"{key}_ci95")
    return found.mean, None if own is None else scale * own, "test tasks of 1 seed"


def tested_at(run: Run, key: str) -> float | None:
    """The test result `key` of a run; None if it was not tested."""
    found = run.summary.get(key)
    return float(found) if isinstance(found, (int, float)) else None


def alt_text(drawn: Sequence[tuple[str, str, Curve, int]]) -> str:
    """A text description of the figure: the end of each curve."""
    parts = [
        f"{label}: {100 * curve.accuracy[-1]:.1f} % after {curve.tasks[-1]:,.0f} tasks and {curve.seconds[-1]:,.1f} s"
        for label, _, curve, _ in drawn
    ]
    return "Validation accuracy against training tasks and against seconds. " + "; ".join(parts) + "."
