"""Differentiation through K gradient steps that run the backbone: MAML and FOMAML (Finn et al. 2017), and ANIL and
ITD-BiO as in their released code, which recomputes the features at every step although only the head moves.

With w the weights that adapt, u the others and g the support loss with its R:

    w_{k+1} = w_k - lambda d_w g(w_k, u),   k = 0..K-1,      F = f(w_K, u)

Second order stores the graphs of the K steps, and autograd differentiates through them. `recompute` stores w_0..w_K
alone. It computes the same gradient by the adjoint recursion, with the graph of one step at a time:

    v_K = d_w f,   v_k = v_{k+1} - lambda d_w <d_w g(w_k, u), v_{k+1}>,   dF/dw_0 = v_0
    dF/du = d_u f - lambda sum_k d_u <d_w g(w_k, u), v_{k+1}>

First order drops the terms with d_w g in them: dF/dw_0 = d_w f(w_K, u), dF/du = d_u f(w_K, u).
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from memmeta_exp.algorithms.learner import Execution, Learner
from memmeta_exp.algorithms.losses import Losses
from memmeta_exp.algorithms.weight_space import HEAD, Task, TaskGradient, Weights, WeightSpaceLearner
from memmeta_exp.backbones import MetaModel
from memmeta_exp.config import AlgorithmConfig, MemoryConfig, option, register, same_option
from memmeta_exp.profiling.phases import phase
from memmeta_exp.utils.errors import ConfigError


@dataclass(frozen=True)
class UnrolledConfig(AlgorithmConfig):
    """Differentiation through K = inner_steps gradient steps of size inner_lr. phi are the parameters that adapt."""

    adapted_params: str = option(
        "all", "parameters that take the inner steps: all, or the head", choices=("all", "head")
    )
    mu: float = option(0.0, "weight of R(phi) = mu/2 |phi|^2 in g", at_least=0)
    inner_steps: int = option(
        5,
        "K, gradient steps; 0: no adaptation, joint training on all tasks, for adapted_params=all and dataset=sinusoid",
        at_least=0,
    )
    inner_lr: float = option(0.1, "size of an inner step", above=0)
    head_start: str = option(
        "learned",
        "phi_0: learned, fixed (random, frozen), or with features=once prototype (from the class means)",
        choices=("fixed", "learned", "prototype"),
    )
    first_order: bool = option(False, "treat inner gradients as constants in the meta-gradient, as FOMAML does")
    features: str = option(
        "recompute",
        "where the head alone adapts: compute features once, or recompute them with a graph at every inner step, as "
        "the released code of ANIL and ITD-BiO does; the result is the same",
        choices=("once", "recompute"),
    )

    def check(self) -> None:
        if self.adapted_params == "all" and self.features == "once":
            raise ConfigError(
                "algorithm.features=once with algorithm.adapted_params=all: the features change as the backbone "
                "adapts; set algorithm.features=recompute, or algorithm.adapted_params=head"
            )
        if self.adapted_params == "head" and self.inner_steps == 0:
            raise ConfigError("algorithm.inner_steps=0 is out of range: it must be at least 1")

    def check_with(self, config: Any) -> None:
        if self.inner_steps == 0 and not config.dataset.is_regression:
            raise ConfigError(
                "algorithm.inner_steps=0 trains on all tasks jointly, which is impossible where classes differ from "
                "task to task (dataset=sinusoid has none): set algorithm.inner_steps to 1 or more"
            )

    @property
    def head_only(self) -> bool:
        """Whether the lower level sees features alone."""
        return self.features == "once"

    @property
    def unrolls(self) -> bool:
        """Whether a graph of the inner steps is kept."""
        return not self.first_order

    def build(self, model: MetaModel, execution: Execution, memory: MemoryConfig, losses: Losses) -> Learner:
        recompute = memory.checkpoint == "inner_step"
        return WeightSpaceLearner(model, Maml(self, recompute), execution, losses)


@register
@dataclass(frozen=True)
class MamlConfig(UnrolledConfig):
    """MAML (Finn et al. 2017): all weights are learned and adapt, differentiated through K steps."""

    label: ClassVar[str] = "MAML"
    color: ClassVar[str] = "#D55E00"
    marker: ClassVar[str] = "s"
    name: str = "maml"
    features: str = option(
        "recompute",
        "recompute: features change at every inner step, because the backbone adapts too",
        choices=("recompute",),
    )


@register
@dataclass(frozen=True)
class FomamlConfig(MamlConfig):
    """First-order MAML (Finn et al. 2017): the query gradient at phi_K, no second derivative and no graph kept."""

    label: ClassVar[str] = "FOMAML"
    color: ClassVar[str] = "#56B4E9"
    marker: ClassVar[str] = "P"
    name: str = "fomaml"
    first_order: bool = same_option(UnrolledConfig, "first_order", True)


class Maml:
    """Adaptation and meta-gradient by K gradient steps.

    recompute: see the module's docstring; it has no effect in first order, which stores no graph.
    """

    def __init__(self, config: UnrolledConfig, recompute: bool = False) -> None:
        self.config, self.recompute = config, recompute

    def adapt(self, task: Task) -> Weights:
        """All weights by name after K steps of those that adapt, without a graph."""
        weights, adapted = task.meta, self._adapted(task)
        with phase("lower level"):
            for _ in range(self.config.inner_steps):
                weights = self._step(task, _leaves(weights, adapted), adapted, create_graph=False)
        return weights

    def meta_gradient(self, task: Task) -> TaskGradient:
        """f at w_K, and dF by the meta-parameters."""
        if self.config.first_order:
            return self._at_the_end(task, self.adapt(task))
        return self._adjoint(task) if self.recompute else self._unrolled(task)

    def _unrolled(self, task: Task) -> TaskGradient:
        adapted = self._adapted(task)
        meta = _leaves(task.meta, tuple(task.meta))
        weights = meta
        with phase("lower level"):
            for _ in range(self.config.inner_steps):
                weights = self._step(task, weights, adapted, create_graph=True)
        loss, accuracy, grads = _query_gradient(task, weights, meta)
        return _result(task, loss, accuracy, grads)

    def _at_the_end(self, task: Task, weights: Weights) -> TaskGradient:
        leaves = _leaves(weights, tuple(weights))
        return _result(task, *_query_gradient(task, leaves, leaves))

    def _adjoint(self, task: Task) -> TaskGradient:
        adapted, trajectory = self._adapted(task), [task.meta]
        with phase("lower level"):
            for _ in range(self.config.inner_steps):
                trajectory.append(self._step(task, _leaves(trajectory[-1], adapted), adapted, create_graph=False))
        leaves = _leaves(trajectory.pop(), tuple(task.meta))
        loss, accuracy, v = _query_gradient(task, leaves, leaves)
        del leaves
        while trajectory:
            leaves = _leaves(trajectory.pop(), tuple(task.meta))
            with phase("lower level"):
                slope = self._slope(task, leaves, adapted, create_graph=True)
            with phase("backward"):
                task.products += 1
                back = torch.autograd.grad(
                    slope, list(leaves.values()), [v[name] for name in adapted], materialize_grads=True
                )
            v = {name: torch.sub(v[name], d, alpha=self.config.inner_lr) for name, d in zip(leaves, back, strict=True)}
            del slope, back, leaves
        return _result(task, loss, accuracy, v)

    def _adapted(self, task: Task) -> tuple[str, ...]:
        return tuple(task.meta) if self.config.adapted_params == "all" else (HEAD,)

    def _step(self, task: Task, weights: Weights, adapted: tuple[str, ...], create_graph: bool) -> Weights:
        slope = self._slope(task, weights, adapted, create_graph)
        with torch.set_grad_enabled(create_graph):
            moved = {
                name: torch.sub(weights[name], d, alpha=self.config.inner_lr)
                for name, d in zip(adapted, slope, strict=True)
            }
        return {**weights, **moved}

    def _slope(self, task: Task, weights: Weights, adapted: tuple[str, ...], create_graph: bool) -> tuple[Tensor, ...]:
        """d_w g, in the order of `adapted`."""
        at = tuple(weights[name] for name in adapted)
        with torch.enable_grad():
            loss = task.support_loss(weights)
            slope = torch.autograd.grad(loss, at, create_graph=create_graph)
            task.gradients += 1
            if slope[0].requires_grad and not self.recompute:
                slope[0].register_hook(task.passed)
            if self.config.mu == 0:
                return slope
            return tuple(torch.add(d, w, alpha=self.config.mu) for d, w in zip(slope, at, strict=True))


def _leaves(weights: Weights, names: tuple[str, ...]) -> Weights:
    """The weights, detached; those of `names` require gradients."""
    detached = {name: w.detach() for name, w in weights.items()}
    return detached | {name: detached[name].requires_grad_() for name in names}


def _query_gradient(task: Task, weights: Weights, wanted: Weights) -> tuple[Tensor, Tensor | None, Weights]:
    """f and the accuracy at `weights`, and the gradient of f with respect to `wanted`."""
    with torch.enable_grad(), phase("features"):
        loss, accuracy = task.query_loss(weights)
    with phase("backward"):
        task.gradients += 1
        total = loss.sum() if loss.dim() else loss
        grads = torch.autograd.grad(total, list(wanted.values()), materialize_grads=True)
    return loss.detach(), accuracy, dict(zip(wanted, grads, strict=True))


def _result(task: Task, loss: Tensor, accuracy: Tensor | None, grads: Weights) -> TaskGradient:
    """The result of a task. It is `inexact` only where the steps diverged, because no system is solved."""
    learned = {name: grads[name] for name in task.learned}
    return TaskGradient(loss, accuracy, learned, ~loss.isfinite(), task.gradients, task.products)
