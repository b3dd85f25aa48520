"""The cosine head on features (Gidaris and Komodakis 2018), batched over T tasks.

With zh_i = z_i / |z_i|, wh_c = w_c / |w_c|, P = softmax of the logits [T, n, C], Y the one-hot labels, n the images:

    logits_ic = s <zh_i, wh_c>,      g(W) = mean_i CE(logits_i, y_i) + mu/2 |W - W_c|^2
    d_w_c g   = (1 - wh_c wh_c^T) a_c / |w_c| + mu (w_c - W_c),      a = s (P - Y)^T Zh / n
    d_z_i g   = (1 - zh_i zh_i^T) b_i / |z_i|,                       b = s (P - Y) Wh / n

Autograd of these gives the second derivatives. W is [T, C, d+1] as for linear heads. Its last column, the bias of a
linear head, enters R alone.

The cross-entropy does not depend on |w_c|, so it is not convex in W. With W_c = 0 there is no minimiser, because R
shrinks W without end. With another W_c there is one, but strong convexity near it is not proven. Error estimates use
the modulus mu all the same. Conjugate gradients report a direction of non-positive curvature.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from memmeta_exp.bilevel.objectives import AutogradLower
from memmeta_exp.bilevel.vectors import Vector, one_hot


class CosineHead(AutogradLower):
    """f (mu = 0) or g of T tasks.

    z: features [T, n, d]. labels: int64 [T, n]. ways: C. scale: s. mu: weight of R. center: W_c, None for f.
    """

    def __init__(
        self, z: Tensor, labels: Tensor, ways: int, scale: float, mu: float = 0.0, center: Tensor | None = None
    ) -> None:
        super().__init__(self.value)
        self.z, self.labels, self.scale = z, labels, scale
        self.target = one_hot(labels, ways, z.dtype)
        self.mu, self.center = mu, center

    @property
    def modulus(self) -> float:
        """mu, assumed and not proven: see the module's docstring."""
        return self.mu

    def value(self, phi: Vector) -> Tensor:
        """g, [T]."""
        log_p = torch.log_softmax(self._logits(self.z, phi[0]), -1)
        return -(log_p * self.target).sum((1, 2)) / self.z.shape[1] + self.mu / 2 * self._centered(phi[0]).square().sum(
            (1, 2)
        )

    def accuracy(self, phi: Vector) -> Tensor:
        """The fraction of images classified correctly, float64 [T]."""
        return (self._logits(self.z, phi[0]).argmax(-1) == self.labels).double().mean(1)

    def grad(self, phi: Vector) -> Vector:
        """d_W g, ([T, C, d+1],)."""
        return (self._slope(self.z, phi[0]),)

    def grad_features(self, phi: Vector) -> Tensor:
        """d_z g, [T, n, d]."""
        return _through_norm(self._error(self.z, phi[0]) @ F.normalize(phi[0][..., :-1], dim=-1), self.z)

    def hvp(self, phi: Vector) -> Callable[[Vector], Vector]:
        """V -> H V; all products share one graph of d_W g."""
        w = phi[0].detach().requires_grad_()
        with torch.enable_grad():
            slope = self._slope(self.z.detach(), w)
        return lambda v: torch.autograd.grad(slope, (w,), v, retain_graph=True)  # H is symmetric

    def cross(self, phi: Vector, v: Vector) -> Tensor:
        """d_z < d_W g, V >, [T, n, d]."""
        z = self.z.detach().requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad(self._slope(z, phi[0].detach()), z, v[0])[0]

    def cross_center(self, v: Vector) -> Tensor:
        """d_{W_c} < d_W g, V > = -mu V, [T, C, d+1]."""
        return -self.mu * v[0]

    def regularizer_center(self) -> Tensor:
        """W_c for every task, [T, C, d+1]."""
        assert self.center is not None, "a cosine to 0 is not defined"
        return self.center.expand(len(self.z), -1, -1)

    def smoothness(self) -> Tensor:
        """NaN, [T]: L_g has no bound, because the curvature grows as 1 / |w_c|^2."""
        return self.z.new_full((len(self.z),), torch.nan)

    def _logits(self, z: Tensor, w: Tensor) -> Tensor:
        return self.scale * F.normalize(z, dim=-1) @ F.normalize(w[..., :-1], dim=-1).mT

    def _error(self, z: Tensor, w: Tensor) -> Tensor:
        """s (P - Y) / n."""
        return (torch.softmax(self._logits(z, w), -1) - self.target) * (self.scale / z.shape[1])

    def _slope(self, z: Tensor, w: Tensor) -> Tensor:
        pulled = _through_norm(self._error(z, w).mT @ F.normalize(z, dim=-1), w[..., :-1])
        return F.pad(pulled, (0, 1)) + self.mu * self._centered(w)

    def _centered(self, w: Tensor) -> Tensor:
        return w if self.center is None else w - self.center


def _through_norm(cotangent: Tensor, x: Tensor) -> Tensor:
    """The cotangent of x, from that of x / |x|, row by row."""
    size = x.norm(dim=-1, keepdim=True).clamp(min=1e-12)  # the bound of F.normalize
    unit = x / size
    return (cotangent - unit * (unit * cotangent).sum(-1, keepdim=True)) / size


def prototypes(z: Tensor, labels: Tensor, ways: int) -> Tensor:
    """The linear head of the class means m_c: w_c = 2 m_c with bias -|m_c|^2, [T, C, d+1].

    z: features [T, n, d]. labels: int64 [T, n]. ways: C. The logits are |z|^2 - |z - m_c|^2, so the softmax is that of
    a prototypical network (Snell et al. 2017). Triantafillou et al. (2020) start a head from it. A class without
    images has w_c = 0.
    """
    belongs = one_hot(labels, ways, z.dtype)
    means = belongs.mT @ z / belongs.sum(1).clamp(min=1)[..., None]
    return torch.cat([2 * means, -means.square().sum(-1, keepdim=True)], -1)
