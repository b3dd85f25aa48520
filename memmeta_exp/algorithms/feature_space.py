"""The meta-step of head-only algorithms, in three moves (docs: README, "How it works"):

    1  z_s, z_q = backbone(support), backbone(query)        with a graph, `chunk` tasks at a time
    2  loss, dz_s, dz_q, dphi_0 = rule(z_s, z_q)            feature space: where algorithms differ
    3  backward through the backbone with dz_s, dz_q         accumulates theta.grad

Only one chunk's graph is alive at any time, so peak memory is set by the chunk, whatever the batch size or K.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any, Protocol

import torch
from torch import Tensor

from memmeta_exp.backbones import MetaModel
from memmeta_exp.bilevel import SoftmaxHead, Solution
from memmeta_exp.data.episodes import TaskBatch


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


class Rule(Protocol):
    """What a head-only algorithm is: its lower level, its adaptation and its gradient in feature space."""

    def lower(self, z: Tensor, labels: Tensor, start: Tensor) -> SoftmaxHead: ...

    def adapt(self, head: SoftmaxHead, start: Tensor) -> Solution: ...

    def feature_gradient(
        self, support: tuple[Tensor, Tensor], query: tuple[Tensor, Tensor], start: Tensor, warm: dict[str, Tensor]
    ) -> FeatureGradient: ...

    def keeps(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class StepReport:
    """Per-task tensors [B] of one meta-step, on the device; linear_residual is None without a linear system."""

    loss: Tensor
    accuracy: Tensor
    inner_residual: Tensor
    linear_residual: Tensor | None
    smoothness: Tensor
    wrong: Tensor

    @staticmethod
    def of(part: FeatureGradient) -> "StepReport":
        linear = None if part.linear is None else part.linear.residual
        return StepReport(part.loss, part.accuracy, part.inner.residual, linear, part.smoothness, part.wrong)

    @staticmethod
    def join(parts: list["StepReport"]) -> "StepReport":
        def column(name: str) -> Any:
            values = [getattr(part, name) for part in parts]
            return None if values[0] is None else torch.cat(values)

        return StepReport(**{f.name: column(f.name) for f in fields(StepReport)})


class FeatureSpaceLearner:
    """A rule on a model: accumulates meta-gradients, adapts and scores.

    chunk: tasks per backbone pass; bf16: the backbone under bfloat16 autocast; head_dtype: the precision of everything
    in feature space, the parameters' own by default. Results do not depend on `chunk` beyond rounding.
    """

    def __init__(
        self, model: MetaModel, rule: Rule, chunk: int, bf16: bool = False, head_dtype: torch.dtype | None = None
    ) -> None:
        self.model, self.rule, self.chunk, self.bf16 = model, rule, chunk, bf16
        self.head_dtype = head_dtype or model.head_start.dtype
        self.warm: dict[str, Tensor] = {}

    def step(self, batch: TaskBatch) -> StepReport:
        """Adds grad F_B, the mean over the batch's tasks, to the parameters' .grad."""
        reports, kept = [], {key: [] for key in self.rule.keeps()}
        for at, tasks in self._chunks(batch):
            support, query = self._features(*tasks.support()), self._features(*tasks.query())
            start = self.model.head_start.detach().to(self.head_dtype)
            warm = {key: value[at : at + len(tasks)] for key, value in self.warm.items() if len(value) == len(batch)}
            part = self.rule.feature_gradient(_detached(support), _detached(query), start, warm)
            self._backward(support[0], query[0], part, len(batch))
            reports.append(StepReport.of(part))
            for key, solution in (("phi", part.inner), ("v", part.linear)):
                if key in kept and solution is not None:
                    kept[key].append(solution.value[0])
            del support, query, part
        self.warm = {key: torch.cat(values) for key, values in kept.items()}
        return StepReport.join(reports)

    def evaluate(
        self, batch: TaskBatch, adapt: Callable[[SoftmaxHead, Tensor], Solution] | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Query accuracy and loss of each task after adapting the head to its support set, and whether the adaptation
        converged; float64 [B] each. By the rule's own lower level or `adapt`, which sees the plain cross-entropy."""
        scores = []
        with torch.no_grad():
            start = self.model.head_start.to(self.head_dtype)
            for _, tasks in self._chunks(batch):
                support, query = self._features(*tasks.support()), self._features(*tasks.query())
                lower = self.rule.lower(*support, start) if adapt is None else SoftmaxHead(*support, len(start))
                inner = (adapt or self.rule.adapt)(lower, start.expand(len(tasks), -1, -1))
                upper, phi = SoftmaxHead(*query, len(start)), inner.value
                columns = (upper.accuracy(phi), upper.value(phi), inner.converged)
                scores.append(torch.stack([column.double() for column in columns]))
        accuracy, loss, converged = torch.cat(scores, 1)
        return accuracy, loss, converged

    def _chunks(self, batch: TaskBatch) -> Iterator[tuple[int, TaskBatch]]:
        for at in range(0, len(batch), self.chunk):
            yield at, batch[at : at + self.chunk]

    def _features(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        start = self.model.head_start
        with torch.autocast(start.device.type, torch.bfloat16, enabled=self.bf16):
            z = self.model.backbone(images.to(start.device, start.dtype).div_(255))
        return z.to(self.head_dtype), labels.to(start.device)

    def _backward(self, z_s: Tensor, z_q: Tensor, part: FeatureGradient, tasks: int) -> None:
        roots, cotangents = [z_s, z_q], [part.d_support / tasks, part.d_query / tasks]
        if isinstance(self.model.head_start, torch.nn.Parameter):
            roots.append(self.model.head_start)
            cotangents.append(part.d_start / tasks)
        torch.autograd.backward(roots, cotangents)


def _detached(features: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return features[0].detach(), features[1]
