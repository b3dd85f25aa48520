"""Baseline (Chen et al. 2019; Tian et al. 2020): no meta-gradient. Training tells the classes of the training split
apart by one linear classifier on the features; a task of new classes is adapted to as `proposed` does, by a head of its
own.

With z_i the features of a task's n + m images, c_i their classes in the training split and V [classes, d+1]:

    A = mean over tasks of  1/(n+m) sum_i CE(V z_i, c_i)      (V's last column the bias),   minimised over theta and V

or, where the classifier is `cosine` (Baseline++), CE(scale <z_i / |z_i|, v_c / |v_c|>) with v_c the rows of V but for
the last column, which then has no part. The labels within a task are not used, and support and query differ in nothing
but that each half has batch-norm statistics of its own, as in adaptation. With power < 1 a new task sees
sqrt(d) z^power / |z^power| in place of z.
"""

import math
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from memmeta_exp.algorithms.feature_space import Backward, FeatureSpaceLearner, Gradients, Part
from memmeta_exp.algorithms.learner import Execution, StepReport
from memmeta_exp.algorithms.losses import SOFTMAX, Losses
from memmeta_exp.algorithms.proposed import Proposed, ProposedConfig
from memmeta_exp.backbones import MetaModel
from memmeta_exp.config import AlgorithmConfig, MemoryConfig, option, register
from memmeta_exp.data.episodes import TaskBatch
from memmeta_exp.data.tasks import Tasks
from memmeta_exp.utils.errors import ConfigError


@register
@dataclass(frozen=True)
class BaselineConfig(AlgorithmConfig):
    """Baseline (Chen et al. 2019), without a meta-gradient: training classifies all images of its tasks among all
    classes of the training split; a new task's head is that of `proposed`, by Newton's method."""

    label: ClassVar[str] = "Baseline"
    color: ClassVar[str] = "#000000"
    marker: ClassVar[str] = "X"
    classifies = True
    name: str = "baseline"
    classifier: str = option(
        "linear", "classifier of training: linear (Baseline) or cosine (Baseline++)", choices=("cosine", "linear")
    )
    scale: float = option(10.0, "scale of the cosines", above=0)
    power: float = option(
        1.0,
        "new tasks see the features z as z^power, negative ones as 0, scaled to length sqrt(d) (Tukey's ladder of "
        "powers, Yang et al. 2021); 1: as they are, unscaled; the F whose gradient is measured always sees z",
        above=0,
        at_most=1,
    )
    mu: float = option(0.1, "weight of R(phi) = mu/2 |phi|^2 in g, for new tasks and in that F", above=0)
    inner_steps: int = option(20, "steps of newton, at most", at_least=1)
    inner_tolerance: float = option(1e-4, "bound on |d_phi g|, where newton stops", above=0)

    def check_with(self, config: Any) -> None:
        if not config.dataset.has_images:
            raise ConfigError(
                f"algorithm=baseline classifies the images of a training split, and dataset={config.dataset.name} has "
                "none: choose another algorithm"
            )
        if not config.head.convex:
            raise ConfigError(
                f"head={config.head.name} with algorithm=baseline has no Hessian to factorise, and its new tasks' "
                "heads are found by Newton's method: set head=linear or head=ridge"
            )

    def build(self, model: MetaModel, execution: Execution, memory: MemoryConfig, losses: Losses) -> "BaselineLearner":
        return BaselineLearner(model, self, execution, losses, half_task=memory.mode == "half_task")


@dataclass(frozen=True)
class Classified:
    """What images add to A's terms of T tasks, in nats, and to the fractions classified rightly: [T], float64 the
    latter. There is no lower level: nothing is solved, and nothing is wrong."""

    loss: Tensor
    accuracy: Tensor
    inner: None = None
    linear: None = None

    def report(self) -> StepReport:
        """One gradient a task and no product of second derivatives."""
        one = torch.ones_like(self.loss, dtype=torch.int64)
        return StepReport(self.loss.detach(), self.accuracy, inexact=one == 0, gradients=one, products=one - 1)

    def __add__(self, other: "Classified") -> "Classified":
        return Classified(self.loss + other.loss, self.accuracy + other.accuracy)


class BaselineLearner(FeatureSpaceLearner):
    """`model.classifier` on the backbone's features; evaluation is that of `proposed`."""

    def __init__(
        self,
        model: MetaModel,
        config: BaselineConfig,
        execution: Execution,
        losses: Losses = SOFTMAX,
        half_task: bool = False,
    ) -> None:
        head = ProposedConfig(mu=config.mu, inner_steps=config.inner_steps, inner_tolerance=config.inner_tolerance)
        super().__init__(model, Proposed(head, losses), execution, half_task=half_task)
        self.config = config

    def _step(self, tasks: Tasks, warm: dict[str, Tensor], backward: Backward) -> tuple[Part, list[Gradients]]:
        (z_s, y_s), (z_q, y_q) = self._both_features(tasks)
        both = self._classified(z_s, y_s, tasks) + self._classified(z_q, y_q, tasks)
        return both, backward([(both.loss, torch.ones_like(both.loss))])

    def _half_steps(self, tasks: Tasks, warm: dict[str, Tensor], backward: Backward) -> tuple[Part, list[Gradients]]:
        parts, gradients = [], []
        for which in ("support", "query"):
            for images in self._parts(tasks, which):
                part = self._classified(*self._features(images, self._keys(tasks, which)), tasks)
                gradients += backward([(part.loss, torch.ones_like(part.loss))])
                parts.append(Classified(part.loss.detach(), part.accuracy))
                del images, part
        return reduce(add, parts), gradients

    def _image_steps(self, tasks: Tasks, warm: dict[str, Tensor], backward: Backward) -> tuple[Part, list[Gradients]]:
        return self._half_steps(tasks, warm, backward)

    def _both_features(self, tasks: Tasks) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        (z_s, y_s), (z_q, y_q) = super()._both_features(tasks)
        if self.model.training or self.config.power == 1:
            return (z_s, y_s), (z_q, y_q)
        return (self._tukey_transform(z_s), y_s), (self._tukey_transform(z_q), y_q)

    def _tukey_transform(self, z: Tensor) -> Tensor:
        return math.sqrt(z.size(-1)) * F.normalize(z.clamp(min=0).pow(self.config.power), dim=-1)

    def _classified(self, z: Tensor, labels: Tensor, tasks: Tasks) -> Classified:
        """What a half adds: z [T, n, d], labels [T, n] within the task."""
        assert isinstance(tasks, TaskBatch), "tasks of a training split"
        truth = tasks.classes.to(labels.device).gather(1, labels)
        logits = self.model.classify(z, self.config.scale if self.config.classifier == "cosine" else None)
        images = tasks.items[0].numel()
        loss = F.cross_entropy(logits.mT, truth, reduction="none").sum(1) / images
        return Classified(loss, (logits.detach().argmax(-1) == truth).double().sum(1) / images)
