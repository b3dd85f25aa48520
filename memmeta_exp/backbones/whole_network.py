"""Runs networks without a task axis, [N, C, H, W] -> [N, ...], on the images of several tasks."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from memmeta_exp.backbones.backbone import laid_out


def use_batch_statistics(net: nn.Module) -> bool:
    """Makes torch's batch norm in `net` use the statistics of the current images, in training and evaluation, and drops
    its running statistics. Returns whether there is any batch norm: images of one pass then affect each other."""
    norms = [module for module in net.modules() if isinstance(module, _BatchNorm)]
    for norm in norms:
        norm.track_running_stats = False
        norm.running_mean = norm.running_var = norm.num_batches_tracked = None
    return bool(norms)


def by_tasks(net: Callable[[Tensor], Tensor], images: Tensor, alone: bool) -> Tensor:
    """Features [T, n, d] of images [T, n, C, H, W]. alone: each task in a pass of its own, not all in one pass."""
    if alone and len(images) > 1:
        return torch.stack([net(laid_out(one)) for one in images])
    return net(laid_out(images.flatten(0, 1))).unflatten(0, (len(images), -1))
