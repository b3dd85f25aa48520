"""The memory-reduced method (Algorithm 1 of the paper) in feature space."""

from torch import Tensor

from memmeta_exp.algorithms.feature_space import FeatureGradient
from memmeta_exp.algorithms.learner import INEXACT_TOLERANCE, Adapt
from memmeta_exp.algorithms.losses import SOFTMAX, Losses
from memmeta_exp.bilevel import Lower, Solution, Vector, cg, direct, gradient_descent, newton
from memmeta_exp.bilevel.vectors import norm
from memmeta_exp.config import ProposedConfig
from memmeta_exp.profiling.phases import phase


class Proposed:
    """phi_i by K inner steps, v_i from H v = d_phi f, and the cotangents d_z_q f and - d_z_s <d_phi g, v>.

    With `head_start=learned` R is centred on the start, R = mu/2 |phi - phi_0|^2, and dF/dphi_0 = mu v; with
    `fixed` it is mu/2 |phi|^2 as in the paper, and phi_0 is where gd begins and nothing else. `prototype` is `learned`
    with a phi_0 of each task's own, through which dF/dphi_0 goes on to its support features.
    """

    def __init__(self, config: ProposedConfig, losses: Losses = SOFTMAX) -> None:
        self.config, self.losses = config, losses

    @property
    def prototypes(self) -> bool:
        """Whether phi_0 is the class means."""
        return self.config.head_start == "prototype"

    def adapt(self, head: Lower, start: Tensor) -> Solution:
        """phi* of each task by the configured inner solver, gd from `start` [T, C, d+1].

        Newton begins where R is least unless it is warm-started: the minimiser is the same, and a random head on large
        features saturates the softmax, where Newton's first directions are useless.
        """
        c = self.config
        if c.inner_solver == "newton":
            tolerance = c.inner_tolerance or 0.0
            start = start if c.inner_warm_start else head.regularizer_center()
            return newton(head.value, head.grad, head.inverse, (start,), steps=c.inner_steps, tolerance=tolerance)
        step = 1 / head.smoothness() if c.inner_lr is None else start.new_full((len(start),), c.inner_lr)
        return gradient_descent(head.grad, (start,), steps=c.inner_steps, step_size=step, tolerance=c.inner_tolerance)

    def lower(self, z: Tensor, labels: Tensor, start: Tensor) -> Lower:
        """g of the tasks whose support features are z [T, n, d]; start: phi_0 [C, d+1] or [T, C, d+1]."""
        centre = None if self.config.head_start == "fixed" else start
        return self.losses.lower(z, labels, start, self.config.mu, centre)

    def feature_gradient(
        self, support: tuple[Tensor, Tensor], query: tuple[Tensor, Tensor], start: Tensor, warm: dict[str, Tensor]
    ) -> FeatureGradient:
        """f and its cotangents in feature space for T tasks.

        support, query: features [T, n, d] and labels [T, n]; start: phi_0 [C, d+1]; warm: what the same slots of the
        batch ended with last time, "phi" and "v" [T, C, d+1], or empty.
        """
        g, f = self.lower(*support, start), self.losses.upper(*query, start)
        at = warm["phi"] if self.config.inner_warm_start and "phi" in warm else start.expand(len(g.z), -1, -1)
        with phase("lower level"):
            inner = self.adapt(g, at)
        phi = inner.value
        with phase("linear solve"):
            linear = self._solve(g, phi, f.grad(phi), warm)  # a gradient; d_z f below is another
        return FeatureGradient(
            loss=f.value(phi),
            accuracy=f.accuracy(phi),
            d_support=-g.cross(phi, linear.value),
            d_query=f.grad_features(phi),
            d_start=-g.cross_centre(linear.value).sum_to_size(start.shape),
            inner=inner,
            linear=linear,
            smoothness=g.smoothness(),
            inexact=self._inexact(g, inner, linear),
            gradients=inner.calls + 2,
            products=linear.calls + 1,  # the cross derivative
        )

    def _inexact(self, g: Lower, inner: Solution, linear: Solution) -> Tensor:
        """[T]: which tasks have a solve that missed its tolerance or that, tolerance or none, may be off by more than a
        tenth: |H v - d_phi f| / |d_phi f|, and |d_phi g| / (mu |phi|), which bounds |phi - phi*| / |phi| by strong
        convexity, mu being g's modulus. Where that is 0 there is no phi*, so every task is wrong. Where no tolerance is
        asked for, |phi - phi_c| stands in place of |phi|: what lies in R's centre nobody has solved for."""
        found = inner.value
        if self.config.inner_tolerance is None:
            found = (found[0] - g.regularizer_center(),)
        lower = inner.residual <= INEXACT_TOLERANCE * g.modulus * norm(found)
        return ~(lower & inner.converged & linear.converged & (linear.residual <= INEXACT_TOLERANCE))

    def _solve(self, g: Lower, phi: Vector, b: Vector, warm: dict[str, Tensor]) -> Solution:
        c, matvec = self.config, g.hvp(phi)
        if c.linear_solver == "direct":
            return direct(matvec, b, inverse=g.inverse(phi), tolerance=c.linear_tolerance)
        start = (warm["v"],) if c.linear_warm_start and "v" in warm else None
        return cg(matvec, b, steps=c.linear_steps, tolerance=c.linear_tolerance, start=start)

    def warm_start_keys(self) -> tuple[str, ...]:
        """Which of "phi" and "v" the next iteration starts from."""
        c = self.config
        return tuple(k for k, on in (("phi", c.inner_warm_start), ("v", c.linear_warm_start)) if on)


def gradient_descent_adaptation(steps: int, lr: float) -> Adapt:
    """The paper's test-time rule: `steps` gradient steps of `lr` on the plain support cross-entropy, head alone."""

    def descend(head: Lower, start: Tensor) -> Solution:
        return gradient_descent(head.grad, (start,), steps=steps, step_size=start.new_full((len(start),), lr))

    return Adapt(descend)


def exact_adaptation(mu: float) -> Adapt:
    """phi* = argmin of the support loss + mu/2 |phi|^2, by Newton's method to |d_phi g| <= mu / 1000, so that
    |phi - phi*| <= 0.001: one judge for any algorithm's features, the head being the same. R knows no scale of the
    features: on larger ones it weighs less."""
    newtons = Proposed(ProposedConfig(mu=mu, inner_steps=50, inner_tolerance=mu / 1000))
    return Adapt(newtons.adapt, mu)
