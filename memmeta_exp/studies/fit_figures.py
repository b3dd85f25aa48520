"""Power laws on log axes: what was measured, the fitted slope and the theory's."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from memmeta_exp.studies import style

Fit = Mapping[str, Any]
PANELS = 3


def draw(fits: Sequence[Fit], stem: Path) -> list[Path]:
    """A panel a fit, PANELS at most. Filled points are in the fit, open ones were left out by its rule (`used`: a flag
    a point; without it all are in)."""
    with style.drawing():
        figure, axes = style.panels(len(fits), width=5.0 if len(fits) == 1 else 4.3, height=4.2)
        for axis, fit in zip(axes, fits, strict=True):
            _panel(axis, fit)
        return style.save(figure, stem)


def drawable(fit: Fit) -> bool:
    """Whether two of its points have a place on log axes."""
    x, _, _ = _points(fit)
    return len(x) > 1


def _points(fit: Fit) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, y and whether each is in the fit, of the points with a logarithm."""
    x, y = (np.array([np.nan if v is None else v for v in fit[name]], float) for name in ("x", "y"))
    used = np.array(fit.get("used") or np.ones(len(x), bool), bool)
    with np.errstate(invalid="ignore"):
        shown = (x > 0) & (y > 0) & np.isfinite(x) & np.isfinite(y)
    return x[shown], y[shown], used[shown]


def _panel(axis: Axes, fit: Fit) -> None:
    x, y, used = _points(fit)
    axis.set_xscale("log")
    axis.set_yscale("log")
    plain = {"color": style.BLUE, "linestyle": "", "marker": "o", "zorder": 3}
    axis.plot(x[used], y[used], label="measured, in the fit", **plain)
    if not used.all():
        axis.plot(x[~used], y[~used], label="measured, left out", markerfacecolor="white", **plain)
    if fit.get("slope") is not None and used.any():
        _slope(axis, x[used], y[used], fit["slope"], f"fit: slope {interval_text(fit)}", style.VERMILLION, "-")
        if fit.get("expected") is not None:
            label = f"theory: slope {fit['expected']:g}"
            _slope(axis, x[used], y[used], fit["expected"], label, style.BLACK, (0, (5, 2)))
    axis.set_xlabel(str(fit["x_label"]))
    axis.set_ylabel(str(fit["y_label"]))
    axis.set_title(str(fit["name"]), fontsize=10, loc="left")
    if len(set(x)) <= 10 and all(float(f"{value:.3g}") == value for value in x):
        style.powers_axis(axis.xaxis, x.tolist())
    axis.grid(True, which="major")
    axis.margins(x=0.08, y=0.12)
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=1)  # under the panel: over no data


def _slope(axis: Axes, x: np.ndarray, y: np.ndarray, slope: float, label: str, color: str, dashes: Any) -> None:
    """A straight line of `slope` through the points' centre in log-log coordinates, a little beyond them."""
    centre_x, centre_y = np.log(x).mean(), np.log(y).mean()
    ends = np.log([x.min(), x.max()]) + np.array([-0.15, 0.15])
    heights = np.exp(centre_y + slope * (ends - centre_x))
    axis.plot(np.exp(ends), heights, color=color, linestyle=dashes, linewidth=1.4, label=label, zorder=2)


def interval_text(fit: Fit) -> str:
    """-0.98 [-1.03, -0.93]: the slope and its 95 % interval."""
    slope, interval = fit.get("slope"), fit.get("slope_ci95")
    if slope is None:
        return "not defined"
    if not interval or None in interval:
        return f"{slope:.3g}"
    digits = _digits(interval[1] - interval[0])
    return f"{slope:.{digits}f} [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"


def _digits(width: float) -> int:
    """Decimals that show an interval of this width; 2 at least, 5 at most."""
    return 5 if width <= 0 else int(min(5, max(2, np.ceil(-np.log10(width)))))


def alt_text(fits: Sequence[Fit]) -> str:
    """The figure in words."""
    parts = []
    for fit in fits:
        expected = f", the theory's {fit['expected']:g}" if fit.get("expected") is not None else ""
        parts.append(f"{fit['name']}: {fit['y_label']} against {fit['x_label']}, slope {interval_text(fit)}{expected}")
    return "Log-log plots. " + "; ".join(parts) + "."
