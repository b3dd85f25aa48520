"""Conv4, the four-block convolutional backbone of the few-shot literature (Vinyals et al. 2016)."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BLOCKS = 4


class TaskBatchNorm2d(nn.Module):
    """Batch norm over each task's own images: always the statistics of the batch at hand (transductive).

    Input [n*T, C, H, W] in sample-major order (row i*T + t is image i of task t), so that viewing it as [n, T*C, H, W]
    costs nothing and one batch norm with T*C channels normalises every task by itself.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor, tasks: int) -> Tensor:
        weight, bias = self.weight, self.bias
        if tasks == 1:
            return F.batch_norm(x, None, None, weight, bias, training=True, eps=self.eps)
        grouped = x.contiguous().view(x.shape[0] // tasks, -1, *x.shape[2:])
        out = F.batch_norm(grouped, None, None, weight.repeat(tasks), bias.repeat(tasks), training=True, eps=self.eps)
        return out.view(x.shape)


class Conv4(nn.Module):
    """4 x [conv3x3 (pad 1, bias), batch norm, max-pool 2, ReLU]; [T, n, C, H, W] in [0, 1] -> features [T, n, d].

    d = filters * (H // 16) * (W // 16). Pooling stands before the ReLU: the same function, for a quarter of the ReLU's
    work and memory. Initial values as in the paper's released code: Xavier-uniform convolutions with zero bias, batch
    norm weight ~ U(0, 1), bias 0, drawn from `generator`.
    """

    def __init__(self, channels: int, filters: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        widths = [channels, *[filters] * BLOCKS]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(TaskBatchNorm2d(filters) for _ in range(BLOCKS))
        self.filters = filters
        self._initialise(generator)

    def _initialise(self, generator: torch.Generator | None) -> None:
        for block in range(BLOCKS):
            nn.init.xavier_uniform_(self.get_parameter(f"convs.{block}.weight"), generator=generator)
            nn.init.zeros_(self.get_parameter(f"convs.{block}.bias"))
            nn.init.uniform_(self.get_parameter(f"norms.{block}.weight"), generator=generator)

    def features(self, image_size: int) -> int:
        """d, the number of features of an image of image_size x image_size pixels."""
        return self.filters * (image_size // 2**BLOCKS) ** 2

    def forward(self, images: Tensor) -> Tensor:
        tasks, n = images.shape[:2]
        x = images.transpose(0, 1).flatten(0, 1)
        if tasks == 1:  # one task's activations fit the cache, and channels-last is the CPU's fast layout
            x = x.contiguous(memory_format=torch.channels_last)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(F.max_pool2d(norm(conv(x), tasks), 2))
        return x.reshape(n, tasks, -1).transpose(0, 1)
