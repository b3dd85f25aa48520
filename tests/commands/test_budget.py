"""memory.budget_mib: what it chooses, that the choice keeps to it, and what it says when nothing does."""

import json
from typing import Any

import pytest
import torch

from memmeta_exp.config import Config, ConfigError
from memmeta_exp.config.compose import jobs
from memmeta_exp.experiment.builder import build
from memmeta_exp.experiment.optimizers import build_optimizer
from memmeta_exp.experiment.train_step import TrainStep
from memmeta_exp.memory.budget import fit_to_budget
from memmeta_exp.profiling.peak_memory import measure_peak

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SMALL = [
    "threads=1",
    "dataset=synthetic",
    "dataset.classes=5",
    "dataset.images_per_class=12",
    "backbone.filters=16",
    "batch_size=4",
]


def config(*overrides: str) -> Config:
    return jobs([*SMALL, *overrides], multirun=False)[0]


def peak_mib(c: Config) -> float:
    experiment = build(c)
    optimizer, _ = build_optimizer(c, experiment.model)
    iteration = TrainStep(experiment, optimizer)
    iteration(1)
    iteration.clear()
    return measure_peak(lambda: iteration(2), "cpu", iteration.persistent())[1].absolute_mib


def choice(c: Config) -> tuple[Any, str, str]:
    return c.tasks_per_pass, c.memory.mode, c.memory.checkpoint


@pytest.mark.parametrize(
    ("algorithm", "frugal"),
    [
        ("proposed", (1, "half_task", "none")),
        pytest.param("maml", (1, "task", "inner_step"), marks=pytest.mark.slow),
        pytest.param("anil", (1, "half_task", "none"), marks=pytest.mark.slow),
    ],
)
def test_the_peak_keeps_to_the_budget(algorithm: str, frugal: tuple[object, str, str]) -> None:
    chosen = [f"algorithm={algorithm}", "algorithm.inner_steps=3", "batch_size=2"]
    roomy = peak_mib(config(*chosen))
    assert choice(fit_to_budget(config(*chosen, f"memory.budget_mib={1.02 * roomy}"), CPU)) == (1, "task", "none")
    budget = 0.9 * roomy
    tight = fit_to_budget(config(*chosen, f"memory.budget_mib={budget}"), CPU)
    assert choice(tight) == frugal
    assert peak_mib(tight) <= budget


def least(device: torch.device) -> float:
    """The smallest budget that would do, as the refusal names it."""
    with pytest.raises(ConfigError, match=r"set memory\.budget_mib=") as refused:
        fit_to_budget(config("memory.budget_mib=1"), device)
    return float(str(refused.value).partition("set memory.budget_mib=")[2].partition(",")[0])


@pytest.mark.slow
def test_the_smallest_budget_named_will_do() -> None:
    enough = least(CPU)
    assert peak_mib(fit_to_budget(config(f"memory.budget_mib={enough}"), CPU)) <= enough
    with pytest.raises(ConfigError):
        fit_to_budget(config(f"memory.budget_mib={enough - 0.2}"), CPU)


@pytest.mark.slow
def test_on_a_gpu_the_chunk_is_halved_first() -> None:
    """Without a GPU at hand: the choice rests on the prediction alone."""
    budgets = [400, 60, 40, least(CUDA)]
    found = [choice(fit_to_budget(config(f"memory.budget_mib={budget}"), CUDA)) for budget in budgets]
    assert found[0] == (4, "task", "none")
    assert found[-1][:2] == (1, "half_task")  # of so shallow a network a block that runs twice saves nothing
    chunks = [c for c, _, _ in found]
    assert chunks == sorted(chunks, reverse=True)
    assert 2 in chunks


def test_what_is_fixed_stays() -> None:
    assert choice(fit_to_budget(config("tasks_per_pass=2", "memory.budget_mib=500"), CUDA)) == (2, "task", "none")
    assert fit_to_budget(config(), CPU) == config()


@pytest.mark.slow
def test_several_workers_share_the_budget() -> None:
    """Their peaks add up; what the meter sees is one of them."""
    alone = peak_mib(config())
    both = fit_to_budget(config("threads=2", "memory.budget_mib=500"), CPU)
    assert both.workers == 2
    one = fit_to_budget(config("threads=2", f"memory.budget_mib={1.1 * alone}"), CPU)
    assert (one.workers, *choice(one)) == (1, 1, "task", "none")
    fixed = fit_to_budget(config("threads=2", "workers=2", f"memory.budget_mib={1.3 * alone}"), CPU)
    assert (fixed.workers, fixed.memory.mode) == (2, "half_task")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "other"),
    [
        ("proposed", ()),
        ("proposed", ("tasks_per_pass=2",)),
        ("proposed", ("backbone.norm=running",)),
        ("maml", ()),
        ("maml", ("backbone.filters=4",)),
    ],
)
def test_bf16_keeps_to_the_budget(algorithm: str, other: tuple[str, ...]) -> None:
    """Its need is bounded by that of float32, at most twice as large."""
    plain = [f"algorithm={algorithm}", "precision=bf16", "algorithm.inner_steps=2", "batch_size=2", *other]
    measured = peak_mib(config(*plain))
    for budget in (0.9 * measured, 1.5 * measured):
        try:
            fits = fit_to_budget(config(*plain, f"memory.budget_mib={budget}"), CPU)
        except ConfigError:
            assert budget < measured, "the bound is within half as much again"
        else:
            assert peak_mib(fits) <= budget


@pytest.mark.slow
def test_a_run_says_what_was_chosen(train) -> None:
    done = train("memory.budget_mib=500", "iterations=2")
    env = json.loads((done.summary.parent / "env.json").read_text())
    assert (env["tasks_per_pass"], env["memory.mode"], env["memory.checkpoint"]) == (1, "task", "none")
    assert json.loads(done.summary.read_text())["memory/peak_mib"] <= 500
