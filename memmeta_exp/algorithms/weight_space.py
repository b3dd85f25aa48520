"""The meta-step of algorithms whose inner steps run the backbone: MAML, FOMAML, iMAML, and ANIL and ITD-BiO with
features=recompute.

They take one task at a time and free its graph before the next. On a CPU this is faster than vmap over tasks and needs
less memory, and torch's vmap over batch norm gives wrong second derivatives.

Where backbone and losses support weights per task (a small perceptron on points), `tasks_per_pass` tasks are stacked:
every weight is [T, ...]. The tasks' losses share no weight, so the gradient of their sum holds the gradient of each.
"""

import copy
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.func import functional_call

from memmeta_exp.algorithms.learner import Execution, Learner, Scores, require_methods
from memmeta_exp.algorithms.losses import SOFTMAX, Losses
from memmeta_exp.algorithms.step_report import StepReport
from memmeta_exp.backbones import Keys, MetaModel
from memmeta_exp.data.episodes import half
from memmeta_exp.data.tasks import Tasks

Weights = dict[str, Tensor]
HEAD = "head_start"


class Task:
    """The losses of one task, or of T stacked tasks, as functions of the network's weights by name.

    meta: the weights to start from, detached. learned: the names of those that are meta-parameters. gradients,
    products: how many of each were evaluated (see StepReport); the algorithm counts them here.
    """

    gradients = products = 0

    def __init__(self, learner: "WeightSpaceLearner", tasks: Tasks) -> None:
        self._learner, self._network = learner, learner.network()
        device = learner.model.head_start.device
        halves = (half(tasks, "support"), half(tasks, "query"))
        self.stacked = learner.stacked
        (x_s, y_s), (x_q, y_q) = ((h, (h.labels if self.stacked else h.labels[0]).to(device)) for h in halves)
        self._support = learner._scaled(x_s), y_s, learner._keys(tasks, "support")
        self._query = learner._scaled(x_q), y_q, learner._keys(tasks, "query")
        self.meta: Weights = {name: p.detach() for name, p in learner.model.named_parameters()}
        self.learned = tuple(self.meta)
        self.meta.setdefault(HEAD, learner.model.head_start)
        if self.stacked:
            self.meta = {name: w.expand(len(tasks), *w.shape) for name, w in self.meta.items()}
        self._rest = {name: b for name, b in learner.model.named_buffers() if name not in self.meta}

    def passed(self, _: Tensor) -> None:
        """A hook on d_phi g: counts a product each time that differentiation passes through d_phi g."""
        self.products += 1

    def support_loss(self, weights: Weights) -> Tensor:
        """g without R, a scalar; the sum over stacked tasks."""
        images, labels, keys = self._support
        loss = self._learner.losses.support(self._output(weights, images, keys), labels)
        return loss.sum() if self.stacked else loss

    def query_loss(self, weights: Weights) -> tuple[Tensor, Tensor | None]:
        """f and the query accuracy (detached, float64; None where there are no classes): scalars, or [T]."""
        return self._learner.losses.query(self.query_output(weights), self._query[1])

    def query_output(self, weights: Weights) -> Tensor:
        """The network's output for the query set, [m, C], or [T, m, C]."""
        images, _, keys = self._query
        return self._output(weights, images, keys)

    def _output(self, weights: Weights, images: Tensor, keys: Keys | None) -> Tensor:
        with self._learner._autocast():
            output = functional_call(self._network, {**self._rest, **weights}, (images, keys))
            return (output if self.stacked else output[0]).to(self._learner.head_dtype)


