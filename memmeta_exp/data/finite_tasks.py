"""Task sets that are finite, so that F is a mean over tasks that can all be taken."""

from dataclasses import dataclass

import torch
from torch import Tensor

from memmeta_exp.data.counter_rng import GAMMA, mix, root_key
from memmeta_exp.data.tasks import Tasks


@dataclass(frozen=True, eq=False)
class TaskIndices:
    """Tasks that are nothing but their number in a set, int64 [T]: backbone and losses know the rest."""

    index: Tensor
    origin: None = None

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, tasks: slice | Tensor) -> "TaskIndices":
        return TaskIndices(self.index[tasks])

    def support(self) -> tuple[Tensor, Tensor]:
        """The numbers, for the backbone and as labels."""
        return self.index, self.index

    def query(self) -> tuple[Tensor, Tensor]:
        """As `support`."""
        return self.index, self.index


class FiniteSampler:
    """Draws from `tasks`, all n that there are. sampling: `random`, draw k being a task uniform among them (with
    replacement: draws are independent, so the variance of a mean over B of them falls as 1/B exactly), a pure function
    of (seed, k); or `all`, every one in its order."""

    def __init__(self, tasks: Tasks, sampling: str, seed: int, device: torch.device) -> None:
        self.tasks, self.sampling, self.device = tasks, sampling, device
        self._root = root_key(f"finite/{seed}")

    @property
    def tensors(self) -> list[Tensor]:
        """What it keeps in memory, the problem's own tensors excepted."""
        return [value for value in vars(self.tasks).values() if isinstance(value, Tensor)]

    def draw(self, first: int, count: int) -> Tasks:
        """Draws first, .., first + count - 1."""
        if self.sampling == "all":
            assert count == len(self.tasks), (count, len(self.tasks))
            return self.tasks
        keys = mix(torch.arange(first, first + count, device=self.device) * GAMMA + self._root)
        return self.tasks[keys.remainder(len(self.tasks))]  # n / 2^64 from uniform
