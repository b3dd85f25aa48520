"""Memory against K and against B: lines of configurations that differ in one key, their slopes and figures."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from memmeta_exp.reports import paper_results, plot_style
from memmeta_exp.reports.grouping import Configuration, algorithm_label, configurations, name_of, section_of
from memmeta_exp.reports.runs import Run, numbers
from memmeta_exp.utils.statistics import mean_interval, student_t

ABOVE = "memory/above_baseline_mib"
KINDS = {
    "cuda": "measured on a GPU",
    "cuda-predicted": "predicted for a GPU",
    "cpu-tensors": "measured on a CPU",
}
AXES = {"algorithm.inner_steps": "inner steps K", "batch_size": "tasks per iteration B"}


@dataclass(frozen=True)
class Line:
    """Memory of one configuration at several values of one key, averaged over runs. panel: image size in pixels, and
    filters. papers: the tasks are those of the paper's memory figure."""

    label: str
    algorithm: str
    kind: str
    panel: tuple[int | None, int | None]
    x: list[float]
    mib: list[float]
    papers: bool = False


def lines(runs: Sequence[Run], key: str) -> list[Line]:
    """One line per configuration, up to `key`, with memory at two or more values of `key`."""
    panels: dict[tuple[int | None, int | None], list[Run]] = {}
    for run in runs:
        if run.finished and numbers(run).get(ABOVE) is not None and _value(run.config, key) is not None:
            panels.setdefault(_panel(run.config), []).append(run)
    found = []
    for panel, members in sorted(panels.items(), key=repr):
        reduced = [replace(run, config=_without(run.config, key), overrides={}) for run in members]
        values = {run.path: float(_value(run.config, key)) for run in members}
        by_x = [_line(c, panel, values) for c in configurations(reduced, apart=kind)]
        found += [line for line in by_x if len(line.x) > 1]
    return found


def kind(run: Run) -> str:
    """The source of the memory of `run`, measured or predicted: a key of KINDS."""
    return str(numbers(run).get("memory/kind") or "")


def _line(configuration: Configuration, panel: Any, values: dict[Path, float]) -> Line:
    points: dict[float, list[float]] = {}
    for run in configuration.runs:
        points.setdefault(values[run.path], []).append(float(numbers(run)[ABOVE]))
    x = sorted(points)
    name = algorithm_label(configuration.algorithm)
    rest = [part for part in configuration.label.split(", ") if part != name and configuration.differing]
    return Line(
        label=", ".join([name, *rest]),
        algorithm=configuration.algorithm,
        kind=kind(configuration.runs[0]),
        panel=panel,
        x=x,
        mib=[mean_interval(points[value]).mean for value in x],
        papers=paper_results.same_tasks(configuration.config) and panel[1] == paper_results.MEMORY_FILTERS,
    )


def _panel(config: dict[str, Any]) -> tuple[int | None, int | None]:
    filters = section_of(config, "backbone").get("filters")
    return paper_results.image_size(config), filters if isinstance(filters, int) else None


def _value(config: dict[str, Any], key: str) -> Any:
    section, _, name = key.rpartition(".")
    return section_of(config, section).get(name) if section else config.get(name)


def _without(config: dict[str, Any], key: str) -> dict[str, Any]:
    section, _, name = key.rpartition(".")
    if not section:
        return {k: v for k, v in config.items() if k != name}
    return {**config, section: {k: v for k, v in section_of(config, section).items() if k != name}}


def slopes(found: Sequence[Line], key: str) -> list[dict[str, Any]]:
    """The least-squares slope of each line in MiB per unit of `key`, its 95 % interval (Student's t, n - 2), and the
    slope of the paper's curve, if there is one."""
    return [_slope(line, key) for line in found]


def _slope(line: Line, key: str) -> dict[str, Any]:
    x, y = np.array(line.x), np.array(line.mib)
    slope, half = straight(x, y)
    size, filters = line.panel
    published = key == "algorithm.inner_steps" and line.papers and size is not None
    curve = paper_results.peak_curve(line.algorithm, size) if published and size else None
    return {
        "name": f"{line.label}, {size} px, {filters} filters, {KINDS.get(line.kind, line.kind)}",
        "algorithm": line.algorithm,
        "x": line.x,
        "y": line.mib,
        "x_label": AXES[key],
        "y_label": "MiB above parameters, optimiser state and data",
        "slope": slope,
        "slope_ci95": None if half is None else [slope - half, slope + half],
        "expected": None if curve is None else straight(np.array(curve[0], float), np.array(curve[1]))[0],
        "rule": f"least squares of MiB against {key}, all points",
        "points": len(line.x),
    }


def straight(x: np.ndarray, y: np.ndarray) -> tuple[float, float | None]:
    """The least-squares slope of y against x, and the half-width of its 95 % interval; None for two points."""
    centred = x - x.mean()
    slope = float(centred @ y / (centred @ centred))
    if len(x) < 3:
        return slope, None
    residual = y - y.mean() - slope * centred
    error = np.sqrt(residual @ residual / (len(x) - 2) / (centred @ centred))
    return slope, float(student_t(len(x) - 2) * error)


