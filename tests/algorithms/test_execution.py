"""The result of a step does not depend on tasks per pass, halves of tasks, workers or threads."""

import threading
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from memmeta_exp.algorithms import Execution, Learner, WeightSpaceLearner, build_algorithm
from memmeta_exp.algorithms.baseline import BaselineConfig
from memmeta_exp.algorithms.imaml import ImamlConfig
from memmeta_exp.algorithms.maml import FomamlConfig, MamlConfig
from memmeta_exp.algorithms.proposed import ProposedConfig
from memmeta_exp.algorithms.unrolled import AnilConfig, ItdBioConfig
from memmeta_exp.backbones import build_model
from memmeta_exp.backbones.conv4 import Conv4Config
from memmeta_exp.config import MemoryConfig, options
from memmeta_exp.data import SinusoidTasks, TaskBatch
from memmeta_exp.profiling.peak_memory import PeakMeter
from tests.algorithms.problems import (
    CLASSES,
    HALF_TASK,
    RECOMPUTE,
    TASKS,
    WAYS,
    Quadratics,
    gradient,
    image_tasks,
    sine_learner,
    smooth_learner,
)

EXACT = ProposedConfig(mu=0.05, inner_tolerance=1e-12, inner_steps=60, linear_tolerance=1e-10)
STEPS = replace(EXACT, inner_solver="gd", inner_steps=20, inner_tolerance=None, linear_solver="cg", linear_steps=20)
ANIL = AnilConfig(inner_steps=3, inner_lr=0.1)
MAML = MamlConfig(inner_steps=2, inner_lr=0.05)
HEAD_ONLY = {
    "proposed": EXACT,
    "proposed, steps": replace(STEPS, head_start="learned"),
    "proposed, prototype": replace(EXACT, head_start="prototype"),
    "anil": ANIL,
    "itd_bio": ItdBioConfig(mu=0.1, inner_steps=3),
    "baseline": BaselineConfig(),
    "baseline, cosine": BaselineConfig(classifier="cosine"),
}


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-12) -> None:
    assert expected.abs().max() > 1e-3
    assert (found - expected).abs().max() < tolerance * expected.abs().max()


def test_every_head_only_algorithm_is_listed() -> None:
    listed = {config.name for config in HEAD_ONLY.values()}
    assert {name for name, option in options("algorithm").items() if option().head_only} == listed


@pytest.mark.parametrize("name", HEAD_ONLY)
def test_chunks_and_halves_do_not_change_the_gradient(batch: TaskBatch, name: str) -> None:
    """Also where the halves differ in size."""
    config = HEAD_ONLY[name]
    whole = gradient(smooth_learner(config, TASKS), batch)
    for chunk in (1, 2, 3):
        close(gradient(smooth_learner(config, chunk), batch), whole)
    for chunk in (1, 2) if config.name in ("proposed", "baseline") else ():
        close(gradient(smooth_learner(config, chunk, HALF_TASK), batch), whole)


@pytest.mark.parametrize("name", HEAD_ONLY)
@pytest.mark.parametrize("images", [1, 4, 100])
def test_images_a_few_at_a_time_do_not_change_the_gradient(batch: TaskBatch, name: str, images: int) -> None:
    """Support (6 images) and query (12) differ in size, and 4 divides only one of them."""
    whole, apart = smooth_learner(HEAD_ONLY[name], 2), smooth_learner(HEAD_ONLY[name], 2)
    apart.execution = replace(apart.execution, images_per_pass=images)
    close(gradient(apart, batch), gradient(whole, batch))
    for a, b in zip(apart.evaluate(batch), whole.evaluate(batch), strict=True):
        assert torch.allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize("config", [EXACT, STEPS, ANIL], ids=["newton", "gd", "anil"])
def test_chunks_of_quadratic_tasks(config: Any) -> None:
    world = Quadratics()
    whole = world.gradient(config)
    for chunk in (1, 4):
        close(world.gradient(config, chunk), whole)


