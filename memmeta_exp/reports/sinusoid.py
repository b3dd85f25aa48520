"""The figure of few-shot regression (Finn et al. 2017, figures 2 and 3), from adaptation.json: sine waves before,
during and after adaptation, and the test error against adaptation steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from memmeta_exp.reports import plot_style
from memmeta_exp.reports.grouping import Configuration
from memmeta_exp.tracking.expected import within_reach
from memmeta_exp.utils.errors import DataError
from memmeta_exp.utils.reading import Count, read_json

FILE = "adaptation.json"
SHOWN = (1, 10)  # gradient steps after which curves are drawn
OWN_EXAMPLES = 2  # tasks in a run's own figure
MOST_PANELS = 4  # configurations whose curves a report draws


class Wave(TypedDict):
    """A test task. curves: one prediction [GRID] per number of steps."""

    amplitude: float
    phase: float
    support_x: list[float]
    support_y: list[float]
    curves: list[list[float | None]]


class Adaptation(TypedDict):
    """The content of adaptation.json, which experiment/adaptation_curves.py defines."""

    steps: list[Count]
    solved: bool
    mse: list[float | None]
    mse_ci95: list[float | None]
    x: list[float]
    tasks: list[Wave]


@dataclass(frozen=True)
class Line:
    """The adaptation curves of one configuration. found: the content of adaptation.json; None where steps diverged."""

    label: str
    algorithm: str
    found: dict[str, Any]


def read(folder: Path) -> dict[str, Any] | None:
    """The adaptation.json of a run; None if it is missing or damaged."""
    try:
        found = read_json(folder / FILE, Adaptation)
    except (FileNotFoundError, DataError):
        return None
    return found if _agree(found) and within_reach(found) == found else None


def _agree(found: Adaptation) -> bool:
    """Whether the lengths of the parts agree, and all parts that are drawn exist."""
    steps, points = len(found["steps"]), len(found["x"])
    if not found["tasks"] or not points or not steps == len(found["mse"]) == len(found["mse_ci95"]):
        return False
    if steps != 2 if found["solved"] else not {0, *SHOWN} <= set(found["steps"]):
        return False
    return all(
        len(task["support_x"]) == len(task["support_y"])
        and len(task["curves"]) == steps
        and all(len(curve) == points for curve in task["curves"])
        for task in found["tasks"]
    )


def lines(configurations: Sequence[Configuration]) -> list[Line]:
    """The `Line` of each configuration with an adaptation.json, from its first seed."""
    found = ((c, read(c.runs[0].path)) for c in configurations)
    return [Line(c.label, c.algorithm, content) for c, content in found if content is not None]


def plot(run_dir: Path, title: str) -> Path | None:
    """Writes plots/sinusoid.png of a run: OWN_EXAMPLES test tasks, and the error against steps. Returns None if the run
    has no adaptation.json."""
    found = read(run_dir)
    if found is None:
        return None
    line = Line(title, "", found)
    examples = range(min(OWN_EXAMPLES, len(found["tasks"])))
    file = run_dir / "plots" / "sinusoid.png"
    file.parent.mkdir(exist_ok=True)
    with plot_style.drawing():
        figure, axes = _panels(len(examples))
        for axis, example in zip(axes, examples, strict=False):
            _wave(axis, found, example, plot_style.BLUE)
            axis.set_title(f"test task {example}", fontsize=10, loc="left")
        _errors(axes[-1], [line], [{"color": plot_style.BLUE, "marker": "o"}])
        figure.suptitle(title, fontsize=11)
        plot_style.legend_below(figure, *axes[0].get_legend_handles_labels(), columns=5)
        figure.savefig(file, dpi=plot_style.DPI)
    return file


def draw(drawn: Sequence[Line], title: str, stem: Path) -> list[Path]:
    """Draws the first test task of the first MOST_PANELS lines, and the error of all lines against steps."""
    shown = drawn[:MOST_PANELS]
    with plot_style.drawing():
        figure, axes = _panels(len(shown))
        looks = plot_style.line_styles([line.algorithm for line in drawn])
        for axis, line, look in zip(axes, shown, looks, strict=False):
            _wave(axis, line.found, 0, look["color"])
            axis.set_title(line.label, fontsize=9.5, loc="left")
        _errors(axes[-1], drawn, looks)
        above = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "ncols": 3, "fontsize": 8, "borderaxespad": 0.2}
        axes[-1].legend(handlelength=1.8, columnspacing=0.9, **above)
        figure.suptitle(title, fontsize=10.5, x=0.01, ha="left")
        named = {label: h for axis in axes[:-1] for h, label in zip(*axis.get_legend_handles_labels(), strict=True)}
        plot_style.legend_below(figure, [_uncoloured(h) for h in named.values()], list(named), columns=3 * len(shown))
        return plot_style.save(figure, stem)


def _uncoloured(handle: Any) -> Line2D:
    """A copy of a legend handle in black or grey, since colours stand for configurations."""
    color = handle.get_color() if handle.get_color() in ("black", plot_style.GREY) else "0.3"
    return Line2D([], [], color=color, linestyle=handle.get_linestyle(), marker=handle.get_marker())


def _panels(waves: int) -> tuple[Figure, list[Axes]]:
    """A figure with `waves` panels that share their axes, and a panel of errors."""
    figure, axes = plot_style.panels(waves + 1, width=3.9, height=3.6)
    for axis in axes[1:waves]:
        axis.sharey(axes[0])
    axes[0].set_ylabel("y")
    return figure, axes


def _wave(axis: Axes, found: dict[str, Any], example: int, color: str) -> None:
    """Draws the true wave, support points and predictions of one task."""
    task, x = found["tasks"][example], np.array(found["x"])
    curves = np.array(task["curves"], float)  # None becomes NaN, which is not drawn
    axis.plot(x, task["amplitude"] * np.sin(x - task["phase"]), color="black", linewidth=1.1, label="truth")
    axis.plot(x, curves[0], color=plot_style.GREY, linestyle=":", label="before adaptation")
    if found["solved"]:
        axis.plot(x, curves[-1], color=color, label="adapted exactly")
    else:
        for count, dash in zip(SHOWN, ("--", "-"), strict=True):
            label = f"after {count} gradient step{'s' if count > 1 else ''}"
            axis.plot(x, curves[found["steps"].index(count)], color=color, label=label, linestyle=dash)
    axis.plot(task["support_x"], task["support_y"], "^", color="black", zorder=4, label="support points")
    axis.set_xlabel("x")


def _errors(axis: Axes, drawn: Sequence[Line], looks: Sequence[dict[str, Any]]) -> None:
    """Draws the mean squared error of the test tasks against steps on a logarithmic axis, with 95 % intervals."""
    last = max(*SHOWN, *(max(line.found["steps"]) for line in drawn if not line.found["solved"]))
    for line, look in zip(drawn, looks, strict=True):
        mse, half, steps = (np.array(line.found[key], float) for key in ("mse", "mse_ci95", "steps"))
        if line.found["solved"]:
            steps, mse, half = np.array([0, 1, last]), mse[[0, 1, 1]], half[[0, 1, 1]]
        label = f"{line.label} (exact)" if line.found["solved"] else line.label
        dash = "--" if line.found["solved"] else "-"
        axis.plot(steps, mse, marker=look["marker"], color=look["color"], linestyle=dash, label=label)
        low = np.maximum(mse - half, 0.2 * mse)  # a logarithmic axis has no 0
        axis.fill_between(steps, low, mse + half, color=look["color"], alpha=0.15, linewidth=0)
    axis.set_yscale("log")
    plot_style.plain_log_axis(axis.yaxis)
    axis.set_xlabel("steps of adaptation")
    axis.set_ylabel("test mean squared error")


def alt_text(drawn: Sequence[Line]) -> str:
    """A text description of the errors."""
    parts = []
    for line in drawn:
        start, end = (_in_words(line.found["mse"][at]) for at in (0, -1))
        how = "exact adaptation" if line.found["solved"] else f"{line.found['steps'][-1]} steps"
        parts.append(f"{line.label}: mean squared error {start} before and {end} after {how}")
    return "Sine waves before and after adaptation. " + "; ".join(parts) + "."


def _in_words(mse: float | None) -> str:
    return "not finite" if mse is None else f"{mse:.3g}"
