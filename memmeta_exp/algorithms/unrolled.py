"""Head-only algorithms that differentiate through their inner steps: ANIL (Raghu et al. 2020) and ITD-BiO (Ji et al.
2021).

The head takes K gradient steps phi_{k+1} = phi_k - lambda d_phi g(phi_k) on the support features. The gradient of the
query loss at phi_K passes through all K steps to the features, and to phi_0 where it is learned. ANIL learns phi_0 and
has no R. ITD-BiO starts every head from one frozen phi_0 and has R in g.

The graph stores K heads and K logits a task. `first_order` stores no graph and treats every d_phi g as a constant.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from memmeta_exp.algorithms.feature_space import FeatureGradient, FeatureSpaceLearner
from memmeta_exp.algorithms.learner import Execution, Learner
from memmeta_exp.algorithms.losses import SOFTMAX, Losses
from memmeta_exp.algorithms.maml import UnrolledConfig
from memmeta_exp.backbones import MetaModel
from memmeta_exp.bilevel import Lower, Solution, Vector, gradient_descent
from memmeta_exp.config import MemoryConfig, register, same_option
from memmeta_exp.profiling.phases import phase


@register
@dataclass(frozen=True)
class AnilConfig(UnrolledConfig):
    """ANIL (Raghu et al. 2020): learns the backbone and phi_0. The head adapts in K steps, through which the
    meta-gradient passes."""

    label: ClassVar[str] = "ANIL"
    color: ClassVar[str] = "#009E73"
    marker: ClassVar[str] = "^"
    name: str = "anil"
    adapted_params: str = same_option(UnrolledConfig, "adapted_params", "head")
    inner_steps: int = same_option(UnrolledConfig, "inner_steps", 10)
    features: str = same_option(UnrolledConfig, "features", "once")

    def build(self, model: MetaModel, execution: Execution, memory: MemoryConfig, losses: Losses) -> Learner:
        if not self.head_only:
            return super().build(model, execution, memory, losses)
        return FeatureSpaceLearner(model, Unrolled(self, losses), execution, half_task=memory.mode == "half_task")


@register
@dataclass(frozen=True)
class ItdBioConfig(AnilConfig):
    """ITD-BiO (Ji et al. 2021): learns the backbone. The head starts from one frozen point, g has R, and the
    meta-gradient passes through the K steps."""

    label: ClassVar[str] = "ITD-BiO"
    color: ClassVar[str] = "#CC79A7"
    marker: ClassVar[str] = "D"
    name: str = "itd_bio"
    mu: float = same_option(UnrolledConfig, "mu", 1e-4)
    inner_steps: int = same_option(UnrolledConfig, "inner_steps", 20)
    head_start: str = same_option(UnrolledConfig, "head_start", "fixed")


class Unrolled:
    """The head algorithm of ANIL and of ITD-BiO, which differ in their configuration alone."""

    def __init__(self, config: UnrolledConfig, losses: Losses = SOFTMAX) -> None:
        self.config, self.losses = config, losses

    @property
    def prototypes(self) -> bool:
        """Whether phi_0 comes from the class means."""
        return self.config.head_start == "prototype"

    def lower(self, z: Tensor, labels: Tensor, start: Tensor) -> Lower:
        """g of the tasks whose support features are z [T, n, d]; start: phi_0 [C, d+1]. R is centred on 0."""
        return self.losses.lower(z, labels, start, self.config.mu, None)

    def adapt(self, head: Lower, start: Tensor) -> Solution:
        """phi_K of each task from `start` [T, C, d+1]."""
        return self._descend(head.grad, start)

    def _descend(self, grad: Callable[[Vector], Vector], start: Tensor) -> Solution:
        step = start.new_full((len(start),), self.config.inner_lr)
        return gradient_descent(grad, (start,), steps=self.config.inner_steps, step_size=step)

    def feature_gradient(
        self, support: tuple[Tensor, Tensor], query: tuple[Tensor, Tensor], start: Tensor, warm: dict[str, Tensor]
    ) -> FeatureGradient:
        """f at phi_K and its cotangents; shapes as in `Proposed.feature_gradient`.

        A task is `inexact` only where its steps diverged, because no system is solved.
        """
        (z_s, y_s), (z_q, y_q), passed = support, query, []
        leaves = tuple(t.detach().requires_grad_() for t in (z_s, z_q, start))
        with torch.enable_grad(), phase("lower level"):
            inner = self._steps(self.lower(leaves[0], y_s, start), leaves[2].expand(len(z_s), -1, -1), passed)
            upper = self.losses.upper(leaves[1], y_q, start)
            loss = upper.value(inner.value)
        d_support, d_query, d_start = torch.autograd.grad(loss.sum(), leaves, materialize_grads=True)
        phi = tuple(t.detach() for t in inner.value)
        return FeatureGradient(
            loss=loss.detach(),
            accuracy=upper.accuracy(phi),
            d_support=d_support,
            d_query=d_query,
            d_start=d_start,
            inner=replace(inner, value=phi, residual=inner.residual.detach()),
            linear=None,
            smoothness=self.lower(z_s, y_s, start).smoothness(),
            inexact=~inner.converged,
            gradients=inner.calls + 1,
            products=torch.full_like(inner.calls, len(passed)),
        )

    def _steps(self, head: Lower, start: Tensor, passed: list[None]) -> Solution:
        """As `adapt`, with a graph. In first order, phi_K is `start` plus a constant.

        `passed` grows by one for each d_phi g through which differentiation passes: each is one product.
        """
        if not self.config.first_order:
            return self._descend(lambda phi: _counted(head.grad(phi), passed), start)
        with torch.no_grad():
            end = self.adapt(head, start)
        return replace(end, value=(start + (end.value[0] - start).detach(),))

    def warm_start_keys(self) -> tuple[str, ...]:
        """None: no iteration starts from the last one's solutions."""
        return ()


def _counted(slope: Vector, passed: list[None]) -> Vector:
    slope[0].register_hook(lambda _: passed.append(None))
    return slope