def test_chunks_normalise_each_task_by_itself(batch: TaskBatch) -> None:
    """Batch norm in one pass of five tasks (grouped channels) and task by task (plain)."""
    one, all_ = (gradient(conv4(replace(EXACT, inner_tolerance=1e-10), Execution(k)), batch) for k in (1, TASKS))
    close(one, all_, 1e-8)


def conv4(config: Any, execution: Execution, memory: MemoryConfig | None = None, norm: str = "task") -> Learner:
    classes = CLASSES if config.classifies else None
    model = build_model(
        Conv4Config(filters=6, norm=norm), 3, 16, WAYS, config.head_start == "learned", seed=0, classes=classes
    )
    return build_algorithm(config, model.double(), execution, memory)


TOGETHER = {
    "maml": (MAML, None),
    "maml, inner_step": (MAML, RECOMPUTE),
    "fomaml": (FomamlConfig(inner_steps=2, inner_lr=0.05), None),
    "imaml": (ImamlConfig(inner_steps=4, inner_lr=0.05, linear_steps=6), None),
    "anil, recomputed": (replace(ANIL, features="recompute"), None),
    "proposed": (EXACT, None),
}


@pytest.mark.parametrize("name", TOGETHER)
def test_tasks_together_are_what_they_are_alone(waves: SinusoidTasks, name: str) -> None:
    config, memory = TOGETHER[name]
    together, apart = (sine_learner(config, chunk, memory) for chunk in (4, 1))
    assert (together.tasks_per_pass, apart.tasks_per_pass) == (4, 1)
    if isinstance(apart, WeightSpaceLearner):
        apart.stacked = False  # the way of networks that do not stack
    close(gradient(together, waves), gradient(apart, waves), 1e-11)
    reports = [learner.step(waves) for learner in (together, apart)]
    assert all(report.metrics == {} for report in reports)
    for field in (f for f in fields(reports[0]) if f.name != "metrics"):
        a, b = (getattr(report, field.name) for report in reports)
        assert (a is None) == (b is None), field.name
        assert a is None or torch.allclose(a, b, rtol=1e-9, atol=1e-12), field.name
    for a, b in zip(together.evaluate(waves)[1:], apart.evaluate(waves)[1:], strict=True):
        assert torch.allclose(a, b, rtol=1e-12)
    assert torch.allclose(together.outputs(waves), apart.outputs(waves), rtol=1e-10)


WITH_WORKERS = {
    "proposed": (replace(STEPS, inner_warm_start=True), None),
    "half_task": (ProposedConfig(head_start="learned"), HALF_TASK),
    "anil": (ANIL, None),
    "recomputed": (replace(ANIL, features="recompute"), None),
    "itd_bio": (ItdBioConfig(inner_steps=3), None),
    "maml": (MAML, None),
    "adjoint": (MAML, RECOMPUTE),
    "fomaml": (FomamlConfig(inner_steps=2), None),
    "imaml": (ImamlConfig(inner_steps=2, linear_steps=2), None),
    "baseline": (BaselineConfig(), None),
    "baseline, half_task": (BaselineConfig(), HALF_TASK),
}


def test_every_algorithm_is_run_by_workers() -> None:
    assert {config.name for config, _ in WITH_WORKERS.values()} == set(options("algorithm"))


@pytest.mark.parametrize(("name", "norm"), [*((n, "running") for n in WITH_WORKERS), ("half_task", "task")])
def test_workers_change_no_bit(name: str, norm: str) -> None:
    batch, (config, memory) = image_tasks(4), WITH_WORKERS[name]

    def result(workers: int) -> list[Tensor]:
        learner = conv4(config, Execution(workers=workers), memory, norm)
        if norm == "running":
            learner.update_running_stats(batch, 0.1)
        learner.step(batch)
        report = learner.step(batch)
        grads = [p.grad for p in learner.model.parameters() if p.grad is not None]
        scores = [column for column in learner.evaluate(batch) if column is not None]
        assert len(scores) == 3
        return [report.loss, report.inexact, *grads, *learner.warm.values(), *scores]

    one, several = result(1), result(3)
    assert sum(float(g.abs().sum()) for g in one[2:]) > 0
    assert all(torch.equal(a, b) for a, b in zip(one, several, strict=True))


