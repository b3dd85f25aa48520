"""The support space: Newton's method and the hypergradient of linear heads, against central differences, the general
path by autograd, ridge's closed form, and a loss that brings no more than its slope and Hessian."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from memmeta_exp.bilevel import (
    AutogradLower,
    CrossEntropy,
    LinearHead,
    LogitLoss,
    RidgeHead,
    ScaledSoftmax,
    SoftmaxHead,
    SquaredError,
    SupportSpace,
    cg,
    head_hypergradient,
    implicit,
    newton,
    prototypes,
)
from memmeta_exp.bilevel.vectors import norm
from tests.bilevel.conftest import same

T, C, M, MU = 3, 4, 6, 0.2


class OneAgainstRest(LogitLoss):
    """Logistic losses, one a class: sum_c log(1 + exp(u_c)) - y_c u_c."""

    curvature = 0.25

    def __init__(self, labels: Tensor) -> None:
        self.target = F.one_hot(labels, C).double()

    def values(self, u: Tensor) -> Tensor:
        return ((1 - self.target) * u - F.logsigmoid(u)).sum(-1)

    def slope(self, u: Tensor) -> Tensor:
        return u.sigmoid() - self.target

    def hessian(self, u: Tensor) -> Tensor:
        return torch.diag_embed(u.sigmoid() * (1 - u.sigmoid()))


def lower_of(name: str, z: Tensor, labels: Tensor, center: Tensor | None) -> LinearHead:
    if name == "softmax":
        return SoftmaxHead(z, labels, C, MU, center)
    if name == "ridge":
        return RidgeHead(z, F.one_hot(labels, C), MU, center)
    return LinearHead(z, OneAgainstRest(labels), MU, center)


def upper_of(name: str, z: Tensor, labels: Tensor) -> LinearHead:
    if name == "ridge":
        return SquaredError(z, F.one_hot(labels, C))
    return ScaledSoftmax(z, labels, C, 3.0) if name == "logistic" else SoftmaxHead(z, labels, C)


CASES = [
    (name, n, d, start)
    for name in ("softmax", "ridge", "logistic")
    for n, d, start in ((10, 30, "zero"), (10, 30, "learned"), (25, 5, "zero"), (10, 30, "prototype"))
]


@pytest.fixture(params=CASES, ids=lambda case: "-".join(map(str, case)))
def case(request, generator):
    """A name, features and labels of support and query, and R's center. Classes have unequal numbers of images, and one
    case has n > d."""
    name, n, d, start = request.param

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    z_s, z_q = draw(T, n, d), draw(T, M, d)
    y_s, y_q = (torch.randint(C, (T, count), generator=generator) for count in (n, M))
    center = {"zero": None, "learned": draw(C, d + 1), "prototype": prototypes(z_s, y_s, C)}[start]
    return name, (z_s, y_s), (z_q, y_q), center


def solved(case, tolerance: float = 1e-12):
    name, (z_s, y_s), (z_q, y_q), center = case
    g, f = lower_of(name, z_s, y_s, center), upper_of(name, z_q, y_q)
    inner = SupportSpace(g).newton(50, tolerance)
    assert inner.converged.all()
    return g, f, inner


def test_central_differences_of_F(case) -> None:
    """By every 7th feature of support and query, at a fixed center."""
    name, (z_s, y_s), (z_q, y_q), center = case
    g, f, inner = solved(case)
    found = head_hypergradient(f, g, inner.value, 1e-10)

    def value(z_s: Tensor, z_q: Tensor) -> Tensor:
        _, f, inner = solved((name, (z_s, y_s), (z_q, y_q), center))
        return f.value(inner.value).sum()

    eps, checked = 1e-5, 0
    for which, gradient in ((0, found.d_support), (1, found.d_query)):
        for i in range(0, gradient.numel(), 7):
            values = []
            for shift in (eps, -eps):
                moved = [z_s.clone(), z_q.clone()]
                moved[which].view(-1)[i] += shift
                values.append(value(*moved))
            difference = float(values[0] - values[1]) / (2 * eps)
            assert difference == pytest.approx(
                float(gradient.flatten()[i]), abs=1e-8 * max(1.0, float(gradient.abs().max()))
            )
            checked += abs(difference) > 1e-4
    assert checked >= 20, "differences of zero judge nothing"


@pytest.mark.parametrize("away", [0.0, 0.1])
def test_the_general_path(case, away: float) -> None:
    """`implicit` with the losses by autograd: at the solution, and at a W that is away from it."""
    name, (z_s, y_s), (z_q, y_q), center = case
    g, f, inner = solved(case)
    phi = (inner.value[0] + away,)
    general = implicit(
        lambda u, phi: upper_of(name, u[1], y_q).value(phi).sum(),
        lambda u, phi: lower_of(name, u[0], y_s, center).value(phi).sum(),
        (z_s, z_q),
        phi,
        lambda matvec, b: cg(matvec, b, steps=400, tolerance=1e-14),
    )
    found = head_hypergradient(f, g, phi, 1e-10)
    same(found.d_support, general.grad[0])
    same(found.d_query, general.grad[1])
    same(found.v.value[0], general.v.value[0])
    same(found.loss.sum(), general.value)
    assert found.v.converged.all()
    if away:
        same(found.residual, norm(general.slope))


def test_newton_in_the_space_of_w(case) -> None:
    """The same minimiser, value, gradient and Newton direction as by the dense Hessian of autograd."""
    g, _, inner = solved(case)
    lower = AutogradLower(g.value)
    dense = newton(lower.value, lower.grad, lower.inverse, (g.regularizer_center(),), steps=50, tolerance=1e-12)
    same(inner.value[0], dense.value[0], 1e-9)
    space = SupportSpace(g)
    a = torch.linspace(-1, 1, g.loss.target.numel(), dtype=torch.float64).view(g.loss.target.shape)
    at = (a, g.gram @ a)
    w = (space.weights(at),)
    n, slope = g.images, space.grad(at)
    same(space.value(at) / n, lower.value(w))
    same(slope[0].mT @ g.z / n, lower.grad(w)[0])
    same(space.dot(slope, slope).sqrt() / n, norm(lower.grad(w)))
    same(space.inverse(at)(slope)[0].mT @ g.z, lower.inverse(w)(lower.grad(w))[0], 1e-9)
    same(g.inverse(w)(lower.grad(w))[0], lower.inverse(w)(lower.grad(w))[0], 1e-9)


def test_ridge_is_its_closed_form(generator) -> None:
    z, y = (torch.randn(T, 10, k, dtype=torch.float64, generator=generator) for k in (7, C))
    found = SupportSpace(RidgeHead(z, y, MU)).newton(5, 1e-12)
    full = F.pad(z, (0, 1), value=1)
    normal = torch.linalg.solve(full.mT @ full / 10 + MU * torch.eye(8, dtype=z.dtype), full.mT @ y / 10).mT
    same(found.value[0], normal)
    assert found.steps.tolist() == [1] * T


@pytest.mark.parametrize("scale", [1.0, 3.0])
@pytest.mark.parametrize("size", [1.0, 30.0])
def test_small_systems_are_the_dense_one(generator, scale: float, size: float) -> None:
    """C + 1 systems against one of nC x nC, also where probabilities underflow; and at equal logits one system."""
    labels = torch.randint(C, (T, 10), generator=generator)
    loss = CrossEntropy(labels, C, torch.float64, scale)
    z = torch.randn(T, 10, 6, dtype=torch.float64, generator=generator)
    u, x = (size * torch.randn(T, 10, C, dtype=torch.float64, generator=generator) for _ in range(2))
    for logits, inverse in ((u, loss.inverse), (torch.zeros_like(u), loss.inverse_at_zero)):
        dense = LogitLoss.inverse(loss, logits, z @ z.mT, 2.0)(x)
        same(inverse(logits, z @ z.mT, 2.0)(x), dense, 1e-9)


def test_tasks_side_by_side_are_tasks_alone(generator) -> None:
    """Each stops by itself, after its own steps."""
    z = torch.tensor([0.1, 1.0, 30.0], dtype=torch.float64)[:, None, None] * torch.randn(
        T, 12, 20, dtype=torch.float64, generator=generator
    )
    labels = torch.arange(12).remainder(C).expand(T, -1)
    together = SupportSpace(SoftmaxHead(z, labels, C, 0.01)).newton(40, 1e-8)
    alone = [SupportSpace(SoftmaxHead(z[t, None], labels[t, None], C, 0.01)).newton(40, 1e-8) for t in range(T)]
    assert len(set(together.steps.tolist())) > 1
    assert together.steps.tolist() == [int(each.steps) for each in alone]
    same(together.value[0], torch.cat([each.value[0] for each in alone]))


def test_float32_features_lose_nothing_in_the_solve(generator) -> None:
    """kappa from 1e2 to 1e8, residuals by float64: W is rounded to float32 only when it is returned."""
    z = torch.randn(1, 25, 64, generator=generator)
    labels = torch.arange(25).remainder(5)[None]
    for kappa in (1e2, 1e5, 1e8):
        mu = float(SoftmaxHead(z, labels, 5).smoothness()) / kappa
        g = SoftmaxHead(z, labels, 5, mu)
        inner = SupportSpace(g).newton(60, 1e-11)
        assert inner.converged.all()
        assert inner.value[0].dtype == torch.float32
        exact = SupportSpace(g.double).newton(60, 1e-11)
        assert norm(g.double.grad(exact.value)) < 2e-11
        found = head_hypergradient(SoftmaxHead(z.double() + 0.1, labels, 5), g.double, exact.value, 1e-9)
        assert found.v.converged.all()
        assert found.residual < 2e-11


def test_features_that_are_not_finite_are_not_solved(generator) -> None:
    z = torch.randn(2, 10, 6, generator=generator)
    z[0, 0, 0] = torch.nan
    g = SoftmaxHead(z, torch.arange(10).remainder(C).expand(2, -1), C, MU)
    assert SupportSpace(g).newton(20, 1e-4).converged.tolist() == [False, True]
    assert g.smoothness().isnan().tolist() == [True, False]
