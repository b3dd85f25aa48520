"""From a sweep file and overrides to jobs: their order, their names, what fixes and what extends the grid."""

from dataclasses import replace
from pathlib import Path

import pytest

from memmeta_exp.config import Config, ConfigError, check_tasks_fit, from_dict
from memmeta_exp.config.compose import choices
from memmeta_exp.sweeps import grid as planning
from memmeta_exp.sweeps.grid import Job, plan
from memmeta_exp.sweeps.sweep_file import SweepFile

FILE = SweepFile(
    path=Path("sweeps/mine.yaml"),
    kind="train",
    fixed=("ways=3",),
    parameters={"seed": ("0", "1"), "batch_size": ("2", "4")},
    command=(),
)


def compose(overrides: list[str]) -> Config:
    """What Hydra would compose of top-level scalars."""
    values = {"algorithm": {}, "dataset": {}, "backbone": {}, "optimizer": {"name": "adam"}, "tracking": {}}
    for key, _, value in (o.partition("=") for o in overrides):
        if key.startswith("tracking."):
            values["tracking"] = {key.partition(".")[2]: value}
        elif key not in ("predict", "steps"):
            values[key] = int(value)
    config = from_dict(values)
    check_tasks_fit(config)
    return config


def jobs(*overrides: str, file: SweepFile = FILE, check=lambda *_: None) -> list[Job]:
    return plan(file, overrides, choices, compose, check)


def test_a_job_is_named_by_the_values_that_tell_it_from_the_others() -> None:
    assert [job.label for job in jobs("batch_size=2", "shots=1,5")] == [
        "seed=0 shots=1", "seed=0 shots=5", "seed=1 shots=1", "seed=1 shots=5",
    ]  # fmt: skip
    (only,) = jobs("seed=0", "batch_size=2")
    assert (only.label, only.name, only.title) == ("", only.id, only.id.rpartition("-")[0])
    named = jobs("batch_size=2")[1]
    assert named.name == f"seed=1 ({named.id})"
    assert named.title == f"seed=1 ({named.id.rpartition('-')[0]})"


def grid(found: list[Job]) -> list[tuple]:
    return [tuple(job.values.values()) for job in found]


def test_every_combination_in_the_order_of_the_file() -> None:
    found = jobs()
    assert grid(found) == [(0, 2), (0, 4), (1, 2), (1, 4)]
    assert found[1].overrides == ("ways=3", "seed=0", "batch_size=4")
    assert found[1].command("DIR") == ["train", "ways=3", "seed=0", "batch_size=4", "hydra.run.dir=DIR"]
    assert [list(job.values) for job in found] == [["seed", "batch_size"]] * 4


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["seed=7"], [(7, 2), (7, 4)]),
        (["seed=7,8,9", "batch_size=2"], [(7, 2), (8, 2), (9, 2)]),
        (["seed=range(3)", "batch_size=2"], [(0, 2), (1, 2), (2, 2)]),
        (["shots=1,5", "seed=0", "batch_size=2"], [(0, 2, 1), (0, 2, 5)]),
        (["ways=4", "seed=0", "batch_size=2"], [(4, 0, 2)]),
    ],
)
def test_overrides_fix_replace_and_extend(overrides: list[str], expected: list[tuple]) -> None:
    assert grid(jobs(*overrides)) == expected


def test_a_job_is_named_by_its_configuration_alone() -> None:
    ids = [job.id for job in jobs()]
    assert len(set(ids)) == 4
    assert [job.id for job in jobs("tracking.mode=disabled")] == ids, "where it is tracked makes it no other job"
    assert [job.id for job in jobs(file=replace(FILE, fixed=(), parameters={**FILE.parameters, "ways": ("3",)}))] == ids
    assert not set(ids) & {job.id for job in jobs("iterations=7")}
    profiles = jobs(file=replace(FILE, kind="profile", fixed=("ways=3", "predict=cuda")))
    assert not set(ids) & {job.id for job in profiles}
    assert profiles[0].options == ("predict=cuda",)
    assert profiles[0].overrides == ("ways=3", "seed=0", "batch_size=2")


def test_one_configuration_is_one_job() -> None:
    assert grid(jobs("seed=1,1,01", "batch_size=2")) == [(1, 2)]


def test_whether_a_job_wants_a_gpu_and_its_threads() -> None:
    (job,) = jobs("seed=0", "batch_size=2", "threads=3")
    assert (job.threads, job.wants_gpu) == (3, True)
    (job,) = jobs("seed=0", "batch_size=2", file=replace(FILE, kind="profile", fixed=("predict=cuda",)))
    assert (job.threads, job.wants_gpu) == (1, False)


def test_bad_jobs_are_refused_before_anything_is_made(monkeypatch) -> None:
    with pytest.raises(ConfigError, match=r"sweeps/mine.yaml: ways=90 is more than .* \(the job ways=90 seed=0"):
        jobs("ways=90")
    with pytest.raises(ConfigError, match=r"hydra.run.dir: the sweep sets each job's folder"):
        jobs("hydra.run.dir=x")
    with pytest.raises(ConfigError, match="cannot read 'seed=\\[': "):
        jobs("seed=[")
    monkeypatch.setattr(planning, "MAX_JOBS", 3)
    with pytest.raises(ConfigError, match="4 jobs are more than 3; give fewer values"):
        jobs()

    def check(kind: str, options: dict[str, str], config: Config) -> None:
        raise ConfigError(f"no {kind} here")

    monkeypatch.setattr(planning, "MAX_JOBS", 4)
    with pytest.raises(ConfigError, match="no train here"):
        jobs(check=check)
