"""Reptile (Nichol, Achiam and Schulman 2018, arXiv:1803.02999) as a plug-in: an algorithm in one file.

    memmeta train 'plugins=[examples.reptile]' algorithm=reptile algorithm.inner_lr=0.05

The weights of a task start from theta and take 2K gradient steps of size lambda: K on the support loss g, then K on the
query loss f. Theta moves towards their final values.

    w_0 = theta,   w_{k+1} = w_k - lambda h_k,   h_k = d_w g(w_k) for k < K,   h_k = d_w f(w_k) for K <= k < 2K
    meta-gradient = (theta - w_2K) / lambda = sum_k h_k

The paper passes this to an optimiser such as Adam as if it were a gradient (section 2). To first order in lambda it is
K (d_w g + d_w f) at theta, minus lambda times products of Hessians with gradients. Averaged over tasks, whose halves
are alike, these products are gradients of inner products such as <d_w g, d_w f> (section 5.1). Descent increases the
inner products: a step on one half of a task then also lowers the loss on the other half. No graph spans two steps, so
memory does not depend on K.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from memmeta_exp.algorithms.weight_space import Task, TaskGradient, Weights, WeightSpaceLearner
from memmeta_exp.config import AlgorithmConfig, option, register
from memmeta_exp.profiling.phases import phase


@register
@dataclass(frozen=True)
class ReptileConfig(AlgorithmConfig):
    """Reptile (Nichol et al. 2018): all weights adapt, and theta moves towards their final values."""

    label = "Reptile"
    head_only = False
    adapted_params = "all"
    head_start = "learned"
    name: str = "reptile"
    inner_steps: int = option(5, "K, gradient steps on each half of a task", at_least=1)
    inner_lr: float = option(0.1, "lambda, the size of an inner step", above=0)

    def build(self, model: Any, execution: Any, memory: Any, losses: Any) -> WeightSpaceLearner:
        return WeightSpaceLearner(model, Reptile(self), execution, losses)


class Reptile:
    """The two methods that `WeightSpaceLearner` needs: adaptation to a task, and its meta-gradient."""

    def __init__(self, config: ReptileConfig) -> None:
        self.config = config

    def adapt(self, task: Task) -> Weights:
        """All weights by name after K steps on the support loss, w_K."""
        with phase("lower level"):
            return self._descend(task, task.meta, task.support_loss)

    def meta_gradient(self, task: Task) -> TaskGradient:
        """(theta - w_2K) / lambda; the loss and accuracy on the query half are those at w_K."""
        adapted = self.adapt(task)
        with torch.no_grad(), phase("features"):
            loss, accuracy = task.query_loss(adapted)
        with phase("backward"):
            end = self._descend(task, adapted, lambda weights: task.query_loss(weights)[0].sum())
        moved = {name: task.meta[name] - end[name] for name in task.learned}
        squares = sum(way.reshape(*loss.shape, -1).square().sum(-1) for way in moved.values())
        return TaskGradient(
            loss,
            accuracy,
            grads={name: way / self.config.inner_lr for name, way in moved.items()},
            inexact=~loss.isfinite(),
            gradients=task.gradients,
            products=task.products,
            metrics={"inner/distance": torch.as_tensor(squares).sqrt()},  # |theta - w_2K|, a number of its own to log
        )

    def _descend(self, task: Task, weights: Weights, loss: Callable[[Weights], Tensor]) -> Weights:
        """K gradient steps on `loss`, each with a graph of its own."""
        for _ in range(self.config.inner_steps):
            leaves = {name: w.detach().requires_grad_() for name, w in weights.items()}
            with torch.enable_grad():
                slope = torch.autograd.grad(loss(leaves), list(leaves.values()), materialize_grads=True)
            task.gradients += 1
            weights = {
                name: w.detach() - self.config.inner_lr * d for (name, w), d in zip(leaves.items(), slope, strict=True)
            }
        return weights
