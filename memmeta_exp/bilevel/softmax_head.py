"""Closed forms of the softmax-linear head on features, batched over T tasks.

Shapes: z [T, n, d] features, labels [T, n] in 0..C-1, phi = (W,) with W [T, C, d+1], the last column the bias, so that
Z = [z, 1] [T, n, d+1]. With P = softmax(Z W^T) [T, n, C], Y the one-hot labels, n the images:

    g(W)     = mean_i CE(W z_i, y_i) + mu/2 |W - W_c|^2                 W_c: centre of R, 0 unless it is learned
    d_W g    = (P - Y)^T Z / n + mu (W - W_c)
    H V      = Q^T Z / n + mu V,      Q = P * U - P * (P * U).sum(-1),  U = Z V^T
    d_z <d_W g, V> = [ (P - Y) V + Q W ] / n                            bias column dropped
    L_g     <= mu + lambda_max(Z Z^T) / (2 n)                           since diag(p) - p p^T <= 1/2 (Boehning 1992)

The support space: with S_i = diag(p_i) - p_i p_i^T = A_i A_i^T, A_i = diag(sqrt p_i) - p_i sqrt(p_i)^T, and U the
matrix of r -> (A_i^T r z_i)_i, H = mu I + U^T U / n, so the push-through identity gives

    H^-1 r = ( r - U^T (mu n I + U U^T)^-1 U r ) / mu,      U U^T = (A_i^T A_j (z_i . z_j))_ij   [nC x nC]

one Cholesky factorisation of size n C whatever d is.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from memmeta_exp.bilevel.cholesky import factor_solve
from memmeta_exp.bilevel.linear_head import LinearHead
from memmeta_exp.bilevel.vectors import Vector, one_hot


class SoftmaxHead(LinearHead):
    """f or g of T tasks over fixed features: mu = 0 gives the plain mean cross-entropy (f).

    z: [T, n, d]; labels: [T, n] int64; ways: C; mu, centre: see `LinearHead`.
    """

    curvature = 0.5  # diag(p) - p p^T <= 1/2

    def __init__(self, z: Tensor, labels: Tensor, ways: int, mu: float = 0.0, centre: Tensor | None = None) -> None:
        super().__init__(z, one_hot(labels, ways, z.dtype), mu, centre)
        self.labels = labels

    def value(self, phi: Vector) -> Tensor:
        """g, [T]."""
        return self.losses(phi).mean(1) + self.mu / 2 * self._offset(phi[0]).square().sum((1, 2))

    def losses(self, phi: Vector) -> Tensor:
        """The cross-entropy of each image, [T, n], without R."""
        log_p = torch.log_softmax(self._logits(phi[0]), -1)
        return -(log_p * self.target).sum(-1)

    def accuracy(self, phi: Vector) -> Tensor:
        """The fraction of images whose largest logit is their label, float64 [T]."""
        return (self._logits(phi[0]).argmax(-1) == self.labels).double().mean(1)

    def grad(self, phi: Vector) -> Vector:
        """d_W g, ([T, C, d+1],)."""
        error = self._softmax(phi[0]) - self.target
        return (self._mean_outer(error, self._offset(phi[0])),)

    def grad_features(self, phi: Vector) -> Tensor:
        """d_z g, [T, n, d]: the cotangent of the features."""
        error = self._softmax(phi[0]) - self.target
        return error @ phi[0][..., :-1] / self.images

    def hvp(self, phi: Vector) -> Callable[[Vector], Vector]:
        """V -> H V, ([T, C, d+1],)."""
        p = self._softmax(phi[0])

        def product(v: Vector) -> Vector:
            return (self._mean_outer(self._curved(p, v[0]), v[0]),)

        return product

    def cross(self, phi: Vector, v: Vector) -> Tensor:
        """d_z < d_W g, V >, [T, n, d]. R has no features in it: it enters through phi* and V alone."""
        p = self._softmax(phi[0])
        total = (p - self.target) @ v[0][..., :-1] + self._curved(p, v[0]) @ phi[0][..., :-1]
        return total / self.images

    def inverse(self, phi: Vector) -> Callable[[Vector], Vector]:
        """r -> H^-1 r by the support space; needs mu > 0. Features that are not finite give a result that is not.

        The small system is formed and factorised in float64: in float32 it loses definiteness near kappa = 1e8.
        """
        assert self.mu > 0, "H is singular without R"
        tasks, n, ways = self.target.shape
        z, gram = self._double
        p = torch.softmax(self._logits(phi[0]).double(), -1)
        root = p.sqrt()
        a = torch.diag_embed(root) - p[..., :, None] * root[..., None, :]
        flat = a.transpose(1, 2).reshape(tasks, ways, n * ways)
        system = torch.bmm(flat.mT, flat)
        system.view(tasks, n, ways, n, ways).mul_(gram[:, :, None, :, None])
        system.diagonal(dim1=1, dim2=2).add_(self.mu * n)
        factor, _ = torch.linalg.cholesky_ex(system)

        def solve(r: Vector) -> Vector:
            right = r[0].double()
            u_r = ((z @ right.mT)[..., None, :] @ a).reshape(tasks, n * ways, 1)
            y = factor_solve(factor, u_r).reshape(tasks, n, ways, 1)
            return (((right - (a @ y).squeeze(-1).mT @ z) / self.mu).to(r[0].dtype),)

        return solve

    def _softmax(self, w: Tensor) -> Tensor:
        return torch.softmax(self._logits(w), -1)

    def _curved(self, p: Tensor, v: Tensor) -> Tensor:
        """Q = (diag(p_i) - p_i p_i^T) V z_i for every image, [T, n, C]."""
        pu = p * torch.bmm(self.z, v.mT)
        return torch.addcmul(pu, p, pu.sum(-1, keepdim=True), value=-1)


class ScaledSoftmax:
    """f of T tasks whose logits are `scale` times those of the head: the query loss of a head that is fitted to
    one-hot labels, whose outputs lie near [0, 1]."""

    def __init__(self, z: Tensor, labels: Tensor, ways: int, scale: float) -> None:
        self.head, self.scale = SoftmaxHead(z, labels, ways), scale

    def value(self, phi: Vector) -> Tensor:
        """f, [T]."""
        return self.head.value(self._scaled(phi))

    def accuracy(self, phi: Vector) -> Tensor:
        """Of `SoftmaxHead`: no scale moves the largest logit."""
        return self.head.accuracy(phi)

    def grad(self, phi: Vector) -> Vector:
        """d_W f, ([T, C, d+1],)."""
        return (self.scale * self.head.grad(self._scaled(phi))[0],)

    def grad_features(self, phi: Vector) -> Tensor:
        """d_z f, [T, n, d]."""
        return self.head.grad_features(self._scaled(phi))

    def _scaled(self, phi: Vector) -> Vector:
        return (self.scale * phi[0],)
