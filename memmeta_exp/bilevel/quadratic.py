"""Quadratic tasks, for which F, its gradient and its minimiser have closed forms.

With u = theta (p numbers) and phi (q numbers), task i is

    g_i(theta, phi) = 1/2 <phi - y_i, S_i (phi - y_i)> + mu/2 |phi - phi_c|^2,      y_i(theta) = M_i theta + m_i
    f_i(theta, phi) = 1/2 |phi - c_i|^2 + rho/2 |theta - d_i|^2

phi_c is the center of R, 0 unless it is learned. Every strongly convex quadratic in phi whose minimiser is affine in
theta has this form. With H_i = S_i + mu I,

    phi_i*(theta) = J_i theta + k_i + mu H_i^-1 phi_c,     J_i = H_i^-1 S_i M_i,  k_i = H_i^-1 S_i m_i

So F is quadratic in theta (and phi_c). With mu = 0, phi_i* = M_i theta + m_i. F then does not depend on S_i: the
spectrum of S_i decides only how hard the lower level is.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from memmeta_exp.bilevel.cholesky import factor_solve
from memmeta_exp.bilevel.vectors import Vector, dot


@dataclass(frozen=True)
class QuadraticTasks:
    """n tasks, in the letters above.

    curvature: S [n, q, q]. slope: M [n, q, p]. offset: m [n, q]. target: c [n, q]. anchor: d [n, p]. rho: [n]. least,
    largest: the extreme eigenvalues of S, [n].
    """

    curvature: Tensor
    slope: Tensor
    offset: Tensor
    target: Tensor
    anchor: Tensor
    rho: Tensor
    least: Tensor
    largest: Tensor

    def __len__(self) -> int:
        return len(self.offset)

    def __getitem__(self, index: Tensor) -> "QuadraticTasks":
        return self._map(lambda t: t[index])

    def to(self, device: torch.device, dtype: torch.dtype) -> "QuadraticTasks":
        """The same tasks on another device or in another precision."""
        return self._map(lambda t: t.to(device, dtype))

    def _map(self, function: Callable[[Tensor], Tensor]) -> "QuadraticTasks":
        return QuadraticTasks(*(function(getattr(self, f.name)) for f in fields(self)))


class QuadraticLower:
    """g of T `tasks`. z: theta, one row a task, [T, p]. phi: ([T, 1, q],). center: phi_c [1, q], None for 0."""

    def __init__(self, z: Tensor, tasks: QuadraticTasks, mu: float = 0.0, center: Tensor | None = None) -> None:
        self.z, self.tasks, self.mu, self.center = z, tasks, mu, center
        self.minimum = (tasks.slope @ z[..., None]).mT + tasks.offset[:, None]  # y, [T, 1, q]

    def value(self, phi: Vector) -> Tensor:
        """g, [T]."""
        away = phi[0] - self.minimum
        return (
            dot((away,), (away @ self.tasks.curvature,)) + self.mu * self._centered(phi[0]).square().sum((1, 2))
        ) / 2

    def grad(self, phi: Vector) -> Vector:
        """d_phi g, ([T, 1, q],)."""
        slope = (phi[0] - self.minimum) @ self.tasks.curvature  # S is symmetric
        return (torch.add(slope, self._centered(phi[0]), alpha=self.mu) if self.mu else slope,)

    def hvp(self, phi: Vector) -> Callable[[Vector], Vector]:
        """v -> H v, ([T, 1, q],), the same at every phi."""
        return lambda v: (torch.add(v[0] @ self.tasks.curvature, v[0], alpha=self.mu),)

    def cross(self, phi: Vector, v: Vector) -> Tensor:
        """d_z < d_phi g, v > = -M^T S v, [T, p]."""
        return -(v[0] @ self.tasks.curvature @ self.tasks.slope).squeeze(1)

    def cross_center(self, v: Vector) -> Tensor:
        """d_{phi_c} < d_phi g, v > = -mu v, [T, 1, q]."""
        return -self.mu * v[0]

    def regularizer_center(self) -> Tensor:
        """phi_c for every task, [T, 1, q]."""
        return torch.zeros_like(self.minimum) if self.center is None else self.center.expand_as(self.minimum)

    def smoothness(self) -> Tensor:
        """L_g, exactly, [T]."""
        return self.tasks.largest + self.mu

    @property
    def modulus(self) -> Tensor:
        """The constant of strong convexity of g, exactly, [T]."""
        return self.tasks.least + self.mu

    def inverse(self, phi: Vector) -> Callable[[Vector], Vector]:
        """r -> H^-1 r by a Cholesky factorisation."""
        factor, _ = torch.linalg.cholesky_ex(_hessian(self.tasks, self.mu))
        return lambda r: (factor_solve(factor, r[0].mT).mT,)

    def _centered(self, phi: Tensor) -> Tensor:
        return phi if self.center is None else phi - self.center


class QuadraticUpper:
    """f of the T `tasks` at z = theta, one row a task, [T, p]."""

    def __init__(self, z: Tensor, tasks: QuadraticTasks) -> None:
        self.z, self.tasks = z, tasks

    def value(self, phi: Vector) -> Tensor:
        """f, [T]."""
        miss, away = phi[0] - self.tasks.target[:, None], self.z - self.tasks.anchor
        return (miss.square().sum((1, 2)) + self.tasks.rho * away.square().sum(1)) / 2

    def accuracy(self, phi: Vector) -> None:
        """None: there are no classes."""

    def grad(self, phi: Vector) -> Vector:
        """d_phi f, ([T, 1, q],)."""
        return (phi[0] - self.tasks.target[:, None],)

    def grad_features(self, phi: Vector) -> Tensor:
        """d_z f, [T, p]."""
        return self.tasks.rho[:, None] * (self.z - self.tasks.anchor)


class QuadraticObjective:
    """F, the mean over `tasks`, as a function of u [P]. u is theta, or (theta, phi_c) where phi_c is `learned`.

    hessian: [P, P]. minimiser: [P], the one of least norm where there are several. least: min F. smoothness: L_F. F and
    its gradient are computed from u - minimiser, which keeps their relative precision near the minimiser.
    """

    def __init__(self, tasks: QuadraticTasks, mu: float, learned: bool) -> None:
        p, n = tasks.slope.shape[-1], len(tasks)
        parts = [tasks.curvature @ tasks.slope, (tasks.curvature @ tasks.offset[..., None])]
        if learned:
            parts.insert(1, mu * torch.eye(tasks.offset.shape[1]).to(tasks.offset).expand_as(tasks.curvature))
        solution = torch.linalg.solve(_hessian(tasks, mu), torch.cat(parts, -1))
        jacobian, constant = solution[..., :-1], solution[..., -1] - tasks.target
        self.hessian = (jacobian.mT @ jacobian).mean(0)
        self.hessian[:p, :p].diagonal().add_(tasks.rho.mean())
        at_zero = (constant[:, None] @ jacobian).squeeze(1).mean(0)
        at_zero[:p] -= (tasks.rho[:, None] * tasks.anchor).mean(0)
        self._pseudo_inverse = torch.linalg.pinv(self.hessian, hermitian=True)
        self.minimiser = -self._pseudo_inverse @ at_zero
        square = constant.square().sum() + (tasks.rho * tasks.anchor.square().sum(1)).sum()
        self.least = float(square / (2 * n) + at_zero @ self.minimiser / 2)
        self.smoothness = float(torch.linalg.eigvalsh(self.hessian)[-1])

    def grad(self, u: Tensor) -> Tensor:
        """grad F, [P]."""
        return self.hessian @ (u - self.minimiser)

    def suboptimality(self, u: Tensor) -> float:
        """F(u) - min F."""
        return float((u - self.minimiser) @ self.grad(u)) / 2

    def distance(self, u: Tensor) -> float:
        """|u - u*| for the nearest minimiser u*."""
        return float((self._pseudo_inverse @ self.grad(u)).norm())


def _hessian(tasks: QuadraticTasks, mu: float) -> Tensor:
    """H, [n, q, q]."""
    return tasks.curvature + mu * torch.eye(tasks.offset.shape[1]).to(tasks.offset)
