"""Every algorithm's meta-gradient on quadratic tasks against a closed form of what it differentiates."""

import dataclasses

import pytest
import torch
from torch import Tensor

from memmeta_exp.algorithms import Execution, build_algorithm
from memmeta_exp.algorithms.imaml import ImamlConfig
from memmeta_exp.algorithms.losses import QuadraticLosses
from memmeta_exp.algorithms.proposed import ProposedConfig
from memmeta_exp.algorithms.unrolled import AnilConfig
from memmeta_exp.backbones import QuadraticModel
from memmeta_exp.bilevel import QuadraticObjective, QuadraticTasks
from memmeta_exp.config.problems import QuadraticConfig
from memmeta_exp.data import TaskIndices
from memmeta_exp.data.quadratic import draw_tasks

N, P, Q, KAPPA = 6, 3, 8, 10.0
TASKS = draw_tasks(QuadraticConfig(tasks=N, dim_theta=P, dim_phi=Q, kappa=KAPPA))
ALL = TaskIndices(torch.arange(N))
EXACT = ProposedConfig(mu=0.2, inner_tolerance=1e-11, linear_tolerance=1e-11)
STEPS = ProposedConfig(
    mu=0.0, inner_solver="gd", inner_tolerance=None, linear_solver="cg", linear_steps=60, linear_tolerance=None
)


def learner_of(config, chunk: int = N):
    model = QuadraticModel(P, Q, config.head_start == "learned", seed=3).double()
    return build_algorithm(config, model, Execution(chunk), losses=QuadraticLosses(TASKS))


def gradient(config, chunk: int = N) -> Tensor:
    """(d theta, and d phi_0 where it is learned)."""
    learner = learner_of(config, chunk)
    learner.step(ALL)
    named = {name: p.grad.flatten() for name, p in learner.model.named_parameters() if p.grad is not None}
    return torch.cat([named[name] for name in ("backbone.theta", "head_start") if name in named])


def start(config) -> tuple[Tensor, Tensor]:
    model = learner_of(config).model
    return next(model.backbone.parameters()).detach(), model.head_start.detach().flatten()


def assert_close(found: Tensor, expected: Tensor, relative: float = 1e-10) -> None:
    assert expected.norm() > 5e-3
    assert (found - expected).norm() < relative * expected.norm()


@pytest.mark.parametrize("mu", [0.0, 0.2])
@pytest.mark.parametrize("head_start", ["fixed", "learned"])
def test_proposed_is_the_gradient_of_F(mu: float, head_start: str) -> None:
    if mu == 0 and head_start == "learned":
        pytest.skip("refused: the start is learned through R")
    config = dataclasses.replace(EXACT, mu=mu, head_start=head_start)
    u = torch.cat(start(config)) if head_start == "learned" else start(config)[0]
    F = QuadraticObjective(TASKS, mu, head_start == "learned")
    assert_close(gradient(config), F.grad(u))


@pytest.mark.parametrize("steps", [1, 5, 15])
def test_the_error_of_K_steps_is_what_theory_says(steps: int) -> None:
    """With v exact, grad - grad F = mean_i M_i^T (I - S_i/L)^K (phi_0 - phi_i*)."""
    config = dataclasses.replace(STEPS, inner_steps=steps)
    theta, phi = start(config)
    away = phi - (TASKS.slope @ theta + TASKS.offset)
    power = torch.linalg.matrix_power(torch.eye(Q).double() - TASKS.curvature / KAPPA, steps)
    error = (TASKS.slope.mT @ (power @ away[..., None])).mean(0).squeeze(1)
    assert_close(gradient(config) - QuadraticObjective(TASKS, 0.0, False).grad(theta), error, 1e-7)


def test_proposed_tends_to_the_gradient_of_F_with_K_and_N() -> None:
    exact = QuadraticObjective(TASKS, 0.0, False).grad(start(STEPS)[0])

    def error(K: int, steps: int) -> float:
        found = gradient(dataclasses.replace(STEPS, inner_steps=K, linear_steps=steps))
        return float((found - exact).norm() / exact.norm())

    by_K, by_N = [error(K, 60) for K in (1, 20, 100, 300)], [error(600, steps) for steps in (1, 3, 6, 8)]
    for errors in (by_K, by_N):
        assert errors == sorted(errors, reverse=True)
        assert errors[0] > 0.01
    assert by_K[-1] < 1e-9
    assert by_N[-1] < 1e-9


