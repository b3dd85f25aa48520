"""The reference head solver of `benchmarks/head.py`: the default head of `proposed` at revision 452a539, which does not
use the support space. It applies Newton's method to W with an nC x nC system for the softmax, in float32 except for the
factorisation, with one step of iterative refinement."""

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from memmeta_exp.algorithms.feature_space import FeatureGradient
from memmeta_exp.bilevel import Solution, Vector, direct
from memmeta_exp.bilevel.inner_solve import ARMIJO_SLOPE, HALVINGS
from memmeta_exp.bilevel.vectors import axpy, dot, loop_status, norm, one_hot


class Head:
    """f (mu = 0) or g of T tasks over features z [T, n, d]; labels [T, n]; ways C; R = mu/2 |W|^2."""

    def __init__(self, z: Tensor, labels: Tensor, ways: int, mu: float = 0.0) -> None:
        self.z = torch.cat([z, z.new_ones(*z.shape[:-1], 1)], -1)
        self.target, self.labels = one_hot(labels, ways, z.dtype), labels
        self.mu, self.images = mu, z.shape[1]

    @cached_property
    def double(self) -> tuple[Tensor, Tensor]:
        """Z and Z Z^T in float64."""
        z = self.z.double()
        return z, torch.bmm(z, z.mT)

    def value(self, phi: Vector) -> Tensor:
        log_p = torch.log_softmax(self.logits(phi[0]), -1)
        return -(log_p * self.target).sum(-1).mean(1) + self.mu / 2 * phi[0].square().sum((1, 2))

    def accuracy(self, phi: Vector) -> Tensor:
        return (self.logits(phi[0]).argmax(-1) == self.labels).double().mean(1)

    def grad(self, phi: Vector) -> Vector:
        return (self.mean_outer(self.softmax(phi[0]) - self.target, phi[0]),)

    def grad_features(self, phi: Vector) -> Tensor:
        return (self.softmax(phi[0]) - self.target) @ phi[0][..., :-1] / self.images

    def hvp(self, phi: Vector) -> Callable[[Vector], Vector]:
        p = self.softmax(phi[0])
        return lambda v: (self.mean_outer(self.curved(p, v[0]), v[0]),)

    def cross(self, phi: Vector, v: Vector) -> Tensor:
        p = self.softmax(phi[0])
        total = (p - self.target) @ v[0][..., :-1] + self.curved(p, v[0]) @ phi[0][..., :-1]
        return total / self.images

    def smoothness(self) -> Tensor:
        wide = self.z.shape[1] <= self.z.shape[2]
        gram = self.z @ self.z.mT if wide else self.z.mT @ self.z
        finite = gram.isfinite().all((1, 2))
        top = torch.linalg.eigvalsh(torch.where(finite[:, None, None], gram, 0.0))[:, -1]
        return torch.where(finite, self.mu + 0.5 * top / self.images, torch.nan)

    def inverse(self, phi: Vector) -> Callable[[Vector], Vector]:
        tasks, n, ways = self.target.shape
        z, gram = self.double
        p = torch.softmax(self.logits(phi[0]).double(), -1)
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

    def logits(self, w: Tensor) -> Tensor:
        return torch.bmm(self.z, w.mT)

    def softmax(self, w: Tensor) -> Tensor:
        return torch.softmax(self.logits(w), -1)

    def curved(self, p: Tensor, v: Tensor) -> Tensor:
        pu = p * torch.bmm(self.z, v.mT)
        return torch.addcmul(pu, p, pu.sum(-1, keepdim=True), value=-1)

    def mean_outer(self, values: Tensor, w: Tensor) -> Tensor:
        return torch.baddbmm(w, values.mT, self.z, beta=self.mu, alpha=1 / self.images)


def newton(g: Head, start: Tensor, steps: int, tolerance: float) -> Solution:
    phi = (start,)
    slope, now = g.grad(phi), g.value(phi)
    size = norm(slope)
    count = torch.zeros_like(size, dtype=torch.int64)
    for done in range(steps):
        active = size > tolerance
        if not loop_status(active, done).some:
            break
        direction = g.inverse(phi)(slope)
        phi, now = armijo(g, phi, now, direction, dot(slope, direction), active)
        count, slope = count + active, g.grad(phi)
        size = norm(slope)
    return Solution(phi, size, count, size <= tolerance, count + 1)


def armijo(
    g: Head, phi: Vector, now: Tensor, direction: Vector, decrease: Tensor, active: Tensor
) -> tuple[Vector, Tensor]:
    slack = 8 * torch.finfo(now.dtype).eps * now.abs()
    length, too_far = active.to(now.dtype), active
    stepped, reached = phi, now
    for halving in range(HALVINGS):
        stepped = axpy(-length, direction, phi)
        reached = g.value(stepped)
        too_far = too_far & ~(reached <= now - ARMIJO_SLOPE * length * decrease + slack)
        if not loop_status(too_far, halving + 1).some:
            break
        length = torch.where(too_far, 0.5 ** (halving + 1), length)
    moves = active & ~too_far
    moved = tuple(torch.where(moves.view(-1, 1, 1), a, b) for a, b in zip(stepped, phi, strict=True))
    return moved, torch.where(moves, reached, now)


def feature_gradient(
    support: tuple[Tensor, Tensor],
    query: tuple[Tensor, Tensor],
    start: Tensor,
    mu: float,
    inner_steps: int = 20,
    inner_tolerance: float = 1e-4,
) -> FeatureGradient:
    """The same as `Proposed.feature_gradient` with its defaults. start: phi_0 [C, d+1]."""
    g, f = Head(*support, len(start), mu), Head(*query, len(start))
    inner = newton(g, g.z.new_zeros(len(g.z), *start.shape), inner_steps, inner_tolerance)
    phi = inner.value
    linear = direct(g.hvp(phi), f.grad(phi), inverse=g.inverse(phi), tolerance=1e-3)
    lower = inner.residual <= 0.1 * mu * norm(phi)
    return FeatureGradient(
        loss=f.value(phi),
        accuracy=f.accuracy(phi),
        d_support=-g.cross(phi, linear.value),
        d_query=f.grad_features(phi),
        d_start=(mu * linear.value[0]).sum_to_size(start.shape),
        inner=inner,
        linear=linear,
        smoothness=g.smoothness(),
        inexact=~(lower & inner.converged & linear.converged & (linear.residual <= 0.1)),
        gradients=inner.calls + 2,
        products=linear.calls + 1,
    )
