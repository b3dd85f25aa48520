"""`memmeta ls`, `memmeta compare` and `memmeta train run=`, which read what runs left."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from memmeta_exp.tracking.run_folder import read_metrics
from tests.reports.folders import config, write_failure, write_profile, write_run, write_sweep


@pytest.fixture
def runs(memmeta, tmp_path) -> None:
    """Three folders and a sweep: 80 % two hours old, 90 %, one that failed, one whose summary is damaged."""
    old = write_run(tmp_path / "runs/a", config(), test=0.8, time__step_seconds_median=0.5)
    status = {"state": "finished", "updated": (datetime.now(UTC) - timedelta(hours=2)).isoformat()}
    (old / "status.json").write_text(json.dumps(status))
    write_run(tmp_path / "runs/b", config("anil", algorithm__inner_steps=7), test=0.9)
    write_failure(tmp_path / "runs/c", "failed", "theta has diverged")
    (write_run(tmp_path / "runs/d", config()) / "summary.json").write_text("{")
    write_profile(write_sweep(tmp_path / "runs/m", "a_study", []) / "jobs/p", config("maml"), 7.0)


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("\u2502")[1:-1]]


def test_ls_shows_every_run_sorted(memmeta, runs) -> None:
    result = memmeta("ls", "runs", "sort=accuracy")
    lines = [_cells(line) for line in result.out.splitlines() if "\u2502" in line]
    assert [line[0] for line in lines][:2] == ["runs/b", "runs/a"], "highest first, unknown last"
    assert lines[1] == ["runs/a", "finished", "proposed", "glyphs", "80.00 +- 2.00", "20.0", "0.5000", "2 h"]
    by_run = {line[0]: line for line in lines}
    assert by_run["runs/c"][1] == "failed"
    assert by_run["runs/m/jobs/p"][5] == "10.0"
    assert "sweep a_study, runs/m: 1 finished\n" in result.out
    assert "runs/d: summary.json is damaged" in result.out
    assert memmeta("ls", "runs", "sort=algorithm").code == 0


def test_compare_shows_what_differs_and_the_numbers(memmeta, runs) -> None:
    result = memmeta("compare", "runs/a", "runs/b", "runs/c")
    rows = {cells[0]: cells[1:] for line in result.out.splitlines() if (cells := _cells(line))}
    assert rows["state"] == ["finished", "finished", "failed"]
    assert rows["algorithm.inner_steps"][1] == "7"
    assert not {"batch_size", "backbone.filters"} & set(rows), "they are the same"
    assert rows["test accuracy"] == ["80.00%", "90.00%", "-"]
    assert "runs/c: failed: theta has diverged\n" in result.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    {
        "ls": "outputs is not a folder",
        "ls empty": "empty has no run and no sweep",
        "ls runs sort=acc": "sort=acc is unknown; did you mean 'accuracy'?",
        "ls -l": "unknown flag '-l': ls takes folders, sort=VALUE and --help",
        "compare": "compare needs run folders",
        "compare runs/a": "runs/a holds one run: name another to compare it with",
        "compare runs/a x=1": "unknown option 'x'",
        "train run=empty": "empty is not a run folder",
        "train run=runs/a seed=1": "seed=1 with run=: the configuration is that of runs/a",
        "train run=runs/a -m": "-m with run=: it is for one run",
    }.items(),
)
def test_bad_input_is_one_line(memmeta, runs, arguments: str, words: str) -> None:
    Path("empty").mkdir()
    result = memmeta(*arguments.split())
    assert (result.code, result.err.count("\n"), result.out) == (2, 1, "")
    assert words in result.err


def test_a_run_is_repeated_exactly_in_a_new_folder(memmeta, a_run) -> None:
    result = memmeta("train", f"run={a_run}", "hydra.run.dir=again", "progress=false")
    assert result.code == 0, result.err
    first, second = ([_without_times(row) for row in read_metrics(path)] for path in (a_run, "again"))
    assert first == second
    assert len(first) == 7
    assert (a_run / "overrides.yaml").read_text() + "- progress=false\n" == Path("again/overrides.yaml").read_text()
    again = memmeta("train", f"run={a_run}", "hydra.run.dir=again")
    assert (again.code, "already holds a run" in again.err) == (2, True)


def _without_times(row: dict) -> dict:
    return {key: value for key, value in row.items() if not key.startswith(("time/", "memory/"))}
