"""Baseline (Chen et al. 2019; Tian et al. 2020): no meta-gradient. Training fits the backbone and one linear classifier
of all classes of the training split. A task of new classes gets a head of its own, as in `proposed`.

With z_i the features of a task's n + m images, c_i their classes in the training split and V [classes, d+1]:

    A = mean over tasks of  1/(n+m) sum_i CE(V z_i, c_i)      (V's last column the bias),   minimised over theta and V

With classifier=cosine (Baseline++) the loss is CE(scale <z_i / |z_i|, v_c / |v_c|>), where v_c are the rows of V
without the last column. Support and query are treated alike, except that each half has its own batch-norm statistics,
as in adaptation. With power < 1, new tasks see sqrt(d) z^power / |z^power| in place of z.
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
from memmeta_exp.algorithms.learner import Execution
from memmeta_exp.algorithms.losses import SOFTMAX, Losses
from memmeta_exp.algorithms.proposed import Proposed, ProposedConfig
from memmeta_exp.algorithms.step_report import StepReport
from memmeta_exp.backbones import MetaModel
from memmeta_exp.config import AlgorithmConfig, MemoryConfig, option, register
from memmeta_exp.data.episodes import TaskBatch
from memmeta_exp.data.tasks import Tasks
from memmeta_exp.utils.errors import ConfigError


@register
@dataclass(frozen=True)
class BaselineConfig(AlgorithmConfig):
    """Baseline (Chen et al. 2019), without a meta-gradient. Training classifies the images of its tasks among all
    classes of the training split. Newton's method fits the head of a new task, as in `proposed`."""

    label: ClassVar[str] = "Baseline"
    color: ClassVar[str] = "#000000"
    marker: ClassVar[str] = "X"
    classifies = True
    name: str = "baseline"
    classifier: str = option(
        "linear", "training's classifier: linear (Baseline), or cosine (Baseline++)", choices=("cosine", "linear")
    )
    scale: float = option(10.0, "scale of the cosines", above=0)
    power: float = option(
        1.0,
        "new tasks see z^power, scaled to length sqrt(d), with negative features set to 0 (Tukey's transform, Yang et "
        "al. 2021); 1: z unchanged; the F whose gradient is measured always sees z",
        above=0,
        at_most=1,
    )
    mu: float = option(0.1, "weight of R(phi) = mu/2 |phi|^2 in g, for new tasks and in the measured F", above=0)
    inner_steps: int = option(20, "the most steps of Newton's method", at_least=1)
    inner_tolerance: float = option(1e-4, "Newton's method stops once |d_phi g| is at most this", above=0)

    def check_with(self, config: Any) -> None:
        if not config.dataset.has_images:
            raise ConfigError(
                f"algorithm=baseline classifies images, and dataset={config.dataset.name} has none: choose another "
                "algorithm"
            )
        if not config.head.convex:
            raise ConfigError(
                f"head={config.head.name} with algorithm=baseline has no Hessian to factorise, which Newton's method "
                "needs for the heads of new tasks: set head=linear or head=ridge"
            )

    def build(self, model: MetaModel, execution: Execution, memory: MemoryConfig, losses: Losses) -> "BaselineLearner":
        return BaselineLearner(model, self, execution, losses, half_task=memory.mode == "half_task")


@dataclass(frozen=True)
class Classified:
    """The share of some images in the loss A (nats, [T]) and in the accuracy (float64 [T]) of T tasks.

    There is no lower level, so there are no solves.
    """

    loss: Tensor
    accuracy: Tensor
    inner: None = None
    linear: None = None

    def report(self) -> StepReport:
        """One gradient and no product for each task; none is inexact."""
        one = torch.ones_like(self.loss, dtype=torch.int64)
        return StepReport(self.loss.detach(), self.accuracy, inexact=one == 0, gradients=one, products=one - 1)

    def __add__(self, other: "Classified") -> "Classified":
        return Classified(self.loss + other.loss, self.accuracy + other.accuracy)


class BaselineLearner(FeatureSpaceLearner):
    """Trains `model.classifier` on the backbone's features; evaluates as `proposed` does."""

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
        """The share of one half: z [T, n, d], labels [T, n] in 0..C-1 within the task."""
        assert isinstance(tasks, TaskBatch), "tasks of a training split"
        classes = tasks.classes.to(labels.device).gather(1, labels)
        logits = self.model.classify(z, self.config.scale if self.config.classifier == "cosine" else None)
        images = tasks.items[0].numel()
        loss = F.cross_entropy(logits.mT, classes, reduction="none").sum(1) / images
        return Classified(loss, (logits.detach().argmax(-1) == classes).double().sum(1) / images)
