"""Head-only algorithms that differentiate through their inner steps: ANIL (Raghu et al. 2020) and ITD-BiO (Ji et al.
2021).

K gradient steps phi_{k+1} = phi_k - lambda d_phi g(phi_k) on the support features, then the query loss at phi_K; its
gradient reaches the features, and phi_0 where that is learned, through all K steps. ANIL learns the head's start and
has no R; ITD-BiO starts every head from one frozen point and puts R in g. In feature space the history that is kept is
K heads and K logits a task; `first_order` keeps none and treats every d_phi g as a constant.
"""

import torch
from torch import Tensor

from memmeta_exp.algorithms.feature_space import FeatureGradient
from memmeta_exp.bilevel import SoftmaxHead, Solution, gradient_descent
from memmeta_exp.config import UnrolledConfig
from memmeta_exp.measure.phases import phase


class Unrolled:
    """The rule of ANIL and of ITD-BiO, which differ in their configuration alone."""

    def __init__(self, config: UnrolledConfig) -> None:
        self.config = config

    def lower(self, z: Tensor, labels: Tensor, start: Tensor) -> SoftmaxHead:
        """g of the tasks whose support features are z [T, n, d]; start: phi_0 [C, d+1]. R is centred on 0."""
        return SoftmaxHead(z, labels, len(start), self.config.mu)

    def adapt(self, head: SoftmaxHead, start: Tensor) -> Solution:
        """phi_K of each task from `start` [T, C, d+1]."""
        c = self.config
        step = start.new_full((len(start),), c.inner_lr)
        return gradient_descent(head.grad, (start,), steps=c.inner_steps, step_size=step)

    def feature_gradient(
        self, support: tuple[Tensor, Tensor], query: tuple[Tensor, Tensor], start: Tensor, warm: dict[str, Tensor]
    ) -> FeatureGradient:
        """f at phi_K and its cotangents; shapes as in `Proposed.feature_gradient`. `wrong` is set
        where the steps diverged alone: this is the exact gradient of the query loss after K steps."""
        (z_s, y_s), (z_q, y_q) = support, query
        leaves = tuple(t.detach().requires_grad_() for t in (z_s, z_q, start))
        with torch.enable_grad(), phase("lower level"):
            inner = self._steps(self.lower(leaves[0], y_s, start), leaves[2].expand(len(z_s), -1, -1))
            upper = SoftmaxHead(leaves[1], y_q, len(start))
            loss = upper.value(inner.value)
        d_support, d_query, d_start = torch.autograd.grad(loss.sum(), leaves, materialize_grads=True)
        phi = tuple(t.detach() for t in inner.value)
        return FeatureGradient(
            loss=loss.detach(),
            accuracy=upper.accuracy(phi),
            d_support=d_support,
            d_query=d_query,
            d_start=d_start,
            inner=Solution(phi, inner.residual.detach(), inner.steps, inner.converged),
            linear=None,
            smoothness=self.lower(z_s, y_s, start).smoothness(),
            wrong=~inner.converged,
        )

    def _steps(self, head: SoftmaxHead, start: Tensor) -> Solution:
        """As `adapt`; where only first derivatives count, the sum of the steps is a constant added to the start."""
        if not self.config.first_order:
            return self.adapt(head, start)
        with torch.no_grad():
            end = self.adapt(head, start)
        return Solution((start + (end.value[0] - start).detach(),), end.residual, end.steps, end.converged)

    def keeps(self) -> tuple[str, ...]:
        """Nothing passes from one iteration to the next."""
        return ()
