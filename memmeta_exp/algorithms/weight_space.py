"""The meta-step of algorithms whose inner steps run the backbone: MAML, FOMAML, iMAML, and ANIL and ITD-BiO with
recomputed features. One task at a time, whose graph is freed before the next: looping is both faster and smaller than
vmap over tasks on a CPU (and vmap over batch norm gives wrong second derivatives in torch)."""

import copy
import threading
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from memmeta_exp.algorithms.learner import Execution, Learner, Scores, StepReport
from memmeta_exp.backbones import Keys, MetaModel
from memmeta_exp.data.episodes import TaskBatch

Weights = dict[str, Tensor]
HEAD = "head_start"


class Task:
    """One task's losses as functions of the network's weights, all of them by name.

    meta: the weights to start from, detached; learned: the names of those that are meta-parameters.
    """

    def __init__(self, learner: "WeightSpaceLearner", tasks: TaskBatch) -> None:
        self._learner, self._network = learner, learner.network()
        (x_s, y_s), (x_q, y_q) = tasks.support(), tasks.query()
        device = learner.model.head_start.device
        self._support = learner._scaled(x_s), y_s[0].to(device), learner._keys(tasks, "support")
        self._query = learner._scaled(x_q), y_q[0].to(device), learner._keys(tasks, "query")
        self.meta: Weights = {name: p.detach() for name, p in learner.model.named_parameters()}
        self.learned = tuple(self.meta)
        self.meta.setdefault(HEAD, learner.model.head_start)
        self._rest = {name: b for name, b in learner.model.named_buffers() if name not in self.meta}

    def support_loss(self, weights: Weights) -> Tensor:
        """Mean cross-entropy of the support set, a scalar."""
        return self._loss(weights, *self._support)[0]

    def query_loss(self, weights: Weights) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy and accuracy (detached, float64) of the query set, scalars."""
        loss, logits = self._loss(weights, *self._query)
        return loss, (logits.detach().argmax(-1) == self._query[1]).double().mean()

    def _loss(self, weights: Weights, images: Tensor, labels: Tensor, keys: Keys | None) -> tuple[Tensor, Tensor]:
        with self._learner._autocast():
            logits = functional_call(self._network, {**self._rest, **weights}, (images, keys))[0].to(
                self._learner.head_dtype
            )
        return F.cross_entropy(logits, labels), logits


@dataclass(frozen=True)
class TaskGradient:
    """One task's query loss and accuracy after adaptation, its meta-gradient by name (what is missing is 0), and its
    diagnosis, scalars each (see StepReport)."""

    loss: Tensor
    accuracy: Tensor
    grads: Weights
    wrong: Tensor
    inner_residual: Tensor | None = None
    linear_residual: Tensor | None = None

    def report(self) -> StepReport:
        """Its diagnosis as a batch of one."""
        optional = (self.inner_residual, self.linear_residual)
        rest = (None if value is None else value.reshape(1) for value in optional)
        return StepReport(self.loss.reshape(1), self.accuracy.reshape(1), self.wrong.reshape(1), *rest)


class WeightRule(Protocol):
    """What an algorithm in weight space is: its adaptation, without a graph, and its meta-gradient of one task."""

    def adapt(self, task: Task) -> Weights: ...

    def meta_gradient(self, task: Task) -> TaskGradient: ...


class WeightSpaceLearner(Learner):
    """A rule on a model, task by task."""

    def __init__(self, model: MetaModel, rule: WeightRule, execution: Execution) -> None:
        super().__init__(model, execution)
        self.rule = rule
        self._networks = threading.local()

    def network(self) -> MetaModel:
        """This thread's own copy of the model's structure, without storage: functional_call puts weights into a module
        while it runs, which two threads cannot do with one."""
        if not hasattr(self._networks, "mine"):
            with torch.device("meta"):
                self._networks.mine = copy.deepcopy(self.model).to("meta")
        return self._networks.mine.train(self.model.training)

    def step(self, batch: TaskBatch) -> StepReport:
        parameters, reports = dict(self.model.named_parameters()), []
        for part in self._map(lambda _, one: self.rule.meta_gradient(Task(self, one)), batch, 1):
            for name, gradient in part.grads.items():
                _accumulate(parameters[name], gradient, 1 / len(batch))
            reports.append(part.report())
            del part
        return StepReport.join(reports)

    def _evaluate(self, batch: TaskBatch) -> Scores:
        def score(_: int, one: TaskBatch) -> tuple[Tensor, Tensor]:
            task = Task(self, one)
            weights = self.rule.adapt(task)
            with torch.no_grad():
                loss, accuracy = task.query_loss(weights)
            return accuracy, loss.double()

        accuracies, losses = zip(*self._map(score, batch, 1), strict=True)
        loss = torch.stack(losses)
        return torch.stack(accuracies), loss, loss.isfinite().double()


def _accumulate(parameter: Tensor, gradient: Tensor, scale: float) -> None:
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    parameter.grad.add_(gradient, alpha=scale)
