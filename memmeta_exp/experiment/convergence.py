"""The convergence measure of the paper: the mean over validations of |dF/dtheta|^2, on a fixed set of tasks."""

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


class RunningMean:
    """Mean of the values so far, (1/n) sum x_i: over the logged |dF/dtheta|^2 it is convergence/error."""

    def __init__(self) -> None:
        self.mean = math.nan  # of no values
        self.count = 0

    def update(self, value: float) -> float:
        """Adds one value and returns the new mean. After a NaN the mean stays NaN: a diverged run does not recover."""
        self.count += 1
        self.mean = value if self.count == 1 else self.mean + (value - self.mean) / self.count
        return self.mean

    def state_dict(self) -> dict[str, float | int]:
        """For a checkpoint."""
        return {"mean": self.mean, "count": self.count}

    def load_state_dict(self, state: dict[str, float | int]) -> None:
        """Continues from what `state_dict` returned."""
        self.mean, self.count = float(state["mean"]), int(state["count"])