@dataclass(frozen=True)
class TaskGradient:
    """The result of one task: scalars; of T stacked tasks: [T, ...] each.

    loss, accuracy: on the query set after adaptation. grads: the meta-gradient by name; a missing name means 0. The
    other fields are those of StepReport.
    """

    loss: Tensor
    accuracy: Tensor | None
    grads: Weights
    inexact: Tensor
    gradients: int
    products: Tensor | int
    inner_residual: Tensor | None = None
    inner_steps: int | None = None
    linear_residual: Tensor | None = None
    linear_steps: Tensor | None = None
    metrics: Mapping[str, Tensor] = field(default_factory=dict)

    def report(self) -> StepReport:
        """The report of this task, or of these T tasks, as of a batch."""

        names = (field.name for field in fields(self) if field.name != "grads")
        return StepReport(**{name: _per_task(getattr(self, name), self.loss) for name in names})


def _per_task(value: Any, loss: Tensor) -> Any:
    """`value` as one number for each task, as many as `loss` has; of a mapping, each of its values."""
    if isinstance(value, Mapping):
        return {key: each.reshape(-1) for key, each in value.items()}
    if isinstance(value, int):
        return torch.full_like(loss, value, dtype=torch.int64).reshape(-1)
    return None if value is None else value.reshape(-1)


class WeightAlgorithm(Protocol):
    """The interface of an algorithm that adapts weights of the network.

    `adapt` returns all weights by name after adaptation, without a graph. `meta_gradient` returns the result of one
    task.
    """

    def adapt(self, task: Task) -> Weights: ...

    def meta_gradient(self, task: Task) -> TaskGradient: ...


class WeightSpaceLearner(Learner):
    """Runs a weight algorithm on a model: one task at a time, or a chunk where the backbone takes weights per task."""

    def __init__(
        self, model: MetaModel, algorithm: WeightAlgorithm, execution: Execution, losses: Losses = SOFTMAX
    ) -> None:
        require_methods(algorithm, "adapt", "meta_gradient")
        super().__init__(model, execution, losses)
        self.algorithm = algorithm
        self._networks = threading.local()
        self.stacked = losses.supports_per_task_weights and getattr(model.backbone, "supports_per_task_weights", False)

    @property
    def tasks_per_pass(self) -> int:
        """Tasks in one pass of the backbone."""
        return self.execution.tasks_per_pass if self.stacked else 1

    def network(self) -> MetaModel:
        """This thread's copy of the model, without storage. functional_call puts weights into a module while it runs,
        so two threads cannot share one."""
        if not hasattr(self._networks, "mine"):
            with torch.device("meta"):
                self._networks.mine = copy.deepcopy(self.model).to("meta")
        return self._networks.mine.train(self.model.training)

    def step(self, batch: Tasks) -> StepReport:
        parameters, reports = dict(self.model.named_parameters()), []
        for part in self._map(lambda _, one: self.algorithm.meta_gradient(Task(self, one)), batch, self.tasks_per_pass):
            for name, gradient in part.grads.items():
                whole = gradient.sum(0) if self.stacked else gradient
                _accumulate(parameters[name], whole, 1 / len(batch))
            reports.append(part.report())
            del part
        return StepReport.join(reports)

    def _evaluate(self, batch: Tasks) -> Scores:
        def score(_: int, one: Tasks) -> tuple[Tensor, Tensor | None]:
            task = Task(self, one)
            weights = self.algorithm.adapt(task)
            with torch.no_grad():
                loss, accuracy = task.query_loss(weights)
            return loss.double(), accuracy

        losses, accuracies = zip(*self._map(score, batch, self.tasks_per_pass), strict=True)
        loss = torch.cat(losses) if self.stacked else torch.stack(losses)
        return None if accuracies[0] is None else torch.stack(accuracies), loss, loss.isfinite().double()

    def _outputs(self, batch: Tasks) -> Tensor:
        def output(_: int, one: Tasks) -> Tensor:
            task = Task(self, one)
            weights = self.algorithm.adapt(task)
            with torch.no_grad():
                return task.query_output(weights)

        found = list(self._map(output, batch, self.tasks_per_pass))
        return torch.cat(found) if self.stacked else torch.stack(found)


def _accumulate(parameter: Tensor, gradient: Tensor, scale: float) -> None:
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    parameter.grad.add_(gradient, alpha=scale)
