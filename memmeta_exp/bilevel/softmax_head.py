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
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from memmeta_exp.bilevel.vectors import Vector


class SoftmaxHead:
    """f or g of T tasks over fixed features: mu = 0 gives the plain mean cross-entropy (f).

    z: [T, n, d]; labels: [T, n] int64; ways: C; mu: R's weight; centre: W_c [C, d+1] or None for 0.
    """

    def __init__(self, z: Tensor, labels: Tensor, ways: int, mu: float = 0.0, centre: Tensor | None = None) -> None:
        self.z = torch.cat([z, z.new_ones(*z.shape[:-1], 1)], -1)
        self.labels = labels
        self.target = F.one_hot(labels, ways).to(z.dtype)
        self.mu = mu
        self.centre = centre
        self.images = z.shape[1]

    @property
    def modulus(self) -> float:
        """g is strongly convex by R alone: mu."""
        return self.mu

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

    def cross_centre(self, v: Vector) -> Tensor:
        """d_{W_c} < d_W g, V > = -mu V, [T, C, d+1]."""
        return -self.mu * v[0]

    def calm_start(self) -> Tensor:
        """W_c for every task, [T, C, d+1]: where R is least."""
        shape = (len(self.z), self.target.shape[-1], self.z.shape[-1])
        return self.z.new_zeros(shape) if self.centre is None else self.centre.expand(shape)

    def smoothness(self) -> Tensor:
        """The bound on L_g, [T]. NaN where the features are not finite."""
        wide = self.z.shape[1] <= self.z.shape[2]
        gram = self.z @ self.z.mT if wide else self.z.mT @ self.z  # the same non-zero eigenvalues, the smaller side
        finite = gram.isfinite().all((1, 2))
        top = torch.linalg.eigvalsh(torch.where(finite[:, None, None], gram, 0.0))[:, -1]
        return torch.where(finite, self.mu + 0.5 * top / self.images, torch.nan)

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
            y = torch.cholesky_solve(u_r, factor).reshape(tasks, n, ways, 1)
            return (((right - (a @ y).squeeze(-1).mT @ z) / self.mu).to(r[0].dtype),)

        return solve

    @cached_property
    def _double(self) -> tuple[Tensor, Tensor]:
        """Z and Z Z^T in float64."""
        z = self.z.double()
        return z, torch.bmm(z, z.mT)

    def _mean_outer(self, values: Tensor, w: Tensor) -> Tensor:
        """values^T Z / n + mu w in one call: these matrices are so small that calls are what costs."""
        return torch.baddbmm(w, values.mT, self.z, beta=self.mu, alpha=1 / self.images)

    def _offset(self, w: Tensor) -> Tensor:
        return w if self.centre is None else w - self.centre

    def _logits(self, w: Tensor) -> Tensor:
        return torch.bmm(self.z, w.mT)

    def _softmax(self, w: Tensor) -> Tensor:
        return torch.softmax(self._logits(w), -1)

    def _curved(self, p: Tensor, v: Tensor) -> Tensor:
        """Q = (diag(p_i) - p_i p_i^T) V z_i for every image, [T, n, C]."""
        pu = p * torch.bmm(self.z, v.mT)
        return torch.addcmul(pu, p, pu.sum(-1, keepdim=True), value=-1)