def test_several_threads_are_at_work_and_none_under_the_meter(batch: TaskBatch) -> None:
    learner = conv4(ProposedConfig(), Execution(workers=2))
    seen: set[str] = set()
    both = threading.Barrier(2)

    def met(*_: Any) -> None:
        both.wait(timeout=30)  # passes only where two threads come here at once
        seen.add(threading.current_thread().name)

    hook = learner.model.backbone.register_forward_pre_hook(met)
    learner.step(batch[:4])
    assert len(seen) == 2
    assert threading.current_thread().name not in seen
    hook.remove()
    seen.clear()
    learner.model.backbone.register_forward_pre_hook(lambda *_: seen.add(threading.current_thread().name))
    with PeakMeter(learner.model):
        learner.step(batch)
    assert seen == {threading.current_thread().name}


def test_what_a_worker_raises_reaches_the_caller(batch: TaskBatch) -> None:
    learner = conv4(ProposedConfig(), Execution(workers=2))

    def fail(*_: Any) -> None:
        raise MemoryError("of a worker")

    learner.model.backbone.register_forward_pre_hook(fail)
    with pytest.raises(MemoryError, match="of a worker"):
        learner.step(batch)


def test_warm_starts_go_to_their_own_slots(batch: TaskBatch) -> None:
    """Two steps of one gradient step each from the slot's last phi are two gradient steps; the same for v and CG."""
    short = replace(EXACT, inner_solver="gd", inner_steps=1, inner_lr=0.1, inner_warm_start=True)
    few = replace(EXACT, linear_solver="cg", linear_steps=3, linear_tolerance=None, linear_warm_start=True)
    for chunk in (1, 2, TASKS):
        learner = smooth_learner(short, chunk)
        learner.step(batch)
        learner.step(batch)
        (x_s, y_s), start = batch.support(), learner.model.head_start
        with torch.no_grad():
            lower = learner.algorithm.lower(learner.model.backbone(x_s.double().div(255)), y_s, start)
        phi = (start.expand(TASKS, -1, -1),)
        for _ in range(2):
            phi = (phi[0] - 0.1 * lower.grad(phi)[0],)
        assert set(learner.warm) == {"phi"}
        assert torch.allclose(learner.warm["phi"], phi[0], atol=1e-13)
        learner = smooth_learner(few, chunk)
        residuals = [learner.step(batch).linear_residual for _ in range(12)]
        assert (residuals[-1] < 0.2 * residuals[0]).all(), "every slot's system is the same each time: v gets better"


def bf16(config: Any) -> tuple[Tensor, Any]:
    """The gradient, and the report of a step, with the backbone in bfloat16."""
    model = build_model(Conv4Config(filters=6), 3, 16, WAYS, config.head_start == "learned", seed=0)
    learner = build_algorithm(config, model, Execution(bf16=True))
    return gradient(learner, image_tasks(2)), learner.step(image_tasks(2))


def test_bf16_is_the_backbones_alone() -> None:
    """The head keeps float32 whichever way the features are computed."""
    (once, _), (again, _) = (bf16(replace(ANIL, features=way)) for way in ("once", "recompute"))
    assert once.norm() > 1e-3
    assert (once - again).norm() < 1e-2 * once.norm(), "bfloat16's rounding in other places"
    assert (once - again)[: 3 * 7].norm() < 1e-5 * once[: 3 * 7].norm(), "the head's own part has none"


def test_under_bf16_the_linear_system_is_solved_in_float32() -> None:
    (rounded, report), model = bf16(ProposedConfig()), build_model(Conv4Config(filters=6), 3, 16, WAYS, False, seed=0)
    full = gradient(build_algorithm(ProposedConfig(), model), image_tasks(2))
    assert not torch.equal(full, rounded)
    assert torch.cosine_similarity(full, rounded, dim=0) > 0.95
    assert report.loss.dtype == torch.float32
    assert report.linear_residual.max() < 1e-4
