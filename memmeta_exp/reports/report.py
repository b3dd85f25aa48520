"""The report of runs and sweeps: `write_report(folders, out)` makes tables, figures, study.json and an HTML page.

It reads the folders of runs, trains nothing, and does not need torch.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from memmeta_exp.config.plugins import modules_of, plug_in
from memmeta_exp.reports import fit_figures, memory, page, tables
from memmeta_exp.reports.figures import pictures
from memmeta_exp.reports.grouping import Configuration, configurations
from memmeta_exp.reports.runs import Run, Study, collect, first_line, row
from memmeta_exp.reports.table import Row, Table, as_csv
from memmeta_exp.utils.errors import ConfigError

MEMORY_STUDIES = {"memory_vs_inner_steps": "algorithm.inner_steps", "memory_vs_batch_size": "batch_size"}
IN_STUDY_JSON = ("slope", "slope_ci95", "expected", "rule", "points")
WHERE_THERE = ("reached", "reached_at_most")  # optional: the value that runs reached, and the theorem's bound
PAPERS_SLOPE = "the paper's curve"
PRINCIPAL_ALGORITHM = "proposed"


def write_report(folders: list[Path], out: Path) -> Path:
    """Makes the report of `folders` (of runs, multiruns, sweeps, or folders of them) in `out`; returns report.html.

    An existing report in `out` is replaced. Raises ConfigError if a folder has no run, or `out` contains other files.
    """
    runs, studies = collect(folders)
    _prepare(out)
    notes = _import_plugins(runs)
    found, of_fits = _fits(studies)
    notes += of_fits
    notes += [f"{run.path}: no curve, for {problem}" for run in runs if (problem := _no_curve(run))]
    groups = configurations([run for run in runs if run.kind == "train"])
    drawn = pictures(runs, _power_laws(found), out / "figures")
    made = _tables(runs, groups, found)
    _write_tables(made, runs, out / "tables")
    _write_studies(studies, found, groups, out)
    title = "memmeta: " + (", ".join(named(studies)) or "runs")
    html = page.render(
        title=title, runs=runs, tables=made, pictures=drawn, headline=_headline(runs, groups, found), notes=notes
    )
    (out / "report.html").write_text(html, encoding="utf-8")
    return out / "report.html"


def _import_plugins(runs: Sequence[Run]) -> list[str]:
    """Imports the plug-ins of the runs, whose classes have the labels of algorithms; returns a line for each that
    fails."""
    problems: dict[str, str] = {}
    for run in runs:
        try:
            plug_in(modules_of(run.config.get("plugins", [])))
        except ConfigError as error:
            problems.setdefault(str(error), f"{run.path}: {error}; its options are shown by their names")
    return list(problems.values())


def _prepare(out: Path) -> None:
    """Creates `out`, or removes an earlier report from it, complete or not."""
    files = list(out.iterdir()) if out.is_dir() else []
    begun = all(file.name in ("tables", "figures") or file.match("study*.json") for file in files)
    if not begun and not (out / "report.html").is_file():
        raise ConfigError(
            f"out={out} contains other files than a report: name a new folder, an empty one or a report's"
        )
    if out.exists() and not out.is_dir():
        raise ConfigError(f"out={out} is a file: name a folder")
    for pattern in ("tables/*.csv", "tables/*.md", "figures/*.png", "figures/*.svg", "study*.json", "report.html"):
        for file in out.glob(pattern):
            if file.is_dir():
                raise ConfigError(f"{file} is a folder, where the report has a file: move it away")
            if file.name != "report.html":  # which is replaced last
                file.unlink()
    for name in ("tables", "figures"):
        try:
            (out / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"out={out}: {error.strerror}; name a writable folder") from None


def _fits(studies: Sequence[Study]) -> tuple[list[Row], list[str]]:
    """The fits of every study, with its name, and a line for each study whose fit failed."""
    found, refused = [], []
    for name, study in named(studies).items():
        if study.name in MEMORY_STUDIES:
            key = MEMORY_STUDIES[study.name]
            found += [{**fit, "study": name} for fit in memory.slopes(memory.lines(study.runs, key), key)]
            continue
        try:
            found += [{**fit, "study": name} for fit in _study_fits(study)]
        except Exception as error:  # noqa: BLE001 - damaged jobs fail in many ways, and must not stop the report
            refused.append(f"{name}: no slope ({first_line(error)})")
    return found, refused


def _of_memory(found: Sequence[Row]) -> list[Row]:
    """The straight lines of memory, in MiB a unit."""
    return [fit for fit in found if "algorithm" in fit]


def _power_laws(found: Sequence[Row]) -> list[Row]:
    return [fit for fit in found if "algorithm" not in fit]


def _no_curve(run: Run) -> str | None:
    """Why a finished training run has no curve; None if it has one."""
    if not run.finished or run.kind != "train":
        return None
    try:
        return None if run.rows else "metrics.jsonl is missing or empty"
    except ValueError as error:
        return str(error)


def _study_fits(study: Study) -> list[Row]:
    """The power laws of a theorem's study; empty for any other study."""
    from memmeta_exp.reports import theorem_fits

    return theorem_fits.study_fits(study.name, study.folder)


