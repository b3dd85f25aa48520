"""The figures of docs/results.md: published and measured 5-way 5-shot accuracies per dataset, and validation curves
with the paper's settings."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from memmeta_exp.reports import plot_style
from memmeta_exp.reports.curves import draw_validation, mean_of_curves
from memmeta_exp.reports.grouping import algorithm_label
from memmeta_exp.reports.paper_results import published
from memmeta_exp.reports.statistics import Curve

SHAPE = "5w5s"
DATASETS = {"cifar_fs": "CIFAR-FS", "fc100": "FC100"}


@dataclass(frozen=True)
class Row:
    """One point with the half-width of its interval in percent, and its style."""

    label: str
    acc: float
    half: float
    color: str
    marker: str


def rows(dataset: str, record: Mapping[str, Any]) -> list[Row]:
    """The rows from the top: each published accuracy with its standard deviation, below it our runs with the same
    settings, if any; last the best recipe. Our runs have 95 % intervals."""
    found = []
    for algorithm, (mean, deviation) in published()["accuracy_percent"][dataset].items():
        name = algorithm_label(algorithm)
        found.append(Row(f"{name}, paper", mean, deviation, plot_style.GREY, "o"))
        if (ours := record["paper"].get(dataset, {}).get(algorithm)) is not None:
            label = f"{name}, its settings here ({_seeds(ours)})"
            found.append(Row(label, ours["acc"], ours["ci95"], plot_style.VERMILLION, "D"))
    if (best := record["best"].get(dataset, {}).get(SHAPE)) is not None:
        label = f"best recipe here ({best['training_tasks']:,} tasks, {_seeds(best)})"
        found.append(Row(label, best["acc"], best["ci95"], plot_style.BLUE, "s"))
    return found


def _seeds(found: Mapping[str, Any]) -> str:
    return f"{found['seeds']} seed{'s' if found['seeds'] > 1 else ''}"


def draw(record: Mapping[str, Any], stem: Path) -> Path:
    """Draws the accuracies to STEM.png."""
    with plot_style.drawing():
        by_dataset = {dataset: rows(dataset, record) for dataset in DATASETS}
        figure, axes = plot_style.panels(len(DATASETS), 5.6, 0.8 + 0.3 * max(map(len, by_dataset.values())))
        for axis, (dataset, title) in zip(axes, DATASETS.items(), strict=True):
            found = by_dataset[dataset]
            for at, row in enumerate(found):
                axis.errorbar(
                    row.acc, at, xerr=row.half, color=row.color, marker=row.marker, capsize=3, linestyle="none"
                )
            axis.set_yticks(range(len(found)), [row.label for row in found])
            axis.set_ylim(len(found) - 0.5, -0.5)
            axis.set_title(title)
            axis.set_xlabel("test accuracy, 5-way 5-shot (%)")
        stem.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file := stem.with_suffix(".png"), dpi=plot_style.DPI, metadata={"Software": None})
        return file


def draw_curves(
    runs: Mapping[tuple[str, str, str], Mapping[int, Mapping[str, Any]]], times: Mapping[str, float], folder: Path
) -> list[Path]:
    """Writes record_DATASET.png per dataset: validation accuracy with the paper's settings against tasks and seconds,
    for all algorithms.

    runs: the content of docs/results/record/ by (part, dataset, algorithm) and seed; several seeds give the mean and
    the interval over them. times: seconds per task by algorithm, all on one machine; algorithms without one are left
    out.
    """
    made = []
    for dataset, title in DATASETS.items():
        drawn = []
        for (part, of, algorithm), seeds in runs.items():
            if (part, of) != ("paper", dataset) or algorithm not in times:
                continue
            if curves := [_curve(run, times[algorithm]) for run in seeds.values() if run["validation"] is not None]:
                curve, count = mean_of_curves(curves)
                drawn.append((algorithm_label(algorithm), algorithm, curve, count))
        if drawn:
            heading = f"{title}, the paper's settings"
            picture, vector = draw_validation(drawn, heading, folder / f"record_{dataset}")
            vector.unlink()
            made.append(picture)
    return made


def _curve(run: Mapping[str, Any], seconds_a_task: float) -> Curve:
    points, summary = run["validation"], run["summary"]
    tasks = np.array(points["tasks"])
    iterations = tasks / summary["tasks_seen"] * summary["iterations"]
    return Curve(iterations, tasks, tasks * seconds_a_task, np.array(points["acc"]), np.array(points["ci95"]))
