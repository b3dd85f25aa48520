"""One upper iteration: the step that training repeats, `memmeta profile` takes apart and its prediction foretells."""

from typing import Any

import torch

from memmeta_exp.algorithms import StepReport
from memmeta_exp.build import Experiment
from memmeta_exp.measure.phases import phase


class Iteration:
    """Samples, accumulates the meta-gradient and steps theta: `iteration.clear(); iteration(t)` for t = 1, 2, ..

    What is timed and metered as an iteration is the call alone: gradients are freed before it, and made in it.
    """

    def __init__(self, experiment: Experiment, optimizer: torch.optim.Optimizer) -> None:
        self.experiment, self.optimizer = experiment, optimizer

    def clear(self) -> None:
        """Frees the last iteration's gradients."""
        self.optimizer.zero_grad(set_to_none=True)

    def __call__(self, t: int) -> StepReport:
        e, size = self.experiment, self.experiment.config.batch_size
        with phase("sampling"):
            batch = e.samplers["train"].draw((t - 1) * size, size)
        if e.config.backbone.norm == "running":
            e.learner.record(batch)
        report = e.learner.step(batch)
        with phase("optimizer"):
            self.optimizer.step()
        return report

    def persistent(self) -> list[Any]:
        """What stays between iterations and is not replaced in one: parameters and buffers, optimiser state, training
        images. (Warm starts are replaced; a meter takes them for what was there when it meets them.)"""
        return [self.experiment.model, self.optimizer, self.experiment.samplers["train"].tensors]
