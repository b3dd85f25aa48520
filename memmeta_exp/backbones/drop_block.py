"""Dropout and DropBlock (Ghiasi et al. 2018) whose randomness is a pure function of a key for each task.

x [n*T, C, H, W] is sample-major, T = len(keys). The mask of a task depends only on its key, the shape of its images and
the type of device. So a block that runs again in the backward pass gets the same mask, and so does a resumed run. What
is kept is scaled by the inverse of the kept share: 1 - rate in `drop`, the share of each task in `drop_block`.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Mask = Callable[[tuple[int, ...], int], Tensor]


def drop(x: Tensor, rate: float, keys: tuple[int, ...]) -> Tensor:
    """x with each entry 0 with probability `rate`, scaled by 1 / (1 - rate)."""
    return _masked(x, keys, lambda shape, key: _below(1 - rate, x, shape, key).div_(1 - rate))


def drop_block(x: Tensor, rate: float, size: int, keys: tuple[int, ...]) -> Tensor:
    """x with squares of `size` x `size` pixels of a channel set to 0, about a share `rate` of all pixels.

    A whole square fits at (H - size + 1) (W - size + 1) positions. At each it is dropped with probability
    gamma = rate H W / (size^2 (H - size + 1) (W - size + 1)). Squares may overlap. `size` is at most H and W.
    """
    height, width = x.shape[2:]
    size = min(size, height, width)
    rows, columns = height - size + 1, width - size + 1
    gamma = rate * height * width / (size**2 * rows * columns)

    def mask(shape: tuple[int, ...], key: int) -> Tensor:
        corners = _below(gamma, x, (*shape[:2], rows, columns), key)
        kept = 1 - F.max_pool2d(F.pad(corners, (size - 1,) * 4), size, stride=1)
        return kept * (kept.numel() / kept.sum().clamp_(min=1))

    return _masked(x, keys, mask)


def _masked(x: Tensor, keys: tuple[int, ...], mask: Mask) -> Tensor:
    """x times the masks of its tasks."""
    shape = (len(x) // len(keys), *x.shape[1:])
    with torch.no_grad():
        masks = [mask(shape, key).to(x.dtype) for key in keys]
        whole = masks[0] if len(keys) == 1 else torch.stack(masks, 1).flatten(0, 1)
    return x * whole


def _below(share: float, x: Tensor, shape: tuple[int, ...], key: int) -> Tensor:
    """1.0 with probability `share`, else 0.0, as a function of `key`. If x is a meta tensor, so is the result."""
    if x.is_meta:
        return (torch.empty(shape, device=x.device) < share).float()
    generator = torch.Generator(x.device).manual_seed(key)
    return (torch.rand(shape, generator=generator, device=x.device) < share).float()
