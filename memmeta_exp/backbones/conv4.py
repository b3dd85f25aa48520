"""Conv4, the four-block convolutional backbone of the few-shot literature (Vinyals et al. 2016)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

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
    laid_out,
    sample_major,
)
from memmeta_exp.backbones.ops.batch_norm_pool import batch_norm_pool
from memmeta_exp.backbones.ops.convolution import conv3x3
from memmeta_exp.backbones.ops.pool import pool_relu
from memmeta_exp.backbones.task_norm import TaskBatchNorm2d
from memmeta_exp.config import option, register


@register
@dataclass(frozen=True)
class Conv4Config(NormalisedConfig):
    """Conv4 (Vinyals et al. 2016): 4 x [conv3x3, batch norm, ReLU, max-pool 2]."""

    label: ClassVar[str] = "Conv4"
    name: str = "conv4"
    filters: Any = option(
        64,
        "channels of every block, or a list of four; [96,192,384,512] are the widths of R2D2's net",
        type="int or list[int]",  # OmegaConf has no such union
        at_least=1,
        at_most=MAX_FILTERS,
    )
    norm: str = option(
        "task",
        "batch norm by each task's batch statistics (task), by those in training and running statistics in evaluation "
        "(running), or none",
        choices=("task", "running", "none"),
    )
    block: str = option(
        "fused", "fused, or plain: the released code's operators in its order", choices=("fused", "plain")
    )

    def check(self) -> None:
        super().check()
        check_filters(self.filters if isinstance(self.filters, list) else [self.filters] * 4)

    def build(self, channels: int, image_size: int, generator: torch.Generator, materialise: bool = True) -> "Conv4":
        return Conv4(channels, self.filters, generator, self.norm, self.block)


BLOCKS = 4


class Conv4(Backbone):
    """4 x [conv3x3 (pad 1), batch norm, ReLU, max-pool 2]; [T, n, C, H, W] in [0, 1] -> features [T, n, d].

    filters: channels of every block, or of each of the four; d = the last of them * (H // 16) * (W // 16). norm: `task`
    (each task's batch statistics, always), `running` (those in training, running statistics in evaluation) or `none`.
    block: `fused` (batch norm, pooling and ReLU as one operator with its own derivatives, pooling first; the
    convolution has no bias, which batch norm would subtract; under autocast, where gradients are asked for,
    convolution, batch norm and pooling are an operator each, whose value and first derivative are torch's and whose
    second is our own) or `plain` (torch's operators in the order of the released code, bias and all): the same
    function, for more time and memory.

    Initial values as in the paper's released code: Xavier-uniform convolutions with zero bias, batch norm weight ~
    U(0, 1), bias 0, drawn from `generator`.
    """

    def __init__(
        self,
        channels: int,
        filters: int | Sequence[int],
        generator: torch.Generator | None = None,
        norm: str = "task",
        block: str = "fused",
    ) -> None:
        super().__init__()
        filters = [filters] * BLOCKS if isinstance(filters, int) else list(filters)
        assert len(filters) == BLOCKS, filters
        widths = [channels, *filters]
        bias = norm == "none" or block == "plain"
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1, bias=bias) for a, b in pairwise(widths))
        if norm != "none":
            own = block == "fused"
            self.norms = nn.ModuleList(TaskBatchNorm2d(w, norm == "running", own_derivatives=own) for w in filters)
        self.filters, self.norm, self.block = filters, norm, block
        self._initialise(generator)

    def _initialise(self, generator: torch.Generator | None) -> None:
        for name, parameter in self.named_parameters():
            if name.startswith("convs") and name.endswith("bias"):
                nn.init.zeros_(parameter)
        for block in range(BLOCKS):
            nn.init.xavier_uniform_(self.get_parameter(f"convs.{block}.weight"), generator=generator)
            if self.norm != "none":
                nn.init.uniform_(self.get_parameter(f"norms.{block}.weight"), generator=generator)

    def features(self, image_size: int) -> int:
        """d, the number of features of an image of image_size x image_size pixels."""
        return self.filters[-1] * (image_size // 2**BLOCKS) ** 2

    def forward(self, images: Tensor, keys: Keys | None = None) -> Tensor:
        tasks, n = images.shape[:2]
        if self.fuses(images.device):
            x = laid_out(images.flatten(0, 1))
            for conv, norm in zip(self.convs, self.norms, strict=True):
                x = self._run(_fused, x, conv.weight, norm.weight, norm.bias, norm.eps, tasks)
            return x.reshape(tasks, n, -1)
        if tasks > 1 and self.takes_apart(images.device):
            x = laid_out(images.flatten(0, 1))
            for i, conv in enumerate(self.convs):
                x = self._run(self._apart, x, conv, self.norms[i] if self.norm != "none" else None, tasks)
            return x.reshape(tasks, n, -1)
        x = sample_major(images)
        for i, conv in enumerate(self.convs):
            x = self._run(self._block, x, conv, self.norms[i] if self.norm != "none" else None, tasks)
        return by_task(x, tasks)

    def fuses(self, device: torch.device) -> bool:
        """Whether the fused block is what runs now: batch statistics are called for, in the precision of the weights.
        It takes several tasks in the order they are in, as it takes one."""
        if self.norm == "none" or self.block == "plain" or _autocast(device):
            return False
        return all(norm.by_batch and norm.newest is None for norm in self.norms)  # pyright: ignore[reportGeneralTypeIssues, reportCallIssue]

    def prefers_joint_forward(self, device: torch.device) -> bool:
        """On a GPU, for fewer launches. On a CPU two passes take 0.78 of the memory of one, and on one thread 0.91 of
        the time (docs/benchmarks.md)."""
        return device.type != "cpu" and self.fuses(device)

    def takes_apart(self, device: torch.device) -> bool:
        """Whether batch norm takes one task after the other, channels last, in place of all at once, channels first."""
        return device.type == "cpu"

    def _block(self, x: Tensor, conv: nn.Module, norm: nn.Module | None, tasks: int) -> Tensor:
        x = self._convolved(x, conv)
        return self._pool(x if norm is None else norm(x, tasks))

    def _apart(self, x: Tensor, conv: nn.Module, norm: TaskBatchNorm2d | None, tasks: int) -> Tensor:
        """`_block` of images in the order of their tasks: batch norm of one task after the other, channels last. All
        tasks at once want channels first, which takes a CPU up to three times as long in bfloat16."""
        if norm is None or norm.by_images:
            return self._block(x, conv, norm, tasks)
        x = self._convolved(x, conv)
        return torch.cat([self._pool(norm(one, 1)) for one in x.chunk(tasks)])

    def _convolved(self, x: Tensor, conv: nn.Module) -> Tensor:
        if not self._by_own_derivatives(x) or conv.bias is not None:
            return conv(x)
        precision = torch.get_autocast_dtype(x.device.type)
        return conv3x3(x.to(precision), conv.weight.to(precision))  # pyright: ignore[reportArgumentType, reportCallIssue]

    def _pool(self, x: Tensor) -> Tensor:
        """Pooling and ReLU in either order: the same function."""
        if self.block == "plain":
            return F.max_pool2d(F.relu(x), 2)
        return pool_relu(x) if self._by_own_derivatives(x) else F.relu(F.max_pool2d(x, 2))

    def _by_own_derivatives(self, x: Tensor) -> bool:
        """Whether convolution and pooling are operators with derivatives of our own, as batch norm is: where autocast
        keeps the fused block from running."""
        return self.block == "fused" and torch.is_grad_enabled() and _autocast(x.device)


def _autocast(device: torch.device) -> bool:
    return device.type != "meta" and torch.is_autocast_enabled(device.type)  # torch has no autocast of meta tensors


def _fused(x: Tensor, kernel: Tensor, weight: Tensor, bias: Tensor, eps: float, tasks: int) -> Tensor:
    """relu(maxpool(batchnorm(conv(x)))). Batch norm is odd in its input up to its bias, so a negative weight and its
    channel's kernel change sign together without changing the function: `batch_norm_pool` wants weight >= 0."""
    sign = torch.where(weight < 0, -1.0, 1.0).to(weight.dtype)
    x = conv3x3(x, kernel * sign.view(-1, 1, 1, 1))
    return batch_norm_pool(x, weight * sign, bias, eps, tasks)
