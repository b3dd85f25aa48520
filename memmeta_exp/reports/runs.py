"""Reads run folders: `collect(folders)` finds runs, multiruns and sweeps on disk.

A run that failed, did not end or cannot be read is a `Run` too, and its state and reason say so.
"""

import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from memmeta_exp.config import flat, metrics_of_today, overrides_of_today
from memmeta_exp.config.load import stored_values
from memmeta_exp.tracking.expected import Env, Overrides, Status, Summary, within_reach
from memmeta_exp.tracking.run_folder import read_metrics
from memmeta_exp.utils.errors import ConfigError, DataError, MemmetaError
from memmeta_exp.utils.reading import csv_rows, read_json, read_yaml

if TYPE_CHECKING:
    import pandas

RUN_FILES = ("status.json", "summary.json", "metrics.jsonl", "profile.json")
_JOB = re.compile(r"(?!.*\.\./)[^/].{0,199}")  # a path below the sweep's folder
logger = logging.getLogger("memmeta")
NOT_RUNS = ("wandb", "checkpoints", "plots", "report")


@dataclass(frozen=True)
class Run:
    """A run folder. Files that cannot be read are empty here.

    state: `finished`, `failed`, `interrupted`, `running` (not ended, or killed) or `unreadable`. reason: one line; None
    for a finished run. kind: `train` (its numbers are in `summary`) or `profile` (in `profile`). study: its sweep
    folder.
    """

    path: Path
    state: str
    reason: str | None = None
    kind: str = "train"
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    profile: dict[str, Any] = field(default_factory=dict)
    env: dict[str, Any] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    overrides: dict[str, str] = field(default_factory=dict)
    study: Path | None = None

    @property
    def finished(self) -> bool:
        """Whether the run is finished, so that its numbers are final."""
        return self.state == "finished"

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl; empty if there is no such file. Raises ValueError if it is damaged."""
        file = self.path / "metrics.jsonl"
        try:
            return read_metrics(file) if file.is_file() else []
        except (OSError, DataError) as error:
            raise ValueError(first_line(error).replace(f"{self.path}/", "")) from None


@dataclass(frozen=True)
class Study:
    """A sweep folder and its jobs. Its name is from sweep.yaml, or that of the folder."""

    name: str
    folder: Path
    runs: tuple[Run, ...]


def collect(folders: Iterable[Path]) -> tuple[list[Run], list[Study]]:
    """Every run under `folders`, each once, sorted by path, and the sweeps among them.

    Raises ConfigError if a folder does not exist, or has neither a run nor a sweep.
    """
    runs: dict[Path, Run] = {}
    studies: dict[Path, Study] = {}
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"{folder} is not a folder: give folders of runs or sweeps, such as outputs/DATE/TIME")
        found = list(_walk(folder))
        if not found:
            raise ConfigError(f"{folder} has no run and no sweep: give a folder that memmeta train or sweep wrote")
        for item in found:
            if isinstance(item, Study):
                studies.setdefault(item.folder.resolve(), item)
            for run in item.runs if isinstance(item, Study) else (item,):
                known = runs.get(run.path.resolve())
                if known is None or known.study is None:
                    runs[run.path.resolve()] = run
    return list(runs.values()), list(studies.values())


def frame(runs: Iterable[Run]) -> "pandas.DataFrame":
    """A pandas DataFrame with the `row` of each run."""
    import pandas  # imported late: the report does not need it, and starts faster

    return pandas.DataFrame([row(run) for run in runs])


def row(run: Run) -> dict[str, Any]:
    """The path of a run, its state, reason and flat configuration, then its final numbers."""
    return {"run": str(run.path), "state": run.state, "reason": run.reason, **flat(run.config), **numbers(run)}


def numbers(run: Run) -> dict[str, Any]:
    """The final numbers of a run, from summary.json or profile.json."""
    source = run.profile if run.kind == "profile" else run.summary
    return {key: value for key, value in flat(source).items() if not isinstance(value, list)}


def _walk(folder: Path) -> Iterator[Run | Study]:
    if (folder / "sweep.yaml").is_file() or (folder / "jobs").is_dir():
        yield _study(folder)
    elif _is_run(folder):
        yield read_run(folder)
    else:
        for child in sorted(folder.iterdir(), key=_natural):
            if not child.is_dir() or child.name.startswith(".") or child.name in NOT_RUNS:
                continue
            if (folder / "multirun.yaml").is_file() and child.name.isdigit() and not _is_run(child):
                yield Run(child, "unreadable", "has no status.json: the job did not start")
            else:
                yield from _walk(child)


def _natural(path: Path) -> tuple[int, str]:
    return (int(path.name), "") if path.name.isdigit() else (-1, path.name)


def _is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in RUN_FILES)


def _study(folder: Path) -> Study:
    """A sweep folder, including jobs that only results.csv lists."""
    jobs = folder / "jobs"
    runs = [read_run(job, study=folder) for job in sorted(jobs.iterdir()) if job.is_dir()] if jobs.is_dir() else []
    known = {run.path.resolve(): run for run in runs}
    for row in _results(folder / "results.csv"):
        path = folder / row["job"]
        state, reason = row.get("state") or "unreadable", row.get("reason") or None
        run = known.get(path.resolve())
        if run is None:
            gone = "unreadable" if state == "finished" else state
            runs.append(Run(path, gone, reason or "its folder is missing", study=folder))
        elif run.state in ("running", "unreadable") and state in ("failed", "interrupted"):
            # the sweep recorded the end of a job that could not record it itself
            runs[runs.index(run)] = replace(run, state=state, reason=reason or run.reason)
    return Study(_study_name(folder), folder, tuple(runs))


def _study_name(folder: Path) -> str:
    try:
        return read_yaml(folder / "sweep.yaml", _Sweep).get("name") or folder.resolve().name
    except (FileNotFoundError, DataError):
        return folder.resolve().name


class _Sweep(TypedDict, total=False):
    """The part of sweep.yaml that is read."""

    name: str


def _results(file: Path) -> list[dict[str, str]]:
    """The rows of results.csv; empty, with a warning, if it cannot be read."""
    try:
        rows = [row for _, row in csv_rows(file, ("job",))]
    except FileNotFoundError:
        return []
    except DataError as error:
        logger.warning("%s; jobs that only this file lists are left out", error)
        return []
    return [row for row in rows if _JOB.fullmatch(row["job"])]


def read_run(path: Path, study: Path | None = None) -> Run:
    """The run in folder `path`. Does not raise: a damaged run is `unreadable`."""
    kind = "profile" if (path / "profile.json").is_file() and not (path / "summary.json").is_file() else "train"
    contents: dict[str, Any] = {"kind": kind, "study": study}
    problems = []
    for name, file, read in (
        ("status", "status.json", lambda file: read_json(file, Status)),
        ("config", "config.yaml", stored_values),
        ("summary", "summary.json", lambda file: within_reach(metrics_of_today(read_json(file, Summary)))),
        ("profile", "profile.json", lambda file: within_reach(read_json(file, Summary))),
        ("env", "env.json", lambda file: read_json(file, Env)),
        ("overrides", "overrides.yaml", lambda file: _assignments(overrides_of_today(read_yaml(file, Overrides)))),
    ):
        contents[name] = {}
        try:
            contents[name] = read(path / file)
        except FileNotFoundError:
            continue
        except MemmetaError as error:
            problems.append(first_line(error).replace(f"{path}/", ""))
    contents["overrides"] = contents["overrides"] or _assignments(contents["env"].get("command") or [])
    return Run(path, *_verdict(kind, contents, problems), **contents)


def _verdict(kind: str, contents: dict[str, Any], problems: list[str]) -> tuple[str, str | None]:
    """State and reason of a run: those of status.json, if the other files agree."""
    status = contents["status"]
    if problems:
        return "unreadable", "; ".join(problems)
    if not status and kind == "train":
        return "unreadable", "has no status.json: the run did not start, or its files are missing"
    state = status.get("state", "finished")
    if state == "running":
        last = f"last seen {status.get('updated')} at iteration {status.get('iteration')}"
        return state, f"still running, or killed: {last}, process {status.get('pid')} on {status.get('host')}"
    if state != "finished":
        return str(state), first_line(status.get("reason") or "no reason given")
    for name, file in (
        ("config", "config.yaml"),
        (("profile", "profile.json") if kind == "profile" else ("summary", "summary.json")),
    ):
        if not contents[name]:
            return "unreadable", f"status.json says finished, but {file} is missing"
    return "finished", None


def _assignments(arguments: Iterable[Any]) -> dict[str, str]:
    """The KEY=VALUE arguments of a command line, without Hydra's prefixes."""
    plain = overrides_of_today(str(a).lstrip("+~") for a in arguments if not str(a).startswith("-"))
    pairs = (argument.partition("=") for argument in plain)
    return {key.partition("@")[0]: value for key, equals, value in pairs if equals}


def first_line(error: Any) -> str:
    """The first line of an error message."""
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__
