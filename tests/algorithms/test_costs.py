"""Evaluations counted by the algorithms against those that an instrumented objective sees."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from memmeta_exp.algorithms import StepReport
from memmeta_exp.algorithms.imaml import ImamlConfig
from memmeta_exp.algorithms.proposed import ProposedConfig
from memmeta_exp.algorithms.unrolled import AnilConfig
from memmeta_exp.algorithms.weight_space import Task
from memmeta_exp.bilevel import SoftmaxHead
from memmeta_exp.config import MemoryConfig
from memmeta_exp.data import TaskBatch
from tests.algorithms.conftest import TASKS, smooth_learner


class Probe(torch.autograd.Function):
    """The identity, which counts how often it is differentiated through."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, seen: dict[str, int]) -> Tensor:
        ctx.seen = seen
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        ctx.seen["products"] += 1
        return grads[0], None


@pytest.fixture
def seen(monkeypatch) -> dict[str, int]:
    """Evaluations of the softmax head's closed forms, a task: to be used with one task a chunk."""
    found = {"gradients": 0, "products": 0}
    grad, grad_features, hvp, cross = (getattr(SoftmaxHead, n) for n in ("grad", "grad_features", "hvp", "cross"))

    def counted(name: str, function: Any) -> Any:
        def call(*args: Any) -> Any:
            found[name] += 1
            return function(*args)

        return call

    def probed_grad(self: SoftmaxHead, phi: Any) -> Any:
        found["gradients"] += 1
        return tuple(Probe.apply(t, found) for t in grad(self, phi))

    monkeypatch.setattr(SoftmaxHead, "grad", probed_grad)
    monkeypatch.setattr(SoftmaxHead, "grad_features", counted("gradients", grad_features))
    monkeypatch.setattr(SoftmaxHead, "cross", counted("products", cross))
    monkeypatch.setattr(SoftmaxHead, "hvp", lambda self, phi: counted("products", hvp(self, phi)))
    return found


def totals(report: StepReport) -> dict[str, int]:
    assert report.gradients.dtype == report.products.dtype == torch.int64
    assert report.gradients.shape == report.products.shape == (TASKS,)
    return {"gradients": int(report.gradients.sum()), "products": int(report.products.sum())}


GD_CG = ProposedConfig(mu=0.1, inner_solver="gd", inner_tolerance=None, linear_solver="cg", linear_tolerance=None)
ANIL = AnilConfig(inner_steps=4)


@pytest.mark.parametrize(
    "config",
    [
        ProposedConfig(),
        dataclasses.replace(GD_CG, inner_steps=7, linear_steps=5),
        dataclasses.replace(GD_CG, inner_steps=3000, inner_tolerance=1e-2, linear_steps=90, linear_tolerance=1e-3),
        dataclasses.replace(GD_CG, inner_steps=7, linear_steps=5, inner_warm_start=True, linear_warm_start=True),
    ],
    ids=["newton", "steps", "tolerances", "warm"],
)
def test_of_the_proposed_algorithm(batch: TaskBatch, seen: dict[str, int], config: ProposedConfig) -> None:
    learner = smooth_learner(config, chunk=1)
    learner.step(batch)
    seen.update(gradients=0, products=0)
    found = totals(learner.step(batch))
    assert found == seen
    if config.inner_tolerance is None and not config.linear_warm_start:
        # K and one for the residual, d_phi f, d_z f; N and one for the residual, the cross derivative
        assert found == {"gradients": TASKS * (7 + 3), "products": TASKS * (5 + 2)}


def test_a_task_that_has_stopped_asks_no_more(batch: TaskBatch) -> None:
    """Whatever the chunk: the counts are those of tasks alone, and they differ between tasks."""
    config = dataclasses.replace(GD_CG, inner_steps=3000, inner_tolerance=1e-2, linear_steps=90, linear_tolerance=1e-3)
    alone, together = (smooth_learner(config, chunk).step(batch) for chunk in (1, TASKS))
    assert len(set(alone.gradients.tolist())) > 1
    assert alone.inner_steps.max() < 3000
    assert torch.equal(alone.gradients, together.gradients)
    assert torch.equal(alone.products, together.products)
    assert torch.equal(alone.gradients, alone.inner_steps + 3)


@pytest.mark.parametrize("first_order", [False, True])
def test_of_unrolling_head_only(batch: TaskBatch, seen: dict[str, int], first_order: bool) -> None:
    """f's own derivative, by features and phi at once, is autograd's: one a task that the head does not see."""
    config = dataclasses.replace(ANIL, first_order=first_order)
    found = totals(smooth_learner(config, chunk=1).step(batch))
    assert found == {"gradients": seen["gradients"] + TASKS, "products": seen["products"]}
    assert found == {"gradients": TASKS * (4 + 2), "products": 0 if first_order else TASKS * 4}


@pytest.fixture
def autograd_calls(monkeypatch) -> dict[str, int]:
    """Differentiations of losses, and of what they gave, of weight-space tasks."""
    found = {"gradients": 0, "products": 0}
    grad = torch.autograd.grad

    def counted(outputs: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        scalar = isinstance(outputs, Tensor) and outputs.dim() == 0
        found["gradients" if scalar else "products"] += 1
        result = grad(outputs, inputs, *args, **kwargs)
        if scalar and kwargs.get("create_graph") and result[0].requires_grad:
            return (Probe.apply(result[0], found), *result[1:])
        return result

    monkeypatch.setattr(torch.autograd, "grad", counted)
    return found


MAML = AnilConfig("maml", adapted_params="all", inner_steps=3, inner_lr=0.1, features="recompute")


@pytest.mark.parametrize("mu", [0.0, 0.1])
@pytest.mark.parametrize("first_order", [False, True])
def test_of_maml(batch: TaskBatch, autograd_calls: dict[str, int], first_order: bool, mu: float) -> None:
    config = dataclasses.replace(MAML, first_order=first_order, mu=mu)
    found = totals(smooth_learner(config).step(batch))
    assert found == autograd_calls
    assert found == {"gradients": TASKS * (3 + 1), "products": 0 if first_order else TASKS * 3}


def test_of_maml_one_step_at_a_time(batch: TaskBatch) -> None:
    """The adjoint takes every slope twice, once with a graph, and each product by itself."""
    found = totals(smooth_learner(MAML, memory=MemoryConfig(checkpoint="inner_step")).step(batch))
    assert found == {"gradients": TASKS * (2 * 3 + 1), "products": TASKS * 3}


def test_of_recomputed_features(batch: TaskBatch, autograd_calls: dict[str, int]) -> None:
    found = totals(smooth_learner(dataclasses.replace(ANIL, features="recompute")).step(batch))
    assert found == autograd_calls == {"gradients": TASKS * (4 + 1), "products": TASKS * 4}


def test_of_imaml(batch: TaskBatch, monkeypatch) -> None:
    """K slopes, d f, d_phi g; N products, one for the residual, the cross derivative."""
    evaluations = {"support": 0, "query": 0}
    for name in evaluations:
        original = getattr(Task, f"{name}_loss")

        def counted(self: Task, weights: Any, name: str = name, original: Any = original) -> Any:
            evaluations[name] += 1
            return original(self, weights)

        monkeypatch.setattr(Task, f"{name}_loss", counted)
    config = ImamlConfig(inner_steps=6, linear_steps=4)
    report = smooth_learner(config).step(batch)
    assert totals(report) == {"gradients": sum(evaluations.values()), "products": TASKS * (4 + 2)}
    assert evaluations == {"support": TASKS * 7, "query": TASKS}
    assert report.linear_steps.tolist() == [4] * TASKS
