"""Reading folders: everything is found once, and nothing that is broken is dropped or raises."""

import json
import random
from pathlib import Path

import pytest

from memmeta_exp.reports import tables
from memmeta_exp.reports.grouping import configurations
from memmeta_exp.reports.runs import Run, collect, frame, read_run
from memmeta_exp.utils.errors import ConfigError
from tests.reports.folders import config, write_failure, write_json, write_profile, write_run, write_sweep


def states(runs: list[Run]) -> dict[str, str]:
    return {run.path.name: run.state for run in runs}


def test_runs_multiruns_and_sweeps_in_any_mix_each_once(tmp_path: Path) -> None:
    write_run(tmp_path / "outputs/2026-01-01/10-00-00", config())
    multirun = tmp_path / "outputs/2026-01-01/11-00-00"
    for job in (0, 1, 10):
        write_run(multirun / str(job), config(seed=job))
    (multirun / "multirun.yaml").write_text("{}")
    (multirun / "2").mkdir()
    sweep = write_sweep(tmp_path / "sweep", "accuracy", [{"job": "jobs/abc", "state": "finished"}])
    write_run(sweep / "jobs/abc", config(seed=3))
    write_profile(tmp_path / "profile", config(), 3.0)
    (tmp_path / "outputs/.hidden").mkdir()
    runs, studies = collect([tmp_path, sweep, multirun / "0"])
    assert [run.path.name for run in runs] == ["10-00-00", "0", "1", "2", "10", "profile", "abc"]
    assert [study.name for study in studies] == ["accuracy"]
    assert [run.study for run in runs] == [None] * 6 + [sweep]
    by_name = {run.path.name: run for run in runs}
    assert by_name["2"].state == "unreadable"
    assert "did not start" in str(by_name["2"].reason)
    assert by_name["profile"].kind == "profile"
    assert by_name["profile"].finished


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda p: (p / "summary.json").unlink(), "says finished, but summary.json is missing"),
        (lambda p: (p / "summary.json").write_text('{"test/acc": 0.'), "summary.json is damaged: Expecting"),
        (lambda p: (p / "summary.json").write_text("[1]"), "summary.json is damaged: it is a list, expected a mapping"),
        (lambda p: (p / "status.json").unlink(), "has no status.json"),
        (lambda p: (p / "config.yaml").unlink(), "config.yaml is missing"),
        (lambda p: (p / "config.yaml").write_text("a: [1"), "config.yaml is damaged: it is not valid YAML"),
        (
            lambda p: (p / "config.yaml").write_text("a: 1\n2: b\n"),
            "config.yaml is damaged: 'a key' is 2, expected a text",
        ),
        (lambda p: (p / "config.yaml").write_text("a: &x [*x]\n"), "config.yaml is damaged: line 1 has an anchor"),
        (lambda p: (p / "status.json").write_text("[" * 100_000), "status.json is damaged: it nests deeper"),
        (lambda p: (p / "summary.json").write_text('{"test/acc": "x"}'), "expected numbers under the keys with a /"),
        (
            lambda p: (p / "env.json").write_text('{"earlier": 5}'),
            "env.json is damaged: 'earlier' is 5, expected a list",
        ),
        (lambda p: (p / "env.json").write_bytes(b"\xff\xfe{"), "env.json is not UTF-16 text"),
        (
            lambda p: (p / "overrides.yaml").write_text("seed"),
            "overrides.yaml is damaged: it is 'seed', expected a list",
        ),
    ],
)
def test_what_cannot_be_read_says_so(tmp_path: Path, damage, reason: str) -> None:
    run = write_run(tmp_path / "run", config())
    assert read_run(run).finished
    damage(run)
    found = read_run(run)
    assert found.state == "unreadable"
    assert reason in str(found.reason)
    assert "\n" not in str(found.reason)


def test_runs_that_did_not_finish_keep_their_reason(tmp_path: Path) -> None:
    write_failure(tmp_path / "a", "failed", "theta has diverged\nTraceback", 7)
    write_failure(tmp_path / "b", "running", None)
    write_failure(tmp_path / "c", "interrupted", None)
    runs, _ = collect([tmp_path])
    assert states(runs) == {"a": "failed", "b": "running", "c": "interrupted"}
    assert runs[0].reason == "theta has diverged"
    assert "still running, or killed: last seen then at iteration 3" in str(runs[1].reason)
    assert tables.unfinished(runs).rows[0]["iteration"] == 7  # type: ignore[union-attr]


