"""Vectors of T tasks, as tuples of tensors [T, ...], and what a solve returns."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

Vector = tuple[Tensor, ...]
ROUNDS_ON_META = 3


def one_hot(labels: Tensor, ways: int, dtype: torch.dtype) -> Tensor:
    """Labels [..] in 0..C-1 as [.., C]. torch's own looks at the labels first, for which a GPU would be waited for."""
    return (labels[..., None] == torch.arange(ways, device=labels.device)).to(dtype)


@dataclass(frozen=True)
class Solution:
    """What a solver found, with its diagnosis: a failed solve is a value, not an exception.

    value: the iterate, tensors [T, ...]. residual [T]: |d_phi g| for an inner solve, |b - A x| / |b| for a linear one,
    recomputed at `value`. steps [T]: int64. converged [T]: residual within the tolerance asked for; where none was
    asked for, that the residual is finite and no non-positive curvature was met. calls [T]: int64, how often a task
    asked for what the solver needs, d_phi g for an inner solve, A x for a linear one, its residual included; a task
    that has stopped asks no more, though its batch be computed whole.
    """

    value: Vector
    residual: Tensor
    steps: Tensor
    converged: Tensor
    calls: Tensor


def dot(a: Vector, b: Vector) -> Tensor:
    """<a, b> of each task, [T]."""
    parts = [(x * y).sum(tuple(range(1, x.dim()))) for x, y in zip(a, b, strict=True)]
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)


def norm(a: Vector) -> Tensor:
    """|a| of each task, [T]."""
    return dot(a, a).sqrt()


def axpy(scale: Tensor, x: Vector, y: Vector, sign: int = 1) -> Vector:
    """sign * scale * x + y with one scale for each task, [T]."""
    return tuple(
        torch.addcmul(b, a, scale.view(-1, *[1] * (a.dim() - 1)), value=sign) for a, b in zip(x, y, strict=True)
    )


def subtract(a: Vector, b: Vector) -> Vector:
    return tuple(x - y for x, y in zip(a, b, strict=True))


class LoopStatus(NamedTuple):
    """Of the tasks of a loop: whether some are still active, and whether every one is."""

    some: bool
    every: bool


def loop_status(active: Tensor, rounds: int) -> LoopStatus:
    """Whether a loop over `active` tasks must go on after `rounds` rounds, and whether it may leave out the masks that
    hold frozen tasks where they are: neither changes a result.
    Meta tensors, of which only sizes matter, stop after three rounds: the third allocates what every later one
    does."""
    if active.is_meta:
        return LoopStatus(rounds < ROUNDS_ON_META, False)
    if len(active) == 1:
        return LoopStatus(bool(active), bool(active))
    every = bool(active.all())
    return LoopStatus(every or bool(active.any()), every)
