"""Solvers of the lower level, phi* = argmin_phi g(phi), batched over tasks."""

from collections.abc import Callable

import torch
from torch import Tensor

from memmeta_exp.bilevel.vectors import Solution, Vector, axpy, dot, loop_status, norm, subtract

InnerProduct = Callable[[Vector, Vector], Tensor]
ARMIJO_SLOPE = 1e-4  # sufficient decrease (Nocedal and Wright 2006, section 3.1)
HALVINGS = 40


def gradient_descent(
    grad: Callable[[Vector], Vector], start: Vector, *, steps: int, step_size: Tensor, tolerance: float | None = None
) -> Solution:
    """K = `steps` steps phi <- phi - lambda_phi d_phi g(phi) (Algorithm 1 of the paper, the loop over k).

    step_size: lambda_phi of each task, [T]. For strongly convex g the steps contract where lambda_phi < 2 / L_g. With
    lambda_phi = 1 / L_g the rate is 1 - mu / L_g. tolerance: a task stops once |d_phi g| <= tolerance, after at most K
    steps; None: every task takes K steps.
    """
    if tolerance is not None:
        return _descent_to(tolerance, grad, start, steps, step_size)
    phi, descent = start, -step_size
    for _ in range(steps):
        phi = axpy(descent, grad(phi), phi)
    residual = norm(grad(phi))
    count = torch.full_like(residual, steps, dtype=torch.int64)
    return Solution(phi, residual, count, residual.isfinite(), count + 1)


def _descent_to(
    tolerance: float, grad: Callable[[Vector], Vector], start: Vector, steps: int, step_size: Tensor
) -> Solution:
    phi, slope = start, grad(start)
    size = norm(slope)
    count, still = torch.zeros_like(size, dtype=torch.int64), torch.zeros_like(step_size)
    for done in range(steps):
        active = ~(size <= tolerance)  # NaN counts as unsolved
        some, every = loop_status(active, done)
        if not some:
            break
        phi = axpy(step_size if every else torch.where(active, step_size, still), slope, phi, -1)
        slope, count = grad(phi), count + active
        size = norm(slope)
    return Solution(phi, size, count, size <= tolerance, count + 1)


def newton(
    value: Callable[[Vector], Tensor],
    grad: Callable[[Vector], Vector],
    inverse: Callable[[Vector], Callable[[Vector], Vector]],
    start: Vector,
    *,
    steps: int,
    tolerance: float,
    dot: InnerProduct = dot,
) -> Solution:
    """Newton's method with Armijo backtracking, until |d_phi g| <= `tolerance` in every task or `steps` are done.

    value: phi -> g [T]. grad: phi -> d_phi g. inverse: phi -> (r -> (d_phi^2 g)^-1 r), factorised once a step. dot: the
    inner product of |d_phi g| and of slopes along a direction; not the Euclidean one where phi holds coordinates, as in
    `SupportSpace`. A task keeps its iterate once it is solved. It also keeps it where no step along the direction
    lowers g, for example where the direction is not finite; its residual then exceeds the tolerance. Convergence near
    phi* is quadratic (Boyd and Vandenberghe 2004, section 9.5).
    """
    phi, slope, now = start, grad(start), value(start)
    square = dot(slope, slope)
    count = torch.zeros_like(square, dtype=torch.int64)
    for done in range(steps):
        active = square > tolerance**2
        status = loop_status(active, done)
        if not status.some:
            break
        direction = inverse(phi)(slope)
        phi, now = _armijo(value, phi, now, direction, dot(slope, direction), active, status.every)
        count, slope = count + active, grad(phi)
        square = dot(slope, slope)
    size = square.clamp(min=0).sqrt()
    return Solution(phi, size, count, size <= tolerance, count + 1)


def _armijo(
    value: Callable[[Vector], Tensor],
    phi: Vector,
    now: Tensor,
    direction: Vector,
    decrease: Tensor,
    active: Tensor,
    every: bool,
) -> tuple[Vector, Tensor]:
    """The step of a line search: phi - t direction, and g there [T].

    t is the largest of 1, 1/2, .., 2^-39 with g(phi - t direction) <= g(phi) - 1e-4 t <d_phi g, direction>. A task
    without such a t keeps phi, and so does a task that is not active. now: g(phi). decrease: <d_phi g, direction>.
    every: whether all tasks are active. The comparison allows for the rounding of g, which near phi* exceeds the
    required decrease.
    """
    bound = torch.add(now, now.abs(), alpha=8 * torch.finfo(now.dtype).eps)
    stepped = subtract(phi, direction)
    reached = value(stepped)
    enough = reached <= torch.add(bound, decrease, alpha=-ARMIJO_SLOPE)
    if every and loop_status(enough, 1).every:  # every task takes the full step
        return stepped, reached
    length, too_far = active.to(now.dtype), active & ~enough
    for halving in range(1, HALVINGS):
        if not loop_status(too_far, halving).some:
            break
        length = torch.where(too_far, 0.5**halving, length)
        stepped = axpy(length, direction, phi, -1)
        reached = value(stepped)
        too_far = too_far & ~(reached <= torch.addcmul(bound, length, decrease, value=-ARMIJO_SLOPE))
    moves = active & ~too_far  # the steps of other tasks may not be finite
    moved = tuple(torch.where(moves.view(-1, *[1] * (b.dim() - 1)), a, b) for a, b in zip(stepped, phi, strict=True))
    return moved, torch.where(moves, reached, now)
