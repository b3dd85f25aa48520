"""The memory-reduced method (Yang, Ma, Yu 2025, Algorithm 1) for a lower level that is a head.

With g the support loss and its R, f the query loss, and features z_s, z_q = backbone(images; theta):

    phi* = argmin_phi g(phi, z_s),        (d_phi^2 g) v = d_phi f,
    dF   = d_theta f - d_theta < d_phi g, v >

theta enters through the features alone, so the gradient of F reaches it through two cotangents:

    dF/dz_q = d_z_q f,                    dF/dz_s = - d_z_s < d_phi g, v >

With a linear head, phi is a matrix W = W_c + A^T Z_s, v is a matrix V, and the features enter through Gram matrices
alone. A, E and beta are small matrices, images by classes. The two cotangents become

    dF/dZ_q = E W,                        dF/dZ_s = mu A V - beta W

No inner step is stored. Linear heads with a direct solve use these two lines, which `bilevel/support_space.py` derives
and computes. Other heads and solvers use the general formula, in `Proposed._hypergradient`.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from memmeta_exp.algorithms.feature_space import FeatureGradient, FeatureSpaceLearner
from memmeta_exp.algorithms.learner import INEXACT_TOLERANCE, Adapt, Execution
from memmeta_exp.algorithms.losses import SOFTMAX, Losses
from memmeta_exp.backbones import MetaModel
from memmeta_exp.bilevel import LinearHead, Lower, Solution, Upper, Vector, cg, direct, gradient_descent, newton
from memmeta_exp.bilevel.support_space import HeadGradient, SupportSpace, head_hypergradient
from memmeta_exp.bilevel.vectors import norm
from memmeta_exp.config import AlgorithmConfig, MemoryConfig, option, register
from memmeta_exp.profiling.phases import phase
from memmeta_exp.utils.errors import ConfigError


@register
@dataclass(frozen=True)
class ProposedConfig(AlgorithmConfig):
    """The memory-reduced method: phi_i* by `inner_solver`, v_i by `linear_solver`; no inner step is stored.

    R(phi) = mu/2 |phi|^2 with head_start=fixed, else mu/2 |phi - phi_0|^2.
    """

    label: ClassVar[str] = "proposed"
    color: ClassVar[str] = "#0072B2"
    marker: ClassVar[str] = "o"
    name: str = "proposed"
    mu: float = option(0.1, "weight of R; 0 only with inner_solver=gd and linear_solver=cg", at_least=0)
    inner_solver: str = option("newton", "newton (Newton's method), or gd (gradient descent)", choices=("gd", "newton"))
    inner_steps: int = option(20, "K, the most inner steps", at_least=1)
    inner_lr: float | None = option(None, "step size of gd; null: 1/L_g, computed from each task's features", above=0)
    inner_tolerance: float | None = option(
        1e-4, "the inner solver stops once |d_phi g| is at most this; null, for gd alone: it takes all K steps", above=0
    )
    inner_warm_start: bool = option(
        False, "each slot of the batch starts from its last phi, as in the paper's Algorithm 1"
    )
    linear_solver: str = option(
        "direct", "direct (a factorisation), or cg (conjugate gradients)", choices=("cg", "direct")
    )
    linear_steps: int = option(20, "N, the most steps of cg", at_least=1)
    linear_tolerance: float | None = option(
        1e-3, "bound on |H v - d_phi f| / |d_phi f|: cg stops there, direct is checked by it; null: none", above=0
    )
    linear_warm_start: bool = option(False, "cg starts from the slot's last v, as in the paper's Algorithm 1")
    head_start: str = option(
        "fixed",
        "phi_0: fixed (random, frozen), learned (meta-learned, R centred on it), or prototype (from the class means of "
        "each task, R centred on it)",
        choices=("fixed", "learned", "prototype"),
    )

    def check(self) -> None:
        if self.inner_solver == "newton" and self.inner_tolerance is None:
            raise ConfigError(
                "algorithm.inner_tolerance=null with algorithm.inner_solver=newton: newton stops by its tolerance; "
                "set it (1e-4 is the default) or use algorithm.inner_solver=gd"
            )
        if self.head_start == "learned" and self.mu == 0:
            raise ConfigError(
                "algorithm.mu=0 with algorithm.head_start=learned: phi_0 is learned through R, which is centred on "
                "it; set algorithm.mu above 0 or algorithm.head_start=fixed"
            )

    @property
    def descent_step(self) -> float | None:
        return self.inner_lr if self.inner_solver == "gd" else None

    def check_with(self, config: Any) -> None:
        if not config.lower_modulus:
            self._check_strong_convexity()
        if not config.head.convex:
            self._check_nonconvex(config.head.name)

    def _check_strong_convexity(self) -> None:
        if self.mu > 0:
            return
        for key, solver in (("inner_solver", "newton"), ("linear_solver", "direct")):
            if getattr(self, key) == solver:
                other = "gd" if key == "inner_solver" else "cg"
                raise ConfigError(
                    f"algorithm.mu=0 with algorithm.{key}={solver}: without R the lower level has no solution in "
                    f"general; set algorithm.mu above 0 (0.1 is the default) or algorithm.{key}={other}"
                )

    def _check_nonconvex(self, head: str) -> None:
        if self.inner_solver != "gd" or self.inner_lr is None or self.linear_solver != "cg":
            raise ConfigError(
                f"head={head} with algorithm=proposed has no Hessian to factorise and no bound on L_g: set "
                "algorithm.inner_solver=gd algorithm.inner_lr=0.1 algorithm.linear_solver=cg "
                "algorithm.head_start=prototype convergence_gradient=own"
            )
        if self.head_start == "fixed":
            raise ConfigError(
                f"head={head} with algorithm=proposed algorithm.head_start=fixed: R around 0 shrinks the weights "
                "without end, because a cosine ignores their length; set algorithm.head_start to learned or prototype"
            )

    def build(
        self, model: MetaModel, execution: Execution, memory: MemoryConfig, losses: Losses
    ) -> FeatureSpaceLearner:
        return FeatureSpaceLearner(model, Proposed(self, losses), execution, half_task=memory.mode == "half_task")


class Proposed:
    """The head algorithm: phi by the inner solver, v by the linear solver, and the cotangents of the features.

    head_start decides where R is centred. `fixed`: R = mu/2 |phi|^2 as in the paper; phi_0 is only where gradient
    descent begins. `learned`: R = mu/2 |phi - phi_0|^2, so dF/dphi_0 = mu v. `prototype`: as `learned`, but phi_0 comes
    from the class means of each task's support features, and dF/dphi_0 is backpropagated to these features.
    """

    def __init__(self, config: ProposedConfig, losses: Losses = SOFTMAX) -> None:
        self.config, self.losses = config, losses

    @property
    def prototypes(self) -> bool:
        """Whether phi_0 comes from the class means."""
        return self.config.head_start == "prototype"

    @property
    def factorises(self) -> bool:
        """Whether a Hessian is factorised. If so, everything computed on features is in float64."""
        return self.config.inner_solver == "newton" or self.config.linear_solver == "direct"

    def adapt(self, head: Lower, start: Tensor) -> Solution:
        """phi of each task by the configured inner solver; gradient descent begins at `start` [T, C, d+1].

        Without a warm start, Newton's method begins at the regulariser's centre and not at `start`. A random head on
        large features saturates the softmax, and Newton's first directions are then useless. The minimiser is the same.
        """
        c = self.config
        if c.inner_solver == "newton":
            tolerance = c.inner_tolerance or 0.0
            if isinstance(head, LinearHead) and not c.inner_warm_start:  # a warm start lies outside the support space
                return SupportSpace(head).newton(c.inner_steps, tolerance)
            start = start if c.inner_warm_start else head.regularizer_center()
            return newton(head.value, head.grad, head.inverse, (start,), steps=c.inner_steps, tolerance=tolerance)
        step = 1 / head.smoothness() if c.inner_lr is None else start.new_full((len(start),), c.inner_lr)
        return gradient_descent(head.grad, (start,), steps=c.inner_steps, step_size=step, tolerance=c.inner_tolerance)

    def lower(self, z: Tensor, labels: Tensor, start: Tensor) -> Lower:
        """g of the tasks whose support features are z [T, n, d]; start: phi_0 [C, d+1] or [T, C, d+1]."""
        center = None if self.config.head_start == "fixed" else start
        return self.losses.lower(z, labels, start, self.config.mu, center)

    def feature_gradient(
        self, support: tuple[Tensor, Tensor], query: tuple[Tensor, Tensor], start: Tensor, warm: dict[str, Tensor]
    ) -> FeatureGradient:
        """f and the cotangents of the features, for T tasks.

        support, query: features [T, n, d] and labels [T, n]. start: phi_0 [C, d+1], or [T, C, d+1] with prototypes.
        warm: the solutions "phi" and "v" [T, C, d+1] of the same slots of the last batch, or empty.
        """
        (z_s, y_s), (z_q, y_q), dtype = support, query, support[0].dtype
        exact = torch.float64 if self.factorises else dtype
        start = start.to(exact)
        g, f = self.lower(z_s.to(exact), y_s, start), self.losses.upper(z_q.to(exact), y_q, start)
        # Linear heads have closed forms. Without autograd's bookkeeping, their short calls take a tenth less time.
        with torch.inference_mode(self.factorises and isinstance(g, LinearHead)):
            return self._feature_gradient(g, f, start, warm, dtype)

    def _feature_gradient(
        self, g: Lower, f: Upper, start: Tensor, warm: dict[str, Tensor], dtype: torch.dtype
    ) -> FeatureGradient:
        warm = {key: value.to(start) for key, value in warm.items() if key in self.warm_start_keys()}
        with phase("lower level"):
            inner = self.adapt(g, warm.get("phi", start.expand(len(g.z), -1, -1)))
        with phase("linear solve"):
            found = self._hypergradient(f, g, inner, warm)
        inner, v = replace(inner, residual=found.residual), found.v
        return FeatureGradient(
            loss=found.loss.to(dtype),
            accuracy=found.accuracy,
            d_support=found.d_support.to(dtype),
            d_query=found.d_query.to(dtype),
            d_start=-g.cross_center(v.value).sum_to_size(start.shape).to(dtype),  # mu v where R is centred on phi_0
            inner=replace(inner, value=(inner.value[0].to(dtype),)),
            linear=replace(v, value=(v.value[0].to(dtype),)),
            smoothness=g.smoothness(),
            inexact=self._inexact(g, inner, v),
            gradients=inner.calls + 2,  # d_phi f and d_z_q f
            products=v.calls + 1,  # the cross derivative
        )

    def _hypergradient(self, f: Upper, g: Lower, inner: Solution, warm: dict[str, Tensor]) -> HeadGradient:
        """v and the cotangents; in the support space where the head is linear and its Hessian is factorised."""
        c, phi = self.config, inner.value
        if c.linear_solver == "direct" and isinstance(g, LinearHead) and isinstance(f, LinearHead):
            return head_hypergradient(f, g, phi, c.linear_tolerance)
        linear = self._solve(g, phi, f.grad(phi), warm)
        return HeadGradient(
            loss=f.value(phi),
            accuracy=f.accuracy(phi),
            d_support=-g.cross(phi, linear.value),  # - d_z_s < d_phi g, v >
            d_query=f.grad_features(phi),  # d_z_q f
            v=linear,
            residual=inner.residual,
        )

    def _inexact(self, g: Lower, inner: Solution, linear: Solution) -> Tensor:
        """[T]: the tasks whose hypergradient is inexact.

        A solve is inexact where it missed its tolerance, or where its relative error may exceed INEXACT_TOLERANCE. The
        error of v is taken as |H v - d_phi f| / |d_phi f|. The error of phi is at most |d_phi g| / (mu |phi|) by strong
        convexity, where mu is g's modulus. With mu = 0 there is no bound, and every task is inexact. Without a
        tolerance, the distance from phi to the regulariser's centre replaces |phi|.
        """
        found = inner.value
        if self.config.inner_tolerance is None:
            found = (found[0] - g.regularizer_center(),)
        lower = inner.residual <= INEXACT_TOLERANCE * g.modulus * norm(found)
        return ~(lower & inner.converged & linear.converged & (linear.residual <= INEXACT_TOLERANCE))

    def _solve(self, g: Lower, phi: Vector, b: Vector, warm: dict[str, Tensor]) -> Solution:
        c, matvec = self.config, g.hvp(phi)
        if c.linear_solver == "direct":
            return direct(matvec, b, inverse=g.inverse(phi), tolerance=c.linear_tolerance)
        start = (warm["v"],) if "v" in warm else None
        return cg(matvec, b, steps=c.linear_steps, tolerance=c.linear_tolerance, start=start)

    def warm_start_keys(self) -> tuple[str, ...]:
        """Which of "phi" and "v" the next iteration starts from."""
        c = self.config
        return tuple(k for k, on in (("phi", c.inner_warm_start), ("v", c.linear_warm_start)) if on)


def gradient_descent_adaptation(steps: int, lr: float) -> Adapt:
    """The paper's test-time adaptation: the head takes `steps` gradient steps of size `lr` on the support loss,
    without R."""

    def descend(head: Lower, start: Tensor) -> Solution:
        return gradient_descent(head.grad, (start,), steps=steps, step_size=start.new_full((len(start),), lr))

    return Adapt(descend)


def exact_adaptation(mu: float) -> Adapt:
    """The head that minimises the support loss + mu/2 |phi|^2, whatever algorithm trained the features.

    Newton's method stops at |d_phi g| <= mu / 1000, so |phi - phi*| <= 0.001. R does not scale with the features, so it
    has less effect on larger features.
    """
    newtons = Proposed(ProposedConfig(mu=mu, inner_steps=50, inner_tolerance=mu / 1000))
    return Adapt(newtons.adapt, mu)


def exact_reference(
    model: MetaModel,
    mu: float,
    head_start: str,
    execution: Execution,
    tolerance: float = 1e-9,
    losses: Losses = SOFTMAX,
) -> FeatureSpaceLearner:
    """The learner whose meta-gradient is grad F, for convergence/grad_norm_sq, whatever algorithm trains theta.

    The lower level and the linear system are solved in float64. The backbone runs in its own precision, never under
    autocast, and with `half_task`, so that measuring needs no more memory than training. tolerance: bound on |d_phi g|.
    """
    config = ProposedConfig(
        mu=mu, inner_steps=50, inner_tolerance=tolerance, linear_tolerance=1e-8, head_start=head_start
    )
    algorithm = Proposed(config, losses)
    return FeatureSpaceLearner(model, algorithm, replace(execution, bf16=False), torch.float64, half_task=True)
