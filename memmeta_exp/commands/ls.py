"""`memmeta ls [DIR ...]`: lists runs with their state and numbers."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from memmeta_exp.commands.arguments import folders_and_options
from memmeta_exp.config import ConfigError, closest
from memmeta_exp.reports.grouping import name_of
from memmeta_exp.reports.runs import Run, Study, collect, numbers
from memmeta_exp.tracking.console import MIB, print_columns

HELP = """memmeta ls [DIR ...] [sort=COLUMN]

Lists the runs under each DIR (outputs by default), those of sweeps and multiruns too, with their state, algorithm,
dataset, test accuracy in % with its 95 % interval, peak MiB, seconds a step and age. sort=COLUMN sorts by one of them:
run, state, algorithm, dataset, accuracy, peak_mib, step_seconds, age (the default, newest first)."""
COLUMNS = ("run", "state", "algorithm", "dataset", "accuracy", "peak_mib", "step_seconds", "age")
HIGHEST_FIRST = ("accuracy",)
UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def main(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        print(HELP)
        return 0
    folders, options = folders_and_options(arguments, "ls", {"sort": "age"})
    by = str(options["sort"])
    if by not in COLUMNS:
        raise ConfigError(f"sort={by} is unknown{closest(by, COLUMNS)}")
    runs, studies = collect(folders or [Path("outputs")])
    rows = sorted(map(_row, runs), key=lambda row: _place(row, by))
    print_columns("", COLUMNS, [[_text(row, column) for column in COLUMNS] for row in rows])
    for study in studies:
        print(_study(study))
    for run in runs:
        if run.state == "unreadable":
            print(f"{run.path}: {run.reason}")
    return 0


def _row(run: Run) -> dict[str, Any]:
    found = numbers(run)
    return {
        "run": str(run.path),
        "state": run.state,
        "algorithm": name_of(run.config, "algorithm"),
        "dataset": name_of(run.config, "dataset"),
        "accuracy": found.get("test/acc"),
        "interval": found.get("test/acc_ci95"),
        "peak_mib": found.get("memory/peak_mib", _allocated(found)),
        "step_seconds": found.get("time/step_seconds_median"),
        "age": _age(run.status.get("updated")),
    }


def _allocated(found: Mapping[str, Any]) -> float | None:
    """Peak MiB of a prediction, which states bytes."""
    total = found.get("max_memory_allocated")
    return None if total is None else total / MIB


def _age(updated: str | None) -> float | None:
    """Seconds since the run's state was last written."""
    with suppress(ValueError, TypeError):
        return (datetime.now(UTC) - datetime.fromisoformat(updated or "")).total_seconds()
    return None


def _place(row: Mapping[str, Any], by: str) -> tuple[bool, Any]:
    """The sorting key; missing values come last."""
    value = row[by]
    if value is None:
        return (True, 0)
    return (False, -value if by in HIGHEST_FIRST else value)


def _text(row: Mapping[str, Any], column: str) -> str:
    value = row[column]
    if value is None or isinstance(value, str):
        return value or ""
    if column == "accuracy":
        return f"{100 * value:.2f}" + ("" if row["interval"] is None else f" +- {100 * row['interval']:.2f}")
    if column == "age":
        unit, seconds = next((u for u in UNITS if value >= u[1]), UNITS[-1])
        return f"{value / seconds:.0f} {unit}"
    return f"{value:.4f}" if column == "step_seconds" else f"{value:.1f}"


def _study(study: Study) -> str:
    states = [run.state for run in study.runs]
    counts = ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))
    return f"sweep {study.name}, {study.folder}: {counts or 'no job yet'}"
