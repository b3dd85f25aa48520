"""results.csv and results.parquet: a row for every job of a sweep, whatever became of it."""

from collections.abc import Sequence
from typing import Any

from memmeta_exp.atomic import replacing
from memmeta_exp.config import flat
from memmeta_exp.sweeps.folder import Standing, SweepFolder, read_json
from memmeta_exp.sweeps.plan import Job

FIRST = ("job", "state", "reason")


def write(folder: SweepFolder, jobs: Sequence[Job]) -> list[Standing]:
    """Writes both files from what the jobs' folders hold now; returns how each job stands."""
    import pandas  # here: `memmeta sweep --help` and the jobs' own processes need none

    standings = [folder.standing(job) for job in jobs]
    swept = list(dict.fromkeys(key for job in jobs for key in job.values))
    rows = [_row(folder, job, standing) for job, standing in zip(jobs, standings, strict=True)]
    numbers = list(dict.fromkeys(key for row in rows for key in row if key not in (*FIRST, *swept)))
    frame = pandas.DataFrame(rows, columns=pandas.Index([*FIRST, *swept, *numbers]))
    for key in frame.columns:
        frame[key] = _one_type(list(frame[key]))
    with replacing(folder.path / "results.csv") as stream:
        frame.to_csv(stream, index=False)
    with replacing(folder.path / "results.parquet") as stream:
        frame.to_parquet(stream, index=False)
    return standings


def _row(folder: SweepFolder, job: Job, standing: Standing) -> dict[str, Any]:
    """Numbers come from finished jobs alone, and a swept key is what the sweep set it to."""
    row = {"job": f"jobs/{job.id}", "state": standing.state, "reason": standing.reason}
    found: dict[str, Any] = {}
    if standing.state == "finished":
        name = "profile.json" if job.kind == "profile" else "summary.json"
        found = flat(read_json(folder.job(job.id) / name))
    return row | {key: value for key, value in found.items() if not isinstance(value, list)} | job.values


def _one_type(values: list[Any]) -> Any:
    """A column of one type: of numbers and texts (`chunk`: 1, auto) texts, for Parquet's columns hold one."""
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
