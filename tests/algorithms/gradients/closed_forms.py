"""References by algebra: quadratic tasks, the normal equations, and the formula written out in plain torch."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from memmeta_exp.algorithms.baseline import BaselineConfig
from memmeta_exp.algorithms.imaml import ImamlConfig
from memmeta_exp.algorithms.maml import MamlConfig
from memmeta_exp.algorithms.proposed import ProposedConfig
from memmeta_exp.algorithms.unrolled import AnilConfig
from memmeta_exp.bilevel import QuadraticObjective
from memmeta_exp.config import MemoryConfig
from tests.algorithms.gradients.cases import ANIL, BASELINE, COSINES, EXACT, FOMAML, ITD_BIO, MAML, Compared, case
from tests.algorithms.problems import (
    HALF_TASK,
    TASKS,
    Quadratics,
    gradient,
    image_tasks,
    sine_learner,
    sine_tasks,
    smooth_learner,
)


@case("proposed", "closed form", plain=replace(EXACT, mu=0.0), R=EXACT, learned=replace(EXACT, head_start="learned"))
def quadratic_objective(config: ProposedConfig) -> Compared:
    """F is a quadratic in theta, and in phi_0 where that is learned."""
    world, learned = Quadratics(), config.head_start == "learned"
    theta, phi = world.start(config)
    objective = QuadraticObjective(world.tasks, config.mu, learned)
    return world.gradient(config), objective.grad(torch.cat([theta, phi]) if learned else theta), 1e-10


@case("proposed", "closed form", one=1, five=5, fifteen=15)
def quadratic_after_K_steps(steps: int) -> Compared:
    """With v exact, the gradient is grad F + mean_i M_i^T (I - S_i/L)^K (phi_0 - phi_i*)."""
    config = replace(
        EXACT, mu=0.0, inner_solver="gd", inner_steps=steps, inner_tolerance=None, linear_solver="cg", linear_steps=60
    )
    world = Quadratics()
    t, (theta, phi) = world.tasks, world.start(config)
    away = phi - (t.slope @ theta + t.offset)
    power = torch.linalg.matrix_power(torch.eye(world.q).double() - t.curvature / world.kappa, steps)
    error = (t.slope.mT @ (power @ away[..., None])).mean(0).squeeze(1)
    exact = QuadraticObjective(t, 0.0, False).grad(theta)
    assert error.norm() > 1e-2 * exact.norm()
    return world.gradient(config) - exact, error, 1e-7


@case("proposed", "closed form", regression=EXACT)
def normal_equations(config: ProposedConfig) -> Compared:
    """phi* from (Z^T Z / n + mu I) w = Z^T y / n, for autograd to go through."""
    learner, tasks = sine_learner(config), sine_tasks()
    (x_s, y_s), (x_q, y_q) = tasks.support(), tasks.query()
    z_s, z_q = (torch.cat([z := learner.model.backbone(x), torch.ones_like(z[..., :1])], -1) for x in (x_s, x_q))
    n, eye = z_s.shape[1], torch.eye(z_s.shape[2]).double()
    w = torch.linalg.solve(z_s.mT @ z_s / n + config.mu * eye, z_s.mT @ y_s / n)
    value = (z_q @ w - y_q).square().mean((1, 2)).mean()
    expected = torch.autograd.grad(value, list(learner.model.parameters()))
    return gradient(learner, tasks), torch.cat([g.flatten() for g in expected]), 1e-8


@case("anil", "closed form", once=(ANIL, "once"), recomputed=(ANIL, "recompute"))
@case("itd_bio", "closed form", once=(ITD_BIO, "once"), recomputed=(ITD_BIO, "recompute"))
def quadratic_head_steps(config: AnilConfig, features: str) -> Compared:
    """phi_K = y + (I - lambda S)^K (phi_0 - y)."""
    config, world = replace(config, mu=0.0, inner_lr=0.1, features=features), Quadratics()
    u = torch.cat(world.start(config)).requires_grad_()
    theta, phi, t = u[: world.p], u[world.p :], world.tasks
    y = t.slope @ theta + t.offset
    power = torch.linalg.matrix_power(torch.eye(world.q).double() - config.inner_lr * t.curvature, config.inner_steps)
    (expected,) = torch.autograd.grad(world.query(theta, y + (power @ (phi - y)[..., None]).squeeze(2)), u)
    found = world.gradient(config)
    assert len(found) == (world.p + world.q if config.head_start == "learned" else world.p)
    return found, expected[: len(found)], 1e-10


@case("maml", "closed form", quadratic=replace(MAML, inner_lr=0.02))
@case("fomaml", "closed form", quadratic=replace(FOMAML, inner_lr=0.02))
def quadratic_all_weights(config: MamlConfig) -> Compared:
    """dF/dw = (I - lambda G)^K d f(w_K), G the Hessian of g in all weights; first order leaves the power out."""
    world = Quadratics()
    end = world.query_slope(world.descended(torch.cat(world.start(config)), config.inner_steps, config.inner_lr))
    step = torch.eye(world.p + world.q).double() - config.inner_lr * world.joint()[0]
    power = torch.linalg.matrix_power(step, config.inner_steps)
    expected = end if config.first_order else (power @ end[..., None]).squeeze(2)
    return world.gradient(config), expected.mean(0), 1e-10


@case("imaml", "closed form", quadratic=ImamlConfig(lam=2.0, inner_steps=12, inner_lr=0.03, linear_steps=60))
def quadratic_proximal(config: ImamlConfig) -> Compared:
    """(I + G/lam)^-1 d f where K steps on the proximal problem end."""
    world = Quadratics()
    w = torch.cat(world.start(config))
    end = world.query_slope(world.descended(w, config.inner_steps, config.inner_lr, config.lam))
    system = torch.eye(world.p + world.q).double() + world.joint()[0] / config.lam
    return world.gradient(config), torch.linalg.solve(system, end).mean(0), 1e-9


@case("anil", "closed form", R=replace(ANIL, mu=0.2), first_order=replace(ANIL, mu=0.2, first_order=True))
@case("itd_bio", "closed form", R=ITD_BIO)
@case("maml", "closed form", plain=MAML)
@case("fomaml", "closed form", plain=FOMAML)
def written_out(config: Any) -> Compared:
    """One graph through backbone, steps and all tasks; in first order without the derivatives of the steps."""
    learner, batch, head = smooth_learner(config), image_tasks(), config.adapted_params == "head"
    (x_s, y_s), (x_q, y_q) = batch.support(), batch.query()
    start, theta = learner.model.head_start.detach().requires_grad_(), learner.model.backbone.map

    def loss(phi: Tensor, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        z = torch.tanh((x.double().div(255).flatten(1) - 0.5) @ theta)
        return F.cross_entropy(F.linear(z, phi[:, :-1], phi[:, -1]), y)

    total = torch.zeros((), dtype=torch.float64)
    for task in range(TASKS):
        weights = [start, theta]
        for _ in range(config.inner_steps):
            g = loss(*weights, x_s[task], y_s[task]) + config.mu / 2 * weights[0].square().sum()  # pyright: ignore[reportCallIssue]
            slopes = torch.autograd.grad(g, weights[:1] if head else weights, create_graph=True)
            slopes = [d.detach() if config.first_order else d for d in slopes]
            moved = [w - config.inner_lr * d for w, d in zip(weights, slopes, strict=False)]
            weights = moved + weights[len(moved) :]
        total = total + loss(*weights, x_q[task], y_q[task]) / TASKS  # pyright: ignore[reportCallIssue]
    wanted = [start, theta] if config.head_start == "learned" else [theta]
    return gradient(learner, batch), torch.cat([t.flatten() for t in torch.autograd.grad(total, wanted)]), 1e-11


@case("baseline", "closed form", linear=(BASELINE, None), linear_by_halves=(BASELINE, HALF_TASK))
@case("baseline", "closed form", cosine=(COSINES, None), cosine_by_halves=(COSINES, HALF_TASK))
def torch_classifier(config: BaselineConfig, memory: MemoryConfig | None) -> Compared:
    """nn.Linear, or torch's cosine similarity, on all images of all tasks, whose classes are found by comparing pixels
    with those of the training split."""
    learner, batch = smooth_learner(config, memory=memory), image_tasks()
    images, stored = torch.cat([batch.support()[0], batch.query()[0]], 1), batch.image_set.images
    truth = [int((stored == image).flatten(2).all(-1).any(1).nonzero()) for image in images.flatten(0, 1)]
    v, z = learner.model.classifier, learner.model.backbone(images.double() / 255).flatten(0, 1)
    logits = F.linear(z, v[:, :-1], v[:, -1])
    if config.classifier == "cosine":
        logits = 7 * torch.cosine_similarity(z[:, None], v[None, :, :-1], -1)
    losses = F.cross_entropy(logits, torch.tensor(truth), reduction="none").view(TASKS, -1).mean(1)
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(losses.mean(), (v, learner.model.backbone.map))])
    found = gradient(learner, batch)
    report = learner.step(batch)
    torch.testing.assert_close(report.loss, losses.detach(), rtol=1e-12, atol=0)
    right = (logits.argmax(-1) == torch.tensor(truth)).double().view(TASKS, -1).mean(1)
    torch.testing.assert_close(report.accuracy, right)
    return found, expected, 1e-12
