"""Wide residual networks (Zagoruyko and Komodakis 2016), WRN-28-10 in few-shot learning (Rusu et al. 2019)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memmeta_exp.backbones.backbone import MAX_FILTERS, Backbone, Keys, NormalisedConfig, by_task, sample_major
from memmeta_exp.backbones.task_norm import TaskBatchNorm2d
from memmeta_exp.config import option, register
from memmeta_exp.utils.errors import ConfigError


@register
@dataclass(frozen=True)
class WideResnetConfig(NormalisedConfig):
    """Wide residual network (Zagoruyko and Komodakis 2016), features averaged over pixels, without dropout."""

    label: ClassVar[str] = "WRN-28-10"
    name: str = "wrn28_10"
    depth: int = option(28, "6 n + 4, at least 10: n blocks in each of three groups", at_most=1000)
    width: int = option(
        10, "the three groups have 16, 32 and 64 times this many channels", at_least=1, at_most=MAX_FILTERS // 64
    )

    def check(self) -> None:
        super().check()
        if self.depth < 10 or self.depth % 6 != 4:
            low = max(10, self.depth - (self.depth - 4) % 6)
            raise ConfigError(
                f"backbone.depth={self.depth} is not a depth of a wide residual network (6 n + 4, at least 10); "
                f"use {low} or {low + 6}"
            )

    def build(
        self, channels: int, image_size: int, generator: torch.Generator, materialise: bool = True
    ) -> "WideResNet":
        return WideResNet(channels, self.depth, self.width, generator, self.norm)


STEM = 16
GROUPS = (16, 32, 64)  # channels, times the width


class WideResNet(Backbone):
    """conv3x3, three groups of residual blocks, batch norm, ReLU and the mean over pixels: d = 64 width. No dropout.

    Each group has (depth - 4) / 6 pre-activation blocks. The groups have 16, 32 and 64 times `width` channels; the
    second and third halve the image. norm: as for Conv4, `task` or `running`. Initial values are drawn from
    `generator`: He-normal by fan-out, batch norm weight 1.
    """

    def __init__(
        self, channels: int, depth: int, width: int, generator: torch.Generator | None = None, norm: str = "task"
    ) -> None:
        super().__init__()
        each, rest = divmod(depth - 4, 6)
        assert each > 0, depth
        assert rest == 0, depth
        running, at = norm == "running", STEM
        self.stem = nn.Conv2d(channels, STEM, 3, padding=1, bias=False)
        self.blocks = nn.ModuleList()
        for group, base in enumerate(GROUPS):
            for block in range(each):
                stride = 2 if group > 0 and block == 0 else 1
                self.blocks.append(_Block(at, base * width, stride, running))
                at = base * width
        self.norm, self.width = TaskBatchNorm2d(at, running), at
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, 0, "fan_out", "relu", generator)

    def features(self, image_size: int) -> int:
        """64 width."""
        return self.width

    def forward(self, images: Tensor, keys: Keys | None = None) -> Tensor:
        tasks, x = len(images), sample_major(images)
        x = self.stem(x)
        for block in self.blocks:
            x = self._run(block, x, tasks)
        return by_task(F.relu_(self.norm(x, tasks)).mean((2, 3)), tasks)


class _Block(nn.Module):
    """x + conv(relu(norm(conv(a)))), a = relu(norm(x)). Where the shape changes, conv1x1(a) replaces x."""

    def __init__(self, channels: int, width: int, stride: int, running: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = TaskBatchNorm2d(channels, running), TaskBatchNorm2d(width, running)
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        same = channels == width and stride == 1
        self.shortcut = None if same else nn.Conv2d(channels, width, 1, stride, bias=False)

    def forward(self, x: Tensor, tasks: int) -> Tensor:
        a = F.relu_(self.norm1(x, tasks))  # in place: batch norm's derivative needs its input alone
        y = self.conv2(F.relu_(self.norm2(self.conv1(a), tasks)))
        return (x if self.shortcut is None else self.shortcut(a)) + y
