"""The gradient of a bilevel objective from phi* alone, without the steps that led to it.

F(u) = f(u, phi*(u)),  phi*(u) = argmin_phi g(u, phi).  Differentiating the optimality condition d_phi g(u, phi*(u)) = 0
along u gives  d_u d_phi g + (d_phi^2 g) d_u phi* = 0  (implicit function theorem; H = d_phi^2 g is invertible because g
is mu-strongly convex in phi), and with  H v = d_phi f:

    dF/du = d_u f + (d_u phi*)^T d_phi f = d_u f - d_u < d_phi g, v >              (the paper's grad F)

This needs phi* and v alone. Its memory and work do not depend on the solver that found phi*. u is theta, or the
features (z_s, z_q). With features, one backward pass of the backbone completes the chain rule.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from memmeta_exp.bilevel.vectors import Solution, Vector

Objective = Callable[[Vector, Vector], Tensor]
LinearSolver = Callable[[Callable[[Vector], Vector], Vector], Solution]


@dataclass(frozen=True)
class Hypergradient:
    """The result of `implicit`.

    value: f(u, phi), the sum over tasks. grad: dF/du, shaped as u. v: the solution of H v = d_phi f. slope: d_phi g at
    phi, which is 0 at phi*. gradients: gradients of f and g that each task took. products: derivatives of
    < d_phi g, v >, by phi or by u, that each task took, [T].
    """

    value: Tensor
    grad: Vector
    v: Solution
    slope: Vector
    gradients: int
    products: Tensor


def implicit(f: Objective, g: Objective, u: Vector, phi: Vector, solve: LinearSolver) -> Hypergradient:
    """dF/du at phi ~ phi*(u) by the formula above, for any differentiable f and g.

    f, g: (u, phi) -> scalar, the sum over tasks. phi: tensors [T, ...]. Task i's part of f and g must depend on phi[i]
    alone: H is then block-diagonal, and `solve` solves all tasks in one batch. solve: (matvec, b) -> Solution. One
    graph of d_phi g serves all Hessian-vector products and the cross derivative.
    """
    u = tuple(t.detach().requires_grad_() for t in u)
    phi = tuple(t.detach().requires_grad_() for t in phi)
    with torch.enable_grad():
        value = f(u, phi)
        d_all = torch.autograd.grad(value, (*u, *phi), materialize_grads=True)
        d_u, d_phi = d_all[: len(u)], d_all[len(u) :]
        g_phi = torch.autograd.grad(g(u, phi), phi, create_graph=True)
    v = solve(lambda x: torch.autograd.grad(g_phi, phi, x, retain_graph=True, materialize_grads=True), d_phi)
    cross = torch.autograd.grad(g_phi, u, v.value, materialize_grads=True)
    slope = tuple(t.detach() for t in g_phi)
    grad = tuple(a - b for a, b in zip(d_u, cross, strict=True))
    return Hypergradient(value.detach(), grad, v, slope, gradients=2, products=v.calls + 1)
