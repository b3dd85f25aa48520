"""relu(maxpool2(batchnorm(x))) as one differentiable operator with hand-derived first and second derivatives.

x: [T*n, C, H, W], T tasks of n images each, one task after the other. Each task is normalised over its own N = n H W
entries a channel: m, r = 1/sqrt(var + eps), xh = (x - m) r. weight w, bias b: [C]. For w >= 0 the largest entry of a
window is the same before and after the affine map. So pooling comes first, and the affine map and the ReLU process a
quarter of the entries. The caller must bring w < 0 to this case.

    forward    y  = relu(w r (maxpool(x) - m) + b)                                    keeps x, y, m, r
    backward   G  = the cotangent of y where y > 0, scattered to the windows' largest entries
               db = A = sum G,   dw = B = sum G xh,   dx = w r (G - A/N - xh B/N)

and the derivatives of <X, dx> + omega B + beta A, for cotangents X of dx, omega of dw and beta of db, are those of
batch_norm.py with G in place of g.

torch's own second derivative of batch norm is a chain of some thirty passes over x and takes almost half of a MAML step
on a CPU. This one takes eight passes. Third derivatives raise an error.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

from memmeta_exp.backbones.ops.batch_norm import second_derivative
from memmeta_exp.backbones.ops.pool import gather, like, max_pool, scatter

IMAGES = (1, 3, 4)  # axes of [T, n, C, H, W] over which one task's statistics are taken


def batch_norm_pool(x: Tensor, weight: Tensor, bias: Tensor, eps: float, tasks: int = 1) -> Tensor:
    """relu(maxpool2(batchnorm(x))), [T*n, C, H // 2, W // 2], for weight >= 0."""
    return _NormPool.apply(x, weight, bias, eps, tasks)  # pyright: ignore[reportReturnType]


def _by_task(x: Tensor, tasks: int) -> Tensor:
    """[T*n, C, H, W] as [T, n, C, H, W]."""
    return x.view(tasks, -1, *x.shape[1:])


def _sum(x: Tensor, tasks: int) -> Tensor:
    """The sum over each task's images, [T, C]."""
    return _by_task(x, tasks).sum(IMAGES)


def _wide(values: Tensor) -> Tensor:
    """values [T, C] in a shape that broadcasts with [T, n, C, H, W]."""
    return values[:, None, :, None, None]


def _add_scaled(x: Tensor, y: Tensor, scale: Tensor) -> None:
    """x += scale y with one scale for each task and channel, [T, C]."""
    _by_task(x, len(scale)).addcmul_(_by_task(y, len(scale)), _wide(scale))


def _scale(x: Tensor, scale: Tensor) -> Tensor:
    return (_by_task(x, len(scale)) * _wide(scale)).view(x.shape)


class _NormPool(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, tasks: int) -> Tensor:
        by_task = _by_task(x, tasks)
        mean = by_task.mean(IMAGES)
        rstd = (by_task - _wide(mean)).square_().mean(IMAGES).add_(eps).rsqrt_()
        scale = weight * rstd
        pooled = F.max_pool2d(x, 2)
        y = torch.addcmul(_wide(bias - scale * mean), _by_task(pooled, tasks), _wide(scale)).relu_().view(pooled.shape)
        ctx.save_for_backward(x, weight, y, mean, rstd)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, y, mean, rstd = ctx.saved_tensors
        again = torch.is_grad_enabled()  # a second derivative may follow
        # y detached: only its sign is used, and autograd would call this again with a gradient of zeros
        return *_NormPoolBackward.apply(g, x, weight, y.detach(), mean, rstd, again), None, None  # pyright: ignore[reportReturnType, reportGeneralTypeIssues]


class _NormPoolBackward(Function):
    @staticmethod
    def forward(
        ctx: Any, g: Tensor, x: Tensor, weight: Tensor, y: Tensor, mean: Tensor, rstd: Tensor, again: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        tasks, count = len(mean), x.numel() // mean.numel()
        pooled, index = max_pool(x)
        g = g * (y > 0)
        a = _sum(g, tasks)
        b = _sum(pooled.mul_(g), tasks).sub_(mean * a).mul_(rstd)
        del pooled
        scale = weight * rstd
        if again:
            ctx.save_for_backward(g, x, weight, y, mean, rstd, a, b)
            scattered = _scale(g, scale)
        else:
            _by_task(g, tasks).mul_(_wide(scale))
            scattered = g
        dx = scatter(scattered, index, like(x))
        slope = -scale * rstd * b / count
        _add_scaled(dx, x, slope)
        _by_task(dx, tasks).add_(_wide(-scale * a / count - slope * mean))
        return dx, b.sum(0), a.sum(0)

    @staticmethod
    def backward(ctx: Any, X: Tensor, omega: Tensor, beta: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        if torch.is_grad_enabled():  # autograd.grad(..., inputs) ignores torch's once_differentiable
            raise RuntimeError("batch_norm_pool has no third derivative: use Conv4(block='plain')")
        g, x, weight, y, mean, rstd, a, b = ctx.saved_tensors
        tasks, count = len(mean), x.numel() // mean.numel()
        pooled, index = max_pool(x)
        d_g = gather(X, index)
        s = _sum(X, tasks)
        q = _sum(X * x, tasks).sub_(mean * s).mul_(rstd)
        t = _sum(g * d_g, tasks)
        by = second_derivative(weight, mean, rstd, count, (a, b, s, q, t), omega, beta)
        d_g = _scale(d_g, by.scale)
        _add_scaled(d_g, pooled, by.slope)
        _by_task(d_g, tasks).add_(_wide(by.g_shift))
        d_x = scatter(_scale(g, by.slope), index, like(x))
        _add_scaled(d_x, X, by.along)
        _add_scaled(d_x, x, by.tilt)
        _by_task(d_x, tasks).add_(_wide(by.x_shift))
        return d_g.mul_(y > 0), d_x, by.d_weight.sum(0), None, None, None, None