def test_a_sweep_knows_of_jobs_that_left_nothing(tmp_path: Path) -> None:
    rows = [
        {"job": "jobs/a", "state": "failed", "reason": "killed by SIGKILL"},
        {"job": "jobs/b", "state": "failed", "reason": "exit code 2"},
        {"job": "jobs/c", "state": "finished", "reason": ""},
        {"job": "jobs/d", "state": "finished", "reason": ""},
        {"job": "jobs/e", "state": "running", "reason": ""},
    ]
    sweep = write_sweep(tmp_path / "sweep", "batch_size", rows)
    write_failure(sweep / "jobs/a", "running", None)
    write_run(sweep / "jobs/c", config())
    write_run(sweep / "jobs/e", config(seed=1))  # results.csv is behind
    (sweep / "jobs/f").mkdir()
    runs, (study,) = collect([sweep])
    expected = {"a": "failed", "b": "failed", "c": "finished", "d": "unreadable", "e": "finished", "f": "unreadable"}
    assert states(runs) == states(list(study.runs)) == expected
    reasons = {run.path.name: run.reason for run in runs}
    assert (reasons["a"], reasons["b"], reasons["d"]) == ("killed by SIGKILL", "exit code 2", "its folder is missing")


def test_a_sweep_without_a_readable_description_has_its_folders_name(tmp_path: Path) -> None:
    write_run(tmp_path / "mine/jobs/a", config())
    assert collect([tmp_path / "mine"])[1][0].name == "mine"
    (tmp_path / "mine/sweep.yaml").write_text("name: [")
    assert collect([tmp_path / "mine"])[1][0].name == "mine"


def test_a_folder_without_runs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no run and no sweep"):
        collect([tmp_path])
    with pytest.raises(ConfigError, match="is not a folder"):
        collect([tmp_path / "nowhere"])


def test_metrics_that_end_within_a_line_lose_that_line_alone(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", config())
    file = run / "metrics.jsonl"
    whole = len(read_run(run).rows)
    file.write_text(file.read_text()[:-5])
    assert len(read_run(run).rows) == whole - 1
    for damaged in ("{\n" + file.read_text(), '{"no": "iteration"}\n{"iteration": 1}\n{"iteration": 0}\n', "3\n4\n"):
        file.write_text(damaged)
        with pytest.raises(ValueError, match=r"metrics\.jsonl is damaged: line 1"):
            _ = read_run(run).rows


def test_no_damage_to_a_file_is_a_crash(tmp_path: Path) -> None:
    """Every file of a run cut, and its bytes changed, at many places: it is read or listed, and tables are made."""
    chance = random.Random(0)
    run = write_run(tmp_path / "run", config(), overrides=("seed=0",))
    for file in sorted(run.iterdir()):
        whole = file.read_bytes()
        for _ in range(25):
            at = chance.randrange(len(whole))
            changed = whole[:at] if chance.random() < 0.5 else whole[:at] + chance.randbytes(3) + whole[at + 3 :]
            file.write_bytes(changed)
            runs, _ = collect([tmp_path])
            groups = configurations(runs)
            made = [make(groups) for make in (tables.accuracy, tables.speed, tables.health)]
            made += [tables.memories(runs), tables.unfinished(runs), tables.ran(runs)]
            for table in made:
                if table is not None:
                    table.csv()
                    table.markdown()
        file.write_bytes(whole)
    assert read_run(run).finished


def test_numbers_that_no_figure_can_show_are_none(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", config())
    write_json(run / "summary.json", {"test/acc": 1e308, "iterations": 2, "of": [{"a": -1e200, "b": 1e100}]})
    (run / "metrics.jsonl").write_text('{"iteration": 1, "val/acc": 1e308}\n{"iteration": 2, "val/acc": -1e308}\n')
    found = read_run(run)
    assert found.summary == {"test/acc": None, "iterations": 2, "of": [{"a": None, "b": 1e100}]}
    assert [row["val/acc"] for row in found.rows] == [None, None]


def test_a_key_that_is_gone_does_not_tell_an_older_run_apart(tmp_path: Path) -> None:
    write_run(tmp_path / "a", config(seed=0) | {"cuda_graph": False})
    write_run(tmp_path / "b", config(seed=1))
    (one,) = configurations(collect([tmp_path])[0])
    assert len(one.runs) == 2


def test_a_frame_has_a_row_a_run(tmp_path: Path) -> None:
    write_run(tmp_path / "a", config(algorithm__inner_steps=7), test=0.25)
    write_failure(tmp_path / "b", "failed", "why")
    write_profile(tmp_path / "c", config(), 3.0)
    found = frame(collect([tmp_path])[0])
    assert found["state"].tolist() == ["finished", "failed", "finished"]
    assert found.loc[0, "algorithm.inner_steps"] == 7
    assert found.loc[0, "test/acc"] == 0.25
    assert found.loc[1, "reason"] == "why"
    assert found.loc[2, "bytes.images"] == 2**20


def test_the_command_line_stands_in_for_missing_overrides(tmp_path: Path) -> None:
    run = write_profile(tmp_path / "a", config(), 3.0)
    write_json(run / "env.json", {"command": ["memmeta", "profile", "--x=1", "+algorithm.mu=0.1", "predict=cuda"]})
    assert read_run(run).overrides == {"algorithm.mu": "0.1", "predict": "cuda"}
    assert json.loads((run / "env.json").read_text())
