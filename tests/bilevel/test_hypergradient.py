"""`implicit` against a closed form, an example by hand, central differences, and the limit of unrolling."""

import torch

from memmeta_exp.bilevel import AutogradLower, cg, direct, implicit, newton

T = 2


def exact_cg(matvec, b):
    return cg(matvec, b, steps=500, tolerance=1e-13)


def test_by_hand() -> None:
    """g = (phi - 3 u)^2 / 2 + phi^2 / 2 per task, so phi* = 3u/2; f = (phi - 1)^2 / 2 + u^2.
    H = 2, d_phi f = 3u/2 - 1, v = (3u/2 - 1)/2, d_u<d_phi g, v> = -3 v. At u = 2: phi* = 3, v = 1,
    dF/du = 2u + 3 = 7. Directly: F = (3u/2 - 1)^2 / 2 + u^2, F' = 1.5 (3u/2 - 1) + 2u = 3 + 4 = 7."""
    u, phi = torch.tensor([[2.0]]), torch.tensor([[3.0]])

    def g(u, phi):
        return ((phi[0] - 3 * u[0]) ** 2 / 2 + phi[0] ** 2 / 2).sum()

    def f(u, phi):
        return ((phi[0] - 1) ** 2 / 2 + u[0] ** 2).sum()

    found = implicit(f, g, (u,), (phi,), lambda a, b: cg(a, b, steps=5))
    assert found.value.item() == 6.0
    assert found.v.value[0].item() == 1.0
    assert found.grad[0].item() == 7.0


def test_closed_form_of_ridge_regression(generator) -> None:
    """g = |Z w - y|^2 / 2n + mu/2 |w|^2 has w* = (Z^T Z / n + mu)^-1 Z^T y / n, which autograd differentiates."""
    n, d, mu = 9, 5, 0.2
    z_s, z_q = (torch.randn(T, n, d, dtype=torch.float64, generator=generator) for _ in range(2))
    y_s, y_q = (torch.randn(T, n, dtype=torch.float64, generator=generator) for _ in range(2))

    def solution(z):
        return torch.linalg.solve(z.mT @ z / n + mu * torch.eye(d, dtype=z.dtype), (z.mT @ y_s[..., None] / n))

    def f(u, phi):
        return ((u[1] @ phi[0]).squeeze(-1) - y_q).square().sum() / (2 * n)

    def g(u, phi):
        return ((u[0] @ phi[0]).squeeze(-1) - y_s).square().sum() / (2 * n) + mu / 2 * phi[0].square().sum()

    leaves = z_s.clone().requires_grad_(), z_q.clone().requires_grad_()
    reference = torch.autograd.grad(f(leaves, (solution(leaves[0]),)), leaves)
    found = implicit(f, g, (z_s, z_q), (solution(z_s),), exact_cg)
    for mine, theirs in zip(found.grad, reference, strict=True):
        assert theirs.abs().max() > 1e-3
        assert torch.allclose(mine, theirs, atol=1e-12)


def smooth_problem(generator):
    """A lower level of two parameter tensors that is no softmax head, smooth and strongly convex in phi."""
    a = torch.randn(T, 6, 4, dtype=torch.float64, generator=generator)
    b = torch.randn(T, 6, 4, dtype=torch.float64, generator=generator)
    u = (torch.randn(4, 3, dtype=torch.float64, generator=generator),)

    def per_task_g(u, phi):
        out = torch.einsum("tnk,tkj->tnj", torch.tanh(a @ u[0]), phi[0]) + phi[1][:, None, :]
        return torch.nn.functional.softplus(out).mean((1, 2)) + sum(0.1 * p.square().flatten(1).sum(1) for p in phi)

    def f(u, phi):
        out = torch.einsum("tnk,tkj->tnj", torch.sin(b @ u[0]), phi[0]) - phi[1][:, None, :]
        return out.cos().mean((1, 2)).sum()

    phi = (torch.zeros(T, 3, 2, dtype=torch.float64), torch.zeros(T, 2, dtype=torch.float64))
    return f, per_task_g, u, phi


def solved(per_task_g, u, phi, tolerance=1e-13):
    lower = AutogradLower(lambda p: per_task_g(u, p))
    found = newton(lower.value, lower.grad, lower.inverse, phi, steps=60, tolerance=tolerance)
    assert found.converged.all()
    return found.value


def test_central_differences_of_F(generator) -> None:
    f, per_task_g, u, phi = smooth_problem(generator)

    def F(u0):
        return float(f((u0,), solved(per_task_g, (u0,), phi)))

    grad = implicit(f, lambda u, p: per_task_g(u, p).sum(), u, solved(per_task_g, u, phi), exact_cg).grad[0]
    eps, worst = 1e-5, 0.0
    for i in range(u[0].numel()):
        step = torch.zeros_like(u[0])
        step.view(-1)[i] = eps
        difference = (F(u[0] + step) - F(u[0] - step)) / (2 * eps)
        worst = max(worst, abs(difference - float(grad.view(-1)[i])))
    assert grad.abs().min() > 1e-5
    assert worst < 1e-8 * max(1.0, float(grad.abs().max()))


def test_unrolling_tends_to_it(generator) -> None:
    """Differentiating through K gradient steps converges to the implicit gradient, geometrically in K."""
    f, per_task_g, u, phi = smooth_problem(generator)
    exact = implicit(f, lambda u, p: per_task_g(u, p).sum(), u, solved(per_task_g, u, phi), exact_cg).grad[0]

    def unrolled(steps: int) -> torch.Tensor:
        leaf = u[0].clone().requires_grad_()
        at = tuple(p.clone().requires_grad_() for p in phi)
        for _ in range(steps):
            slope = torch.autograd.grad(per_task_g((leaf,), at).sum(), at, create_graph=True)
            at = tuple(p - 0.5 * s for p, s in zip(at, slope, strict=True))
        return torch.autograd.grad(f((leaf,), at), leaf)[0]

    errors = [float((unrolled(k) - exact).norm() / exact.norm()) for k in (5, 50, 250)]
    assert errors[0] > 1e-2
    assert errors[1] < 0.2 * errors[0]
    assert errors[2] < 1e-8


def test_the_solver_passed_in_is_the_one_used(generator) -> None:
    f, per_task_g, u, phi = smooth_problem(generator)
    at = solved(per_task_g, u, phi)
    inverse = AutogradLower(lambda p: per_task_g(u, p)).inverse(at)
    exact = implicit(f, lambda u, p: per_task_g(u, p).sum(), u, at, exact_cg)
    by_direct = implicit(
        f, lambda u, p: per_task_g(u, p).sum(), u, at, lambda a, b: direct(a, b, inverse=inverse, tolerance=1e-10)
    )
    rough = implicit(f, lambda u, p: per_task_g(u, p).sum(), u, at, lambda a, b: cg(a, b, steps=1))
    assert by_direct.v.converged.all()
    assert torch.allclose(by_direct.grad[0], exact.grad[0], atol=1e-11)
    assert (rough.grad[0] - exact.grad[0]).norm() > 1e-4 * exact.grad[0].norm()
