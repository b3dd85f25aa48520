"""Every algorithm's meta-gradient on sine waves: against a closed form, by hand, by differences, in a limit; and that
tasks which are taken together are each what they are alone."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from memmeta_exp.algorithms import Execution, Learner, WeightSpaceLearner, build_algorithm
from memmeta_exp.algorithms.imaml import ImamlConfig
from memmeta_exp.algorithms.losses import RegressionLosses
from memmeta_exp.algorithms.proposed import Proposed, ProposedConfig
from memmeta_exp.algorithms.unrolled import AnilConfig
from memmeta_exp.backbones import build_model
from memmeta_exp.backbones.mlp import MlpConfig
from memmeta_exp.bilevel import SquaredError
from memmeta_exp.config import MemoryConfig
from memmeta_exp.data import SinusoidSampler, SinusoidTasks
from tests.algorithms.conftest import assert_central_differences, gradient

TASKS = 6
EXACT = ProposedConfig(mu=0.05, inner_tolerance=1e-11, linear_tolerance=1e-10)
ANIL = AnilConfig(inner_steps=3, inner_lr=0.1)
ITD_BIO = AnilConfig(name="itd_bio", mu=0.05, inner_steps=4, inner_lr=0.1, head_start="fixed")
MAML = AnilConfig(name="maml", adapted_params="all", features="recompute", inner_steps=2, inner_lr=0.05)
FOMAML = dataclasses.replace(MAML, name="fomaml", first_order=True)
SOLVED = ImamlConfig(lam=20.0, inner_steps=24, inner_lr=0.04, linear_steps=60, linear_tolerance=1e-11)
INNER_STEP = MemoryConfig(checkpoint="inner_step")


@pytest.fixture
def tasks() -> SinusoidTasks:
    return SinusoidSampler("train", 0, 5, 6, torch.device("cpu"), torch.float64).draw(0, TASKS)


@pytest.fixture
def smooth(monkeypatch) -> None:
    monkeypatch.setattr(F, "relu", F.softplus)


def learner_of(config: Any, chunk: int = TASKS, memory: MemoryConfig | None = None) -> Learner:
    model = build_model(MlpConfig(hidden=[8, 7]), 1, 1, 1, config.head_start == "learned", seed=1).double()
    return build_algorithm(config, model, Execution(chunk), memory, RegressionLosses())


DIFFERENTIATED = {
    "proposed": EXACT,
    "proposed, learned": dataclasses.replace(EXACT, head_start="learned"),
    "anil": ANIL,
    "itd_bio": ITD_BIO,
    "anil, recomputed": dataclasses.replace(ANIL, features="recompute"),
    "maml": MAML,
    "no steps": dataclasses.replace(FOMAML, inner_steps=0),
    "imaml": SOLVED,
}


@pytest.mark.usefixtures("smooth")
@pytest.mark.parametrize("name", DIFFERENTIATED)
def test_central_differences(tasks: SinusoidTasks, name: str) -> None:
    learner = learner_of(DIFFERENTIATED[name])
    assert_central_differences(learner, tasks)
    report = learner.step(tasks)
    assert report.accuracy is None
    assert not report.inexact.any()


def ridge_objective(model: Any, tasks: SinusoidTasks, mu: float) -> Tensor:
    """F with phi* from the normal equations (Z^T Z / n + mu I) w = Z^T y / n, for autograd to go through."""
    (x_s, y_s), (x_q, y_q) = tasks.support(), tasks.query()
    z_s, z_q = (torch.cat([z := model.backbone(x), torch.ones_like(z[..., :1])], -1) for x in (x_s, x_q))
    n, eye = z_s.shape[1], torch.eye(z_s.shape[2]).double()
    w = torch.linalg.solve(z_s.mT @ z_s / n + mu * eye, z_s.mT @ y_s / n)
    return (z_q @ w - y_q).square().mean((1, 2)).mean()


def test_proposed_is_the_gradient_through_the_normal_equations(tasks: SinusoidTasks) -> None:
    learner = learner_of(EXACT)
    parameters = list(learner.model.parameters())
    value = ridge_objective(learner.model, tasks, EXACT.mu)
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(value, parameters)])
    found = gradient(learner, tasks)
    assert expected.norm() > 0.1
    assert (found - expected).norm() < 1e-8 * expected.norm()
    assert learner.evaluate(tasks)[1].mean().item() == pytest.approx(value.item(), rel=1e-9)


def test_by_hand() -> None:
    """One support point z = 1, y = 2 and mu = 2: phi* = y (z, 1) / (mu + z^2 + 1) = (1/2, 1/2). At z_q = 2, y_q = 0 it
    says p = y (z z_q + 1) / (mu + z^2 + 1) = 3/2, so f = 9/4, d_zq f = 2 p / 2 = 3/2, and with
    d_z p = y (z_q (mu + z^2 + 1) - 2 z (z z_q + 1)) / (mu + z^2 + 1)^2 = 1/4:  d_z f = 2 p / 4 = 3/4."""
    rule = Proposed(dataclasses.replace(EXACT, mu=2.0), RegressionLosses())
    z_s, y_s, z_q, y_q = (torch.tensor([[[v]]]).double() for v in (1.0, 2.0, 2.0, 0.0))
    found = rule.feature_gradient((z_s, y_s), (z_q, y_q), torch.zeros(1, 2).double(), {})
    assert found.inner.value[0].flatten().tolist() == pytest.approx([0.5, 0.5])
    values = (found.loss.item(), found.d_query.item(), found.d_support.item())
    assert values == pytest.approx((2.25, 1.5, 0.75))


def test_the_squared_error_by_autograd() -> None:
    torch.manual_seed(0)
    z, y, w = (torch.randn(*shape).double().requires_grad_() for shape in ((3, 4, 5), (3, 4, 2), (3, 2, 6)))
    value = (z @ w[..., :-1].mT + w[:, None, :, -1] - y).square().sum(-1).mean(1)
    d_z, d_w = torch.autograd.grad(value.sum(), (z, w))
    f = SquaredError(z.detach(), y.detach())
    at = (w.detach(),)
    pairs = ((f.value(at), value), (f.grad_features(at), d_z), (f.grad(at)[0], d_w))
    for found, expected in pairs:
        assert (found - expected).abs().max() < 1e-13


def test_unrolling_long_enough_is_proposed(tasks: SinusoidTasks) -> None:
    exact = gradient(learner_of(EXACT), tasks)
    apart = []
    for steps in (5, 100, 2000):
        config = dataclasses.replace(ITD_BIO, inner_steps=steps, inner_lr=0.4)
        apart.append(float((gradient(learner_of(config), tasks) - exact).norm() / exact.norm()))
    assert apart == sorted(apart, reverse=True)
    assert apart[0] > 0.1
    assert apart[-1] < 1e-8


TOGETHER = {
    "maml": (MAML, None),
    "maml, inner_step": (MAML, INNER_STEP),
    "fomaml": (FOMAML, None),
    "imaml": (ImamlConfig(inner_steps=4, inner_lr=0.05, linear_steps=6), None),
    "anil, recomputed": (dataclasses.replace(ANIL, features="recompute"), None),
    "proposed": (EXACT, None),
}


@pytest.mark.parametrize("name", TOGETHER)
def test_tasks_together_are_what_they_are_alone(tasks: SinusoidTasks, name: str) -> None:
    config, memory = TOGETHER[name]
    together, apart = (learner_of(config, chunk, memory) for chunk in (4, 1))
    assert (together.tasks_per_pass, apart.tasks_per_pass) == (4, 1)
    if isinstance(apart, WeightSpaceLearner):
        apart.stacked = False  # the way of networks that do not stack
    reports = [learner.step(tasks) for learner in (together, apart)]
    grads = [
        torch.cat([p.grad.flatten() for p in one.model.parameters() if p.grad is not None]) for one in (together, apart)
    ]
    assert grads[0].norm() > 1e-3
    assert (grads[0] - grads[1]).norm() < 1e-12 * grads[0].norm()
    for field in dataclasses.fields(reports[0]):
        a, b = (getattr(report, field.name) for report in reports)
        assert (a is None) == (b is None), field.name
        assert a is None or torch.allclose(a, b, rtol=1e-9, atol=1e-12), field.name
    for a, b in zip(together.evaluate(tasks)[1:], apart.evaluate(tasks)[1:], strict=True):
        assert torch.allclose(a, b, rtol=1e-12)
    assert torch.allclose(together.outputs(tasks), apart.outputs(tasks), rtol=1e-10)


@pytest.mark.parametrize("config", [EXACT, ANIL, MAML, SOLVED], ids=lambda config: config.name)
def test_outputs_have_the_loss_that_is_reported(tasks: SinusoidTasks, config: Any) -> None:
    learner = learner_of(config)
    y = tasks.query()[1]
    found = (learner.outputs(tasks) - y).square().mean((1, 2))
    assert torch.allclose(found, learner.evaluate(tasks)[1], rtol=1e-12)
    assert found.min() > 0
