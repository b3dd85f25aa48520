"""A smooth float64 meta-model, so that differences and derivatives can be held together to many digits."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from memmeta_exp.algorithms import Execution, Learner, build_algorithm
from memmeta_exp.backbones import MetaModel
from memmeta_exp.config import MemoryConfig
from memmeta_exp.config.datasets import SyntheticConfig
from memmeta_exp.data import EpisodeSampler, TaskBatch, load_split
from memmeta_exp.data.tasks import Tasks

WAYS, SHOTS, QUERIES, TASKS = 3, 2, 4, 5


class Smooth(nn.Module):
    """A backbone without kinks: tanh of a linear map, in float64."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.map = nn.Parameter(0.05 * torch.randn(3 * 16 * 16, 6, dtype=torch.float64, generator=generator))

    def forward(self, images: Tensor) -> Tensor:
        return torch.tanh((images.flatten(2) - 0.5) @ self.map)


@pytest.fixture
def batch() -> TaskBatch:
    images = load_split(SyntheticConfig(classes=6, images_per_class=8, image_size=16), "train")
    return EpisodeSampler(images, "train", 0, WAYS, SHOTS, QUERIES).draw(0, TASKS)


def smooth_learner(
    config, chunk: int = 2, memory: MemoryConfig | None = None, workers: int = 1
) -> Any:  # whose rule tests look into
    generator = torch.Generator().manual_seed(5)
    model = MetaModel(Smooth(generator), 6, WAYS, config.head_start == "learned", generator)
    return build_algorithm(config, model.double(), Execution(chunk if config.head_only else 1, workers=workers), memory)


def gradient(learner: Learner, batch: Tasks) -> Tensor:
    """The meta-gradient of all parameters as one vector, phi_0 first where it is one."""
    learner.model.zero_grad(set_to_none=True)
    learner.step(batch)
    return torch.cat([p.grad.flatten() for p in learner.model.parameters() if p.grad is not None])


def evaluated(learner: Learner, batch: Tasks) -> Tensor:
    """The loss that `evaluate` reports."""
    return learner.evaluate(batch)[1].mean()


def assert_central_differences(
    learner: Learner, batch: Tasks, loss: Callable[[Learner, Tasks], Tensor] = evaluated
) -> None:
    """The meta-gradient against central differences of `loss`."""
    found, position, checked, eps = gradient(learner, batch), 0, 0, 1e-5
    for parameter in learner.model.parameters():
        flat = parameter.data.view(-1)
        for i in range(0, flat.numel(), max(1, flat.numel() // 12)):
            old, values = flat[i].item(), []
            for shift in (eps, -eps):
                flat[i] = old + shift
                values.append(loss(learner, batch).item())
            flat[i] = old
            difference = (values[0] - values[1]) / (2 * eps)
            assert difference == pytest.approx(found[position + i].item(), abs=1e-8, rel=1e-5)
            checked += abs(difference) > 1e-4
        position += flat.numel()
    assert checked >= 8, "differences of zero judge nothing"
