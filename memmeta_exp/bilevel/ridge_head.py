"""Closed forms of the ridge-regression head on features (Bertinetto et al. 2019), batched over T tasks.

Shapes as in `softmax_head`; Y [T, n, C] what is regressed on, the one-hot labels in classification:

    g(W)     = mean_i 1/2 |W z_i - y_i|^2 + mu/2 |W - W_c|^2            their lambda is mu n
    d_W g    = (Z W^T - Y)^T Z / n + mu (W - W_c)
    H V      = V Z^T Z / n + mu V                                       the same at every W, and for every row of V
    d_z <d_W g, V> = [ (Z W^T - Y) V + (Z V^T) W ] / n                  bias column dropped
    L_g      = mu + lambda_max(Z Z^T) / n,  exactly
    H^-1 r   = ( r - r Z^T (mu n I + Z Z^T)^-1 Z ) / mu                 Woodbury: n x n, whatever d is

so phi* is one Newton step from anywhere.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from memmeta_exp.bilevel.cholesky import factor_solve
from memmeta_exp.bilevel.linear_head import LinearHead
from memmeta_exp.bilevel.vectors import Vector


class RidgeHead(LinearHead):
    """g of T tasks over fixed features z [T, n, d]; target: Y [T, n, C]; mu, centre: see `LinearHead`."""

    curvature = 1.0

    def __init__(self, z: Tensor, target: Tensor, mu: float = 0.0, centre: Tensor | None = None) -> None:
        super().__init__(z, target.to(z.dtype), mu, centre)

    def value(self, phi: Vector) -> Tensor:
        """g, [T]."""
        misfit = self.error(phi[0]).square().sum(-1).mean(1)
        return misfit / 2 + self.mu / 2 * self._offset(phi[0]).square().sum((1, 2))

    def grad(self, phi: Vector) -> Vector:
        """d_W g, ([T, C, d+1],)."""
        return (self._mean_outer(self.error(phi[0]), self._offset(phi[0])),)

    def hvp(self, phi: Vector) -> Callable[[Vector], Vector]:
        """V -> H V, ([T, C, d+1],), the same at every phi."""
        return lambda v: (self._mean_outer(self._logits(v[0]), v[0]),)

    def cross(self, phi: Vector, v: Vector) -> Tensor:
        """d_z < d_W g, V >, [T, n, d]."""
        total = self.error(phi[0]) @ v[0][..., :-1] + self._logits(v[0]) @ phi[0][..., :-1]
        return total / self.images

    def inverse(self, phi: Vector) -> Callable[[Vector], Vector]:
        """r -> H^-1 r by Woodbury, in float64 as for the softmax head; needs mu > 0. Features that are not finite give
        a result that is not."""
        assert self.mu > 0, "H is singular without R"
        z, gram = self._double
        system = gram.clone()
        system.diagonal(dim1=1, dim2=2).add_(self.mu * self.images)
        factor, _ = torch.linalg.cholesky_ex(system)

        def solve(r: Vector) -> Vector:
            right = r[0].double()
            seen = factor_solve(factor, z @ right.mT)
            return (((right - seen.mT @ z) / self.mu).to(r[0].dtype),)

        return solve

    def error(self, w: Tensor) -> Tensor:
        """Z W^T - Y, [T, n, C]."""
        return self._logits(w) - self.target


class SquaredError:
    """f of T tasks of regression: the mean squared error of W z + b over the m query points, twice g without its R.

    z: [T, m, d]; target: Y [T, m, C]. d_W f = 2 (Z W^T - Y)^T Z / m,  d_z f = 2 (Z W^T - Y) W / m.
    """

    def __init__(self, z: Tensor, target: Tensor) -> None:
        self.head = RidgeHead(z, target)

    def value(self, phi: Vector) -> Tensor:
        """f, [T]."""
        return 2 * self.head.value(phi)

    def accuracy(self, phi: Vector) -> None:
        """There are no classes."""

    def grad(self, phi: Vector) -> Vector:
        """d_W f, ([T, C, d+1],)."""
        return (2 * self.head.grad(phi)[0],)

    def grad_features(self, phi: Vector) -> Tensor:
        """d_z f, [T, m, d]."""
        return 2 / self.head.images * self.head.error(phi[0]) @ phi[0][..., :-1]
