"""Every lower and upper objective against its definition, which autograd differentiates: one table, in float64.

Of a lower level g: value, gradient, H v, the adjoint law <H v, w> = <v, H w>, H^-1 H v = v, the cross derivative, that
by R's center, and the bounds on H's eigenvalues. Of an upper level f: value and both gradients.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from memmeta_exp import bilevel
from memmeta_exp.bilevel import (
    AutogradLower,
    CosineHead,
    QuadraticLower,
    QuadraticUpper,
    RidgeHead,
    ScaledSoftmax,
    SoftmaxHead,
    SquaredError,
)
from memmeta_exp.bilevel.vectors import dot
from memmeta_exp.data.quadratic import QuadraticConfig, draw_tasks
from tests.bilevel.conftest import MU, C, D, N, T, same

S, P = 4.0, 5
LABELS = torch.randint(C, (T, N), generator=torch.Generator().manual_seed(1))
TARGET = torch.randn(T, N, C, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
QUADRATIC = draw_tasks(QuadraticConfig(tasks=T, dim_theta=P, dim_phi=D, kappa=7.0, seed=2))
Loss = Callable[[Tensor, Tensor], Tensor]  # of features z and phi, without R: [T]


def affine(z: Tensor, w: Tensor) -> Tensor:
    return torch.einsum("tnd,tcd->tnc", z, w[..., :-1]) + w[..., None, :, -1]


def cross_entropy(logits: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), LABELS.flatten(), reduction="none").view(T, N).mean(1)


def cosines(z: Tensor, w: Tensor) -> Tensor:
    w = w[..., :-1]
    return torch.einsum("tnd,tcd->tnc", z / z.norm(dim=-1, keepdim=True), w / w.norm(dim=-1, keepdim=True))


def away(z: Tensor, phi: Tensor) -> Tensor:
    """(phi - y, S (phi - y)) / 2."""
    offset = phi[:, 0] - torch.einsum("tqp,tp->tq", QUADRATIC.slope, z) - QUADRATIC.offset
    return torch.einsum("tq,tqr,tr->t", offset, QUADRATIC.curvature, offset) / 2


def quadratic_query(z: Tensor, phi: Tensor) -> Tensor:
    to_target = (phi[:, 0] - QUADRATIC.target).square().sum(1)
    return (to_target + QUADRATIC.rho * (z - QUADRATIC.anchor).square().sum(1)) / 2


@dataclass(frozen=True)
class Of:
    """build: (z, center) or (z,) -> the objective; loss: its definition without R; shapes: of z and of phi; bound: of
    `smoothness`, "exact" or "above" H's largest eigenvalue, None where there is none."""

    build: Callable[..., Any]
    loss: Loss
    z: tuple[int, ...] = (T, N, D)
    phi: tuple[int, ...] = (T, C, D + 1)
    bound: str | None = None


LOWER = {
    "SoftmaxHead": Of(
        lambda z, c: SoftmaxHead(z, LABELS, C, MU, c), lambda z, w: cross_entropy(affine(z, w)), bound="above"
    ),
    "RidgeHead": Of(
        lambda z, c: RidgeHead(z, TARGET, MU, c),
        lambda z, w: (affine(z, w) - TARGET).square().sum(-1).mean(1) / 2,
        bound="exact",
    ),
    "CosineHead": Of(
        lambda z, c: CosineHead(z, LABELS, C, S, MU, c), lambda z, w: cross_entropy(S * cosines(z, w))
    ),
    "QuadraticLower": Of(
        lambda z, c: QuadraticLower(z, QUADRATIC, MU, c), away, (T, P), (T, 1, D), bound="exact"
    ),
}  # fmt: skip
UPPER = {
    "SoftmaxHead": Of(lambda z: SoftmaxHead(z, LABELS, C), lambda z, w: cross_entropy(affine(z, w))),
    "ScaledSoftmax": Of(lambda z: ScaledSoftmax(z, LABELS, C, S), lambda z, w: cross_entropy(S * affine(z, w))),
    "CosineHead": Of(lambda z: CosineHead(z, LABELS, C, S), lambda z, w: cross_entropy(S * cosines(z, w))),
    "SquaredError": Of(
        lambda z: SquaredError(z, TARGET), lambda z, w: (affine(z, w) - TARGET).square().sum(-1).mean(1)
    ),
    "QuadraticUpper": Of(lambda z: QuadraticUpper(z, QUADRATIC), quadratic_query, (T, P), (T, 1, D)),
}
LEARNED = (False, True)  # whether R has a center


def test_every_objective_of_the_library_is_in_the_table() -> None:
    """But for those of other forms: any loss by autograd, F, and the protocols themselves."""
    objectives = {name for name in bilevel.__all__ if hasattr(getattr(bilevel, name), "value")}
    other = {"AutogradLower", "Lower", "Upper", "LinearHead", "SupportSpace", "Hypergradient", "Solution"}
    assert objectives - other == set(LOWER) | set(UPPER)


