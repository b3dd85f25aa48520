"""Finite sets of tasks, on which F, the mean over all tasks, can be computed exactly."""

from dataclasses import dataclass

import torch
from torch import Tensor

from memmeta_exp.data.counter_rng import GAMMA, mix, root_key
from memmeta_exp.data.tasks import Tasks


@dataclass(frozen=True, eq=False)
class TaskIndices:
    """T tasks given by their indices in a finite set, int64 [T]. Backbone and losses hold the data."""

    index: Tensor
    origin: None = None

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, tasks: slice | Tensor) -> "TaskIndices":
        return TaskIndices(self.index[tasks])

    def support(self) -> tuple[Tensor, Tensor]:
        """The indices, as input of the backbone and as labels."""
        return self.index, self.index

    def query(self) -> tuple[Tensor, Tensor]:
        """As `support`."""
        return self.index, self.index


class FiniteSampler:
    """Draws from `tasks`, the complete set of n tasks.

    sampling: `random`: draw k is uniform among the tasks, a pure function of (seed, k). Draws are with replacement, so
    the variance of a mean over B draws falls exactly as 1/B. `all`: every draw is the whole set in its order.
    """

    def __init__(self, tasks: Tasks, sampling: str, seed: int, device: torch.device) -> None:
        self.tasks, self.sampling, self.device = tasks, sampling, device
        self._root = root_key(f"finite/{seed}")

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors that it keeps in memory, except those of the problem."""
        return [value for value in vars(self.tasks).values() if isinstance(value, Tensor)]

    def draw(self, first: int, count: int) -> Tasks:
        """Draws first, .., first + count - 1."""
        if self.sampling == "all":
            assert count == len(self.tasks), (count, len(self.tasks))
            return self.tasks
        keys = mix(torch.arange(first, first + count, device=self.device) * GAMMA + self._root)
        return self.tasks[keys.remainder(len(self.tasks))]  # uniform up to n / 2^64
