"""Draws the figures of a report: all for which there is data."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from memmeta_exp.reports import comparison, curves, fit_figures, memory, sinusoid, stability, tables
from memmeta_exp.reports.fit_figures import Fit
from memmeta_exp.reports.grouping import configurations
from memmeta_exp.reports.runs import Run

FOR_DATASET = "{} on {}"


@dataclass(frozen=True)
class Picture:
    """A figure of the report. files: .png and .svg. caption: what is drawn and how. alt: a text description."""

    name: str
    files: tuple[Path, ...]
    caption: str
    alt: str

    @property
    def data_uri(self) -> str:
        """The SVG as a data URI, to embed it in a page."""
        (svg,) = (file for file in self.files if file.suffix == ".svg")
        return "data:image/svg+xml;base64," + base64.b64encode(svg.read_bytes()).decode()


def pictures(runs: Sequence[Run], fits: Sequence[Fit], folder: Path) -> list[Picture]:
    """Draws all figures for which there is data into `folder`."""
    results = [*_accuracy(runs, folder), *_sinusoid(runs, folder)]
    return [*_compared(runs, folder), *_fits(fits, folder), *_memory(runs, folder), *_stability(runs, folder), *results]


def _compared(runs: Sequence[Run], folder: Path) -> list[Picture]:
    """Accuracy against memory and time, where there are several configurations to compare."""
    ranked = comparison.tested(configurations([run for run in runs if run.kind == "train"]))
    table = tables.compared(ranked) if len(ranked) > 1 else None
    if table is None:
        return []
    files = comparison.draw(table.rows, ranked, folder / "comparison")
    setting = comparison.setting(ranked)
    caption = f"Test accuracy with its 95 % interval against peak memory and time{f': {setting}' if setting else ''}."
    return [Picture("comparison", tuple(files), caption, comparison.alt_text(table.rows))]


def _fits(fits: Sequence[Fit], folder: Path) -> list[Picture]:
    """The figures of each study, with at most fit_figures.PANELS panels each."""
    found = []
    for study in dict.fromkeys(str(fit["study"]) for fit in fits):
        members = [fit for fit in fits if fit["study"] == study and fit_figures.drawable(fit)]
        for first in range(0, len(members), fit_figures.PANELS):
            part = members[first : first + fit_figures.PANELS]
            name = f"fit_{_file_name(study)}" + (f"_{first // fit_figures.PANELS + 1}" if first else "")
            rules = dict.fromkeys(str(fit.get("rule", "")) for fit in part)
            caption = f"{study}: fitted and expected slopes on log axes. " + " ".join(
                f"Rule: {rule}." for rule in rules
            )
            files = fit_figures.draw(part, folder / name)
            found.append(Picture(name, tuple(files), caption, fit_figures.alt_text(part)))
    return found


def _memory(runs: Sequence[Run], folder: Path) -> list[Picture]:
    found = []
    for key, name in (("algorithm.inner_steps", "memory_inner_steps"), ("batch_size", "memory_batch_size")):
        if drawn := memory.lines(runs, key):
            caption = (
                f"Peak memory of a training iteration against {memory.AXES[key]}. Filled markers are measured, open "
                "ones predicted; dotted lines, if any, are the "
                "paper's published max_memory_allocated, which includes parameters and cuBLAS's workspace."
            )
            files = memory.draw(drawn, key, folder / name)
            found.append(Picture(name, tuple(files), caption, memory.alt_text(drawn, key)))
    return found


def _stability(runs: Sequence[Run], folder: Path) -> list[Picture]:
    """The figure of the stability study, if its runs have several solvers, rates or mu."""
    found = stability.cells(runs)
    if len(found) < 2:
        return []
    caption = (
        "Stability of training: last validation accuracy by solver of the lower level, outer step size and mu; "
        "below, the course of training where the solvers differ most (training accuracy: running mean of "
        f"{stability.SMOOTHED} iterations)."
    )
    files = stability.draw(found, folder / "stability")
    return [Picture("stability", tuple(files), caption, stability.alt_text(found))]


def _accuracy(runs: Sequence[Run], folder: Path) -> list[Picture]:
    """Validation curves and test accuracies, one figure of each per dataset."""
    datasets: dict[str, list[Run]] = {}
    for run in runs:
        if run.finished and run.kind == "train":
            datasets.setdefault(memory.dataset_of(run.config), []).append(run)
    found = []
    for dataset, members in datasets.items():
        groups = configurations(members)
        if drawn := curves.best_first(groups):
            found.append(_curves(dataset, drawn, len(groups), folder))
        tested = [c for c in groups if any(curves.tested_at(run, "test/acc") is not None for run in c.runs)]
        if tested:
            title = FOR_DATASET.format("Test accuracy", dataset)
            name = f"test_accuracy_{_file_name(dataset)}"
            files = curves.draw_test(tested, title, folder / name)
            caption = f"{title}: mean with its 95 % interval over seeds, or over test tasks for one seed."
            alt = "; ".join(f"{c.label}: {curves.accuracy(c)[0]:.2f} %" for c in tested)
            found.append(Picture(name, tuple(files), caption, f"{title}. {alt}."))
    return found


def _sinusoid(runs: Sequence[Run], folder: Path) -> list[Picture]:
    """The figure of sine waves before and after adaptation, for configurations with dataset=sinusoid."""
    drawn = sinusoid.lines(configurations([run for run in runs if run.finished and run.kind == "train"]))
    if not drawn:
        return []
    title = "Few-shot regression of sine waves"
    files = sinusoid.draw(drawn, title, folder / "sinusoid")
    caption = (
        f"{title}: one test task before and after adaptation to its support points, and the mean squared error of all "
        "test tasks against steps, with its 95 % interval over tasks; of several seeds the first. Exact: the head's "
        "lower level solved, not approached by steps."
    )
    return [Picture("sinusoid", tuple(files), caption, sinusoid.alt_text(drawn))]


def _curves(dataset: str, drawn: list, configurations_there: int, folder: Path) -> Picture:
    name = f"validation_{_file_name(dataset)}"
    title = FOR_DATASET.format("Validation accuracy", dataset)
    if configurations_there > len(drawn):
        title += f", the {len(drawn)} best of {configurations_there} configurations"
    files = curves.draw_validation(drawn, title, folder / name)
    caption = (
        f"{title}, against training tasks and against seconds of training. Bands: 95 % interval over seeds (Student's "
        "t), for a single seed that over its validation tasks."
    )
    return Picture(name, tuple(files), caption, curves.alt_text(drawn))


def _file_name(text: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in text)
