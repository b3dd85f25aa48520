"""torch's batch norm by the statistics of the batch, with a hand-derived second derivative.

x: [n, C, H, W], N = n H W entries a channel, m, r = 1/sqrt(var + eps), xh = (x - m) r, weight w, bias b [C]:

    y = w xh + b,   db = A = sum g,   dw = B = sum g xh,   dx = w r (g - A/N - xh B/N)

are torch's own kernels. For cotangents X of dx, omega of dw and beta of db, with s = sum X, q = sum X xh, t = sum g X
and L = r (t - (A s + B q)/N), the derivatives of <X, dx> + omega B + beta A are

    d_g = w r (X - (s + xh q)/N) + omega xh + beta,   d_w = L,
    d_x = r (omega - w r q/N) g - w r^2 (B/N) X - (r/N) (e1 + xh (e2 + w L)),   e1 = omega A - w r (A q + B s)/N,
                                                                             e2 = omega B - 2 w r B q/N

Where x is bfloat16, sums and terms are in float32, and the passes over x are those of torch's kernels. torch's own
second derivative is a chain of some thirty passes, each rounded to the precision of x. Conv4 runs this operator under
autocast with gradients. batch_norm_pool.py includes pooling, by the same formulas. Third derivatives raise an error.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

from memmeta_exp.backbones.memory_layout import layout_of


def batch_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """w (x - m) / sqrt(var + eps) + b for x [n, C, H, W].

    weight, bias: [C], in x's precision, or float32 where x is bfloat16.
    """
    return _BatchNorm.apply(x, weight, bias, eps)  # pyright: ignore[reportReturnType]


class SecondDerivative(NamedTuple):
    """Coefficients of d_g = scale X + slope x + g_shift, d_x = slope g + along X + tilt x + x_shift, d_w = d_weight.

    Each is [C], or [T, C] for T tasks; `d_weight` is then each task's part of d_w.
    """

    scale: Tensor
    slope: Tensor
    g_shift: Tensor
    along: Tensor
    tilt: Tensor
    x_shift: Tensor
    d_weight: Tensor


def second_derivative(
    weight: Tensor,
    mean: Tensor,
    rstd: Tensor,
    count: int,
    sums: tuple[Tensor, Tensor, Tensor, Tensor, Tensor],
    omega: Tensor,
    beta: Tensor,
) -> SecondDerivative:
    """The formulas above for N = `count` entries a channel.

    sums: (A, B, s, q, t). weight, omega, beta: [C]. The others and the result: [C], or [T, C] for T tasks.
    """
    a, b, s, q, t = sums
    scale = weight * rstd
    inner = rstd * (t - (a * s + b * q) / count)
    slope = rstd * (omega - scale * q / count)
    e1 = omega * a - scale * (a * q + b * s) / count
    e2 = omega * b - 2 * scale * b * q / count
    tilt = -rstd.square() * (e2 + weight * inner) / count
    return SecondDerivative(
        scale=scale,
        slope=slope,
        g_shift=beta - scale * s / count - slope * mean,
        along=-scale * rstd * b / count,
        tilt=tilt,
        x_shift=-rstd * e1 / count - tilt * mean,
        d_weight=inner,
    )


class _BatchNorm(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        y, mean, rstd = torch.native_batch_norm(x, weight, bias, None, None, True, 0.0, eps)
        ctx.save_for_backward(x, weight, mean, rstd)
        ctx.eps = eps
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return *_BatchNormBackward.apply(g, *ctx.saved_tensors, ctx.eps), None  # pyright: ignore[reportReturnType, reportGeneralTypeIssues]


class _BatchNormBackward(Function):
    @staticmethod
    def forward(
        ctx: Any, g: Tensor, x: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        g = _laid_out_as(x, g)
        dx, b, a = torch.ops.aten.native_batch_norm_backward(
            g, x, weight, None, None, mean, rstd, True, eps, [True, True, True]
        )
        ctx.save_for_backward(g, x, weight, mean, rstd, a, b)
        return dx, b, a

    @staticmethod
    def backward(ctx: Any, X: Tensor, omega: Tensor, beta: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        if torch.is_grad_enabled():
            raise RuntimeError("batch_norm has no third derivative: use Conv4(block='plain')")
        g, x, weight, mean, rstd, a, b = ctx.saved_tensors
        count, X = x.numel() // x.size(1), _laid_out_as(x, X)
        q, s = _sums(X, x, mean, rstd)
        t, _ = _sums(X, g, torch.zeros_like(mean), torch.ones_like(rstd))
        by = second_derivative(weight, mean, rstd, count, (a, b, s, q, t), omega, beta)
        d_g = _affine(x, by.slope, by.g_shift).add_(_affine(X, by.scale))
        d_x = _affine(x, by.tilt, by.x_shift).add_(_affine(g, by.slope)).add_(_affine(X, by.along))
        return d_g, d_x, by.d_weight, None, None, None


def _laid_out_as(x: Tensor, y: Tensor) -> Tensor:
    """y in the memory format of x. torch's batch norm takes many times as long where the two differ."""
    return y.contiguous(memory_format=layout_of(x))


def _sums(g: Tensor, x: Tensor, mean: Tensor, rstd: Tensor) -> tuple[Tensor, Tensor]:
    """sum g xh and sum g over each channel, [C], in the precision of `mean`."""
    weight = torch.ones_like(mean)
    _, b, a = torch.ops.aten.native_batch_norm_backward(
        g, x, weight, None, None, mean, rstd, True, 0.0, [False, True, True]
    )
    return b, a


def _affine(x: Tensor, slope: Tensor, constant: Tensor | None = None) -> Tensor:
    """slope x + constant, with slope and constant [C], rounded once. It is batch norm with given statistics."""
    zeros, ones = torch.zeros_like(slope), torch.ones_like(slope)
    return F.batch_norm(x, zeros, ones, slope, zeros if constant is None else constant, eps=0.0)
