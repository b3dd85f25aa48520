"""A backbone as a plug-in: a small convolutional network with group norm.

    memmeta train 'plugins=[examples.backbone]' backbone=group_norm backbone.width=32

Group norm normalises each image by itself, so the images of all tasks can pass in one batch. Batch norm would need each
task's own statistics: see `TaskBatchNorm2d` in memmeta_exp/backbones/task_norm.py. A network without configuration keys
of its own needs no such file:

    memmeta train backbone=custom backbone.target=mynet.MyNet 'backbone.arguments={width: 32}'
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from memmeta_exp.backbones import Backbone, Keys
from memmeta_exp.config import BackboneConfig, option, register


@register
@dataclass(frozen=True)
class GroupNormConfig(BackboneConfig):
    """Blocks of convolution, group norm and ReLU that halve the image, then the mean over its pixels."""

    label = "group norm"
    name: str = "group_norm"
    width: int = option(32, "channels of every block, a multiple of 4", at_least=4, at_most=1024)
    blocks: int = option(3, "number of blocks", at_least=1, at_most=5)

    def build(
        self, channels: int, image_size: int, generator: torch.Generator, materialise: bool = True
    ) -> "GroupNormNet":
        return GroupNormNet(channels, self.width, self.blocks, generator)


class GroupNormNet(Backbone):
    """[T, n, C, H, W] in [0, 1] -> [T, n, width]; initial values drawn from `generator`."""

    def __init__(self, channels: int, width: int, blocks: int, generator: torch.Generator) -> None:
        super().__init__()
        self.width = width
        layers: list[nn.Module] = []
        for inputs in [channels, *[width] * (blocks - 1)]:
            layers += [nn.Conv2d(inputs, width, 3, stride=2, padding=1, bias=False), nn.GroupNorm(4, width), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, generator=generator)

    def features(self, image_size: int) -> int:
        return self.width

    def forward(self, images: Tensor, keys: Keys | None = None) -> Tensor:
        return self.layers(images.flatten(0, 1)).mean((2, 3)).unflatten(0, (len(images), -1))
