"""One table of solvers x problems."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from memmeta_exp.bilevel import Solution, cg, direct

T, Q = 3, 12


@dataclass(frozen=True)
class Problem:
    matrix: Tensor  # [T, Q, Q]
    rhs: Tensor  # [T, Q]
    solvable: bool = True
    start: Tensor | None = None  # [T, Q], of solvers that take one


def spectrum(values: Tensor, generator: torch.Generator) -> Tensor:
    basis, _ = torch.linalg.qr(torch.randn(T, Q, Q, dtype=torch.float64, generator=generator))
    return basis @ torch.diag_embed(values.expand(T, Q)) @ basis.mT


def problem(name: str) -> Problem:
    generator = torch.Generator().manual_seed(3)
    rhs = torch.randn(T, Q, dtype=torch.float64, generator=generator)
    eye = torch.eye(Q, dtype=torch.float64).expand(T, Q, Q)
    well = spectrum(torch.linspace(1, 10, Q, dtype=torch.float64), generator)
    if name == "identity":
        return Problem(eye, rhs)
    if name == "zero right side":
        return Problem(well, torch.zeros_like(rhs))
    if name == "one task solved":
        return Problem(well, rhs * torch.tensor([[1.0], [0.0], [1.0]], dtype=torch.float64))
    if name == "ill-conditioned":
        return Problem(spectrum(torch.logspace(0, 6, Q, dtype=torch.float64), generator), rhs)
    if name == "indefinite":
        return Problem(spectrum(torch.linspace(-5, 5, Q, dtype=torch.float64), generator), rhs, solvable=False)
    if name == "already solved":
        return Problem(well, rhs, start=torch.linalg.solve(well, rhs[..., None]).squeeze(-1))
    assert name == "well-conditioned", name
    return Problem(well, rhs)


PROBLEMS = [
    "identity", "zero right side", "one task solved", "already solved", "ill-conditioned", "indefinite",
    "well-conditioned",
]  # fmt: skip


def solve(solver: str, p: Problem, tolerance: float | None = 1e-9) -> Solution:
    def matvec(x):
        return ((p.matrix @ x[0][..., None]).squeeze(-1),)

    if solver == "direct":
        return direct(
            matvec,
            (p.rhs,),
            inverse=lambda r: (torch.linalg.solve(p.matrix, r[0][..., None]).squeeze(-1),),
            tolerance=tolerance,
        )
    start = None if p.start is None else (p.start,)
    return cg(matvec, (p.rhs,), steps=10 * Q, tolerance=tolerance, start=start)


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("solver", ["cg", "direct"])
def test_table(solver: str, name: str) -> None:
    p = problem(name)
    found = solve(solver, p)
    assert all(bool(t.isfinite().all()) for t in (*found.value, found.residual))
    if solver == "cg" and not p.solvable:
        assert not found.converged.any(), "non-positive curvature has to be reported"
        return
    exact = torch.linalg.solve(p.matrix, p.rhs[..., None]).squeeze(-1)
    assert found.converged.all()
    if solver == "cg" and p.start is not None:
        assert not found.steps.any()
    assert torch.allclose(found.value[0], exact, rtol=1e-6, atol=1e-7)
    true = (p.rhs - (p.matrix @ found.value[0][..., None]).squeeze(-1)).norm(dim=1) / p.rhs.norm(dim=1).clamp(
        min=1e-300
    )
    assert torch.allclose(found.residual, true, atol=1e-14)


def test_identity_takes_one_step_and_no_division_by_zero() -> None:
    found = solve("cg", problem("identity"), tolerance=None)
    assert found.steps.tolist() == [1] * T
    assert torch.allclose(found.value[0], problem("identity").rhs)


def test_negative_curvature_keeps_the_iterate_it_had() -> None:
    """A = diag(1, -2, 3), b = 1: p = b has curvature 2, so alpha = 3/2 and x = 3/2 b; the next one has p^T A p < 0
    (r = (-1/2, 4, -7/2), beta = 19/2, p = (9, 27/2, 6): 81 - 364.5 + 108 < 0)."""
    a = torch.diag_embed(torch.tensor([[1.0, -2.0, 3.0]], dtype=torch.float64))
    b = (torch.ones(1, 3, dtype=torch.float64),)
    found = cg(lambda x: ((a @ x[0][..., None]).squeeze(-1),), b, steps=9)
    assert found.value[0].tolist() == [[1.5, 1.5, 1.5]]
    assert found.steps.tolist() == [1]
    assert not found.converged.any()
    assert found.residual.isfinite().all()


def test_float32_stops_at_its_rounding_floor() -> None:
    p = problem("well-conditioned")
    matrix, rhs = p.matrix.float(), p.rhs.float()
    found = cg(lambda x: ((matrix @ x[0][..., None]).squeeze(-1),), (rhs,), steps=500)
    assert found.steps.max() < 60, "it stops at eps |b| instead of dividing noise by noise"
    assert found.residual.max() < 1e-5


def test_tasks_stop_by_themselves() -> None:
    steps = solve("cg", problem("one task solved")).steps
    assert steps[1] == 0
    assert steps[0] > 1


def test_a_missed_tolerance_is_reported() -> None:
    p = problem("ill-conditioned")
    found = cg(lambda x: ((p.matrix @ x[0][..., None]).squeeze(-1),), (p.rhs,), steps=2, tolerance=1e-9)
    assert not found.converged.any()
    assert (found.residual > 1e-9).all()
    assert found.steps.tolist() == [2] * T


def test_the_last_iterate_is_returned() -> None:
    """Q distinct eigenvalues need Q steps: after Q the answer is there, after Q - 1 it is not (trap: returning the
    iterate before the answer)."""
    p = problem("well-conditioned")

    def residual(steps: int) -> float:
        found = cg(lambda x: ((p.matrix @ x[0][..., None]).squeeze(-1),), (p.rhs,), steps=steps)
        return float(found.residual.max())

    assert residual(Q) < 1e-10
    assert residual(Q - 1) > 1e-8


def test_warm_start_at_the_solution_needs_no_step() -> None:
    p = problem("well-conditioned")
    exact = torch.linalg.solve(p.matrix, p.rhs[..., None]).squeeze(-1)
    found = cg(lambda x: ((p.matrix @ x[0][..., None]).squeeze(-1),), (p.rhs,), steps=5, tolerance=1e-9, start=(exact,))
    assert found.steps.tolist() == [0] * T
    assert found.converged.all()


def test_refinement_corrects_a_rough_inverse() -> None:
    """With an inverse off by 1e-3 the residual is 1e-3; each refinement multiplies it by 1e-3 again."""
    p = problem("well-conditioned")

    def residual(refinements: int) -> float:
        return float(
            direct(
                lambda x: ((p.matrix @ x[0][..., None]).squeeze(-1),),
                (p.rhs,),
                inverse=lambda r: ((1 + 1e-3) * torch.linalg.solve(p.matrix, r[0][..., None]).squeeze(-1),),
                refinements=refinements,
            ).residual.max()
        )

    assert residual(0) == pytest.approx(1e-3, rel=1e-6)
    assert residual(1) == pytest.approx(1e-6, rel=1e-6)


def test_vectors_of_several_tensors() -> None:
    p = problem("well-conditioned")

    def split(x: Tensor):
        return x[:, :5].reshape(T, 5, 1), x[:, 5:]

    def join(v) -> Tensor:
        return torch.cat([v[0].flatten(1), v[1]], 1)

    found = cg(lambda v: split((p.matrix @ join(v)[..., None]).squeeze(-1)), split(p.rhs), steps=50, tolerance=1e-10)
    assert torch.allclose(join(found.value), torch.linalg.solve(p.matrix, p.rhs[..., None]).squeeze(-1), atol=1e-8)


def test_a_product_that_is_not_finite_freezes_its_task_alone() -> None:
    """The iterate before it is kept, whether other tasks go on or not."""
    a = torch.diag(torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64))
    b = torch.ones(2, 3, dtype=torch.float64)

    def solved(tasks: slice) -> torch.Tensor:
        calls = 0

        def matvec(v):
            nonlocal calls
            calls += 1
            image = v[0] @ a
            if calls == 2:
                image = image.clone()
                image[-1] = torch.inf
            return (image,)

        return cg(matvec, (b[tasks],), steps=3).value[0][-1]

    assert solved(slice(0, 2)).isfinite().all()
    assert torch.equal(solved(slice(0, 2)), solved(slice(1, 2)))
