"""What heads that are linear in their weights share: phi = (W,), W [T, C, d+1], the last column the bias."""

from functools import cached_property

import torch
from torch import Tensor

from memmeta_exp.bilevel.vectors import Vector

SQUARINGS = 14


def largest_eigenvalue(gram: Tensor) -> Tensor:
    """lambda_max of positive semidefinite matrices [T, n, n] from above, [T]: tr(A^p)^(1/p) with p = 2^14, which lies
    in [lambda_max, n^(1/p) lambda_max], 0.02 % for n = 25. A batch of products, where eigenvalue routines of a GPU work
    one matrix after the other and make the host wait."""
    scale = gram.diagonal(dim1=1, dim2=2).sum(1)
    log_trace, power = torch.zeros_like(scale), gram / torch.where(scale > 0, scale, 1.0)[:, None, None]
    for _ in range(SQUARINGS):
        power = power @ power
        trace = power.diagonal(dim1=1, dim2=2).sum(1)
        power = power / torch.where(trace > 0, trace, 1.0)[:, None, None]
        log_trace = 2 * log_trace + trace.log()
    return scale * (log_trace / 2**SQUARINGS).exp()


class LinearHead:
    """The features Z = [z, 1] [T, n, d+1] of T tasks and R = mu/2 |W - W_c|^2; centre: W_c [C, d+1], or of each task
    [T, C, d+1], or None for 0. curvature: a bound on the second derivative of an image's loss by its logits."""

    curvature: float

    def __init__(self, z: Tensor, target: Tensor, mu: float, centre: Tensor | None) -> None:
        self.z = torch.cat([z, z.new_ones(*z.shape[:-1], 1)], -1)
        self.target = target
        self.mu = mu
        self.centre = centre
        self.images = z.shape[1]

    @property
    def modulus(self) -> float:
        """g is strongly convex by R alone: mu."""
        return self.mu

    def cross_centre(self, v: Vector) -> Tensor:
        """d_{W_c} < d_W g, V > = -mu V, [T, C, d+1]."""
        return -self.mu * v[0]

    def regularizer_center(self) -> Tensor:
        """W_c for every task, [T, C, d+1]: where R is least."""
        shape = (len(self.z), self.target.shape[-1], self.z.shape[-1])
        return self.z.new_zeros(shape) if self.centre is None else self.centre.expand(shape)

    def smoothness(self) -> Tensor:
        """The bound mu + curvature lambda_max(Z Z^T) / n on L_g, [T]. NaN where the features are not finite. On a GPU
        it is up to 0.02 % larger, see `largest_eigenvalue`."""
        wide = self.z.shape[1] <= self.z.shape[2]
        gram = self.z @ self.z.mT if wide else self.z.mT @ self.z  # the same non-zero eigenvalues, the smaller side
        finite = gram.isfinite().all((1, 2))
        gram = torch.where(finite[:, None, None], gram, 0.0)
        top = largest_eigenvalue(gram) if gram.is_cuda else torch.linalg.eigvalsh(gram)[:, -1]
        return torch.where(finite, self.mu + self.curvature * top / self.images, torch.nan)

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
