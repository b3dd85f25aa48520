"""Closed forms of a linear head on features under a convex loss of its logits, batched over T tasks.

Shapes: z [T, n, d] are the features of n images. phi = (W,) with W [T, C, d+1], whose last column is the bias. So
Z = [z, 1] is [T, n, d+1], and the logits are U = Z W^T [T, n, C]. l' and S are the slope and the Hessian of the loss at
U (`logit_losses`); S acts on each image's row.

    g(W)     = mean_i l(W z_i) + mu/2 |W - W_c|^2                       W_c: center of R
    d_W g    = l'^T Z / n + mu (W - W_c)
    H V      = (S Z V^T)^T Z / n + mu V
    d_z <d_W g, V> = [ l' V + (S Z V^T) W ] / n                         without the bias column
    L_g     <= mu + curvature lambda_max(Z Z^T) / n
    H^-1 r   = ( r - (M^-1 Z r^T)^T Z ) / mu,   M = Z Z^T + mu n S^-1   Woodbury

mu = 0 gives an upper loss f.
"""

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from memmeta_exp.bilevel.logit_losses import CrossEntropy, LogitLoss, Squares
from memmeta_exp.bilevel.vectors import Vector

SQUARINGS = 14


def largest_eigenvalue(gram: Tensor) -> Tensor:
    """An upper bound on lambda_max of positive semidefinite matrices [T, n, n], as [T].

    It is tr(A^p)^(1/p) with p = 2^14, which lies in [lambda_max, n^(1/p) lambda_max]: 0.02 % for n = 25. It takes
    batched products alone. Eigenvalue routines of a GPU work one matrix after the other and make the host wait.
    """
    scale = gram.diagonal(dim1=1, dim2=2).sum(1)
    log_trace, power = torch.zeros_like(scale), gram / torch.where(scale > 0, scale, 1.0)[:, None, None]
    for _ in range(SQUARINGS):
        power = power @ power
        trace = power.diagonal(dim1=1, dim2=2).sum(1)
        power = power / torch.where(trace > 0, trace, 1.0)[:, None, None]
        log_trace = 2 * log_trace + trace.log()
    return scale * (log_trace / 2**SQUARINGS).exp()