def named(studies: Sequence[Study]) -> dict[str, Study]:
    """Studies by name; a second study of the same name is called NAME-2."""
    found: dict[str, Study] = {}
    for study in studies:
        taken = sum(other.name == study.name for other in found.values())
        found[f"{study.name}-{taken + 1}" if taken else study.name] = study
    return found


def _tables(runs: Sequence[Run], groups: Sequence[Configuration], found: Sequence[Row]) -> list[Table]:
    made = [
        tables.compared(groups),
        tables.fits(_power_laws(found), "fits", "Fitted slopes"),
        tables.fits(_of_memory(found), "memory_slopes", "Memory per additional unit (MiB)", PAPERS_SLOPE),
        tables.accuracy(groups),
        tables.errors(groups),
        tables.speed(groups),
        tables.memories(runs),
        tables.health(groups),
        tables.unfinished(runs),
        tables.ran(runs),
    ]
    return [table for table in made if table is not None]


def _write_tables(made: Sequence[Table], runs: Sequence[Run], folder: Path) -> None:
    for table in made:
        (folder / f"{table.name}.csv").write_text(table.csv(), encoding="utf-8")
        (folder / f"{table.name}.md").write_text(table.markdown(), encoding="utf-8")
    (folder / "runs.csv").write_text(as_csv([row(run) for run in runs]), encoding="utf-8")


def _write_studies(studies: Sequence[Study], found: Sequence[Row], groups: Sequence[Configuration], out: Path) -> None:
    """Writes study.json for a report on one study, else study-NAME.json for each study."""
    for name, study in named(studies).items():
        file = "study.json" if len(studies) == 1 else f"study-{name}.json"
        fits = [fit for fit in found if fit["study"] == name]
        own = [c for c in groups if any(run.study == study.folder for run in c.runs)]
        text = json.dumps(_plain(study_json(study, fits, own)), indent=2, allow_nan=False)
        (out / file).write_text(text + "\n", encoding="utf-8")


def study_json(study: Study, fits: Sequence[Row], groups: Sequence[Configuration]) -> dict[str, Any]:
    """The content of study.json; docs/outputs.md explains it. The slope is that of the first fit (for memory: the first
    fit of the proposed method); null if there is none."""
    own = [fit for fit in fits if fit.get("algorithm") == PRINCIPAL_ALGORITHM]
    principal: Row = next(iter([*own, *fits]), {})
    table = tables.accuracy(groups) or tables.errors(groups)
    return {
        "study": study.name,
        **{key: principal.get(key) for key in ("slope", "slope_ci95", "expected")},
        "principal": principal.get("name"),
        "fits": {fit["name"]: _in_study_json(fit) for fit in fits},
        "results": list(table.rows) if table else [],
        "jobs": {
            state: sum(run.state == state for run in study.runs) for state in sorted({r.state for r in study.runs})
        },
    }


def _in_study_json(fit: Row) -> Row:
    return {key: fit.get(key) for key in IN_STUDY_JSON} | {key: fit[key] for key in WHERE_THERE if key in fit}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _headline(runs: Sequence[Run], groups: Sequence[Configuration], found: Sequence[Row]) -> list[str]:
    """The main results, one sentence each."""
    done = sum(run.finished for run in runs)
    rest = "" if done == len(runs) else f"; {len(runs) - done} did not finish, listed below with the reason of each"
    lines = [f"{done} of {_plural(len(runs), 'run')} finished{rest}."]
    accuracies = tables.accuracy(groups)
    if accuracies is not None:
        best = max(accuracies.rows, key=lambda row: row["test_percent"])
        half = "" if best["test_percent_ci95"] is None else f" \N{PLUS-MINUS SIGN} {best['test_percent_ci95']:.2f}"
        over = f"95 % interval over {best['interval_over']}"
        lines.append(f"Highest test accuracy: {best['configuration']}, {best['test_percent']:.2f}{half} % ({over}).")
    if (squared := tables.errors(groups)) is not None:
        best = min(squared.rows, key=lambda row: row["test_mse"])
        lines.append(f"Least test mean squared error: {best['configuration']}, {best['test_mse']:.4g}.")
    for fit in _power_laws(found):
        expected = f"; expected {fit['expected']:g}" if fit.get("expected") is not None else ""
        end = f"; reached {fit['reached']:.1e}" if fit.get("reached") is not None else ""
        lines.append(f"{fit['study']}, {fit['name']}: slope {fit_figures.interval_text(fit)}{expected}{end}.")
    return lines + [
        f"{fit['name']}: {fit['slope']:.2f} MiB per step; the paper's curve: {fit['expected']:.2f}."
        for fit in _of_memory(found)
        if fit.get("expected") is not None
    ]


def _plural(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")