@dataclass(frozen=True)
class Lower:
    """g at a point, its definition, and two directions."""

    g: Any
    general: AutogradLower
    z: Tensor
    phi: tuple[Tensor]
    v: tuple[Tensor]
    w: tuple[Tensor]
    center: Tensor | None
    bound: str | None

    def by_definition(self, z: Tensor, phi: Tensor, center: Tensor | None, loss: Loss) -> Tensor:
        return loss(z, phi) + MU / 2 * (phi if center is None else phi - center).square().sum((1, 2))


@pytest.fixture(params=[(name, learned) for name in LOWER for learned in LEARNED], ids=str)
def lower(request, generator) -> tuple[Lower, Loss]:
    name, learned = request.param
    of = LOWER[name]

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    z, phi, v, w = draw(*of.z), draw(*of.phi), draw(*of.phi), draw(*of.phi)
    center = draw(*of.phi[1:]) if learned else None

    def definition(at: Any) -> Tensor:
        return of.loss(z, at[0]) + MU / 2 * (at[0] if center is None else at[0] - center).square().sum((1, 2))

    found = Lower(of.build(z, center), AutogradLower(definition), z, (phi,), (v,), (w,), center, of.bound)
    return found, of.loss


def test_value_gradient_and_product(lower) -> None:
    of, _ = lower
    same(of.g.value(of.phi), of.general.value(of.phi))
    same(of.g.grad(of.phi)[0], of.general.grad(of.phi)[0])
    same(of.g.hvp(of.phi)(of.v)[0], of.general.hvp(of.phi)(of.v)[0])


def test_the_hessian_is_symmetric(lower) -> None:
    """<H v, w> = <v, H w> of each task."""
    of, _ = lower
    product = of.g.hvp(of.phi)
    same(dot(product(of.v), of.w), dot(of.v, product(of.w)))


def test_the_inverse_undoes_the_product(lower) -> None:
    of, _ = lower
    same(of.g.inverse(of.phi)(of.g.hvp(of.phi)(of.v))[0], of.v[0])
    same(of.g.hvp(of.phi)(of.g.inverse(of.phi)(of.v))[0], of.v[0])


def test_cross_derivatives(lower) -> None:
    """d_z <d_phi g, v>, and by R's center."""
    of, loss = lower
    z, phi = of.z.clone().requires_grad_(), of.phi[0].clone().requires_grad_()
    center = None if of.center is None else of.center.expand_as(phi).clone().requires_grad_()
    (slope,) = torch.autograd.grad(of.by_definition(z, phi, center, loss).sum(), phi, create_graph=True)
    by_z, *by_center = torch.autograd.grad((slope * of.v[0]).sum(), [z] if center is None else [z, center])
    same(of.g.cross(of.phi, of.v), by_z)
    if center is not None:
        same(of.g.cross_center(of.v), by_center[0])
        assert torch.equal(of.g.regularizer_center(), center)


def test_bounds_on_the_hessian(lower) -> None:
    of, _ = lower
    product, each = of.g.hvp(of.phi), of.phi[0][0].numel()
    basis = torch.eye(each, dtype=torch.float64).view(each, 1, *of.phi[0].shape[1:]).expand(-1, *of.phi[0].shape)
    values = torch.linalg.eigvalsh(torch.stack([product((e,))[0].flatten(1) for e in basis], 2))
    if of.bound is None:
        assert of.g.smoothness().isnan().all(), "no bound is known"
        return
    assert (values[:, 0] >= of.g.modulus - 1e-12).all()
    assert (values[:, -1] <= of.g.smoothness() + 1e-12).all()
    if of.bound == "exact":
        same(of.g.smoothness(), values[:, -1])


@pytest.mark.parametrize("name", UPPER)
def test_an_upper_level_is_its_own_derivatives(name: str, generator) -> None:
    of = UPPER[name]
    z, phi = (torch.randn(*s, dtype=torch.float64, generator=generator).requires_grad_() for s in (of.z, of.phi))
    value = of.loss(z, phi)
    by_z, by_phi = torch.autograd.grad(value.sum(), (z, phi))
    f, at = of.build(z.detach()), (phi.detach(),)
    same(f.value(at), value.detach())
    same(f.grad(at)[0], by_phi)
    same(f.grad_features(at), by_z)
    accuracy, has_classes = f.accuracy(at), name in ("SoftmaxHead", "ScaledSoftmax", "CosineHead")
    assert (accuracy is not None) == has_classes
    if accuracy is not None:
        logits = cosines(z, phi) if name == "CosineHead" else affine(z, phi)
        assert torch.equal(accuracy, (logits.argmax(-1) == LABELS).double().mean(1))
