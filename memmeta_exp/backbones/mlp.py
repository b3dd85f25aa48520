"""A multilayer perceptron: the regressor of the sinusoid problem, and the plainest network on images."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memmeta_exp.backbones.backbone import Backbone, Keys, linear
from memmeta_exp.config import option, register
from memmeta_exp.config.components import BackboneConfig
from memmeta_exp.utils.errors import ConfigError

MAX_LAYERS = 16


@register
@dataclass(frozen=True)
class MlpConfig(BackboneConfig):
    """A multilayer perceptron, ReLU after each layer; images are flattened."""

    label: ClassVar[str] = "MLP"
    name: str = "mlp"
    hidden: list[int] = option(
        [40, 40],
        "widths of 1 to 16 layers, the last of which gives the features; [40, 40] with the head is the regressor of "
        "Finn et al. 2017",
        at_least=1,
        at_most=65536,
    )

    def check(self) -> None:
        if not 1 <= len(self.hidden) <= MAX_LAYERS:
            raise ConfigError(f"backbone.hidden={self.hidden} has {len(self.hidden)} widths: give 1 to {MAX_LAYERS}")

    def build(self, channels: int, image_size: int, generator: torch.Generator, materialise: bool = True) -> "MLP":
        return MLP(channels * image_size**2, self.hidden, generator)


class MLP(Backbone):
    """Linear and ReLU for each width of `hidden`: [T, n, ...] -> [T, n, hidden[-1]]; axes after n are flattened.

    Initial weights and biases are drawn from `generator`, U(-1/sqrt(fan in), 1/sqrt(fan in)) as in torch's Linear.
    """

    def __init__(self, inputs: int, hidden: Sequence[int], generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise([inputs, *hidden]))
        self.dim = hidden[-1]
        for layer, fan_in in zip(self.layers, [inputs, *hidden], strict=False):
            for parameter in layer.parameters():
                nn.init.uniform_(parameter, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in), generator=generator)

    def features(self, image_size: int) -> int:
        """d, whatever the size of the image."""
        return self.dim

    def prefers_joint_forward(self, device: torch.device) -> bool:
        """Always: no layer mixes points."""
        return True

    @property
    def supports_per_task_weights(self) -> bool:
        """Always: no layer mixes points."""
        return True

    def forward(self, images: Tensor, keys: Keys | None = None) -> Tensor:
        x = images.flatten(2)
        for layer in self.layers:
            x = self._run(_layer, x, layer.weight, layer.bias)
        return x


def _layer(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.relu(linear(x, weight, bias))
