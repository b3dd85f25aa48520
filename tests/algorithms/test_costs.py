"""The counts of gradient evaluations and Hessian-vector products that a step reports, against formulas and against
counts inside its losses."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from memmeta_exp.algorithms import StepReport, build_algorithm
from memmeta_exp.algorithms.baseline import BaselineConfig
from memmeta_exp.algorithms.imaml import ImamlConfig
from memmeta_exp.algorithms.losses import SoftmaxLosses
from memmeta_exp.algorithms.maml import FomamlConfig, MamlConfig
from memmeta_exp.algorithms.proposed import ProposedConfig
from memmeta_exp.algorithms.unrolled import AnilConfig, ItdBioConfig
from memmeta_exp.bilevel import CrossEntropy, SoftmaxHead
from memmeta_exp.config import options
from memmeta_exp.data import TaskBatch
from tests.algorithms.problems import RECOMPUTE, TASKS, smooth_learner

GD_CG = ProposedConfig(
    mu=0.1, inner_solver="gd", inner_steps=7, inner_tolerance=None, linear_solver="cg", linear_steps=5,
    linear_tolerance=None,
)  # fmt: skip
BY_TOLERANCE = replace(GD_CG, inner_steps=3000, inner_tolerance=1e-2, linear_steps=90, linear_tolerance=1e-3)
WARM = replace(GD_CG, inner_warm_start=True, linear_warm_start=True)
TABLE = {  # K = 7 or 4 or 3 inner steps, N = 5 or 4 linear steps: (gradients, products) of a task
    "proposed": (GD_CG, None, 7 + 3, 5 + 2),  # one for the residual, d_phi f, d_z f; the residual, the cross derivative
    "anil": (AnilConfig(inner_steps=4), None, 4 + 2, 4),
    "anil, first order": (AnilConfig(inner_steps=4, first_order=True), None, 4 + 2, 0),
    "anil, recomputed": (AnilConfig(inner_steps=4, features="recompute"), None, 4 + 1, 4),
    "itd_bio": (ItdBioConfig(inner_steps=4), None, 4 + 2, 4),
    "maml": (MamlConfig(inner_steps=3), None, 3 + 1, 3),
    "maml, R": (MamlConfig(inner_steps=3, mu=0.1), None, 3 + 1, 3),
    "maml, adjoint": (MamlConfig(inner_steps=3), RECOMPUTE, 2 * 3 + 1, 3),  # every slope twice, once with a graph
    "fomaml": (FomamlConfig(inner_steps=3), None, 3 + 1, 0),
    "imaml": (ImamlConfig(inner_steps=6, linear_steps=4), None, 6 + 2, 4 + 2),  # d f, d_phi g; as of proposed
    "baseline": (BaselineConfig(), None, 1, 0),
}


@pytest.mark.parametrize("name", TABLE)
def test_by_formula(batch: TaskBatch, name: str) -> None:
    config, memory, gradients, products = TABLE[name]
    report = smooth_learner(config, memory=memory).step(batch)
    assert report.gradients.dtype == report.products.dtype == torch.int64
    assert report.gradients.tolist() == [gradients] * TASKS
    assert report.products.tolist() == [products] * TASKS


def test_every_algorithm_is_in_the_table() -> None:
    assert {config.name for config, *_ in TABLE.values()} == set(options("algorithm"))


class Probe(torch.autograd.Function):
    """The identity, which says when it is differentiated through."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, seen: dict[str, int]) -> Tensor:
        ctx.seen = seen
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        ctx.seen["products"] += 1
        return grads[0], None


class CountingHead(SoftmaxHead):
    """Counts evaluations of its closed forms, and passes of autograd through d_phi g."""

    seen: dict[str, int]

    def grad(self, phi: Any) -> Any:
        self.seen["gradients"] += 1
        return tuple(Probe.apply(t, self.seen) for t in super().grad(phi))

    def grad_features(self, phi: Any) -> Tensor:
        self.seen["gradients"] += 1
        return super().grad_features(phi)

    def cross(self, phi: Any, v: Any) -> Tensor:
        self.seen["products"] += 1
        return super().cross(phi, v)

    def hvp(self, phi: Any) -> Callable[[Any], Any]:
        product = super().hvp(phi)

        def counted(v: Any) -> Any:
            self.seen["products"] += 1
            return product(v)

        return counted


