"""A learner that shares the tasks of a batch over ranks.

It behaves as the learner that it wraps does on the whole batch. The gradient, report, scores and warm starts are those
of all tasks, and equal on every rank.
"""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from memmeta_exp.algorithms import Adapt, Learner, StepReport
from memmeta_exp.algorithms.learner import Scores
from memmeta_exp.algorithms.wrapper import LearnerWrapper
from memmeta_exp.config import Config
from memmeta_exp.data.tasks import Tasks
from memmeta_exp.distributed.process_group import GAVE_UP, Group, Ranks
from memmeta_exp.experiment.builder import Experiment, build
from memmeta_exp.experiment.execution import resolve_device
from memmeta_exp.memory.budget import build_within_budget, fit_to_budget
from memmeta_exp.utils.signals import StopAsked

COLUMNS = tuple(field.name for field in fields(StepReport) if field.name != "metrics")
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.int64, torch.bool)  # float64 holds all of them exactly
RUNNING = ("running_mean", "running_var")

T = TypeVar("T")


def build_distributed(config: Config, ranks: Ranks) -> Experiment:
    """The experiment of `config` on this rank, whose learners share their tasks with the other ranks.

    memory.budget_mib is the budget of each rank.
    """
    if not isinstance(ranks, Group):
        return build_within_budget(config)
    placed = ranks.with_device(config)
    device = resolve_device(placed.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    experiment = build(_fitted_share(placed, ranks, device), device)

    def share(learner: Learner) -> Learner:
        return ShardedLearner(learner, ranks)

    if experiment.objective is not None:
        experiment.objective.share(share)
    reference = experiment.reference and share(experiment.reference)
    return replace(experiment, learner=share(experiment.learner), reference=reference, ranks=ranks)


def _fitted_share(config: Config, ranks: Group, device: torch.device) -> Config:
    if config.memory.budget_mib is None:
        return config
    share = replace(config, batch_size=max(ranks.sizes(config.batch_size)))
    return replace(fit_to_budget(share, device), batch_size=config.batch_size)


class ShardedLearner(LearnerWrapper):
    """`inner` on all ranks: each rank computes its share of the tasks.

    All ranks must call a method together. A method that raises StopAsked, RankLost or RankFailed has changed nothing
    but .grad, on any rank.
    """

    def __init__(self, inner: Learner, ranks: Group) -> None:
        super().__init__(inner)
        self.ranks = ranks
        self._tasks = 0  # in the batch of the warm starts

    @property
    def warm(self) -> dict[str, Tensor]:
        """The warm starts of the whole batch, gathered from all ranks: any number of ranks can resume from them.

        Where there are any, reading this is a collective call: all ranks must read it together.
        """
        if not self.inner.warm:
            return {}
        self.ranks.status_all_reduce()
        sizes = self.ranks.sizes(self._tasks)
        return {key: torch.cat(self.ranks.gather(value, sizes)) for key, value in self.inner.warm.items()}

    @warm.setter
    def warm(self, warm: dict[str, Tensor]) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self._tasks = max((len(value) for value in warm.values()), default=0)
        self.inner.warm = {key: value[self.ranks.share(len(value))] for key, value in warm.items()}

    def step(self, batch: Tasks) -> StepReport:
        """.grad must be empty before."""
        assert all(p.grad is None for p in self.model.parameters())
        mine, before = batch[self.ranks.share(len(batch))], self.inner.warm
        try:
            report = self._together(lambda: self.inner.step(mine) if len(mine) else None)
            whole = self._whole_report(report, len(batch))
            self._sum_gradients(len(mine), len(batch))
        except BaseException:
            self.inner.warm = before
            raise
        self._tasks = len(batch)
        return whole

    def evaluate(self, batch: Tasks, adapt: Adapt | None = None) -> Scores:
        mine = batch[self.ranks.share(len(batch))]

        def scores() -> Tensor:
            if not len(mine):
                return torch.empty(0, 3, dtype=torch.float64)
            accuracy, loss, converged = self.inner.evaluate(mine, adapt)
            return torch.stack([torch.full_like(loss, torch.nan) if accuracy is None else accuracy, loss, converged], 1)

        accuracy, loss, converged = self._gathered(self._together(scores), len(batch)).unbind(1)
        return None if bool(accuracy.isnan().all()) else accuracy, loss, converged

    def _evaluate(self, batch: Tasks) -> Scores:
        return self.evaluate(batch)

    def outputs(self, batch: Tasks, adapt: Adapt | None = None) -> Tensor:
        """Each rank computes all outputs: they are few, and are drawn as curves."""
        return self.inner.outputs(batch, adapt)

    def _outputs(self, batch: Tasks) -> Tensor:
        return self.outputs(batch)

    def update_running_stats(self, batch: Tasks, weight: float) -> None:
        """As for one learner on the whole batch: the mean of the ranks' results, weighted by their numbers of tasks."""
        mine = batch[self.ranks.share(len(batch))]
        buffers = [b for name, b in self.model.named_buffers() if name.rpartition(".")[2] in RUNNING]
        before = [b.clone() for b in buffers]
        try:
            self._together(lambda: self.inner.update_running_stats(mine, weight))
            flat = torch.cat([b.flatten() for b in buffers]).mul_(len(mine) / len(batch))
            self.ranks.sum_(flat)
        except BaseException:
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)
            raise
        for buffer, value in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
            buffer.copy_(value.view_as(buffer))

    def _together(self, work: Callable[[], T]) -> T:
        """The result of this rank's `work`, once all ranks have finished theirs."""
        try:
            found = work()
        except StopAsked:
            self.ranks.status_all_reduce(GAVE_UP)
            raise
        self.ranks.status_all_reduce()
        return found

    def _gathered(self, rows: Tensor, count: int) -> Tensor:
        return torch.cat(self.ranks.gather(rows, self.ranks.sizes(count)))

    def _whole_report(self, mine: StepReport | None, count: int) -> StepReport:
        """The report of all tasks, in order, on this rank's device.

        A first row holds the type of each column, 0 for a column that is missing: a rank without tasks does not know.
        Nor does it know the names of an algorithm's own metrics, so these are left out where there is such a rank.
        """
        own = dict(mine.metrics) if mine is not None and min(self.ranks.sizes(count)) else {}
        values: list[Any] = [*(getattr(mine, name, None) for name in COLUMNS), *own.values()]
        kinds = torch.tensor([[0 if v is None else 1 + DTYPES.index(v.dtype) for v in values]], dtype=torch.float64)
        rows = max((len(v) for v in values if v is not None), default=0)
        columns = [torch.zeros(rows, dtype=torch.float64) if v is None else v.detach().double().cpu() for v in values]
        sizes = [1 + size for size in self.ranks.sizes(count)]
        parts = self.ranks.gather(torch.cat([kinds, torch.stack(columns, 1)]), sizes)
        kind = torch.stack([part[0] for part in parts]).amax(0).long().tolist()
        table = torch.cat([part[1:] for part in parts]).to(self.model.head_start.device)
        found = [table[:, at].to(DTYPES[kind[at] - 1]) if kind[at] else None for at in range(len(values))]
        metrics: Any = dict(zip(own, found[len(COLUMNS) :], strict=True))
        return StepReport(**dict(zip(COLUMNS, found, strict=False)), metrics=metrics)  # pyright: ignore[reportArgumentType] - None where the algorithm has None

    def _sum_gradients(self, mine: int, count: int) -> None:
        """Replaces .grad, the mean over this rank's `mine` tasks, by the mean over all `count` tasks, on every rank."""
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients]).mul_(mine / count)
        self.ranks.sum_(flat)
        for parameter, piece in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            if parameter.grad is not None:
                parameter.grad.copy_(piece.view_as(parameter))
            elif not mine:
                parameter.grad = piece.view_as(parameter).clone()
