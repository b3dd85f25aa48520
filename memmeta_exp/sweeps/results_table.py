"""results.csv and results.parquet: one row per job of a sweep, whatever its state."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memmeta_exp.config import flat
from memmeta_exp.sweeps.grid import Job
from memmeta_exp.sweeps.sweep_folder import Standing, SweepFolder
from memmeta_exp.tracking.expected import Summary
from memmeta_exp.tracking.run_folder import read_mapping
from memmeta_exp.utils.atomic_io import replacing

FIRST = ("job", "state", "reason")


@dataclass(frozen=True)
class Entry:
    """The row of a job. job: its folder, relative to the table. state, reason: as in `Standing`. values: those that the
    sweep sets. numbers: the results of a finished job."""

    job: str
    state: str
    reason: str | None
    values: Mapping[str, Any]
    numbers: Mapping[str, Any]

    @property
    def row(self) -> dict[str, Any]:
        """The row by column. A swept key has the value of the sweep."""
        return {"job": self.job, "state": self.state, "reason": self.reason} | {**self.numbers, **self.values}


def entry(job: str, folder: Path, standing: Standing, values: Mapping[str, Any], kind: str = "train") -> Entry:
    """The row of the job in `folder`, with its results if it is finished."""
    found: dict[str, Any] = {}
    if standing.state == "finished":
        found = flat(read_mapping(folder / ("profile.json" if kind == "profile" else "summary.json"), Summary))
    numbers = {key: value for key, value in found.items() if not isinstance(value, list)}
    return Entry(job, standing.state, standing.reason, values, numbers)


def write(folder: SweepFolder, jobs: Sequence[Job]) -> list[Entry]:
    """Writes both files from the current content of the jobs' folders; returns the rows."""
    entries = [entry(f"jobs/{job.id}", folder.job(job.id), folder.standing(job), job.values, job.kind) for job in jobs]
    write_entries(folder.path, entries)
    return entries


def write_entries(folder: Path, entries: Sequence[Entry]) -> None:
    """Writes both files to `folder`."""
    import pandas  # imported late: `memmeta sweep --help` and the processes of jobs do not need it

    swept = list(dict.fromkeys(key for entry in entries for key in entry.values))
    rows = [entry.row for entry in entries]
    numbers = list(dict.fromkeys(key for row in rows for key in row if key not in (*FIRST, *swept)))
    frame = pandas.DataFrame(rows, columns=pandas.Index([*FIRST, *swept, *numbers]))
    for key in frame.columns:
        frame[key] = _one_type(list(frame[key]))
    with replacing(folder / "results.csv") as stream:
        frame.to_csv(stream, index=False)
    with replacing(folder / "results.parquet") as stream:
        frame.to_parquet(stream, index=False)


def _one_type(values: list[Any]) -> Any:
    """A column of one type, as Parquet needs. Numbers mixed with text (tasks_per_pass: 1, auto) become text."""
    import pandas

    present = [value for value in values if value is not None and value == value]
    if any(isinstance(value, str) for value in present):
        return pandas.array(
            [None if value is None or value != value else str(value) for value in values], dtype="string"
        )
    if present and all(isinstance(value, bool) for value in present):
        return pandas.array([None if value is None or value != value else value for value in values], dtype="boolean")
    if present and all(isinstance(value, int) and not isinstance(value, bool) for value in present):
        return pandas.array([None if value is None or value != value else value for value in values], dtype="Int64")
    return pandas.array([float("nan") if value is None else float(value) for value in values], dtype="float64")
