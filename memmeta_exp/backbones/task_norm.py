"""Batch norm by the statistics of each task, and its running statistics."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memmeta_exp.backbones.ops.batch_norm import batch_norm

IMAGES = (0, 2, 3)  # of [n, C, H, W]
MOMENTUM = 0.1  # smallest weight of the newest iteration in the running statistics, as in torch's batch norm

STATS_ITERATIONS = 50  # iterations before a validation that update the running statistics


class TaskBatchNorm2d(nn.Module):
    """Batch norm over each task's own images.

    Input is [n*T, C, H, W] in sample-major order: row i*T + t is image i of task t. Viewing it as [n, T*C, H, W] costs
    nothing, and one batch norm with T*C channels then normalises every task by itself.

    running: evaluation mode normalises by running statistics, which `update_running_stats` computes, instead of by the
    statistics of the current batch (transductive). task_stats_weight: the weight s of each task's own statistics in a
    mixture of both: mean s m + (1 - s) m', variance s v + (1 - s) v' + s (1 - s) (m - m')^2 (Schneider et al.
    2020 leave out the last term). own_derivatives: use the second derivative of ops/batch_norm.py in place of torch's.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, running: bool = False, eps: float = 1e-5, own_derivatives: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.running, self.eps, self.own_derivatives = running, eps, own_derivatives
        self.task_stats_weight = 0.0
        self.newest: float | None = None  # weight of the next pass in the running statistics, None for no update
        if running:
            self.register_buffer("running_mean", torch.zeros(channels))
            self.register_buffer("running_var", torch.ones(channels))

    @property
    def by_batch(self) -> bool:
        """Whether the statistics of the current batch are used."""
        return self.training or not self.running

    @property
    def by_images(self) -> bool:
        """Whether the result for an image is independent of the other images in the batch."""
        return not self.by_batch and not self.task_stats_weight

    @property
    def _by_own_derivatives(self) -> bool:
        return self.own_derivatives and self.newest is None and torch.is_grad_enabled()

    def forward(self, x: Tensor, tasks: int) -> Tensor:
        weight, bias = self.weight, self.bias
        if self.by_images:
            return F.batch_norm(x, self.running_mean, self.running_var, weight, bias, eps=self.eps)
        if self.by_batch and tasks == 1 and not self._by_own_derivatives:
            kept = (None, None) if self.newest is None else (self.running_mean, self.running_var)
            return F.batch_norm(x, *kept, weight, bias, training=True, momentum=self.newest or 0.0, eps=self.eps)
        grouped = x if tasks == 1 else x.contiguous().view(x.shape[0] // tasks, -1, *x.shape[2:])
        weight, bias = weight.repeat(tasks), bias.repeat(tasks)
        if not self.by_batch:
            return self._blended(grouped, weight, bias, tasks).to(x.dtype).view(x.shape)
        if self._by_own_derivatives:
            return batch_norm(grouped, weight, bias, self.eps).view(x.shape)
        return F.batch_norm(grouped, None, None, weight, bias, training=True, eps=self.eps).view(x.shape)

    def _blended(self, grouped: Tensor, weight: Tensor, bias: Tensor, tasks: int) -> Tensor:
        """`grouped` [n, T*C, H, W] normalised by the mixture, in the precision of the running statistics."""
        x, s = grouped.to(self.running_mean.dtype), self.task_stats_weight
        own = x.mean(IMAGES)
        apart = own - self.running_mean.repeat(tasks)
        own_var = (x - own[:, None, None]).square().mean(IMAGES)
        var = s * own_var + (1 - s) * self.running_var.repeat(tasks) + s * (1 - s) * apart.square()
        scale = weight * (var + self.eps).rsqrt()
        shift = bias - scale * (own - (1 - s) * apart)
        return torch.addcmul(shift[:, None, None], x, scale[:, None, None])


def running_weight(t: int, eval_every: int, iterations: int) -> float:
    """The weight of iteration t in the running statistics.

    It is 0 except in the last STATS_ITERATIONS iterations before a validation. The first of these has weight 1 and
    replaces old statistics. The next ones make a mean over the iterations so far, until the newest has weight MOMENTUM.
    """
    position = STATS_ITERATIONS - 1 - min(-t % eval_every, iterations - t)
    return 0.0 if position < 0 else max(MOMENTUM, 1 / (1 + min(position, t - 1)))


@torch.no_grad()
def update_running_stats(
    net: Callable[[Tensor], Tensor], norms: list[TaskBatchNorm2d], tasks: Iterable[Tensor], weight: float
) -> None:
    """Updates the running statistics of `norms`, layers of `net`, once: running <- (1 - weight) running + weight mean.

    mean: of the statistics of `tasks`, images [1, n, C, H, W] each.
    """
    before = [(norm.running_mean.clone(), norm.running_var.clone()) for norm in norms]
    try:
        for k, images in enumerate(tasks):
            for norm in norms:
                norm.newest = 1 / (k + 1)  # the running statistics become the mean over the tasks so far
            net(images)
    finally:
        for norm, (mean, var) in zip(norms, before, strict=True):
            norm.newest = None
            norm.running_mean.lerp_(mean, 1 - weight)
            norm.running_var.lerp_(var, 1 - weight)
