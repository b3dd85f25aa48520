"""Solvers of the paper's linear system (d_phi^2 g) v = d_phi f, batched over tasks."""

from collections.abc import Callable

import torch
from torch import Tensor

from memmeta_exp.bilevel.vectors import Solution, Vector, axpy, dot, loop_status, norm, subtract


def cg(
    matvec: Callable[[Vector], Vector],
    b: Vector,
    *,
    steps: int,
    tolerance: float | None = None,
    start: Vector | None = None,
) -> Solution:
    """Conjugate gradients on A x = b for symmetric positive definite A (Subroutine 1 of the paper).

    matvec: x -> A x on tensors [T, ...]. steps: N, the most steps. tolerance: bound on |b - A x| / |b|, None for none.
    A task also stops at the rounding floor eps |b|, where a further step would divide 0 by 0. start: a warm start, None
    for 0. A task that meets p^T A p <= 0 keeps its iterate and is reported as not converged.
    """
    x = tuple(torch.zeros_like(t) for t in b) if start is None else start
    r = b if start is None else subtract(b, matvec(x))
    p, rr = r, dot(r, r)
    target = max(tolerance or 0.0, torch.finfo(rr.dtype).eps) ** 2 * dot(b, b)
    active, zero, count, together = rr > target, torch.zeros_like(rr), torch.zeros_like(rr, dtype=torch.int64), 0
    some, every = loop_status(active, 0)
    for done in range(1, steps + 1):
        if not some:
            break
        ap = matvec(p)
        curvature = dot(p, ap)
        active = active & (curvature > zero)
        alpha, every = rr / curvature, loop_status(active, done).every
        if not every:  # a task that has stopped keeps its iterate
            ap = tuple(torch.where(active.view(-1, *[1] * (t.dim() - 1)), t, 0.0) for t in ap)  # 0 * inf is NaN
            alpha = torch.where(active, alpha, zero)
        x, r = axpy(alpha, p, x), axpy(alpha, ap, r, -1)
        rr_next = dot(r, r)
        beta = rr_next / rr
        p = axpy(beta if every else torch.where(active, beta, zero), p, r)
        rr = rr_next
        together, count = (together + 1, count) if every else (together, count + active)
        active = active & (rr > target)
        some, every = loop_status(active, done)
    stuck = (rr > target) & ~active  # the curvature was not positive, so r did not change
    return diagnose(matvec, b, x, tolerance, count + together, stuck, others=1 if start is None else 2)


def direct(
    matvec: Callable[[Vector], Vector],
    b: Vector,
    *,
    inverse: Callable[[Vector], Vector],
    tolerance: float | None = None,
    refinements: int = 1,
) -> Solution:
    """x = A^-1 b by the factorisation `inverse`, then `refinements` steps x += A^-1 (b - A x) of iterative refinement.

    Refinement restores the digits that float32 loses to cancellation when kappa is large (Higham 2002, chapter 12).
    """
    x = inverse(b)
    for _ in range(refinements):
        x = tuple(a + c for a, c in zip(x, inverse(subtract(b, matvec(x))), strict=True))
    return diagnose(matvec, b, x, tolerance, others=refinements)


def diagnose(
    matvec: Callable[[Vector], Vector],
    b: Vector,
    x: Vector,
    tolerance: float | None = None,
    count: Tensor | None = None,
    indefinite: Tensor | None = None,
    others: int = 0,
) -> Solution:
    """A Solution of A x = b from x, with its residual recomputed.

    count: steps taken, None for the one of a factorisation. indefinite: tasks that met a non-positive curvature.
    others: products with A that `count` does not include.
    """
    size = norm(b)
    residual = norm(subtract(b, matvec(x))) / torch.where(size > 0, size, 1.0)
    within = residual.isfinite() if tolerance is None else residual <= tolerance
    count = torch.ones_like(size, dtype=torch.int64) if count is None else count
    if indefinite is None:
        return Solution(x, residual, count, within, count + others)
    return Solution(x, residual, count, within & ~indefinite, count + others + indefinite.long())  # met, but no step
