"""Figures of power laws on log axes: measured points, the fitted slope and the slope of the theory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from memmeta_exp.reports import plot_style
from memmeta_exp.reports.grouping import short

Fit = Mapping[str, Any]
PANELS = 3
LABEL_LENGTH = 40  # characters per line of an axis label


def draw(fits: Sequence[Fit], stem: Path) -> list[Path]:
    """Draws one panel per fit, at most PANELS.

    Filled points are in the fit, open ones were excluded by its rule (`used`: one flag per point; missing: all are in).
    If the points belong to `groups` with a common slope but different constants, each group has its own lines.
    `group_label` names what the groups differ in.
    """
    with plot_style.drawing():
        figure, axes = plot_style.panels(len(fits), width=5.0 if len(fits) == 1 else 4.3, height=4.2)
        for axis, fit in zip(axes, fits, strict=True):
            _panel(axis, fit)
        return plot_style.save(figure, stem)


def drawable(fit: Fit) -> bool:
    """Whether at least two points have logarithms."""
    return sum(len(cloud.x) for cloud in _clouds(fit)) > 1


@dataclass(frozen=True)
class _Cloud:
    """The points of one group that have logarithms. used: whether each is in the fit."""

    name: str
    x: np.ndarray
    y: np.ndarray
    used: np.ndarray


def _clouds(fit: Fit) -> list[_Cloud]:
    x, y = (np.array([np.nan if v is None else v for v in fit[name]], float) for name in ("x", "y"))
    used = np.array(fit.get("used") or np.ones(len(x), bool), bool)
    with np.errstate(invalid="ignore"):
        shown = (x > 0) & (y > 0) & np.isfinite(x) & np.isfinite(y)
    groups = list(fit.get("groups") or [""] * len(x))
    found = []
    for group in dict.fromkeys(groups):
        mine = shown & np.array([other == group for other in groups])
        name = short(str(fit.get("group_label", "group")), group) if fit.get("groups") else ""
        if mine.any():
            found.append(_Cloud(name, x[mine], y[mine], used[mine]))
    return found


def _panel(axis: Axes, fit: Fit) -> None:
    axis.set_xscale("log")
    axis.set_yscale("log")
    clouds = _clouds(fit)
    looks = plot_style.line_styles([""] * len(clouds))
    for cloud, look in zip(clouds, looks, strict=True):
        plain = {"color": look["color"], "marker": look["marker"], "linestyle": "", "zorder": 3}
        axis.plot(cloud.x[cloud.used], cloud.y[cloud.used], label=cloud.name or "measured, in the fit", **plain)
        if not cloud.used.all():
            left_out, name = ~cloud.used, f"{cloud.name or 'measured'}, left out"
            axis.plot(cloud.x[left_out], cloud.y[left_out], label=name, markerfacecolor="white", **plain)
    _slopes(axis, fit, [cloud for cloud in clouds if cloud.used.any()])
    axis.set_xlabel(fill(str(fit["x_label"]), LABEL_LENGTH))
    axis.set_ylabel(fill(str(fit["y_label"]), LABEL_LENGTH))
    axis.set_title(fill(str(fit["name"]), LABEL_LENGTH), fontsize=10, loc="left")
    ticks = sorted({float(value) for cloud in clouds for value in cloud.x})
    if len(ticks) <= 10 and all(float(f"{value:.3g}") == value for value in ticks):
        plot_style.powers_axis(axis.xaxis, ticks)
    axis.grid(True, which="major")
    axis.margins(x=0.08, y=0.12)
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=1)  # below the panel, so it covers no data


def _slopes(axis: Axes, fit: Fit, clouds: Sequence[_Cloud]) -> None:
    """Draws the fitted and the theory's line through the centre of each cloud, with one legend entry each."""
    if fit.get("slope") is None:
        return
    wide = {"color": plot_style.VERMILLION, "linewidth": 2.8, "gid": plot_style.FITTED}
    drawn = [(fit["slope"], f"fit: slope {interval_text(fit)}", wide)]
    if fit.get("expected") is not None:
        narrow = {
            "color": plot_style.BLACK,
            "linestyle": (0, (5, 2)),
            "linewidth": 1.2,
        }  # visible on top of the fitted line
        drawn.append((fit["expected"], f"theory: slope {fit['expected']:g}", narrow))
    for slope, label, look in drawn:
        for i, cloud in enumerate(clouds):
            x, y = _straight(cloud.x[cloud.used], cloud.y[cloud.used], slope)
            axis.plot(x, y, label=label if i == 0 else "_nolegend_", zorder=2, **look)


def _straight(x: np.ndarray, y: np.ndarray, slope: float) -> tuple[np.ndarray, np.ndarray]:
    """The ends of a line of `slope` through the centre of the points in log-log coordinates, slightly beyond them."""
    ends = np.log([x.min(), x.max()]) + np.array([-0.15, 0.15])
    return np.exp(ends), np.exp(np.log(y).mean() + slope * (ends - np.log(x).mean()))


def interval_text(fit: Fit) -> str:
    """The slope and its 95 % interval as text: -0.98 [-1.03, -0.93]."""
    slope, interval = fit.get("slope"), fit.get("slope_ci95")
    if slope is None:
        return "not defined"
    if not interval or None in interval:
        return f"{slope:.3g}"
    digits = _digits(interval[1] - interval[0])
    return f"{slope:.{digits}f} [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"


def _digits(width: float) -> int:
    """The number of decimals for an interval of this width, from 2 to 4."""
    return 4 if width <= 0 else int(min(4, max(2, np.ceil(-np.log10(width)))))


def alt_text(fits: Sequence[Fit]) -> str:
    """A text description of the figure."""
    parts = []
    for fit in fits:
        expected = f", the theory's {fit['expected']:g}" if fit.get("expected") is not None else ""
        parts.append(f"{fit['name']}: {fit['y_label']} against {fit['x_label']}, slope {interval_text(fit)}{expected}")
    return "Log-log plots. " + "; ".join(parts) + "."
