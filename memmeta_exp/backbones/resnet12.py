"""ResNet-12 as few-shot learning has it (Lee et al. 2019, MetaOptNet), with and without DropBlock."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memmeta_exp.backbones.backbone import (
    MAX_FILTERS,
    Backbone,
    Keys,
    NormalisedConfig,
    by_task,
    check_filters,
    sample_major,
)
from memmeta_exp.backbones.drop_block import drop, drop_block
from memmeta_exp.backbones.task_norm import TaskBatchNorm2d
from memmeta_exp.config import option, register


@register
@dataclass(frozen=True)
class Resnet12Config(NormalisedConfig):
    """ResNet-12 (Lee et al. 2019): 4 residual blocks of three convolutions, features averaged over pixels."""

    label: ClassVar[str] = "ResNet-12"
    name: str = "resnet12"
    filters: list[int] = option(
        [64, 160, 320, 640], "channels of each of the four blocks", at_least=1, at_most=MAX_FILTERS
    )
    drop_rate: float = option(
        0.0, "in training, rate of dropout (blocks 1 and 2) and of DropBlock (blocks 3 and 4)", at_least=0, below=1
    )
    drop_block: int = option(5, "side of DropBlock's squares", at_least=1)

    def check(self) -> None:
        super().check()
        check_filters(self.filters)

    def build(self, channels: int, image_size: int, generator: torch.Generator, materialise: bool = True) -> "ResNet12":
        return ResNet12(channels, self.filters, generator, self.norm, self.drop_rate, self.drop_block)


SLOPE = 0.1  # of the leaky ReLU
BLOCKS = 4


class ResNet12(Backbone):
    """4 residual blocks of three conv3x3, each with max-pool 2, then the mean over pixels: d = filters[3].

    norm: as for Conv4, `task` or `running`. drop_rate: in training, the rate of dropout after blocks 1 and 2, and of
    DropBlock with squares of drop_block x drop_block after blocks 3 and 4. The MetaOptNet code drops likewise, but
    raises the rate over the first 40,000 steps; here it is constant. Initial values are drawn from `generator`:
    He-normal by fan-out for a leaky ReLU, batch norm weight 1.
    """

    def __init__(
        self,
        channels: int,
        filters: Sequence[int],
        generator: torch.Generator | None = None,
        norm: str = "task",
        drop_rate: float = 0.0,
        drop_block: int = 5,
    ) -> None:
        super().__init__()
        assert len(filters) == BLOCKS, filters
        widths, running = [channels, *filters], norm == "running"
        self.blocks = nn.ModuleList(_Block(a, b, running) for a, b in pairwise(widths))
        self.width, self.drop_rate, self.drop_block = widths[-1], drop_rate, drop_block
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, SLOPE, "fan_out", "leaky_relu", generator)

    @property
    def random(self) -> bool:
        """Where drop_rate > 0."""
        return self.drop_rate > 0

    def features(self, image_size: int) -> int:
        """filters[3]; 0 where four poolings leave no pixel."""
        return self.width if image_size >= 2**BLOCKS else 0

    def forward(self, images: Tensor, keys: Keys | None = None) -> Tensor:
        """keys: one random key for each task, for dropout; None to drop nothing."""
        tasks, x = len(images), sample_major(images)
        for at, block in enumerate(self.blocks):
            x = self._run(self._block, x, block, at, tasks, keys)
        return by_task(x.mean((2, 3)), tasks)

    def _block(self, x: Tensor, block: nn.Module, at: int, tasks: int, keys: Keys | None) -> Tensor:
        x = block(x, tasks)
        if keys is None or not (self.training and self.drop_rate):
            return x
        keys = tuple(key + at for key in keys)
        return drop(x, self.drop_rate, keys) if at < 2 else drop_block(x, self.drop_rate, self.drop_block, keys)


class _Block(nn.Module):
    """maxpool2(leaky(norm(conv3(leaky(norm(conv3(leaky(norm(conv3(x)))))))) + norm(conv1(x))))"""

    def __init__(self, channels: int, width: int, running: bool) -> None:
        super().__init__()
        widths = [channels, width, width, width]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(TaskBatchNorm2d(width, running) for _ in self.convs)
        self.shortcut = nn.Conv2d(channels, width, 1, bias=False)
        self.shortcut_norm = TaskBatchNorm2d(width, running)

    def forward(self, x: Tensor, tasks: int) -> Tensor:
        y = x
        for at, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            y = norm(conv(y), tasks)
            if at < 2:
                y = F.leaky_relu_(y, SLOPE)  # in place: batch norm's derivative needs its input alone
        return F.leaky_relu(F.max_pool2d(y + self.shortcut_norm(self.shortcut(x), tasks), 2), SLOPE)
