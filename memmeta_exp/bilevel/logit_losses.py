"""Convex losses of an image's C logits u, with the derivatives and solves that a linear head needs.

For each image, a loss has its value l(u), its slope l'(u) and its Hessian S = l''(u). With a Gram matrix K [n, n] of
the images, Newton's method and the hypergradient solve systems with

    M = K + s S^-1        (K acts on the images, S on each image's logits),      x -> M^-1 x
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from memmeta_exp.bilevel.cholesky import factor_inverse, factor_solve
from memmeta_exp.bilevel.vectors import one_hot

SMALLEST = 1e-200  # lower bound on a probability, so that its reciprocal is finite
Map = Callable[[Tensor], Tensor]


class LogitLoss(ABC):
    """A loss of T tasks of n images; logits u and all maps are [T, n, C].

    A subclass needs `values`, `slope` and `hessian` in closed form: `proposed` calls them in inference mode, where
    autograd is off.

    curvature: a bound on the largest eigenvalue of S. target: what the logits are compared with, [T, n, C].
    """

    curvature: float
    target: Tensor

    @abstractmethod
    def values(self, u: Tensor) -> Tensor:
        """l of each image, [T, n]."""

    def total(self, u: Tensor) -> Tensor:
        """The sum of l over the images, [T]."""
        return self.values(u).sum(1)

    @abstractmethod
    def slope(self, u: Tensor) -> Tensor:
        """l', [T, n, C]."""

    @abstractmethod
    def hessian(self, u: Tensor) -> Tensor:
        """S, [T, n, C, C]."""

    def hvp(self, u: Tensor) -> Map:
        """x -> S x."""
        s = self.hessian(u)
        return lambda x: (s @ x[..., None]).squeeze(-1)

    def inverse(self, u: Tensor, gram: Tensor, shift: float) -> Map:
        """x -> (K + shift S^-1)^-1 x = (shift I + S K)^-1 S x, by one system of nC x nC; S may be singular."""
        tasks, n, ways = u.shape
        system = torch.einsum("tiab,tij->tiajb", self.hessian(u), gram).reshape(tasks, n * ways, n * ways)
        system.diagonal(dim1=1, dim2=2).add_(shift)
        factor, pivots, _ = torch.linalg.lu_factor_ex(system)
        hvp = self.hvp(u)
        return lambda x: torch.linalg.lu_solve(factor, pivots, hvp(x).reshape(tasks, n * ways, 1)).reshape(u.shape)

    def inverse_at_zero(self, u: Tensor, gram: Tensor, shift: float) -> Map:
        """`inverse` at u = 0, where a loss may have a cheaper form."""
        return self.inverse(u, gram, shift)

    def accuracy(self, u: Tensor) -> Tensor | None:
        """The fraction of images classified correctly, float64 [T]; None where there are no classes."""
        return None


class CrossEntropy(LogitLoss):
    """l = CE(scale u, y): with p = softmax(scale u), l' = scale (p - y) and S = scale^2 (diag(p) - p p^T).

    labels: int64 [T, n] in 0..ways-1.
    """

    def __init__(self, labels: Tensor, ways: int, dtype: torch.dtype, scale: float = 1.0) -> None:
        self.labels, self.scale = labels, scale
        self.target = one_hot(labels, ways, dtype)
        self.curvature = 0.5 * scale**2  # diag(p) - p p^T <= 1/2 (Boehning 1992)

    def values(self, u: Tensor) -> Tensor:
        log_p = torch.log_softmax(self._scaled(u), -1)
        return -(log_p * self.target).sum(-1)

    def total(self, u: Tensor) -> Tensor:
        return -(torch.log_softmax(self._scaled(u), -1) * self.target).sum((1, 2))

    def slope(self, u: Tensor) -> Tensor:
        error = self._mean(u) - self.target
        return error if self.scale == 1 else self.scale * error

    def hessian(self, u: Tensor) -> Tensor:
        p = self._mean(u)
        return self.scale**2 * (torch.diag_embed(p) - p[..., :, None] * p[..., None, :])

    def hvp(self, u: Tensor) -> Map:
        p = self._mean(u)

        def product(x: Tensor) -> Tensor:
            px = p * x if self.scale == 1 else p * (self.scale**2 * x)
            return torch.addcmul(px, p, px.sum(-1, keepdim=True), value=-1)

        return product

    def inverse(self, u: Tensor, gram: Tensor, shift: float) -> Map:
        """By C + 1 systems of n x n (Rasmussen and Williams 2006, Algorithm 3.3): work grows as C n^3, not as (C n)^3.

            M^-1 x = E x - E R (sum_c E_c)^-1 R^T E x,     E = diag(E_1 .. E_C),     E_c = (K + s D_c^-1)^-1

        D_c is the diagonal matrix of the n probabilities of class c, R repeats a vector C times, and
        s = shift / scale^2. The rounding of a Cholesky factorisation does not depend on the scale of the rows (Higham
        2002, section 10.1). So probabilities near 0 do no harm.
        """
        p = self._mean(u).mT.clamp(min=SMALLEST)
        system = torch.diag_embed(p.reciprocal_().mul_(shift / self.scale**2)).add_(gram[:, None])
        e = factor_inverse(torch.linalg.cholesky_ex(system)[0])  # [T, C, n, n]
        factor = torch.linalg.cholesky_ex(e.sum(1))[0]

        def solve(x: Tensor) -> Tensor:
            apart = e @ x.mT[..., None]
            common = factor_solve(factor, apart.sum(1))
            return (apart - e @ common[:, None]).squeeze(-1).mT

        return solve

    def inverse_at_zero(self, u: Tensor, gram: Tensor, shift: float) -> Map:
        """At u = 0, S = scale^2 (I - 11^T / C) / C for all images, so one system of n x n is enough."""
        system = gram.clone()
        system.diagonal(dim1=1, dim2=2).add_(shift * u.shape[-1] / self.scale**2)
        inverse = factor_inverse(torch.linalg.cholesky_ex(system)[0])
        return lambda x: torch.bmm(inverse, x - x.mean(-1, keepdim=True))

    def accuracy(self, u: Tensor) -> Tensor:
        return (u.argmax(-1) == self.labels).mean(1, dtype=torch.float64)

    def _mean(self, u: Tensor) -> Tensor:
        return torch.softmax(self._scaled(u), -1)

    def _scaled(self, u: Tensor) -> Tensor:
        return u if self.scale == 1 else self.scale * u


class Squares(LogitLoss):
    """l = weight/2 |u - y|^2: l' = weight (u - y) and S = weight I. target: y [T, n, C]."""

    def __init__(self, target: Tensor, weight: float = 1.0) -> None:
        self.target, self.curvature = target, weight

    def values(self, u: Tensor) -> Tensor:
        return self.curvature / 2 * (u - self.target).square().sum(-1)

    def slope(self, u: Tensor) -> Tensor:
        error = u - self.target
        return error if self.curvature == 1 else self.curvature * error

    def hessian(self, u: Tensor) -> Tensor:
        return self.curvature * torch.eye(u.shape[-1], dtype=u.dtype, device=u.device).expand(*u.shape, -1)

    def hvp(self, u: Tensor) -> Map:
        return lambda x: x if self.curvature == 1 else self.curvature * x

    def inverse(self, u: Tensor, gram: Tensor, shift: float) -> Map:
        """By one system of n x n, which does not depend on u."""
        system = gram.clone()
        system.diagonal(dim1=1, dim2=2).add_(shift / self.curvature)
        factor, _ = torch.linalg.cholesky_ex(system)
        return lambda x: factor_solve(factor, x)
