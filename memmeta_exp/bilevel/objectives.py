"""The interfaces of upper and lower losses, and a lower loss of any form through autograd.

`AutogradLower` serves heads and losses without closed forms. The tests check the closed forms of `linear_head` against
it.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from memmeta_exp.bilevel.vectors import Vector


class Upper(Protocol):
    """f of T tasks at fixed features z, with its derivatives; phi = (W,), W [T, ...]."""

    def value(self, phi: Vector) -> Tensor:
        """f, [T]."""
        ...

    def accuracy(self, phi: Vector) -> Tensor | None:
        """The fraction classified correctly, float64 [T]; None where there are no classes."""
        ...

    def grad(self, phi: Vector) -> Vector:
        """d_phi f."""
        ...

    def grad_features(self, phi: Vector) -> Tensor:
        """d_z f, shaped as z."""
        ...


class Lower(Protocol):
    """g of T tasks at fixed features z, R = mu/2 |phi - phi_c|^2 included, with its derivatives."""

    z: Tensor

    @property
    def modulus(self) -> Any:
        """A constant of strong convexity, a number or [T]; 0 for none."""
        ...

    def value(self, phi: Vector) -> Tensor:
        """g, [T]."""
        ...

    def grad(self, phi: Vector) -> Vector:
        """d_phi g."""
        ...

    def hvp(self, phi: Vector) -> Callable[[Vector], Vector]:
        """v -> H v."""
        ...

    def cross(self, phi: Vector, v: Vector) -> Tensor:
        """d_z < d_phi g, v >, shaped as z."""
        ...

    def cross_center(self, v: Vector) -> Tensor:
        """d_{phi_c} < d_phi g, v > of each task."""
        ...

    def regularizer_center(self) -> Tensor:
        """phi_c for every task."""
        ...

    def smoothness(self) -> Tensor:
        """A bound on L_g, [T]."""
        ...

    def inverse(self, phi: Vector) -> Callable[[Vector], Vector]:
        """r -> H^-1 r."""
        ...


class AutogradLower:
    """g of T tasks through autograd, with what the solvers need.

    loss: phi -> [T]. phi is a tuple of tensors [T, ...], and the loss of task i must depend on phi[i] alone.
    """

    def __init__(self, loss: Callable[[Vector], Tensor]) -> None:
        self.loss = loss

    def value(self, phi: Vector) -> Tensor:
        """g, [T]."""
        with torch.no_grad():
            return self.loss(phi)

    def grad(self, phi: Vector) -> Vector:
        """d_phi g, shaped as phi."""
        return self._graph(phi, create_graph=False)[1]

    def hvp(self, phi: Vector) -> Callable[[Vector], Vector]:
        """v -> (d_phi^2 g) v; all products share one graph of d_phi g."""
        leaves, slope = self._graph(phi, create_graph=True)
        return lambda v: torch.autograd.grad(slope, leaves, v, retain_graph=True, materialize_grads=True)

    def inverse(self, phi: Vector) -> Callable[[Vector], Vector]:
        """r -> (d_phi^2 g)^-1 r by the dense Hessian: q products for q parameters a task. For small problems."""
        hvp, shapes = self.hvp(phi), [t.shape for t in phi]
        sizes = [t[0].numel() for t in phi]
        tasks, q = len(phi[0]), sum(sizes)
        basis = torch.eye(q, dtype=phi[0].dtype, device=phi[0].device)

        def unflatten(x: Tensor) -> Vector:
            return tuple(part.reshape(shape) for part, shape in zip(x.split(sizes, 1), shapes, strict=True))

        columns = [torch.cat([t.flatten(1) for t in hvp(unflatten(e.expand(tasks, q)))], 1) for e in basis]
        hessian = torch.stack(columns, 2)
        return lambda r: unflatten(
            torch.linalg.solve(hessian, torch.cat([t.flatten(1) for t in r], 1)[..., None]).squeeze(2)
        )

    def _graph(self, phi: Vector, create_graph: bool) -> tuple[Vector, Vector]:
        leaves = tuple(t.detach().requires_grad_() for t in phi)
        with torch.enable_grad():
            total = self.loss(leaves).sum()
            return leaves, torch.autograd.grad(total, leaves, create_graph=create_graph, materialize_grads=True)
