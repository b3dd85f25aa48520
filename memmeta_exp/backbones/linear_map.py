"""The backbones of the analytic problems: theta itself, and a linear map."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from memmeta_exp.backbones.backbone import Backbone
from memmeta_exp.config import option, register
from memmeta_exp.config.components import BackboneConfig


@register
@dataclass(frozen=True)
class NoBackboneConfig(BackboneConfig):
    """No network: for dataset=quadratic, theta itself takes the place of the features."""

    dataset: ClassVar[str | None] = "quadratic"
    label: ClassVar[str] = "none"
    name: str = "none"


@register
@dataclass(frozen=True)
class LinearConfig(BackboneConfig):
    """A linear map, for dataset=logistic."""

    dataset: ClassVar[str | None] = "logistic"
    label: ClassVar[str] = "linear map"
    name: str = "linear"
    features: int = option(8, "number of features", at_least=1, at_most=4096)

    def build(
        self, channels: int, image_size: int, generator: torch.Generator, materialise: bool = True
    ) -> "LinearMap":
        return LinearMap(channels * image_size**2, self.features, generator)


class Theta(nn.Module):
    """Features that are theta itself, p numbers, for every task. Initial values are drawn from N(0, 1)."""

    def __init__(self, dim: int, generator: torch.Generator) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.randn(dim, generator=generator))

    def forward(self, tasks: Tensor) -> Tensor:
        """tasks [T, ...] to [T, p]."""
        return self.theta.expand(len(tasks), -1)


class LinearMap(Backbone):
    """z = 4 (x - 1/2) theta for x in [0, 1]. theta: [inputs, features], entries drawn from N(0, 1) / sqrt(inputs)."""

    def __init__(self, inputs: int, features: int, generator: torch.Generator) -> None:
        super().__init__()
        self.dim = features
        self.map = nn.Parameter(torch.randn(inputs, features, generator=generator) / math.sqrt(inputs))

    def features(self, image_size: int) -> int:
        return self.dim

    def forward(self, images: Tensor) -> Tensor:
        """images [T, n, ...] to [T, n, features]."""
        return 4 * (images.flatten(2) - 0.5) @ self.map