class LinearHead:
    """f or g of T tasks over fixed features z [T, n, d].

    loss: of the logits. mu: weight of R. center: W_c [C, d+1], or one for each task [T, C, d+1]; None for 0.
    """

    def __init__(self, z: Tensor, loss: LogitLoss, mu: float = 0.0, center: Tensor | None = None) -> None:
        self.z = torch.cat([z, z.new_ones(*z.shape[:-1], 1)], -1)
        self.loss, self.mu, self.center = loss, mu, center
        self.images = z.shape[1]

    @property
    def modulus(self) -> float:
        """mu: R makes g strongly convex with this constant."""
        return self.mu

    @property
    def double(self) -> "LinearHead":
        """The same head in float64, the precision of every factorisation."""
        return self if self.z.dtype == torch.float64 else self._double

    @cached_property
    def _double(self) -> "LinearHead":
        center = None if self.center is None else self.center.double()
        return LinearHead(self.z[..., :-1].double(), self.loss, self.mu, center)

    @cached_property
    def gram(self) -> Tensor:
        """K = Z Z^T, [T, n, n]."""
        return torch.bmm(self.z, self.z.mT)

    def value(self, phi: Vector) -> Tensor:
        """g, [T]."""
        return self.losses(phi).mean(1) + self.mu / 2 * self.centered(phi[0]).square().sum((1, 2))

    def losses(self, phi: Vector) -> Tensor:
        """The loss of each image, [T, n], without R."""
        return self.loss.values(self.logits(phi))

    def logits(self, phi: Vector) -> Tensor:
        """U = Z W^T, [T, n, C]."""
        return torch.bmm(self.z, phi[0].mT)

    def accuracy(self, phi: Vector) -> Tensor | None:
        """The fraction of images classified correctly, float64 [T]; None where there are no classes."""
        return self.loss.accuracy(self.logits(phi))

    def grad(self, phi: Vector) -> Vector:
        """d_W g, ([T, C, d+1],)."""
        return (self.pull(self.loss.slope(self.logits(phi)), self.centered(phi[0])),)

    def grad_features(self, phi: Vector) -> Tensor:
        """d_z g = l' W / n, [T, n, d]: the cotangent of the features."""
        return self.loss.slope(self.logits(phi)) @ phi[0][..., :-1] / self.images

    def hvp(self, phi: Vector) -> Callable[[Vector], Vector]:
        """V -> H V, ([T, C, d+1],)."""
        hvp = self.loss.hvp(self.logits(phi))
        return lambda v: (self.pull(hvp(self.logits(v)), v[0]),)

    def cross(self, phi: Vector, v: Vector) -> Tensor:
        """d_z < d_W g, V >, [T, n, d]. R does not depend on z, so it has no term here."""
        u = self.logits(phi)
        total = self.loss.slope(u) @ v[0][..., :-1] + self.loss.hvp(u)(self.logits(v)) @ phi[0][..., :-1]
        return total / self.images

    def cross_center(self, v: Vector) -> Tensor:
        """d_{W_c} < d_W g, V > = -mu V, [T, C, d+1]."""
        return -self.mu * v[0]

    def regularizer_center(self) -> Tensor:
        """W_c for every task, [T, C, d+1]: the minimiser of R."""
        shape = (len(self.z), self.loss.target.shape[-1], self.z.shape[-1])
        return self.z.new_zeros(shape) if self.center is None else self.center.expand(shape)

    def smoothness(self) -> Tensor:
        """An upper bound on L_g, [T], equal to L_g for squares. NaN where the features are not finite.

        On a GPU it is up to 0.02 % larger: see `largest_eigenvalue`.
        """
        few = self.z.shape[1] <= self.z.shape[2]
        gram = self.gram if few else self.z.mT @ self.z  # the same non-zero eigenvalues, the smaller side
        squares = gram.diagonal(dim1=1, dim2=2).sum(1)  # not finite where a feature is not
        gram = gram.nan_to_num(0.0, 0.0, 0.0)
        top = largest_eigenvalue(gram) if gram.is_cuda else torch.linalg.eigvalsh(gram)[:, -1]
        return self.mu + self.loss.curvature * top / self.images + 0 * squares  # 0 * inf is NaN

    def inverse(self, phi: Vector) -> Callable[[Vector], Vector]:
        """r -> H^-1 r; needs mu > 0. Features that are not finite give a result that is not finite.

        The system is formed and factorised in float64: in float32 it loses definiteness near kappa = 1e8.
        """
        assert self.mu > 0, "H is singular without R"
        g = self.double
        solve = self.loss.inverse(g.logits((phi[0].double(),)), g.gram, self.mu * self.images)

        def times(r: Vector) -> Vector:
            right = r[0].double()
            return (((right - solve(g.logits((right,))).mT @ g.z) / self.mu).to(r[0].dtype),)

        return times

    def pull(self, values: Tensor, w: Tensor) -> Tensor:
        """values^T Z / n + mu w, [T, C, d+1], for values [T, n, C]. One call, because calls dominate the cost here."""
        return torch.baddbmm(w, values.mT, self.z, beta=self.mu, alpha=1 / self.images)

    def centered(self, w: Tensor) -> Tensor:
        """W - W_c."""
        return w if self.center is None else w - self.center


class SoftmaxHead(LinearHead):
    """Mean cross-entropy. labels: int64 [T, n]; ways: C."""

    def __init__(self, z: Tensor, labels: Tensor, ways: int, mu: float = 0.0, center: Tensor | None = None) -> None:
        super().__init__(z, CrossEntropy(labels, ways, z.dtype), mu, center)
        self.labels = labels


class ScaledSoftmax(LinearHead):
    """Mean cross-entropy of `scale` times the logits.

    It is the query loss of a head that is fitted to one-hot labels, whose outputs lie near [0, 1].
    """

    def __init__(self, z: Tensor, labels: Tensor, ways: int, scale: float) -> None:
        super().__init__(z, CrossEntropy(labels, ways, z.dtype, scale))


class RidgeHead(LinearHead):
    """Half the mean squared error (Bertinetto et al. 2019, whose lambda is mu n). One Newton step reaches phi*.

    target: the regression targets [T, n, C]; one-hot labels in classification.
    """

    def __init__(self, z: Tensor, target: Tensor, mu: float = 0.0, center: Tensor | None = None) -> None:
        super().__init__(z, Squares(target.to(z.dtype)), mu, center)


class SquaredError(LinearHead):
    """The mean squared error, the query loss of regression. target: [T, m, C]."""

    def __init__(self, z: Tensor, target: Tensor) -> None:
        super().__init__(z, Squares(target.to(z.dtype), weight=2.0))
