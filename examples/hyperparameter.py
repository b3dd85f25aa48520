"""A hyperparameter problem with `memmeta_exp.bilevel`: learns one ridge weight for each feature from held-out points.

    python examples/hyperparameter.py

phi are the coefficients of a linear regression. u are the logarithms of the weights of their squares:

    phi*(u) = argmin_phi g(u, phi),   g = mean_i 1/2 (x_i phi - y_i)^2 + 1/2 sum_j exp(u_j) phi_j^2
    F(u) = f(phi*(u)),                f = mean 1/2 (x phi - y)^2 over held-out points

The script runs gradient descent on F. The gradient needs phi* and one linear solve, but no step of the solver that
found phi*. Most features are noise: their weights grow, and those of the useful features fall. docs/library.md explains
each call.
"""

import torch
from torch import Tensor

from memmeta_exp.bilevel import AutogradLower, Hypergradient, Vector, cg, implicit, newton

POINTS, FEATURES, USEFUL, STEPS, RATE = 40, 20, 5, 60, 3.0

generator = torch.Generator().manual_seed(0)
coefficients = torch.zeros(1, FEATURES, 1, dtype=torch.float64)  # [1, ...]: one problem
coefficients[:, :USEFUL] = 1.0
x, x_held_out = torch.randn(2, 1, POINTS, FEATURES, dtype=torch.float64, generator=generator)
y, y_held_out = (
    inputs @ coefficients + 2 * torch.randn(1, POINTS, 1, dtype=torch.float64, generator=generator)
    for inputs in (x, x_held_out)
)


def g(u: Vector, phi: Vector) -> Tensor:
    """The lower loss, [1]."""
    misfit = (x @ phi[0] - y).square().mean((1, 2)) / 2
    return misfit + (u[0].exp() * phi[0].square()).sum((1, 2)) / 2


def f(u: Vector, phi: Vector) -> Tensor:
    """The upper loss, a scalar."""
    return (x_held_out @ phi[0] - y_held_out).square().mean() / 2


def hypergradient(u: Vector) -> Hypergradient:
    """F and dF/du at u, with both solves to 1e-10."""
    lower = AutogradLower(lambda phi: g(u, phi))
    inner = newton(lower.value, lower.grad, lower.inverse, (torch.zeros_like(coefficients),), steps=20, tolerance=1e-10)
    assert inner.converged.all()
    return implicit(
        f, lambda u, phi: g(u, phi).sum(), u, inner.value, lambda H, b: cg(H, b, steps=2 * FEATURES, tolerance=1e-10)
    )


def main() -> tuple[list[float], Tensor]:
    """F at every step, and the final weights [FEATURES]."""
    u, values = (torch.full_like(coefficients, -3.0),), []
    for _ in range(STEPS):
        found = hypergradient(u)
        assert found.v.converged.all()
        values.append(found.value.item())
        u = (u[0] - RATE * found.grad[0],)
    return values, u[0].exp().flatten()


if __name__ == "__main__":
    values, weights = main()
    print(f"held-out loss: {values[0]:.2f} at first, {values[-1]:.2f} at the end")
    print(f"mean weight of useful features {weights[:USEFUL].mean():.3f}, of the others {weights[USEFUL:].mean():.3f}")
