"""iMAML (Rajeswaran et al. 2019): the implicit gradient with every weight in the lower level.

K gradient steps from theta give phi ~ argmin g(phi) = L_support(phi) + lam/2 |phi - theta|^2. The query loss depends on
theta through phi alone. With H the Hessian of L_support,

    dF = - d_theta < d_phi g, v > = lam v,   (H + lam I) v = d_phi f,     i.e.   dF = (I + H/lam)^-1 d_phi f

where v comes from N steps of conjugate gradients. H need not be positive definite: lam alone makes g convex near phi.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from memmeta_exp.algorithms.learner import INEXACT_TOLERANCE, Execution
from memmeta_exp.algorithms.losses import Losses
from memmeta_exp.algorithms.weight_space import Task, TaskGradient, Weights, WeightSpaceLearner
from memmeta_exp.backbones import MetaModel
from memmeta_exp.bilevel import Solution, Vector, cg, implicit
from memmeta_exp.bilevel.vectors import norm, subtract
from memmeta_exp.config import AlgorithmConfig, MemoryConfig, option, register
from memmeta_exp.profiling.phases import phase


@register
@dataclass(frozen=True)
class ImamlConfig(AlgorithmConfig):
    """iMAML (Rajeswaran et al. 2019): all weights adapt, g = cross-entropy + lam/2 |phi - theta|^2.

    phi by gradient steps from theta. The meta-gradient is (I + H/lam)^-1 d_phi f by conjugate gradients, with H the
    Hessian of the support loss.
    """

    label: ClassVar[str] = "iMAML"
    color: ClassVar[str] = "#E69F00"
    marker: ClassVar[str] = "v"
    head_only = False
    adapted_params = "all"
    first_order = False
    name: str = "imaml"
    lam: float = option(
        2.0,
        "lambda; the linear solve needs it above the size of H's most negative eigenvalue; 2.0 is too small at random "
        "weights (see hypergrad/inexact_fraction), where more steps and damping help",
        above=0,
    )
    inner_steps: int = option(16, "K, gradient steps", at_least=1)
    inner_lr: float = option(0.1, "size of an inner step", above=0)
    linear_steps: int = option(5, "N, the most steps of conjugate gradients on I + H/lam", at_least=1)
    linear_tolerance: float | None = option(
        None, "conjugate gradients stop at this relative residual; null: none", above=0
    )
    damping: float = option(0.0, "added to lam in the linear system", at_least=0)
    head_start: str = option(
        "learned",
        "phi_0: learned, or fixed (random, frozen); the head starts there and lam pulls it back",
        choices=("fixed", "learned"),
    )

    def build(self, model: MetaModel, execution: Execution, memory: MemoryConfig, losses: Losses) -> WeightSpaceLearner:
        return WeightSpaceLearner(model, Imaml(self), execution, losses)


class Imaml:
    """The adaptation and meta-gradient of iMAML. One graph of d_phi g serves all products; no inner step is stored."""

    def __init__(self, config: ImamlConfig) -> None:
        self.config = config

    def adapt(self, task: Task) -> Weights:
        """phi after K steps, without a graph."""
        c, phi = self.config, task.meta
        with phase("lower level"):
            for _ in range(c.inner_steps):
                leaves = {name: w.detach().requires_grad_() for name, w in phi.items()}
                with torch.enable_grad():
                    slope = torch.autograd.grad(task.support_loss(leaves), list(leaves.values()))
                task.gradients += 1
                phi = {
                    name: w - c.inner_lr * (d + c.lam * (w - task.meta[name]))
                    for (name, w), d in zip(phi.items(), slope, strict=True)
                }
        return phi

    def meta_gradient(self, task: Task) -> TaskGradient:
        """f at phi and the implicit meta-gradient. The damping enters as a larger lam in the linear system."""
        names, phi = tuple(task.meta), self.adapt(task)
        lam, seen, stacked = self.config.lam + self.config.damping, [], task.stacked

        def f(_: Vector, at: Vector) -> Tensor:
            with phase("features"):
                loss, hit = task.query_loss(_named(names, at, stacked))
            seen.append((loss.detach(), hit))
            return loss.sum() if stacked else loss

        def g(theta: Vector, at: Vector) -> Tensor:
            offset = sum((a - b).square().sum() for a, b in zip(at, theta, strict=True))
            return task.support_loss(_named(names, at, stacked)) + lam / 2 * offset

        theta, end = _tasks_first(task.meta, stacked), _tasks_first(phi, stacked)
        with phase("backward"):
            found = implicit(f, g, theta, end, self._solve)
        grads = _named(names, found.grad, stacked)
        offset = subtract(end, theta)
        # found.slope is d_phi g for lam + damping; the residual is that for lam
        residual = norm(subtract(found.slope, tuple(self.config.damping * d for d in offset)))
        solved = residual <= INEXACT_TOLERANCE * self.config.lam * norm(offset)
        right = solved & found.v.converged & (found.v.residual <= INEXACT_TOLERANCE)
        return TaskGradient(
            loss=seen[0][0],
            accuracy=seen[0][1],
            grads={name: grads[name] for name in task.learned},
            inexact=~right,
            gradients=task.gradients + found.gradients,
            products=found.products,
            inner_residual=residual,
            inner_steps=self.config.inner_steps,
            linear_residual=found.v.residual,
            linear_steps=found.v.steps,
        )

    def _solve(self, matvec, b: Vector) -> Solution:
        with phase("linear solve"):
            return cg(matvec, b, steps=self.config.linear_steps, tolerance=self.config.linear_tolerance)


def _tasks_first(weights: Weights, stacked: bool) -> Vector:
    return tuple(w if stacked else w[None] for w in weights.values())


def _named(names: tuple[str, ...], weights: Vector, stacked: bool) -> Weights:
    return {name: w if stacked else w[0] for name, w in zip(names, weights, strict=True)}
