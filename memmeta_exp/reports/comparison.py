"""The first table and figure of a report: accuracy, memory and time of each configuration."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from matplotlib.axes import Axes

from memmeta_exp.reports import curves, plot_style
from memmeta_exp.reports.grouping import Configuration, name_of
from memmeta_exp.reports.table import Row

COSTS = {"peak_mib": "peak memory of an iteration (MiB)", "step_seconds": "seconds a step"}


def tested(groups: Sequence[Configuration]) -> list[Configuration]:
    """The configurations with a test accuracy, by dataset, the most accurate first."""
    there = [c for c in groups if any(curves.tested_at(run, "test/acc") is not None for run in c.runs)]
    return sorted(there, key=lambda c: (name_of(c.config, "dataset"), -curves.accuracy(c)[0]))


def ties(ranked: Sequence[Configuration]) -> list[bool]:
    """For each of `tested`, whether its 95 % interval overlaps with that of the best of its dataset."""
    found = []
    for _, members in groupby(ranked, key=lambda c: name_of(c.config, "dataset")):
        best, *others = (curves.accuracy(c) for c in members)
        overlap = [other[0] + (other[1] or 0.0) >= best[0] - (best[1] or 0.0) for other in others]
        found += [any(overlap), *overlap]
    return found


def setting(groups: Sequence[Configuration]) -> str:
    """Ways, shots and iterations that all have in common, such as "5-way 5-shot, T = 100"."""
    forms = {"ways": "{}-way", "shots": "{}-shot", "iterations": "T = {}"}
    values = {key: {c.config.get(key) for c in groups} for key in forms}
    return ", ".join(form.format(*values[key]) for key, form in forms.items() if len(values[key]) == 1)


def draw(rows: Sequence[Row], ranked: Sequence[Configuration], stem: Path) -> list[Path]:
    """Test accuracy with its interval against each of COSTS. rows: of the comparison's table, in the order of
    `ranked`."""
    with plot_style.drawing():
        figure, axes = plot_style.panels(len(COSTS), height=3.8, share_y=True)
        looks = plot_style.line_styles([c.algorithm for c in ranked])
        for axis, (key, label) in zip(axes, COSTS.items(), strict=True):
            for row, look in zip(rows, looks, strict=True):
                _point(axis, row, key, look)
            axis.set_xlim(left=0)
            axis.margins(x=0.1)
            axis.set_xlabel(label)
        axes[0].set_ylabel("test accuracy (%)")
        handles, labels = axes[0].get_legend_handles_labels()
        plot_style.legend_below(figure, handles, labels, columns=4)
        return plot_style.save(figure, stem)


def _point(axis: Axes, row: Row, key: str, look: dict) -> None:
    x = row.get(key)
    axis.errorbar(
        [] if x is None else [x],
        [] if x is None else [row["test_percent"]],
        yerr=[] if x is None else [row["test_percent_ci95"] or 0.0],
        **{**look, "linestyle": ""},
        capsize=3,
        label=row["configuration"],
    )


def alt_text(rows: Sequence[Row]) -> str:
    """The figure in words."""
    parts = [
        f"{row['configuration']}: {row['test_percent']:.2f} %"
        + "".join(
            f", {row[key]:.4g} {unit}" for key, unit in (("peak_mib", "MiB"), ("step_seconds", "s")) if key in row
        )
        for row in rows
    ]
    return "Test accuracy against peak memory and seconds a step. " + "; ".join(parts) + "."
