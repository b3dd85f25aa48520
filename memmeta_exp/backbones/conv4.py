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
        "statistics of batch norm: task (each task's own) or running (each task's own in training, running statistics "
        "in evaluation); none: no batch norm",
        choices=("task", "running", "none"),
    )
    block: str = option(
        "fused",
        "fused (fast), or plain (the operators of the released code); same function",
        choices=("fused", "plain"),
    )

    def check(self) -> None:
        super().check()
        check_filters(self.filters if isinstance(self.filters, list) else [self.filters] * 4)

    def build(self, channels: int, image_size: int, generator: torch.Generator, materialise: bool = True) -> "Conv4":
        return Conv4(channels, self.filters, generator, self.norm, self.block)


BLOCKS = 4


class Conv4(Backbone):
    """4 x [conv3x3 (pad 1), batch norm, ReLU, max-pool 2]; [T, n, C, H, W] in [0, 1] -> features [T, n, d].

    filters: channels of every block, or of each of the four. d is the last of them times (H // 16) (W // 16). norm:
    `task` (each task's own statistics), `running` (each task's own in training, running statistics in evaluation) or
    `none`.

    block: `fused` or `plain`, which compute the same function. `plain` runs torch's operators in the order of the
    released code, and takes more time and memory. `fused` runs pooling, batch norm and ReLU as one operator with
    hand-derived derivatives. Its convolution has no bias, which batch norm would subtract. Under autocast, with
    gradients, it runs convolution, batch norm and pooling as three operators with hand-derived second derivatives.

    Initial values are as in the paper's released code, drawn from `generator`: Xavier-uniform convolutions with zero
    bias, batch norm weights from U(0, 1) with zero bias.
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
        if tasks > 1 and self.norm_task_by_task(images.device):
            x = laid_out(images.flatten(0, 1))
            for i, conv in enumerate(self.convs):
                x = self._run(self._block_task_by_task, x, conv, self.norms[i] if self.norm != "none" else None, tasks)
            return x.reshape(tasks, n, -1)
        x = sample_major(images)
        for i, conv in enumerate(self.convs):
            x = self._run(self._block, x, conv, self.norms[i] if self.norm != "none" else None, tasks)
        return by_task(x, tasks)

    def fuses(self, device: torch.device) -> bool:
        """Whether the fused block runs: it needs batch statistics, and the precision of the weights (no autocast).

        Its input stays in the order of the tasks, not sample-major.
        """
        if self.norm == "none" or self.block == "plain" or _autocast(device):
            return False
        return all(norm.by_batch and norm.newest is None for norm in self.norms)  # pyright: ignore[reportGeneralTypeIssues, reportCallIssue]

    def prefers_joint_forward(self, device: torch.device) -> bool:
        """On a GPU, for fewer kernel launches. On a CPU two passes take 0.78 of the memory of one pass, and on one
        thread 0.91 of the time (docs/benchmarks.md)."""
        return device.type != "cpu" and self.fuses(device)

    def norm_task_by_task(self, device: torch.device) -> bool:
        """Whether batch norm runs on one task at a time (channels-last) instead of on all at once (channels-first)."""
        return device.type == "cpu"

    def _block(self, x: Tensor, conv: nn.Module, norm: nn.Module | None, tasks: int) -> Tensor:
        x = self._convolved(x, conv)
        return self._pool(x if norm is None else norm(x, tasks))

    def _block_task_by_task(self, x: Tensor, conv: nn.Module, norm: TaskBatchNorm2d | None, tasks: int) -> Tensor:
        """`_block` of images in the order of their tasks, with batch norm on one task at a time, channels-last.

        All tasks at once need channels-first, which takes a CPU up to three times as long in bfloat16.
        """
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
        """Pooling and ReLU; their order does not change the result."""
        if self.block == "plain":
            return F.max_pool2d(F.relu(x), 2)
        return pool_relu(x) if self._by_own_derivatives(x) else F.relu(F.max_pool2d(x, 2))

    def _by_own_derivatives(self, x: Tensor) -> bool:
        """Whether convolution and pooling use hand-derived second derivatives: under autocast, where the fused block
        does not run."""
        return self.block == "fused" and torch.is_grad_enabled() and _autocast(x.device)


def _autocast(device: torch.device) -> bool:
    return device.type != "meta" and torch.is_autocast_enabled(device.type)  # torch has no autocast of meta tensors


def _fused(x: Tensor, kernel: Tensor, weight: Tensor, bias: Tensor, eps: float, tasks: int) -> Tensor:
    """relu(maxpool(batchnorm(conv(x)))).

    `batch_norm_pool` needs weight >= 0. Batch norm without its bias is odd in its input. So the signs of a negative
    weight and of its channel's kernel can both be changed without changing the function.
    """
    sign = torch.where(weight < 0, -1.0, 1.0).to(weight.dtype)
    x = conv3x3(x, kernel * sign.view(-1, 1, 1, 1))
    return batch_norm_pool(x, weight * sign, bias, eps, tasks)
