"""The convergence measure of the paper: the mean over iterations of |dF/dtheta|^2, on a fixed set of tasks."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


def squared_norm(tensors: Iterable[Tensor]) -> Tensor:
    """sum |t|^2 over `tensors` as one float64 scalar on their device; 0 for none. It does not synchronise a GPU.

    It accumulates in float64, so that millions of float32 entries lose no precision.
    """
    norms = [torch.linalg.vector_norm(tensor.detach(), dtype=torch.float64) for tensor in tensors]
    return torch.stack(norms).square().sum() if norms else torch.zeros((), dtype=torch.float64)


def gradient_norm_sq(learner: Any, tasks: Any) -> tuple[float, Any]:
    """|g|^2 of the meta-gradient g of `learner` over `tasks`, and the report of its step.

    It clears .grad and the learner's warm starts before and after.
    """
    learner.model.zero_grad(set_to_none=True)
    learner.warm = {}
    report = learner.step(tasks)
    norm = float(squared_norm([p.grad for p in learner.model.parameters() if p.grad is not None]))
    learner.model.zero_grad(set_to_none=True)
    learner.warm = {}
    return norm, report


class ConvergenceError:
    """(1/(t+1)) sum_{s=0..t} x_s, the mean of x = |grad F|^2 over the iterations so far: convergence/error.

    Between two iterations at which x was measured it is taken to be linear (trapezoid). mean: of those numbers.
    coarseness: where x is monotone between measurements, the true mean lies within `mean` +- `coarseness`; 0 where
    every iteration was measured.
    """

    def __init__(self) -> None:
        self.mean = math.nan  # of no values
        self.coarseness = 0.0
        self._iteration, self._value = -1, math.nan

    def update(self, iteration: int, value: float) -> float:
        """Takes in x at `iteration`, later than all before, and returns the new mean; a NaN stays. The first value
        stands for all iterations up to it."""
        steps = iteration - self._iteration
        assert steps > 0, (iteration, self._iteration)
        before = value if self._iteration < 0 else self._value
        block = value + (before - value) * (steps - 1) / (2 * steps)  # mean of the line over the iterations after
        gap = abs(value - before) * (steps - 1) / (2 * steps)  # the block's mean is within block +- gap
        count = iteration + 1
        self.coarseness += (gap - self.coarseness) * steps / count
        self.mean = block if self._iteration < 0 else self.mean + (block - self.mean) * steps / count
        self._iteration, self._value = iteration, value
        return self.mean
