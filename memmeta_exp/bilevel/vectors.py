"""Vectors of T tasks as tuples of tensors [T, ...], and the result of a solve."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

Vector = tuple[Tensor, ...]
ROUNDS_ON_META = 3


def one_hot(labels: Tensor, ways: int, dtype: torch.dtype) -> Tensor:
    """Labels [..] in 0..C-1 as [.., C]. torch's one_hot reads the labels first, which makes the host wait for a GPU."""
    return (labels[..., None] == torch.arange(ways, device=labels.device)).to(dtype)


@dataclass(frozen=True)
class Solution:
    """The result of a solver, with its diagnosis. A solve that fails raises nothing: `converged` is False.

    value: the iterate, tensors [T, ...]. residual [T]: |d_phi g| of an inner solve, |b - A x| / |b| of a linear one, at
    `value`. steps [T]: int64. converged [T]: the residual is within the tolerance (without one: it is finite), and
    conjugate gradients met no non-positive curvature. calls [T]: int64, evaluations of d_phi g in an inner solve and of
    A x in a linear one, the residual's included. A task that has stopped counts no more, even while the batch goes on.
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
    """some: whether any task of a loop is still active. every: whether all are."""

    some: bool
    every: bool


def loop_status(active: Tensor, rounds: int) -> LoopStatus:
    """The status of a loop over tasks after `rounds` rounds; active: bool [T].

    A loop ends where no task is active, and needs no masks where all are. Meta tensors have no values, so their loops
    end after three rounds: the third allocates what every later one would.
    """
    if active.is_meta:
        return LoopStatus(rounds < ROUNDS_ON_META, False)
    if len(active) == 1:
        return LoopStatus(bool(active), bool(active))
    every = bool(active.all())
    return LoopStatus(every or bool(active.any()), every)