class CountingLosses(SoftmaxLosses):
    """Heads that count, and evaluations of the network's own losses, each of which is differentiated once."""

    def __init__(self) -> None:
        self.seen = {"gradients": 0, "products": 0}

    def _counting(self, *arguments: Any) -> CountingHead:
        head = CountingHead(*arguments)
        head.seen = self.seen
        return head

    def lower(self, z: Tensor, labels: Tensor, start: Tensor, mu: float, center: Tensor | None) -> CountingHead:
        return self._counting(z, labels, start.shape[-2], mu, center)

    def upper(self, z: Tensor, labels: Tensor, start: Tensor) -> CountingHead:
        return self._counting(z, labels, start.shape[-2])

    def support(self, output: Tensor, label: Tensor) -> Tensor:
        self.seen["gradients"] += 1
        return super().support(output, label)

    def query(self, output: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        self.seen["gradients"] += 1
        return super().query(output, label)


def reported(config: Any, batch: TaskBatch) -> tuple[StepReport, dict[str, int]]:
    """Of a second step, one task a chunk, and what the losses saw of it."""
    plain, losses = smooth_learner(config, chunk=1), CountingLosses()
    learner = build_algorithm(config, plain.model, plain.execution, losses=losses)
    learner.step(batch)
    losses.seen.update(gradients=0, products=0)
    return learner.step(batch), losses.seen


@pytest.mark.parametrize("config", [GD_CG, BY_TOLERANCE, WARM], ids=["steps", "tolerances", "warm"])
def test_proposed_says_what_its_losses_see(batch: TaskBatch, config: ProposedConfig) -> None:
    report, seen = reported(config, batch)
    assert {"gradients": int(report.gradients.sum()), "products": int(report.products.sum())} == seen


@pytest.mark.parametrize("first_order", [False, True])
def test_unrolling_says_what_its_losses_see(batch: TaskBatch, first_order: bool) -> None:
    """f's own derivative, by features and phi at once, is autograd's: one a task that the head does not see."""
    report, seen = reported(AnilConfig(inner_steps=4, first_order=first_order), batch)
    found = {"gradients": int(report.gradients.sum()) - TASKS, "products": int(report.products.sum())}
    assert found == seen


@pytest.mark.parametrize("config", [MamlConfig(inner_steps=3), FomamlConfig(), ImamlConfig()], ids=lambda c: c.name)
def test_weight_space_evaluates_as_many_losses_as_it_says(batch: TaskBatch, config: Any) -> None:
    report, seen = reported(config, batch)
    assert int(report.gradients.sum()) == seen["gradients"]


def test_the_support_space_says_what_its_loss_sees(batch: TaskBatch, monkeypatch) -> None:
    """Slopes of the loss: one at the start, one a step, one for |d_phi g| at W, and one of f, which serves phi and z_q.
    Products: one for the residual of v; the cross derivative takes its own from the solve."""
    found = {"gradients": 0, "products": 0}
    slope, hvp = CrossEntropy.slope, CrossEntropy.hvp

    def counted(name: str, function: Any) -> Any:
        def call(*args: Any) -> Any:
            found[name] += 1
            return function(*args)

        return call

    monkeypatch.setattr(CrossEntropy, "slope", counted("gradients", slope))
    monkeypatch.setattr(CrossEntropy, "hvp", lambda self, u: counted("products", hvp(self, u)))
    report = smooth_learner(ProposedConfig(), chunk=1).step(batch)
    assert int(report.gradients.sum()) == found["gradients"]
    assert int(report.products.sum()) == found["products"] + TASKS
    assert found["gradients"] == int(report.inner_steps.sum()) + TASKS * 3
    assert found["products"] == TASKS


def test_a_task_that_has_stopped_asks_no_more(batch: TaskBatch) -> None:
    """Whatever the chunk: the counts are those of tasks alone, and they differ between tasks."""
    alone, together = (smooth_learner(BY_TOLERANCE, chunk).step(batch) for chunk in (1, TASKS))
    assert len(set(alone.gradients.tolist())) > 1
    assert alone.inner_steps.max() < 3000
    assert torch.equal(alone.gradients, together.gradients)
    assert torch.equal(alone.products, together.products)
    assert torch.equal(alone.gradients, alone.inner_steps + 3)
