"""One outer training step, shared by training, profiling and memory prediction."""

import math
from typing import Any

import torch
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel

from memmeta_exp.algorithms import StepReport
from memmeta_exp.backbones import running_weight
from memmeta_exp.experiment.builder import Experiment
from memmeta_exp.experiment.convergence import squared_norm
from memmeta_exp.profiling.phases import phase
from memmeta_exp.utils.errors import RunError

REMEDY = "the lower level or theta has diverged; lower optimizer.lr or algorithm.inner_lr, or raise algorithm.mu"


class TrainStep:
    """Samples tasks, accumulates the meta-gradient and steps theta: `step.clear(); step(t)` for t = 1, 2, ..

    The call alone is timed and metered as an iteration: `clear` frees gradients before it. A call raises RunError where
    the gradient is not finite, and whatever the learner's `check_interrupt` raises. It then has changed nothing but
    .grad.
    """

    def __init__(
        self, experiment: Experiment, optimizer: torch.optim.Optimizer, average: AveragedModel | None = None
    ) -> None:
        self.experiment, self.optimizer, self.average = experiment, optimizer, average

    def clear(self) -> None:
        """Frees the last iteration's gradients."""
        self.optimizer.zero_grad(set_to_none=True)

    def __call__(self, t: int) -> StepReport:
        e, size = self.experiment, self.experiment.config.batch_size
        with phase("sampling"):
            batch = e.samplers["train"].draw((t - 1) * size, size)
        report = e.learner.step(batch)
        self._require_finite(report, t)
        weight = running_weight(t, e.config.eval_every, e.config.iterations)
        if weight and e.config.backbone.norm == "running":  # before theta moves, and after the check of the gradient
            e.learner.update_running_stats(batch, weight)
        with phase("optimizer"):
            if e.config.optimizer.clip_norm is not None:
                clip_grad_norm_(self._parameters(), e.config.optimizer.clip_norm)
            self.optimizer.step()
            if self.average is not None:
                self.average.update_parameters(e.model)
        return report

    def _require_finite(self, report: StepReport, t: int) -> None:
        if report.loss.is_meta:  # memory prediction: there are no values
            return
        norm = squared_norm(p.grad for p in self._parameters() if p.grad is not None).sqrt()
        loss, norm = torch.stack([report.loss.mean().double(), norm]).tolist()  # one read from the device
        if not math.isfinite(norm) or not math.isfinite(loss):
            raise RunError(
                f"at iteration {t} train/loss is {loss:g} and the norm of the meta-gradient {norm:g}: {REMEDY}; "
                "theta is as it was before this iteration"
            )

    def _parameters(self) -> list[torch.nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def persistent(self) -> list[Any]:
        """What persists between iterations: parameters, buffers, their average, optimiser state and training images.

        Warm starts are missing because every iteration replaces them. A meter adds them to the baseline when it first
        sees them as arguments.
        """
        average = [] if self.average is None else [self.average]
        return [self.experiment.model, *average, self.optimizer, self.experiment.samplers["train"].tensors]
