"""The lower level of a linear head in the space of its support images.

A linear head W [C, D] on n support features Z [n, D] (ones column included), under any convex loss l of its logits:

    g(W) = mean_i l(W z_i) + mu/2 |W - W_c|^2

The minimiser has the form W = W_c + A^T Z with A [n, C] (representer theorem): a part of W - W_c that is orthogonal to
every image would raise R and change no logit. So the features enter g through the Gram matrix K = Z Z^T [n, n] alone.
With the logits U = Z W_c^T + K A [n, C], and l' [n, C] and S [n, C, C] the slope and the Hessian of the loss at them:

    d_W g             = G^T Z,              G = l'/n + mu A
    optimality        mu n A = -l'          (softmax: Y - P)
    <A^T Z, B^T Z>    = tr(A^T K B),        so |d_W g|^2 = tr(G^T K G)
    Newton            A <- A - (G - M^-1 K G) / mu,      M = K + mu n S^-1

Neither K nor M depends on D. M^-1 takes one n x n system for squares, and C + 1 for the softmax, as in Gaussian process
classification (Rasmussen and Williams 2006, Algorithm 3.3): see `logit_losses`.

The hypergradient. f depends on W through the query logits Z_q W^T. Let E [m, C] be its derivative by them. Then
d_W f = E^T Z_q, and the paper's H v = d_W f and dF = d f - d < d_W g, v > become

    beta = M^-1 Z Z_q^T E [n, C],      V = (E^T Z_q - beta^T Z) / mu        (v, as a matrix [C, D])

    dF/dZ_q = E W,                     dF/dZ = mu A V - beta W

since beta = S Z V^T / n. Away from the optimum, -l'/n replaces mu A. With it, the two lines hold for any W and V. They
are `LinearHead.grad_features` and minus `LinearHead.cross`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from memmeta_exp.bilevel.inner_solve import newton
from memmeta_exp.bilevel.linear_head import LinearHead
from memmeta_exp.bilevel.linear_solve import diagnose
from memmeta_exp.bilevel.vectors import Solution, Vector, norm


class SupportSpace:
    """The functions that `newton` needs to minimise n g of `head`, in float64. Needs mu > 0.

    A point phi is the pair (A, K A), each [T, n, C].
    """

    def __init__(self, head: LinearHead) -> None:
        assert head.mu > 0, "A = -l' / (mu n)"
        self.head, self.dtype = head.double, head.z.dtype
        self.gram, self.loss, self.mu_n = self.head.gram, head.loss, head.mu * head.images
        centred = head.center is not None
        self.center_logits = self.head.logits((self.head.regularizer_center(),)) if centred else None  # Z W_c^T
        self.origin = (torch.zeros_like(head.loss.target, dtype=self.gram.dtype),) * 2

    def newton(self, steps: int, tolerance: float) -> Solution:
        """Minimises g from W_c. The value is ([T, C, d+1],), in the precision of the features.

        tolerance: bound on |d_W g|. The residual is |d_W g| before W is rounded to that precision.
        """
        n = self.head.images
        found = newton(
            self.value, self.grad, self.inverse, self.origin, steps=steps, tolerance=tolerance * n, dot=self.dot
        )
        w = self.weights(found.value).to(self.dtype)
        return Solution((w,), found.residual / n, found.steps, found.converged, found.calls)

    def weights(self, phi: Vector) -> Tensor:
        """W = W_c + A^T Z, [T, C, d+1]."""
        w = torch.bmm(phi[0].mT, self.head.z)
        return w if self.head.center is None else self.head.center + w

    def dot(self, a: Vector, b: Vector) -> Tensor:
        """<A^T Z, B^T Z>, [T]."""
        return (a[0] * b[1]).sum((1, 2))

    def value(self, phi: Vector) -> Tensor:
        """n g, [T]."""
        return torch.add(self.loss.total(self._logits(phi)), self.dot(phi, phi), alpha=self.mu_n / 2)

    def grad(self, phi: Vector) -> Vector:
        """n G."""
        return self._with_image(torch.add(self.loss.slope(self._logits(phi)), phi[0], alpha=self.mu_n))

    def inverse(self, phi: Vector) -> Callable[[Vector], Vector]:
        """R -> (R - M^-1 K R) / (mu n)."""
        at_zero = phi is self.origin and self.center_logits is None
        inverse = self.loss.inverse_at_zero if at_zero else self.loss.inverse
        solve = inverse(self._logits(phi), self.gram, self.mu_n)
        return lambda r: self._with_image((r[0] - solve(r[1])) / self.mu_n)

    def _with_image(self, a: Tensor) -> Vector:
        return a, torch.bmm(self.gram, a)

    def _logits(self, phi: Vector) -> Tensor:
        return phi[1] if self.center_logits is None else self.center_logits + phi[1]


@dataclass(frozen=True)
class HeadGradient:
    """loss, accuracy: of f, [T]. d_support [T, n, d], d_query [T, m, d]: derivatives of F by the features. v: the
    solution of H v = d_phi f. residual: |d_phi g| at phi, [T]."""

    loss: Tensor
    accuracy: Tensor | None
    d_support: Tensor
    d_query: Tensor
    v: Solution
    residual: Tensor


def head_hypergradient(f: LinearHead, g: LinearHead, phi: Vector, tolerance: float | None = None) -> HeadGradient:
    """The derivatives of F by the features at phi ~ phi*, by the two lines above. Residuals are recomputed from W.

    f: on query features. g: on support features. Both in float64, for small residuals. tolerance: bound on
    |H v - d_phi f| / |d_phi f|, None for none.
    """
    (w,), u, u_q = phi, g.logits(phi), f.logits(phi)
    slope, hvp = g.loss.slope(u), g.loss.hvp(u)
    e = f.loss.slope(u_q) / f.images
    d_f = torch.bmm(e.mT, f.z)  # d_phi f
    beta = g.loss.inverse(u, g.gram, g.mu * g.images)(g.logits((d_f,)))
    v = torch.baddbmm(d_f, beta.mT, g.z, beta=1 / g.mu, alpha=-1 / g.mu)
    mu_a_v = torch.bmm(slope, v[..., :-1]) / -g.images
    return HeadGradient(
        loss=f.loss.values(u_q).mean(1),
        accuracy=f.loss.accuracy(u_q),
        d_support=torch.baddbmm(mu_a_v, beta, w[..., :-1], alpha=-1),
        d_query=torch.bmm(e, w[..., :-1]),
        v=diagnose(lambda x: (g.pull(hvp(g.logits(x)), x[0]),), (d_f,), (v,), tolerance),
        residual=norm((g.pull(slope, g.centered(w)),)),
    )
