"""Vectors of T tasks, as tuples of tensors [T, ...], and what a solve returns."""

from dataclasses import dataclass

import torch
from torch import Tensor

Vector = tuple[Tensor, ...]
ROUNDS_ON_META = 3


@dataclass(frozen=True)
class Solution:
    """What a solver found, with its diagnosis: a failed solve is a value, not an exception.

    value: the iterate, tensors [T, ...]. residual [T]: |d_phi g| for an inner solve, |b - A x| / |b| for a linear one,
    recomputed at `value`. steps [T]: int64. converged [T]: residual within the tolerance asked for; where none was
    asked for, that the residual is finite and no non-positive curvature was met.
    """

    value: Vector
    residual: Tensor
    steps: Tensor
    converged: Tensor


def dot(a: Vector, b: Vector) -> Tensor:
    """<a, b> of each task, [T]."""
    parts = [(x * y).sum(tuple(range(1, x.dim()))) for x, y in zip(a, b, strict=True)]
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)


def norm(a: Vector) -> Tensor:
    """|a| of each task, [T]."""
    return dot(a, a).sqrt()


def axpy(scale: Tensor, x: Vector, y: Vector) -> Vector:
    """scale * x + y with one scale for each task, [T]."""
    return tuple(torch.addcmul(b, a, scale.view(-1, *[1] * (a.dim() - 1))) for a, b in zip(x, y, strict=True))


def subtract(a: Vector, b: Vector) -> Vector:
    return tuple(x - y for x, y in zip(a, b, strict=True))


def nothing_left(active: Tensor, rounds: int) -> bool:
    """Whether a loop over `active` tasks may stop before the round after `rounds` of them. Frozen tasks do not move, so
    stopping changes no result: False where looking would need a value that is not there (a CUDA graph being captured).
    Meta tensors, of which only sizes matter, stop after three: the third round allocates what every later one does."""
    if active.is_meta:
        return rounds >= ROUNDS_ON_META
    if active.is_cuda and torch.cuda.is_current_stream_capturing():
        return False
    return not bool(active.any())
