"""2x2 max-pooling and ReLU: the passes of norm_pool.py, and the two as one operator for autocast.

    y = relu(maxpool2(x)),   dx = S g,   d_g = S^T X        for a cotangent X of dx

with S what scatters, of each window where y > 0, its entry to the place of the window's largest: linear in g, so the
second derivative is a gathering and x receives none. torch's own keeps x, hands it a gradient of zeros, and d_g in
another order of memory than y's.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from memmeta_exp.backbones.memory_layout import layout_of


class Like(NamedTuple):
    """What `scatter` makes a tensor like: one of this shape and order of memory."""

    shape: torch.Size
    layout: torch.memory_format


def like(x: Tensor) -> Like:
    return Like(x.shape, layout_of(x))


def pool_relu(x: Tensor) -> Tensor:
    """relu(maxpool2(x)), [n, C, H // 2, W // 2], for x [n, C, H, W]."""
    return _PoolRelu.apply(x)  # pyright: ignore[reportReturnType]


def max_pool(x: Tensor) -> tuple[Tensor, Tensor]:
    """maxpool2(x), and where in x the windows' largest entries are."""
    return torch.ops.aten.max_pool2d_with_indices(x, [2, 2], [2, 2])


def scatter(values: Tensor, index: Tensor, pooled: Like) -> Tensor:
    """`values` at the largest entries of the windows of what was `pooled`, where `max_pool` said they are, else 0."""
    # torch wants what was pooled as well, for its shape and layout: `out` has them, without another tensor
    out = torch.empty(pooled.shape, dtype=values.dtype, device=values.device, memory_format=pooled.layout)
    return torch.ops.aten.max_pool2d_with_indices_backward.grad_input(
        values, out, [2, 2], [2, 2], [0, 0], [1, 1], False, index, grad_input=out
    )


def gather(dense: Tensor, index: Tensor) -> Tensor:
    """The entries of `dense` at the windows' largest entries of x."""
    if not index.is_contiguous(memory_format=torch.channels_last):
        return dense.flatten(2).gather(2, index.flatten(2)).view_as(index)
    last, at = (t.permute(0, 2, 3, 1) for t in (dense, index))  # the same in the order of memory
    return last.flatten(1, 2).gather(1, at.flatten(1, 2)).view_as(at).permute(0, 3, 1, 2)


class _PoolRelu(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y, index = max_pool(x)
        y.relu_()
        ctx.save_for_backward(y, _narrow(index, x.shape))
        ctx.pooled = like(x)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        y, index = ctx.saved_tensors
        # y detached: only its sign is used, and autograd would come back here with a gradient of zeros
        return _Scatter.apply(g, y.detach(), index, ctx.pooled)  # pyright: ignore[reportReturnType]


class _Scatter(Function):
    @staticmethod
    def forward(ctx: Any, g: Tensor, y: Tensor, index: Tensor, pooled: Like) -> Tensor:
        ctx.save_for_backward(y, index)
        return scatter(_where_positive(g, y), index.long(), pooled)

    @staticmethod
    def backward(ctx: Any, X: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        y, index = ctx.saved_tensors
        return _where_positive(gather(X, index.long()), y), None, None, None


def _narrow(index: Tensor, shape: torch.Size) -> Tensor:
    """`index` into planes of the last two sizes of `shape`, as 2 or 4 bytes: torch has 8, four times those of a
    bfloat16 y."""
    return index.to(torch.int16 if shape[-2] * shape[-1] <= 2**15 else torch.int32)


def _where_positive(g: Tensor, y: Tensor) -> Tensor:
    return torch.ops.aten.threshold_backward(g, y, 0)
