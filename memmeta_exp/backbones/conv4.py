"""Conv4, the four-block convolutional backbone of the few-shot literature (Vinyals et al. 2016)."""

from collections.abc import Iterable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memmeta_exp.backbones.convolution import conv3x3
from memmeta_exp.backbones.layout import image_layout
from memmeta_exp.backbones.norm_pool import batch_norm_pool

BLOCKS = 4
MOMENTUM = 0.1  # weight of the newest iteration in the running statistics, that of torch's batch norm


class TaskBatchNorm2d(nn.Module):
    """Batch norm over each task's own images.

    Input [n*T, C, H, W] in sample-major order (row i*T + t is image i of task t), so that viewing it as [n, T*C, H, W]
    costs nothing and one batch norm with T*C channels normalises every task by itself.

    running: in evaluation mode, normalise by running statistics, which `Conv4.record` gathers, instead of by the
    statistics of the batch at hand (transductive).
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, running: bool = False, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.running, self.eps = running, eps
        self.newest: float | None = None  # weight of the next pass in the running statistics, None to leave them
        if running:
            self.register_buffer("running_mean", torch.zeros(channels))
            self.register_buffer("running_var", torch.ones(channels))

    @property
    def by_batch(self) -> bool:
        """Whether the statistics of the batch at hand are the ones used."""
        return self.training or not self.running

    def forward(self, x: Tensor, tasks: int) -> Tensor:
        weight, bias = self.weight, self.bias
        if not self.by_batch:
            return F.batch_norm(x, self.running_mean, self.running_var, weight, bias, eps=self.eps)
        if tasks == 1:
            kept = (None, None) if self.newest is None else (self.running_mean, self.running_var)
            return F.batch_norm(x, *kept, weight, bias, training=True, momentum=self.newest or 0.0, eps=self.eps)
        grouped = x.contiguous().view(x.shape[0] // tasks, -1, *x.shape[2:])
        weight, bias = weight.repeat(tasks), bias.repeat(tasks)
        return F.batch_norm(grouped, None, None, weight, bias, training=True, eps=self.eps).view(x.shape)


class Conv4(nn.Module):
    """4 x [conv3x3 (pad 1), batch norm, ReLU, max-pool 2]; [T, n, C, H, W] in [0, 1] -> features [T, n, d].

    d = filters * (H // 16) * (W // 16). norm: `task` (each task's batch statistics, always), `running` (those in
    training, running statistics in evaluation) or `none`. block: `fused` (batch norm, pooling and ReLU as one operator
    with its own derivatives, pooling first; the convolution has no bias, which batch norm would subtract) or `plain`
    (torch's operators in the order of the released code, bias and all): the same function, for more time and memory.

    Initial values as in the paper's released code: Xavier-uniform convolutions with zero bias, batch norm weight ~
    U(0, 1), bias 0, drawn from `generator`.
    """

    def __init__(
        self,
        channels: int,
        filters: int,
        generator: torch.Generator | None = None,
        norm: str = "task",
        block: str = "fused",
    ) -> None:
        super().__init__()
        widths = [channels, *[filters] * BLOCKS]
        bias = norm == "none" or block == "plain"
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1, bias=bias) for a, b in pairwise(widths))
        if norm != "none":
            self.norms = nn.ModuleList(TaskBatchNorm2d(filters, running=norm == "running") for _ in range(BLOCKS))
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
        return self.filters * (image_size // 2**BLOCKS) ** 2

    def forward(self, images: Tensor) -> Tensor:
        tasks, n = images.shape[:2]
        if self.fuses(images.device):
            x = _laid_out(images.flatten(0, 1))
            for conv, norm in zip(self.convs, self.norms, strict=True):
                x = _fused(x, conv.weight, norm.weight, norm.bias, norm.eps, tasks)  # pyright: ignore[reportArgumentType]
            return x.reshape(tasks, n, -1)
        x = images.transpose(0, 1).flatten(0, 1)
        x = _laid_out(x) if tasks == 1 else x
        for i, conv in enumerate(self.convs):
            x = self._block(conv(x), self.norms[i] if self.norm != "none" else None, tasks)
        return x.reshape(n, tasks, -1).transpose(0, 1)

    def fuses(self, device: torch.device) -> bool:
        """Whether the fused block is what runs now: batch statistics are called for, in the precision of the weights.
        It takes several tasks as it takes one; the others copy their input for that."""
        if self.norm == "none" or self.block == "plain" or _autocast(device):
            return False
        return all(norm.by_batch and norm.newest is None for norm in self.norms)  # pyright: ignore[reportGeneralTypeIssues, reportCallIssue]

    def _block(self, x: Tensor, norm: nn.Module | None, tasks: int) -> Tensor:
        if norm is None:
            return self._pool(x)
        return self._pool(norm(x, tasks))

    def _pool(self, x: Tensor) -> Tensor:
        """Pooling and ReLU in either order: the same function."""
        return F.max_pool2d(F.relu(x), 2) if self.block == "plain" else F.relu(F.max_pool2d(x, 2))

    @torch.no_grad()
    def record(self, tasks: Iterable[Tensor]) -> None:
        """One update of the running statistics (norm=running) by the mean of the statistics of `tasks`, images
        [1, n, C, H, W] each."""
        norms = [norm for norm in self.modules() if isinstance(norm, TaskBatchNorm2d)]
        before = [(norm.running_mean.clone(), norm.running_var.clone()) for norm in norms]
        try:
            for k, images in enumerate(tasks):
                for norm in norms:
                    norm.newest = 1 / (k + 1)  # the running statistics become the mean over the tasks so far
                self(images)
        finally:
            for norm, (mean, var) in zip(norms, before, strict=True):
                norm.newest = None
                norm.running_mean.lerp_(mean, 1 - MOMENTUM)
                norm.running_var.lerp_(var, 1 - MOMENTUM)


def _laid_out(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=image_layout(x.device))


def _autocast(device: torch.device) -> bool:
    return device.type != "meta" and torch.is_autocast_enabled(device.type)  # torch has no autocast of meta tensors


def _fused(x: Tensor, kernel: Tensor, weight: Tensor, bias: Tensor, eps: float, tasks: int) -> Tensor:
    """relu(maxpool(batchnorm(conv(x)))). Batch norm is odd in its input up to its bias, so a negative weight and its
    channel's kernel change sign together without changing the function: `batch_norm_pool` wants weight >= 0."""
    sign = torch.where(weight < 0, -1.0, 1.0).to(weight.dtype)
    x = conv3x3(x, kernel * sign.view(-1, 1, 1, 1))
    return batch_norm_pool(x, weight * sign, bias, eps, tasks)
