"""Solves with a Cholesky factor."""

import torch
from torch import Tensor


def factor_solve(factor: Tensor, right: Tensor) -> Tensor:
    """(L L^T)^-1 right, for L [.., n, n] and right [.., n, m]. On a GPU by two triangular solves: torch's
    own, for batches, may wait for the device."""
    if not factor.is_cuda:
        return torch.cholesky_solve(right, factor)
    half = torch.linalg.solve_triangular(factor, right, upper=False)
    return torch.linalg.solve_triangular(factor.mT, half, upper=True)
