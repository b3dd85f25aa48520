"""Random features, labels and heads of T tasks in float64."""

import torch
from torch import Tensor

T, N, D, C = 3, 10, 7, 4
MU = 0.3


def same(a: Tensor, b: Tensor, tolerance: float = 1e-10) -> None:
    assert b.abs().max() > 1e-3, "a reference of zeros says nothing"
    assert (a - b).abs().max() <= tolerance * b.abs().max()


def draw(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=generator)
