"""The meta-step of head-only algorithms, in three moves:

    1  z_s, z_q = backbone(support), backbone(query)             with a graph, a chunk of tasks at a time
    2  loss, dz_s, dz_q, dphi_0 = algorithm(z_s, z_q)            where algorithms differ
    3  backward through the backbone with dz_s, dz_q             accumulates theta.grad

One chunk's graph is alive at any time, so the chunk sets the peak memory, whatever the batch size or K. With
`half_task`, the support features are computed without a graph, the query half is backpropagated, and the support half
is recomputed with a graph.

The cotangents of move 2 are known before any backward pass. Where the features of an image depend on no other image,
move 3 is therefore a sum over images. With `images_per_pass` move 1 keeps no graph, and move 3 recomputes the features
of a few images at a time (Gao et al. 2021 do so for contrastive losses). Memory then depends on neither ways, shots nor
queries, but for the features themselves.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from memmeta_exp.algorithms.learner import Execution, Learner, Scores, require_methods
from memmeta_exp.algorithms.losses import Losses
from memmeta_exp.algorithms.step_report import StepReport
from memmeta_exp.backbones import MetaModel
from memmeta_exp.bilevel import Lower, Solution, prototypes
from memmeta_exp.data.episodes import half
from memmeta_exp.data.tasks import Tasks
from memmeta_exp.profiling.phases import phase

Gradients = tuple[Tensor | None, ...]


@dataclass(frozen=True)
class FeatureGradient:
    """The result of move 2 for T tasks.

    loss, accuracy: of f, [T]. d_support [T, n, d], d_query [T, m, d]: cotangents of the features. d_start: cotangent of
    phi_0, shaped as phi_0; the sum over the tasks where they share one. inner, linear: the two solves; linear is None
    where an algorithm solves no linear system. smoothness [T]: the bound on L_g. inexact [T]: a solve was too
    inaccurate, so this task's hypergradient is not the gradient of what the algorithm minimises. gradients [T]:
    gradients of f or g that were evaluated. products [T]: derivatives of < d_phi g, v > that were evaluated.
    metrics: see StepReport.
    """

    loss: Tensor
    accuracy: Tensor | None
    d_support: Tensor
    d_query: Tensor
    d_start: Tensor
    inner: Solution
    linear: Solution | None
    smoothness: Tensor
    inexact: Tensor
    gradients: Tensor
    products: Tensor
    metrics: Mapping[str, Tensor] = field(default_factory=dict)

    def report(self) -> StepReport:
        """The report of these tasks."""
        return StepReport(
            loss=self.loss,
            accuracy=self.accuracy,
            inexact=self.inexact,
            gradients=self.gradients,
            products=self.products,
            inner_residual=self.inner.residual,
            inner_steps=self.inner.steps,
            linear_residual=None if self.linear is None else self.linear.residual,
            linear_steps=None if self.linear is None else self.linear.steps,
            smoothness=self.smoothness,
            metrics=self.metrics,
        )


class Part(Protocol):
    """What a chunk of tasks adds to a step: its report, and the solutions that become the next warm starts."""

    @property
    def inner(self) -> Solution | None: ...

    @property
    def linear(self) -> Solution | None: ...

    def report(self) -> StepReport: ...


class HeadAlgorithm(Protocol):
    """The interface of a head-only algorithm: its lower level, its adaptation and its gradient by the features.

    `Proposed` documents the arguments.
    """

    losses: Losses

    @property
    def prototypes(self) -> bool:
        """Whether phi_0 of a task comes from the class means of its support features."""
        ...

    def lower(self, z: Tensor, labels: Tensor, start: Tensor) -> Lower: ...

    def adapt(self, head: Lower, start: Tensor) -> Solution: ...

    def feature_gradient(
        self, support: tuple[Tensor, Tensor], query: tuple[Tensor, Tensor], start: Tensor, warm: dict[str, Tensor]
    ) -> FeatureGradient: ...

    def warm_start_keys(self) -> tuple[str, ...]: ...


class FeatureSpaceLearner(Learner):
    """Runs a head algorithm on a model. half_task: see the module's docstring."""

    def __init__(
        self,
        model: MetaModel,
        algorithm: HeadAlgorithm,
        execution: Execution,
        head_dtype: torch.dtype | None = None,
        half_task: bool = False,
    ) -> None:
        require_methods(algorithm, "lower", "adapt", "feature_gradient", "warm_start_keys")
        super().__init__(model, execution, algorithm.losses, head_dtype)
        self.algorithm, self.half_task = algorithm, half_task

    def step(self, batch: Tasks) -> StepReport:
        parameters, chunk = list(self.model.parameters()), self.execution.tasks_per_pass
        wanted = None if self._alone(batch, chunk) else parameters
        warm = {key: value for key, value in self.warm.items() if len(value) == len(batch)}
        move = self._step
        if self.execution.images_per_pass is not None:
            move = self._image_steps
        elif self.half_task:
            move = self._half_steps

        def one(at: int, tasks: Tasks) -> tuple[Part, list[Gradients]]:
            mine = {key: value[at : at + len(tasks)] for key, value in warm.items()}
            return move(tasks, mine, Backward(len(batch), wanted))

        reports, kept = [], {key: [] for key in self.algorithm.warm_start_keys()}
        for part, gradients in self._map(one, batch, chunk):
            for gradient in gradients:
                _accumulate(parameters, gradient)
            reports.append(part.report())
            for key, solution in (("phi", part.inner), ("v", part.linear)):
                if key in kept and solution is not None:
                    kept[key].append(solution.value[0])
            del part, gradients
        self.warm = {key: torch.cat(values) for key, values in kept.items()}
        return StepReport.join(reports)

    def _step(self, tasks: Tasks, warm: dict[str, Tensor], backward: "Backward") -> tuple[Part, list[Gradients]]:
        support, query = self._both_features(tasks)
        part = self._gradient(_detached(support), _detached(query), warm, self._ways(tasks))
        return part, backward([(support[0], part.d_support), (query[0], part.d_query), *self._start(part)])

    def _half_steps(self, tasks: Tasks, warm: dict[str, Tensor], backward: "Backward") -> tuple[Part, list[Gradients]]:
        with torch.no_grad():
            support = self._features(half(tasks, "support"), self._keys(tasks, "support"))
        z_q, labels = self._features(half(tasks, "query"), self._keys(tasks, "query"))
        part = self._gradient(support, (z_q.detach(), labels), warm, self._ways(tasks))
        gradients = backward([(z_q, part.d_query), *self._start(part)])
        del support, z_q
        z_s, _ = self._features(half(tasks, "support"), self._keys(tasks, "support"))
        return part, gradients + backward([(z_s, part.d_support)])

    def _image_steps(self, tasks: Tasks, warm: dict[str, Tensor], backward: "Backward") -> tuple[Part, list[Gradients]]:
        with torch.no_grad():
            support, query = self._both_features(tasks)
        part = self._gradient(support, query, warm, self._ways(tasks))
        start = self._start(part)
        gradients = backward(start) if start else []
        for which, cotangents in (("support", part.d_support), ("query", part.d_query)):
            at = 0
            for images in self._parts(tasks, which):
                z, _ = self._features(images)
                gradients += backward([(z, cotangents[:, at : at + z.size(1)])])
                at += z.size(1)
                del images, z
        return part, gradients

    def _gradient(
        self, support: tuple[Tensor, Tensor], query: tuple[Tensor, Tensor], warm: dict[str, Tensor], ways: int
    ) -> FeatureGradient:
        if not self.algorithm.prototypes:
            return self.algorithm.feature_gradient(support, query, self._start_of(*support, ways), warm)
        z = support[0].detach().requires_grad_()
        with torch.enable_grad():
            start = self._start_of(z, support[1], ways)
        part = self.algorithm.feature_gradient(support, query, start.detach(), warm)
        (through_start,) = torch.autograd.grad(start, z, part.d_start)
        return replace(part, d_support=part.d_support + through_start)

    def _start_of(self, z: Tensor, labels: Tensor, ways: int) -> Tensor:
        return prototypes(z, labels, ways) if self.algorithm.prototypes else super()._start_of(z, labels, ways)

    def _start(self, part: FeatureGradient) -> list[tuple[Tensor, Tensor]]:
        start = self.model.head_start
        return [(start, part.d_start.to(start.dtype))] if isinstance(start, torch.nn.Parameter) else []

    def _evaluate(self, batch: Tasks) -> Scores:
        return self._score_heads(batch, self.algorithm.lower, self.algorithm.adapt)

    def _outputs(self, batch: Tasks) -> Tensor:
        return self._head_outputs(batch, self.algorithm.lower, self.algorithm.adapt)


@dataclass(frozen=True)
class Backward:
    """Backpropagates cotangents, each a sum over tasks, divided by the batch size.

    wanted: None to accumulate in .grad at once. With several threads: the parameters whose gradients are returned, so
    that the caller adds them to .grad in the order of the tasks.
    """

    batch_size: int
    wanted: list[torch.nn.Parameter] | None

    def __call__(self, pairs: list[tuple[Tensor, Tensor]]) -> list[Gradients]:
        roots, cotangents = zip(*pairs, strict=True)
        cotangents = [cotangent / self.batch_size for cotangent in cotangents]
        with phase("backward"):
            if self.wanted is None:
                torch.autograd.backward(roots, cotangents)
                return []
            return [torch.autograd.grad(roots, self.wanted, cotangents, allow_unused=True)]


def _accumulate(parameters: list[torch.nn.Parameter], gradients: Gradients) -> None:
    """Accumulates as autograd does: the first gradient becomes .grad, the others are added."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is not None:
            parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)


def _detached(features: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return features[0].detach(), features[1]
