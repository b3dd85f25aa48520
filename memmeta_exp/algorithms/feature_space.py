"""The meta-step of head-only algorithms, in three moves (docs: README, "How it works"):

    1  z_s, z_q = backbone(support), backbone(query)        with a graph, `chunk` tasks at a time
    2  loss, dz_s, dz_q, dphi_0 = rule(z_s, z_q)            feature space: where algorithms differ
    3  backward through the backbone with dz_s, dz_q         accumulates theta.grad

Only one chunk's graph is alive at any time, so peak memory is set by the chunk, whatever the batch size or K. Half a
chunk at a time: z_s first without a graph, then the query half is done with, then z_s again with one.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from memmeta_exp.algorithms.learner import Learner, Scores, StepReport
from memmeta_exp.backbones import MetaModel
from memmeta_exp.bilevel import SoftmaxHead, Solution
from memmeta_exp.data.episodes import TaskBatch
from memmeta_exp.measure.phases import phase


@dataclass(frozen=True)
class FeatureGradient:
    """Move 2's result for T tasks: loss f and accuracy [T], the cotangents d_support [T, n, d], d_query [T, m, d] and
    d_start [C, d+1] (summed over the tasks), the two solves (linear: None where an algorithm solves no linear system),
    the bound on L_g [T], and wrong [T]: whether a solve missed what it has to reach, so that this task's hypergradient
    is not the gradient of what the algorithm minimises."""

    loss: Tensor
    accuracy: Tensor
    d_support: Tensor
    d_query: Tensor
    d_start: Tensor
    inner: Solution
    linear: Solution | None
    smoothness: Tensor
    wrong: Tensor

    def report(self) -> StepReport:
        """Its diagnosis."""
        linear = None if self.linear is None else self.linear.residual
        return StepReport(self.loss, self.accuracy, self.wrong, self.inner.residual, linear, self.smoothness)


class Rule(Protocol):
    """What a head-only algorithm is: its lower level, its adaptation and its gradient in feature space."""

    def lower(self, z: Tensor, labels: Tensor, start: Tensor) -> SoftmaxHead: ...

    def adapt(self, head: SoftmaxHead, start: Tensor) -> Solution: ...

    def feature_gradient(
        self, support: tuple[Tensor, Tensor], query: tuple[Tensor, Tensor], start: Tensor, warm: dict[str, Tensor]
    ) -> FeatureGradient: ...

    def keeps(self) -> tuple[str, ...]: ...


class FeatureSpaceLearner(Learner):
    """A rule on a model. half_task: only the support or the query half of a chunk has a graph at any time, for one
    more forward pass of the support half."""

    def __init__(
        self,
        model: MetaModel,
        rule: Rule,
        chunk: int,
        bf16: bool = False,
        head_dtype: torch.dtype | None = None,
        half_task: bool = False,
    ) -> None:
        super().__init__(model, chunk, bf16, head_dtype)
        self.rule, self.half_task = rule, half_task

    def step(self, batch: TaskBatch) -> StepReport:
        reports, kept = [], {key: [] for key in self.rule.keeps()}
        for at, tasks in self._chunks(batch, self.chunk):
            warm = {key: value[at : at + len(tasks)] for key, value in self.warm.items() if len(value) == len(batch)}
            part = self._half_steps(tasks, warm, len(batch)) if self.half_task else self._step(tasks, warm, len(batch))
            reports.append(part.report())
            for key, solution in (("phi", part.inner), ("v", part.linear)):
                if key in kept and solution is not None:
                    kept[key].append(solution.value[0])
            del part
        self.warm = {key: torch.cat(values) for key, values in kept.items()}
        return StepReport.join(reports)

    def _step(self, tasks: TaskBatch, warm: dict[str, Tensor], batch_size: int) -> FeatureGradient:
        support, query = self._both_features(tasks)
        part = self._gradient(_detached(support), _detached(query), warm)
        _backward([(support[0], part.d_support), (query[0], part.d_query), *self._start(part)], batch_size)
        return part

    def _half_steps(self, tasks: TaskBatch, warm: dict[str, Tensor], batch_size: int) -> FeatureGradient:
        with torch.no_grad():
            support = self._features(*tasks.support())
        z_q, labels = self._features(*tasks.query())
        part = self._gradient(support, (z_q.detach(), labels), warm)
        _backward([(z_q, part.d_query), *self._start(part)], batch_size)
        del support, z_q
        z_s, _ = self._features(*tasks.support())
        _backward([(z_s, part.d_support)], batch_size)
        return part

    def _gradient(
        self, support: tuple[Tensor, Tensor], query: tuple[Tensor, Tensor], warm: dict[str, Tensor]
    ) -> FeatureGradient:
        start = self.model.head_start.detach().to(self.head_dtype)
        return self.rule.feature_gradient(support, query, start, warm)

    def _start(self, part: FeatureGradient) -> list[tuple[Tensor, Tensor]]:
        start = self.model.head_start
        return [(start, part.d_start.to(start.dtype))] if isinstance(start, torch.nn.Parameter) else []

    def _evaluate(self, batch: TaskBatch) -> Scores:
        return self._score_heads(batch, self.rule.lower, self.rule.adapt)


def _backward(pairs: list[tuple[Tensor, Tensor]], batch_size: int) -> None:
    """Accumulates the mean over the batch's tasks: each pair is a root and its cotangent summed over the tasks."""
    with phase("backward"):
        roots, cotangents = zip(*pairs, strict=True)
        torch.autograd.backward(roots, [cotangent / batch_size for cotangent in cotangents])


def _detached(features: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return features[0].detach(), features[1]
