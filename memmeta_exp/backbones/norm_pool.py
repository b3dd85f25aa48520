"""relu(maxpool2(batchnorm(x))) as one differentiable operator with hand-derived first and second derivatives.

x: [n, C, H, W], normalised over its N = n H W entries a channel (m, r = 1/sqrt(var + eps), xh = (x - m) r), weight w,
bias b [C]. For w >= 0 the largest entry of a window is the same before and after the affine map, so pooling comes first
and the affine map and the ReLU touch a quarter of the entries; `batch_norm_pool` brings w < 0 to this case.

    forward    y  = relu(w r (maxpool(x) - m) + b)                                    keeps x, y, m, r
    backward   G  = the cotangent of y where y > 0, scattered to the windows' largest entries
               db = A = sum G,   dw = B = sum G xh,   dx = w r (G - A/N - xh B/N)

and, for cotangents X of dx, omega of dw, beta of db, with s = sum X, q = sum X xh, t = sum G X and L = w r (t - (A s +
B q)/N), the derivatives of <X, dx> + omega B + beta A:

    d_w = L / w,   d_G = w r (X - (s + xh q)/N) + omega xh + beta
    d_x = r (omega - w r q/N) G - w r^2 (B/N) X - (r/N) (e1 + xh (e2 + L)),   e1 = omega A - w r (A q + B s)/N,
                                                                             e2 = omega B - 2 w r B q/N

torch's own second derivative of batch norm is a chain of some thirty passes over x and takes almost half of a MAML step
on a CPU; this one takes four. Third derivatives are refused. Checked by gradcheck and gradgradcheck in float64.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

IMAGE = (0, 2, 3)


def batch_norm_pool(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """relu(maxpool2(batchnorm(x))), [n, C, H // 2, W // 2], for weight >= 0."""
    return _NormPool.apply(x, weight, bias, eps)  # pyright: ignore[reportReturnType]


def _pooled(x: Tensor) -> tuple[Tensor, Tensor]:
    return torch.ops.aten.max_pool2d_with_indices(x, [2, 2], [2, 2])


def _scattered(values: Tensor, x: Tensor, index: Tensor) -> Tensor:
    """`values` at the windows' largest entries of x, 0 elsewhere."""
    return torch.ops.aten.max_pool2d_with_indices_backward(values, x, [2, 2], [2, 2], [0, 0], [1, 1], False, index)


def _gathered(dense: Tensor, index: Tensor) -> Tensor:
    """The entries of `dense` at the windows' largest entries of x."""
    return dense.flatten(2).gather(2, index.flatten(2)).view_as(index)


def _channel(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)


class _NormPool(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        mean = x.mean(IMAGE)
        rstd = (x - _channel(mean)).square_().mean(IMAGE).add_(eps).rsqrt_()
        scale = weight * rstd
        y = torch.addcmul(_channel(bias - scale * mean), F.max_pool2d(x, 2), _channel(scale)).relu_()
        ctx.save_for_backward(x, weight, y, mean, rstd)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return *_NormPoolBackward.apply(g, *ctx.saved_tensors), None


class _NormPoolBackward(Function):
    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, weight: Tensor, y: Tensor, mean: Tensor, rstd: Tensor) -> Any:
        count = x.numel() // x.size(1)
        pooled, index = _pooled(x)
        g = g * (y > 0)
        a = g.sum(IMAGE)
        b = (g * pooled).sum(IMAGE).sub_(mean * a).mul_(rstd)
        scale = weight * rstd
        slope = -scale * rstd * b / count
        dx = _scattered(g * _channel(scale), x, index)
        dx.addcmul_(x, _channel(slope)).add_(_channel(-scale * a / count - slope * mean))
        ctx.save_for_backward(g, x, weight, y, mean, rstd, a, b)
        return dx, b, a

    @staticmethod
    def backward(ctx: Any, X: Tensor, omega: Tensor, beta: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        if torch.is_grad_enabled():  # torch's once_differentiable is passed over by autograd.grad(..., inputs)
            raise RuntimeError("batch_norm_pool has no third derivative: use Conv4(block='plain')")
        g, x, weight, y, mean, rstd, a, b = ctx.saved_tensors
        count = x.numel() // x.size(1)
        pooled, index = _pooled(x)
        selected = _gathered(X, index)
        scale = weight * rstd
        s = X.sum(IMAGE)
        q = (X * x).sum(IMAGE).sub_(mean * s).mul_(rstd)
        t = (g * selected).sum(IMAGE)
        inner = rstd * (t - (a * s + b * q) / count)
        slope = rstd * (omega - scale * q / count)  # of xh in d_G, of G in d_x
        d_g = selected * _channel(scale)
        d_g.addcmul_(pooled, _channel(slope)).add_(_channel(beta - scale * s / count - slope * mean)).mul_(y > 0)
        e1 = omega * a - scale * (a * q + b * s) / count
        e2 = omega * b - 2 * scale * b * q / count
        tilt = -rstd.square() * (e2 + weight * inner) / count  # of x - m in d_x
        d_x = _scattered(g * _channel(slope), x, index)
        d_x.addcmul_(X, _channel(-scale * rstd * b / count)).addcmul_(x, _channel(tilt))
        d_x.add_(_channel(-rstd * e1 / count - tilt * mean))
        return d_g, d_x, inner, None, None, None
