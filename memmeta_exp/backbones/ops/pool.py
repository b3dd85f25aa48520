"""2x2 max-pooling and ReLU: the passes of batch_norm_pool.py, and both as one operator for autocast.

    y = relu(maxpool2(x)),   dx = S g,   d_g = S^T X        for a cotangent X of dx

For each window with y > 0, S puts the entry of g at the position of the window's largest entry of x. S is linear in g,
so the second derivative gathers, and x gets no gradient. torch's own operator stores x, gives it a gradient of zeros,
and returns d_g in another memory format than y's.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from memmeta_exp.backbones.memory_layout import layout_of


class Like(NamedTuple):
    """The shape and memory format of the result of `scatter`."""

    shape: torch.Size
    layout: torch.memory_format


def like(x: Tensor) -> Like:
    return Like(x.shape, layout_of(x))


def pool_relu(x: Tensor) -> Tensor:
    """relu(maxpool2(x)), [n, C, H // 2, W // 2], for x [n, C, H, W]."""
    return _PoolRelu.apply(x)  # pyright: ignore[reportReturnType]


def max_pool(x: Tensor) -> tuple[Tensor, Tensor]:
    """maxpool2(x), and the positions in x of the windows' largest entries."""
    return torch.ops.aten.max_pool2d_with_indices(x, [2, 2], [2, 2])


def scatter(values: Tensor, index: Tensor, pooled: Like) -> Tensor:
    """A tensor like `pooled` with `values` at the positions `index` of `max_pool`, and 0 elsewhere."""
    # torch also needs the pooled tensor, but only its shape and layout: `out` has both
    out = torch.empty(pooled.shape, dtype=values.dtype, device=values.device, memory_format=pooled.layout)
    return torch.ops.aten.max_pool2d_with_indices_backward.grad_input(
        values, out, [2, 2], [2, 2], [0, 0], [1, 1], False, index, grad_input=out
    )


def gather(dense: Tensor, index: Tensor) -> Tensor:
    """The entries of `dense` at the positions `index` of `max_pool`."""
    if not index.is_contiguous(memory_format=torch.channels_last):
        return dense.flatten(2).gather(2, index.flatten(2)).view_as(index)
    last, at = (t.permute(0, 2, 3, 1) for t in (dense, index))  # the same with channels last, as in memory
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
        # y detached: only its sign is used, and autograd would call this again with a gradient of zeros
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
    """`index` into planes of the last two sizes of `shape`, in 2 or 4 bytes an entry. torch's own 8 bytes are four
    times those of a bfloat16 y."""
    return index.to(torch.int16 if shape[-2] * shape[-1] <= 2**15 else torch.int32)


def _where_positive(g: Tensor, y: Tensor) -> Tensor:
    return torch.ops.aten.threshold_backward(g, y, 0)
