"""Solves with a Cholesky factor."""

import torch
from torch import Tensor


def factor_solve(factor: Tensor, right: Tensor) -> Tensor:
    """(L L^T)^-1 right, for L [.., n, n] and right [.., n, m].

    On a GPU it takes two triangular solves, because torch.cholesky_solve of a batch may wait for the device.
    """
    if not factor.is_cuda:
        return torch.cholesky_solve(right, factor)
    half = torch.linalg.solve_triangular(factor, right, upper=False)
    return torch.linalg.solve_triangular(factor.mT, half, upper=True)


def factor_inverse(factor: Tensor) -> Tensor:
    """(L L^T)^-1, for L [.., n, n]; on a GPU by triangular solves, as in `factor_solve`."""
    if not factor.is_cuda:
        return torch.cholesky_inverse(factor)
    eye = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
    half = torch.linalg.solve_triangular(factor, eye.expand_as(factor), upper=False)
    return half.mT @ half
