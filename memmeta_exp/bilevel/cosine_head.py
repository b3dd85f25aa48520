"""The cosine head on features (Gidaris and Komodakis 2018), by autograd, batched over T tasks.

    logits_ic = s <z_i / |z_i|, w_c / |w_c|>,      g(W) = mean_i CE(logits_i, y_i) + mu/2 |W - W_c|^2

W is [T, C, d+1] as for the linear heads; its last column, their bias, is in R alone. The cross-entropy does not see the
lengths of the w_c, so it is not convex in W, and around W_c = 0 there is no minimiser: R shrinks W for ever. Around
another W_c there is one; strong convexity near it is not proven, and what a solve finds is held against mu as if it
were (as iMAML's is against lambda): conjugate gradients that meet a direction of non-positive curvature say so.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from memmeta_exp.bilevel.objectives import AutogradLower
from memmeta_exp.bilevel.vectors import Vector


class CosineHead(AutogradLower):
    """f (mu = 0) or g of T tasks over features z [T, n, d]; labels [T, n]; ways: C; scale: s; mu, centre: of R."""

    def __init__(
        self, z: Tensor, labels: Tensor, ways: int, scale: float, mu: float = 0.0, centre: Tensor | None = None
    ) -> None:
        super().__init__(lambda phi: self.at(self.z, phi[0]))
        self.z, self.labels, self.ways, self.scale = z, labels, ways, scale
        self.mu, self.centre = mu, centre

    @property
    def modulus(self) -> float:
        """mu, which nothing proves: see above."""
        return self.mu

    def at(self, z: Tensor, w: Tensor) -> Tensor:
        """g at features z, [T]."""
        loss = F.cross_entropy(self._logits(z, w).flatten(0, 1), self.labels.flatten(), reduction="none")
        offset = w if self.centre is None else w - self.centre
        return loss.view(self.labels.shape).mean(1) + self.mu / 2 * offset.square().sum((1, 2))

    def accuracy(self, phi: Vector) -> Tensor:
        """The fraction of images whose largest logit is their label, float64 [T]."""
        return (self._logits(self.z, phi[0]).argmax(-1) == self.labels).double().mean(1)

    def grad_features(self, phi: Vector) -> Tensor:
        """d_z g, [T, n, d]."""
        z = self.z.detach().requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad(self.at(z, phi[0]).sum(), z)[0]

    def cross(self, phi: Vector, v: Vector) -> Tensor:
        """d_z < d_W g, V >, [T, n, d]."""
        z, w = self.z.detach().requires_grad_(), phi[0].detach().requires_grad_()
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(self.at(z, w).sum(), w, create_graph=True)
            return torch.autograd.grad(slope, z, v[0])[0]

    def cross_centre(self, v: Vector) -> Tensor:
        """d_{W_c} < d_W g, V > = -mu V, [T, C, d+1]."""
        return -self.mu * v[0]

    def calm_start(self) -> Tensor:
        """W_c for every task, [T, C, d+1]."""
        assert self.centre is not None, "a cosine to 0 is not defined"
        return self.centre.expand(len(self.z), self.ways, self.z.shape[-1] + 1)

    def smoothness(self) -> Tensor:
        """NaN, [T]: L_g has no bound, for the curvature grows as 1 / |w_c|^2."""
        return self.z.new_full((len(self.z),), torch.nan)

    def _logits(self, z: Tensor, w: Tensor) -> Tensor:
        return self.scale * F.normalize(z, dim=-1) @ F.normalize(w[..., :-1], dim=-1).mT


def prototypes(z: Tensor, labels: Tensor, ways: int) -> Tensor:
    """The class means m_c of the features as a linear head: w_c = 2 m_c with bias -|m_c|^2, [T, C, d+1].

    Its logits are |z|^2 - |z - m_c|^2: the softmax of a prototypical network (Snell et al. 2017; as the start of a head
    Triantafillou et al. 2020). A class without images has w = 0.
    """
    belongs = F.one_hot(labels, ways).to(z.dtype)
    means = belongs.mT @ z / belongs.sum(1).clamp(min=1)[..., None]
    return torch.cat([2 * means, -means.square().sum(-1, keepdim=True)], -1)