def panel_title(panel: tuple[int | None, int | None]) -> str:
    """The title of a panel: 32 x 32 pixels, 64 filters."""
    size, filters = panel
    parts = [f"{size} \N{MULTIPLICATION SIGN} {size} pixels" if size else "", f"{filters} filters" if filters else ""]
    return ", ".join(part for part in parts if part) or "no images"


def draw(found: Sequence[Line], key: str, stem: Path) -> list[Path]:
    """Draws one panel per image size and number of filters, with the paper's published curves, if any."""
    by_panel: dict[Any, list[Line]] = {}
    for line in found:
        by_panel.setdefault(line.panel, []).append(line)
    with plot_style.drawing():
        figure, axes = plot_style.panels(len(by_panel), width=6.2, height=4.4)
        ends = [
            _draw_panel(axis, key, panel, group) for axis, (panel, group) in zip(axes, by_panel.items(), strict=True)
        ]
        plot_style.legend_below(figure, *_legend(found, any(_published(line, key) for line in found)), columns=2)
        for axis, labels in zip(axes, ends, strict=True):
            plot_style.label_ends(figure, axis, labels)
        return plot_style.save(figure, stem)


def _draw_panel(axis: Axes, key: str, panel: Any, group: Sequence[Line]) -> list[tuple[float, float, str, str]]:
    """Draws the lines; returns the labels of their ends for `plot_style.label_ends`."""
    ends = []
    looks = plot_style.line_styles([line.algorithm for line in group], by_algorithm=True)
    for line, look in zip(group, looks, strict=True):
        face = "white" if line.kind == "cuda-predicted" else look["color"]
        points, through = {**look, "linestyle": ""}, {**look, "marker": "", "linewidth": 1.2, "gid": plot_style.FITTED}
        axis.plot(line.x, line.mib, **points, markerfacecolor=face, markeredgewidth=1.4, zorder=3)
        axis.plot(*_through(line), **through, zorder=2)
        ends.append((line.x[-1], line.mib[-1], line.label, look["color"]))
    papers = _paper_curves(group, key)
    of_algorithm = plot_style.algorithm_looks(list(papers))
    for algorithm, curve in papers.items():
        look = of_algorithm[algorithm]
        axis.plot(*curve, color=look["color"], linestyle=":", linewidth=1.1, marker="+", markersize=7, zorder=2)
        ends.append((curve[0][-1], curve[1][-1], f"{algorithm_label(algorithm)}, paper", look["color"]))
    axis.set_ylim(0, 1.1 * max([mib for line in group for mib in line.mib] + [end[1] for end in ends]))
    axis.set_xlim(left=0)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axis.set_xlabel(AXES[key])
    axis.set_ylabel("peak memory above parameters,\noptimiser state and data (MiB)")
    axis.set_title(panel_title(panel), fontsize=10, loc="left")
    return ends


def _through(line: Line) -> tuple[np.ndarray, np.ndarray]:
    """The ends of the straight line by least squares through the points of `line`, over their own range."""
    x, y = np.array(line.x), np.array(line.mib)
    ends = x[[0, -1]]
    return ends, y.mean() + straight(x, y)[0] * (ends - x.mean())


def _published(line: Line, key: str) -> bool:
    return bool(_paper_curves([line], key))


def _paper_curves(group: Sequence[Line], key: str) -> dict[str, Any]:
    size, _ = group[0].panel
    if key != "algorithm.inner_steps" or size is None or not any(line.papers for line in group):
        return {}
    curves = {line.algorithm: paper_results.peak_curve(line.algorithm, size) for line in group}
    return {algorithm: curve for algorithm, curve in curves.items() if curve}


def _legend(found: Sequence[Line], with_paper: bool) -> tuple[list[Line2D], list[str]]:
    handles, labels = [], []
    for name, text in KINDS.items():
        if any(line.kind == name for line in found):
            face = "white" if name == "cuda-predicted" else plot_style.GREY
            handles.append(Line2D([], [], color=plot_style.GREY, marker="o", markerfacecolor=face, markeredgewidth=1.4))
            labels.append(text)
    handles.append(Line2D([], [], color=plot_style.GREY, linewidth=1.2))
    labels.append("straight line by least squares")
    if with_paper:
        handles.append(Line2D([], [], color=plot_style.GREY, linestyle=":", linewidth=1.1, marker="+", markersize=7))
        labels.append("published in the paper (max_memory_allocated)")
    return handles, labels


def alt_text(found: Sequence[Line], key: str) -> str:
    """A text description of the figure: the ends of each line."""
    parts = [
        f"{line.label} ({panel_title(line.panel)}, {KINDS.get(line.kind, line.kind)}): {line.mib[0]:.1f} MiB at "
        f"{line.x[0]:g}, {line.mib[-1]:.1f} at {line.x[-1]:g}"
        for line in found
    ]
    return f"Peak memory against {AXES[key]}. " + "; ".join(parts) + "."


def dataset_of(config: dict[str, Any]) -> str:
    """The name of the dataset; for synthetic images also their size."""
    name = name_of(config, "dataset")
    return f"{name} {paper_results.image_size(config)} px" if name == "synthetic" else name
