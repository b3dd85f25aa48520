"""iMAML: its meta-gradient against central differences, closed form and limits, and what it reports."""

import dataclasses

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, hessian
from torch.nn import functional as F

from memmeta_exp.algorithms.imaml import Imaml, ImamlConfig
from memmeta_exp.algorithms.unrolled import AnilConfig
from memmeta_exp.algorithms.weight_space import Task
from memmeta_exp.config import ConfigError
from memmeta_exp.data import TaskBatch
from tests.algorithms.conftest import assert_central_differences, gradient, smooth_learner

SOLVED = ImamlConfig(lam=2.0, inner_steps=60, inner_lr=0.3, linear_steps=100, linear_tolerance=1e-13)
PUBLISHED = ImamlConfig()


@pytest.mark.parametrize("head_start", [pytest.param("learned", marks=pytest.mark.slow), "fixed"])
def test_central_differences(batch: TaskBatch, head_start: str) -> None:
    """F(theta) = f(phi*(theta)), the lower level solved: by `evaluate`, which knows nothing of the meta-gradient."""
    assert_central_differences(smooth_learner(dataclasses.replace(SOLVED, head_start=head_start)), batch)


class Quadratic(Task):
    """g = a/2 (w - 3)^2 on the support side, f = (w - 1)^2 / 2, w_0 = 0."""

    learned, stacked = ("head_start",), False

    def __init__(self, a: float) -> None:
        self.a, self.meta = a, {"head_start": torch.zeros(1, dtype=torch.float64)}

    def support_loss(self, weights):
        return self.a / 2 * (weights["head_start"] - 3).square().sum()

    def query_loss(self, weights):
        return (weights["head_start"] - 1).square().sum() / 2, torch.ones((), dtype=torch.float64)


def test_by_hand_on_one_number() -> None:
    """a = 2, lam = 4: phi* = 3a/(a + lam) = 1, so f' = 0; a = 4: phi* = 1.5, dF = (1 + 4/4)^-1 (1.5 - 1) = 0.25; with
    damping 4 the system is (4 + 8) v = 0.5 and dF = 8 v = 1/3. Not a power of the step: the solve is exact."""
    c = ImamlConfig(lam=4.0, inner_steps=200, inner_lr=0.1)
    for a, damping, expected in [(2.0, 0.0, 0.0), (4.0, 0.0, 0.25), (4.0, 4.0, 1 / 3)]:
        found = Imaml(dataclasses.replace(c, damping=damping)).meta_gradient(Quadratic(a))  # pyright: ignore[reportArgumentType]
        assert found.grads["head_start"].item() == pytest.approx(expected, abs=1e-12)
        assert found.inner_residual is not None
        assert found.inner_residual.item() < 1e-12, "the damping is no part of the lower level"


def test_closed_form_with_the_dense_hessian(batch: TaskBatch) -> None:
    """(I + H/lam)^-1 d_phi f with torch.func.hessian and a dense solve, at the phi that a few steps reach."""
    config = dataclasses.replace(PUBLISHED, linear_steps=400, linear_tolerance=1e-13)
    learner, batch = smooth_learner(config), batch[:1]
    found, model, task = gradient(learner, batch), learner.model, Task(learner, batch)
    names = [name for name, _ in model.named_parameters()]
    shapes = [p.shape for p in model.parameters()]
    phi = torch.cat([learner.algorithm.adapt(task)[name].flatten() for name in names])

    def loss(x: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        parts = x.split([s.numel() for s in shapes])
        weights = {n: p.view(s) for n, p, s in zip(names, parts, shapes, strict=True)}
        return F.cross_entropy(functional_call(model, weights, (images.double().div(255),))[0], labels[0])

    h, slope = hessian(loss)(phi, *batch.support()), torch.func.grad(loss)(phi, *batch.query())
    expected = torch.linalg.solve(torch.eye(len(phi), dtype=phi.dtype) + h / config.lam, slope)
    assert expected.abs().max() > 1e-3
    assert (found - expected).norm() < 1e-9 * expected.norm()


def test_the_plain_query_gradient_as_lambda_grows(batch: TaskBatch) -> None:
    """lam -> infinity holds phi to theta: dF -> d f(theta), which is FOMAML's gradient with no step to speak of."""
    no_step = AnilConfig(
        name="fomaml", adapted_params="all", features="recompute", first_order=True, inner_steps=1, inner_lr=1e-12
    )
    plain = gradient(smooth_learner(no_step), batch)

    def error(lam: float) -> float:
        found = gradient(smooth_learner(ImamlConfig(lam=lam, inner_steps=50, inner_lr=0.5 / lam)), batch)
        return float((found - plain).norm() / plain.norm())

    assert plain.norm() > 1e-3
    assert error(1.0) > 0.03
    assert error(1e2) < 0.2 * error(1.0)
    assert error(1e6) < 1e-5


def test_a_missed_solve_is_reported(batch: TaskBatch) -> None:
    report = smooth_learner(SOLVED).step(batch)
    assert not report.inexact.any()
    assert report.inner_residual is not None
    assert report.linear_residual is not None
    assert report.inner_residual.max() < 1e-9
    assert report.linear_residual.max() < 1e-12
    assert report.smoothness is None
    assert smooth_learner(dataclasses.replace(SOLVED, inner_steps=1)).step(batch).inexact.all()
    one = dataclasses.replace(SOLVED, linear_steps=1, linear_tolerance=None)
    assert smooth_learner(one).step(batch).linear_residual.max() > 1e-3  # pyright: ignore[reportOptionalMemberAccess]


CHANGES = {
    "lam": 1.0, "inner_steps": 3, "inner_lr": 0.2, "linear_steps": 1, "linear_tolerance": 0.5, "damping": 1.0,
    "head_start": "fixed",
}  # fmt: skip


@pytest.mark.parametrize("key", [f.name for f in dataclasses.fields(ImamlConfig) if f.name != "name"])
def test_every_option_changes_the_gradient(batch: TaskBatch, key: str) -> None:
    plain = gradient(smooth_learner(PUBLISHED), batch)
    changed = gradient(smooth_learner(dataclasses.replace(PUBLISHED, **{key: CHANGES[key]})), batch)
    assert plain.shape != changed.shape or (plain - changed).abs().max() > 1e-6 * plain.abs().max()


@pytest.mark.parametrize(
    "key", ["lam", "inner_steps", "inner_lr", "linear_steps", "linear_tolerance", "damping", "head_start"]
)
def test_values_out_of_range(key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        dataclasses.replace(PUBLISHED, **{key: -1 if key != "head_start" else "warm"})