def unrolled(config: AnilConfig, u: Tensor) -> Tensor:
    """Mean f after K head steps, in closed form: phi_K = y + (I - lambda S)^K (phi_0 - y)."""
    theta, phi = u[:P], u[P:]
    y = TASKS.slope @ theta + TASKS.offset
    power = torch.linalg.matrix_power(torch.eye(Q).double() - config.inner_lr * TASKS.curvature, config.inner_steps)
    end = y + (power @ (phi - y)[..., None]).squeeze(2)
    return _query(theta, end)


def _query(theta: Tensor, phi: Tensor) -> Tensor:
    values = (phi - TASKS.target).square().sum(1) + TASKS.rho * (theta - TASKS.anchor).square().sum(1)
    return values.mean() / 2


ANIL = AnilConfig(inner_steps=4, inner_lr=0.1)
ITD_BIO = dataclasses.replace(ANIL, name="itd_bio", head_start="fixed")


@pytest.mark.parametrize("config", [ANIL, ITD_BIO], ids=["anil", "itd_bio"])
@pytest.mark.parametrize("features", ["once", "recompute"])
def test_anil_and_itd_bio_differentiate_K_steps(config: AnilConfig, features: str) -> None:
    config = dataclasses.replace(config, features=features)
    u = torch.cat(start(config)).requires_grad_()
    (expected,) = torch.autograd.grad(unrolled(config, u), u)
    found = gradient(config)
    assert_close(found, expected[: len(found)])
    assert len(found) == (P + Q if config.head_start == "learned" else P)


def test_itd_bio_is_biased_and_the_bias_falls_with_K() -> None:
    """Its gradient is that of f at phi_K, d phi_K / d theta = (I - (I - lambda S)^K) M, which is not that of F."""
    theta = start(ITD_BIO)[0]
    exact = QuadraticObjective(TASKS, 0.0, False).grad(theta)
    biases = [float((gradient(dataclasses.replace(ITD_BIO, inner_steps=K)) - exact).norm()) for K in (1, 10, 50, 400)]
    assert biases == sorted(biases, reverse=True)
    assert biases[0] > 0.1
    assert biases[-1] < 1e-9


def joint(tasks: QuadraticTasks) -> tuple[Tensor, Tensor]:
    """Hessian and gradient at 0 of g in w = (theta, phi), [n, p + q, ...]."""
    lift = torch.cat([-tasks.slope, torch.eye(Q).double().expand(N, Q, Q)], 2)  # phi - M theta
    return lift.mT @ tasks.curvature @ lift, -(lift.mT @ tasks.curvature @ tasks.offset[..., None]).squeeze(2)


def all_weights(w: Tensor, steps: int, lr: float, lam: float = 0.0) -> Tensor:
    """w_K [n, p + q] of K steps on g + lam/2 |w_k - w|^2."""
    hessian, slope = joint(TASKS)
    at = w.expand(N, P + Q)
    for _ in range(steps):
        at = at - lr * ((hessian @ at[..., None]).squeeze(2) + slope + lam * (at - w))
    return at


def query_slope(w: Tensor) -> Tensor:
    return torch.cat([TASKS.rho[:, None] * (w[:, :P] - TASKS.anchor), w[:, P:] - TASKS.target], 1)


@pytest.mark.parametrize("first_order", [False, True])
def test_maml_adapts_theta_and_phi(first_order: bool) -> None:
    """dF/dw = (I - lambda G)^K d f(w_K), G the Hessian of g in both; first order leaves the power out."""
    config = AnilConfig(
        "maml", adapted_params="all", inner_steps=3, inner_lr=0.02, features="recompute", first_order=first_order
    )
    w = torch.cat(start(config))
    end = query_slope(all_weights(w, 3, 0.02))
    power = torch.linalg.matrix_power(torch.eye(P + Q).double() - 0.02 * joint(TASKS)[0], 3)
    expected = end if first_order else (power @ end[..., None]).squeeze(2)
    assert_close(gradient(config), expected.mean(0))


def test_imaml_is_the_implicit_gradient() -> None:
    """(I + G/lam)^-1 d f where K steps on the proximal problem end."""
    config = ImamlConfig(lam=2.0, inner_steps=12, inner_lr=0.03, linear_steps=60)
    w = torch.cat(start(config))
    end = query_slope(all_weights(w, 12, 0.03, lam=2.0))
    system = torch.eye(P + Q).double() + joint(TASKS)[0] / 2.0
    assert_close(gradient(config), torch.linalg.solve(system, end).mean(0), 1e-9)


@pytest.mark.parametrize("config", [EXACT, STEPS, ANIL], ids=["newton", "gd", "anil"])
def test_chunks_do_not_change_the_result(config) -> None:
    whole = gradient(config)
    for chunk in (1, 4):
        assert_close(gradient(config, chunk), whole, 1e-12)
