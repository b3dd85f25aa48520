"""The sweep files that are shipped: sound, composable, and what W&B's own agent makes of them."""

import itertools
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import load_sweep_config
from wandb.wandb_agent import Agent

from memmeta_exp.config import Config, from_omegaconf
from memmeta_exp.config.compose import choices, composed
from memmeta_exp.sweeps.grid import Job, plan
from memmeta_exp.sweeps.sweep_file import SweepFile, read

SWEEPS = Path(__file__).parents[2] / "sweeps"
FULL = sorted(SWEEPS.glob("*.yaml"))
SMALL = sorted((SWEEPS / "small").glob("*.yaml"))


def name(file: Path) -> str:
    return str(file.relative_to(SWEEPS))


def jobs(file: SweepFile) -> list[Job]:
    return plan(file, [], choices, lambda overrides: from_omegaconf(composed(overrides)), lambda *_: None)


def each_value_once(file: SweepFile) -> list[SweepFile]:
    """As many jobs as the longest parameter has values, in which every value of every parameter occurs."""
    longest = max(len(values) for values in file.parameters.values())
    cycles = {key: list(itertools.islice(itertools.cycle(values), longest)) for key, values in file.parameters.items()}
    return [replace(file, parameters={key: (values[i],) for key, values in cycles.items()}) for i in range(longest)]


def test_every_study_has_a_small_size() -> None:
    assert {file.name for file in SMALL} == {file.name for file in FULL}
    assert {"memory_vs_inner_steps.yaml", "memory_vs_batch_size.yaml", "accuracy.yaml"} <= {file.name for file in FULL}


@pytest.mark.parametrize("file", [*FULL, *SMALL], ids=name)
def test_each_is_sound_and_its_first_and_last_values_compose(file: Path) -> None:
    """Of the small ones the agent's test composes a job."""
    found = read(file)
    assert load_sweep_config(str(file)) == yaml.safe_load(file.read_text()), "W&B reads it as YAML does"
    assert yaml.safe_load(file.read_text())["name"] == file.stem
    if file in SMALL:
        return
    some = each_value_once(found)
    ids = [job.id for one in {len(some): some[-1], 1: some[0]}.values() for job in jobs(one)]
    assert len(set(ids)) == len(ids)


@pytest.mark.slow
@pytest.mark.parametrize("file", [*FULL, *SMALL], ids=name)
def test_all_jobs_compose_and_no_two_are_the_same(file: Path) -> None:
    found = read(file)
    count = 1
    for values in found.parameters.values():
        count *= len(values)
    assert len(jobs(found)) == count


def agents_command(file: Path, values: dict[str, Any], monkeypatch) -> list[str]:
    """The command that W&B's agent would start for a run with `values`."""
    started: list[list[str]] = []

    def start(command: list[str], **_: Any) -> object:
        started.append(command)
        return type("Process", (), {})()

    monkeypatch.setattr("wandb.wandb_agent.AgentProcess", start)
    agent = Agent(api=None, queue=None)
    agent._sweep_command = yaml.safe_load(file.read_text())["command"]
    args = {key: {"value": value} for key, value in values.items()}
    agent._command_run({"type": "run", "run_id": "r1", "args": args, "program": None})
    return started[0]


@pytest.fixture
def agent(memmeta, monkeypatch, tmp_path):
    """W&B's agent at work on a sweep, with every trace of it in the environment undone after the test."""
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SWEEP_ID", "sw33p")
    for key in ("WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH"):
        monkeypatch.setenv(key, "")
    return lambda file, values: agents_command(file, values, monkeypatch)


@pytest.fixture
def inits(monkeypatch) -> list[dict]:
    """W&B runs asked for."""
    asked: list[dict] = []

    class Run:
        offline, url = False, "https://wandb"

        def __init__(self) -> None:
            self.summary: dict = {}

        def __getattr__(self, name: str):
            return lambda *args, **kwargs: None

    def init(**arguments: Any) -> Run:
        asked.append(arguments)
        asked[-1]["run"] = Run()
        return asked[-1]["run"]

    monkeypatch.setattr("wandb.init", init)
    return asked


@pytest.mark.parametrize("file", SMALL, ids=name)
def test_the_agent_runs_the_jobs_that_memmeta_sweep_does(agent, file: Path) -> None:
    values = {
        key: spec.get("value", spec.get("values", [None])[0])
        for key, spec in yaml.safe_load(file.read_text())["parameters"].items()
    }
    program, *rest = agent(file, values)
    assert program == "memmeta"
    first = jobs(replace(read(file), parameters={key: (str(value),) for key, value in values.items()}))[0]
    assert sorted(rest) == sorted(first.command("DIR")[:-1])


def test_the_agents_command_runs_and_is_tracked_online(agent, memmeta, inits) -> None:
    file = SWEEPS / "small" / "memory_vs_inner_steps.yaml"
    values = {
        "experiment": "memory/fair/anil",
        "algorithm.inner_steps": 2,
        "dataset.image_size": 16,
        "backbone.filters": 4,
    }
    result = memmeta(*agent(file, values)[1:])
    assert result.code == 0, result.err
    assert "part of the W&B sweep sw33p, so tracked online" in result.err
    (asked,) = inits
    assert (asked["mode"], asked["job_type"]) == ("online", "profile")
    found = json.loads(Path(result.out.splitlines()[-1].removeprefix("profile: ")).read_text())
    assert asked["run"].summary["memory/above_baseline_mib"] == found["memory/above_baseline_mib"]
    assert asked["run"].summary["bytes.tensors"] == found["bytes"]["tensors"]


@pytest.mark.parametrize(
    ("said", "mode", "online"),
    [
        ([], None, True),
        ([], "online", True),
        (["seed=1"], None, True),
        (["tracking=offline"], None, False),
        (["tracking.mode=disabled"], None, False),
        ([], "offline", False),
        ([], "disabled", False),
    ],
)
def test_online_under_an_agent_unless_said_otherwise(monkeypatch, caplog, said, mode, online: bool) -> None:
    from memmeta_exp.commands.train import tracked

    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_SWEEP_ID", raising=False)
    assert tracked(said) == said
    monkeypatch.setenv("WANDB_SWEEP_ID", "sw33p")
    if mode:
        monkeypatch.setenv("WANDB_MODE", mode)
    chosen = "online" if online else mode
    assert tracked(said) == [*said, *([f"tracking={chosen}"] if chosen else [])]


def test_the_paper_s_settings_and_ours_differ_as_they_say() -> None:
    def config(*overrides: str) -> Config:
        return from_omegaconf(composed(list(overrides)))

    ours, paper = (config(f"experiment={which}", "algorithm=maml") for which in ("ours/cifar_fs", "paper/cifar_fs"))
    assert (ours.batch_size, ours.iterations, ours.test_tasks) == (paper.batch_size, paper.iterations, paper.test_tasks)
    assert (ours.test_adaptation, paper.test_adaptation) == ("own", "gd")
    released, fair = (config(f"experiment=memory/{which}/anil", "dataset=synthetic") for which in ("released", "fair"))
    assert (released.algorithm.features, released.backbone.block) == ("recompute", "plain")
    assert (fair.algorithm.features, fair.backbone.block) == ("once", "fused")
    assert os.environ.get("WANDB_SWEEP_ID") is None
