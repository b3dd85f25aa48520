"""Analytic problems: tasks, model and objective. They have finitely many tasks, so F itself can be measured."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from memmeta_exp.algorithms import Execution, Learner
from memmeta_exp.algorithms.losses import SOFTMAX, Losses, QuadraticLosses
from memmeta_exp.algorithms.proposed import exact_reference
from memmeta_exp.backbones import MetaModel, QuadraticModel, build_model
from memmeta_exp.bilevel import QuadraticObjective, QuadraticTasks
from memmeta_exp.config import Config
from memmeta_exp.data import EpisodeSampler, FiniteSampler, TaskIndices, load_split
from memmeta_exp.data.quadratic import draw_tasks
from memmeta_exp.data.tasks import Tasks
from memmeta_exp.experiment.convergence import gradient_norm_sq, squared_norm

INNER_TOLERANCE = 1e-12  # on |d_phi g|, where F has no closed form


class ExactObjective(ABC):
    """F at the model's current parameters. smoothness: L_F where it is known. learners: those that compute F."""

    smoothness: float | None = None
    learners: tuple[Learner, ...] = ()

    @abstractmethod
    def measure(self) -> dict[str, float]:
        """F as val/loss, |grad F|^2 and other measures of theta, by their keys of docs/outputs.md."""

    def share(self, share: Callable[[Learner], Learner]) -> None:  # noqa: B027 - a closed form has none
        """Replaces each of its learners by share(learner)."""


class ClosedForm(ExactObjective):
    """F of quadratic tasks."""

    def __init__(self, objective: QuadraticObjective, model: MetaModel) -> None:
        self.objective, self.model, self.smoothness = objective, model, objective.smoothness

    def measure(self) -> dict[str, float]:
        u, objective = self._parameters(), self.objective
        suboptimality = objective.suboptimality(u)
        return {
            "val/loss": objective.least + suboptimality,
            "convergence/grad_norm_sq": float(squared_norm([objective.grad(u)])),
            "convergence/suboptimality": suboptimality,
            "convergence/distance": objective.distance(u),
            "convergence/inexact_fraction": 0.0,
        }

    def _parameters(self) -> Tensor:
        """u = theta, or (theta, phi_0), in float64."""
        start = self.model.head_start
        parts = [*self.model.backbone.parameters(), *([start] if isinstance(start, torch.nn.Parameter) else [])]
        return torch.cat([part.detach().flatten().to(self.objective.hessian) for part in parts])


class NumericalObjective(ExactObjective):
    """F by solving the lower level of all `tasks` with `learner`."""

    def __init__(self, learner: Learner, tasks: Tasks) -> None:
        self.learner, self.tasks, self.learners = learner, tasks, (learner,)

    def share(self, share: Callable[[Learner], Learner]) -> None:
        self.learner = share(self.learner)
        self.learners = (self.learner,)

    def measure(self) -> dict[str, float]:
        norm, report = gradient_norm_sq(self.learner, self.tasks)
        accuracy = {} if report.accuracy is None else {"val/acc": float(report.accuracy.mean())}
        return {
            "val/loss": float(report.loss.double().mean()),
            **accuracy,
            "convergence/grad_norm_sq": norm,
            "convergence/inexact_fraction": float(report.inexact.double().mean()),
        }


class OwnGradient(ExactObjective):
    """As `exact`, but |grad F|^2 is that of the meta-gradient of `learner` over all `tasks`."""

    def __init__(self, exact: ExactObjective, learner: Learner, tasks: Tasks) -> None:
        self.exact, self.learner, self.tasks, self.smoothness = exact, learner, tasks, exact.smoothness
        self.learners = (*exact.learners, learner)

    def share(self, share: Callable[[Learner], Learner]) -> None:
        self.exact.share(share)
        self.learner = share(self.learner)
        self.learners = (*self.exact.learners, self.learner)

    def measure(self) -> dict[str, float]:
        norm, report = gradient_norm_sq(self.learner, self.tasks)
        inexact = float(report.inexact.double().mean())
        return {**self.exact.measure(), "convergence/grad_norm_sq": norm, "convergence/inexact_fraction": inexact}


@dataclass(frozen=True)
class AnalyticProblem:
    """The model, losses and sampler of a problem. quadratic: its tasks in float64, None for other problems."""

    model: MetaModel
    losses: Losses
    sampler: FiniteSampler
    quadratic: QuadraticTasks | None = None

    def objective(self, config: Config, execution: Execution, own: Learner | None) -> ExactObjective:
        """F with weight config.reference_mu of R. own: a learner whose meta-gradient replaces grad F in measures."""
        learned, tasks = config.algorithm.head_start == "learned", self.sampler.tasks
        if self.quadratic is not None:
            objective = ClosedForm(QuadraticObjective(self.quadratic, config.reference_mu, learned), self.model)
        else:
            start = config.algorithm.head_start
            exact = exact_reference(self.model, config.reference_mu, start, execution, INNER_TOLERANCE)
            objective = NumericalObjective(exact, tasks)
        return objective if own is None else OwnGradient(objective, own, tasks)


def analytic_problem(config: Config, device: torch.device, dtype: torch.dtype) -> AnalyticProblem:
    """The problem that `config.dataset` describes, theta and phi_0 a function of config.seed."""
    d, learned = config.dataset, config.algorithm.head_start == "learned"
    if d.name == "quadratic":
        quadratic = draw_tasks(d).to(device, torch.float64)
        model, losses = (
            QuadraticModel(d.dim_theta, d.dim_phi, learned, config.seed),
            QuadraticLosses(quadratic.to(device, dtype)),
        )
        tasks = TaskIndices(torch.arange(d.tasks, device=device))
    else:
        quadratic, losses = None, SOFTMAX
        model = build_model(config.backbone, d.inputs, 1, config.ways, learned, config.seed)
        inputs = load_split(d, "train").to(device)
        episodes = EpisodeSampler(inputs, "train", d.seed, config.ways, config.shots, config.queries)
        tasks = replace(episodes.draw(0, d.tasks), origin=None)
    sampler = FiniteSampler(tasks, config.sampling, config.seed, device)
    return AnalyticProblem(model.to(device=device, dtype=dtype), losses, sampler, quadratic)
