"""Quadratic tasks: their constants, and F against its definition and an example worked by hand."""

from typing import Any

import pytest
import torch
from torch import Tensor

from memmeta_exp.bilevel import QuadraticLower, QuadraticObjective, QuadraticTasks
from memmeta_exp.data.quadratic import QuadraticConfig, chebyshev_extrema, draw_tasks

T, P, Q, MU = 4, 3, 5, 0.3


@pytest.fixture
def tasks() -> QuadraticTasks:
    return draw_tasks(QuadraticConfig(tasks=T, dim_theta=P, dim_phi=Q, kappa=7.0, seed=2))


def close(a: Tensor, b: Tensor) -> bool:
    assert b.abs().max() > 1e-3, "zeros judge nothing"
    return torch.allclose(a, b, rtol=0, atol=1e-12 * float(b.abs().max()) + 1e-14)


def test_the_constants_of_g_are_exact(tasks) -> None:
    spectrum = torch.linalg.eigvalsh(tasks.curvature)
    assert close(spectrum, chebyshev_extrema(7.0, Q).expand(T, Q))
    g = QuadraticLower(torch.zeros(T, P, dtype=torch.float64), tasks, MU)
    assert close(g.modulus, spectrum[:, 0] + MU)
    assert close(g.smoothness(), spectrum[:, -1] + MU)


def objective(tasks: QuadraticTasks, u: Tensor, mu: float, learned: bool) -> Tensor:
    """F by its definition: phi_i* by a dense solve of d_phi g = 0."""
    theta, center = (u[:P], u[P:]) if learned else (u, torch.zeros(Q, dtype=u.dtype))
    y = tasks.slope @ theta + tasks.offset
    hessian = tasks.curvature + mu * torch.eye(Q, dtype=u.dtype)
    right = (tasks.curvature @ y[..., None]).squeeze(2) + mu * center
    phi = torch.linalg.solve(hessian, right)
    values = (phi - tasks.target).square().sum(1) + tasks.rho * (theta - tasks.anchor).square().sum(1)
    return values.mean() / 2


@pytest.mark.parametrize(("mu", "learned"), [(0.0, False), (MU, False), (MU, True), (0.0, True)])
def test_F_its_gradient_and_its_minimiser(tasks, generator, mu: float, learned: bool) -> None:
    F = QuadraticObjective(tasks, mu, learned)
    u = torch.randn(P + Q * learned, dtype=torch.float64, generator=generator, requires_grad=True)
    value = objective(tasks, u, mu, learned)
    (slope,) = torch.autograd.grad(value, u)
    at = u.detach()
    assert F.least + F.suboptimality(at) == pytest.approx(float(value.detach()), rel=1e-12)
    assert close(F.grad(at), slope)
    assert F.grad(F.minimiser).abs().max() < 1e-13
    least = objective(tasks, F.minimiser, mu, learned)
    assert F.least == pytest.approx(float(least), rel=1e-12)
    assert F.suboptimality(at) > 1e-2
    curvature = torch.autograd.functional.hessian(lambda v: objective(tasks, v, mu, learned), at)
    assert isinstance(curvature, Tensor)
    assert F.smoothness == pytest.approx(float(torch.linalg.eigvalsh(curvature)[-1]), rel=1e-12)
    moved = at - F.smoothness**-1 * F.grad(at)
    assert F.suboptimality(moved) < F.suboptimality(at)


def test_the_distance_is_to_the_nearest_minimiser(tasks, generator) -> None:
    """Without R a learned center moves nothing: only theta counts."""
    unique, many = QuadraticObjective(tasks, 0.0, False), QuadraticObjective(tasks, 0.0, True)
    u = torch.randn(P + Q, dtype=torch.float64, generator=generator)
    assert many.distance(u) == pytest.approx(unique.distance(u[:P]), rel=1e-10)
    assert unique.distance(u[:P]) == pytest.approx(float((u[:P] - unique.minimiser).norm()), rel=1e-10)


def test_by_hand() -> None:
    """One task, p = q = 1: S = 2, M = 3, m = 1, c = 5, d = 2, rho = 1, no R: phi* = 3 theta + 1, F = ((3 theta - 4)^2 +
    (theta - 2)^2) / 2, F' = 10 theta - 14, minimiser 1.4, L_F = 10, F at 0 = 10, least = (0.04 + 0.36) / 2."""
    one = [
        torch.tensor(v, dtype=torch.float64)
        for v in ([[[2.0]]], [[[3.0]]], [[1.0]], [[5.0]], [[2.0]], [1.0], [2.0], [2.0])
    ]
    F = QuadraticObjective(QuadraticTasks(*one), 0.0, learned=False)
    zero = torch.zeros(1, dtype=torch.float64)
    assert F.grad(zero).item() == pytest.approx(-14)
    assert (F.minimiser.item(), F.smoothness, F.least) == pytest.approx((1.4, 10, 0.2))
    assert F.least + F.suboptimality(zero) == pytest.approx(10)
    assert F.distance(zero) == pytest.approx(1.4)


def test_without_R_F_does_not_depend_on_kappa() -> None:
    found = [QuadraticObjective(draw_tasks(QuadraticConfig(kappa=kappa)), 0.0, False) for kappa in (1.0, 1e4)]
    assert close(found[0].hessian, found[1].hessian)
    assert found[0].least == pytest.approx(found[1].least, rel=1e-9)


@pytest.mark.parametrize(
    "change", [{"tasks": 5}, {"dim_theta": 4}, {"dim_phi": 6}, {"kappa": 3.0}, {"heterogeneity": 0.5}, {"seed": 1}]
)
def test_every_option_changes_the_tasks(change: dict) -> None:
    base: dict[str, Any] = {"tasks": 3, "dim_theta": 2, "dim_phi": 5}
    one, other = draw_tasks(QuadraticConfig(**base)), draw_tasks(QuadraticConfig(**{**base, **change}))
    again = draw_tasks(QuadraticConfig(**base))
    assert torch.equal(one.curvature, again.curvature)
    same = [
        a.shape == b.shape and torch.equal(a, b) for a, b in zip(vars(one).values(), vars(other).values(), strict=True)
    ]
    assert not all(same)


def test_tasks_of_no_heterogeneity_are_one_task_but_for_rotations() -> None:
    tasks = draw_tasks(QuadraticConfig(tasks=3, heterogeneity=0.0))
    for values in (tasks.slope, tasks.offset, tasks.target, tasks.anchor):
        assert torch.equal(values[0], values[2])
    assert not torch.equal(tasks.curvature[0], tasks.curvature[2])
