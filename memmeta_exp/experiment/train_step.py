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
    """Samples, accumulates the meta-gradient and steps theta: `iteration.clear(); iteration(t)` for t = 1, 2, ..

    What is timed and metered as an iteration is the call alone: gradients are freed before it, and made in it. A call
    that raises before the gradient is whole leaves all but .grad as it was: RunError where the gradient is not finite,
    and what the learner's `check_interrupt` raises.
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
        if weight and e.config.backbone.norm == "running":  # at the theta of the gradient, once the step is certain
            e.learner.update_running_stats(batch, weight)
        with phase("optimizer"):
            if e.config.optimizer.clip_norm is not None:
                clip_grad_norm_(self._parameters(), e.config.optimizer.clip_norm)
            self.optimizer.step()
            if self.average is not None:
                self.average.update_parameters(e.model)
        return report

    def _require_finite(self, report: StepReport, t: int) -> None:
        if report.loss.is_meta:  # shapes alone, when memory is predicted
            return
        norm = squared_norm(p.grad for p in self._parameters() if p.grad is not None).sqrt()
        loss, norm = torch.stack([report.loss.mean().double(), norm]).tolist()  # read back from the device at once
        if not math.isfinite(norm) or not math.isfinite(loss):
            raise RunError(
                f"at iteration {t} train/loss is {loss:g} and the norm of the meta-gradient {norm:g}: {REMEDY}; "
                "theta is as it was before this iteration"
            )

    def _parameters(self) -> list[torch.nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def persistent(self) -> list[Any]:
        """What stays between iterations and is not replaced in one: parameters and buffers, their average, optimiser
        state, training images. (Warm starts are replaced; a meter takes them for what was there when it meets them.)"""
        average = [] if self.average is None else [self.average]
        return [self.experiment.model, *average, self.optimizer, self.experiment.samplers["train"].tensors]
