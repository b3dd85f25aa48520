"""The closed forms against autograd in float64, to 1e-10."""

import pytest
import torch
from torch.nn import functional as F

from memmeta_exp.bilevel import AutogradLower, SoftmaxHead, cg
from tests.bilevel.conftest import MU, C, D, N, T, same


def plain_loss(z, labels, w, centre):
    logits = F.linear(z[0], w[0][:, :-1], w[0][:, -1])[None] if len(z) == 1 else None
    if logits is None:
        logits = torch.einsum("tnd,tcd->tnc", z, w[..., :-1]) + w[..., None, :, -1]
    ce = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape).mean(1)
    offset = w if centre is None else w - centre
    return ce + MU / 2 * offset.square().sum((1, 2))


def test_value_gradient_and_products(case) -> None:
    z, labels, phi, v, centre = case
    head = SoftmaxHead(z, labels, C, MU, centre)
    general = AutogradLower(lambda p: plain_loss(z, labels, p[0], centre))
    same(head.value((phi,)), general.value((phi,)))
    same(head.grad((phi,))[0], general.grad((phi,))[0])
    same(head.hvp((phi,))((v,))[0], general.hvp((phi,))((v,))[0])
    same(head.inverse((phi,))((v,))[0], general.inverse((phi,))((v,))[0])


def test_cross_terms(case) -> None:
    z, labels, phi, v, centre = case
    head = SoftmaxHead(z, labels, C, MU, centre)
    z, w = z.clone().requires_grad_(), phi.clone().requires_grad_()
    c = None if centre is None else centre.expand(T, -1, -1).clone().requires_grad_()
    (slope,) = torch.autograd.grad(plain_loss(z, labels, w, c).sum(), w, create_graph=True)
    (by_z, *by_c) = torch.autograd.grad((slope * v).sum(), [z] if c is None else [z, c])
    same(head.cross((phi,), (v,)), by_z)
    if by_c:
        same(head.cross_centre((v,)), by_c[0])


def test_feature_gradient_of_the_query_loss(case) -> None:
    z, labels, phi, _, _ = case
    z = z.clone().requires_grad_()
    logits = torch.einsum("tnd,tcd->tnc", z, phi[..., :-1]) + phi[..., None, :, -1]
    F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum").div(N).backward()
    assert z.grad is not None
    same(SoftmaxHead(z.detach(), labels, C).grad_features((phi,)), z.grad)


def test_inverse_is_the_solution_of_cg(case) -> None:
    z, labels, phi, v, centre = case
    head = SoftmaxHead(z, labels, C, MU, centre)
    iterative = cg(head.hvp((phi,)), (v,), steps=200, tolerance=1e-13)
    same(head.inverse((phi,))((v,))[0], iterative.value[0], 1e-9)


def test_smoothness_bounds_the_hessian_and_is_not_loose(case) -> None:
    """lambda_max(H) <= the bound everywhere, and the bound is attained within 1/2 (at phi = 0, C = 2, it is tight)."""
    z, labels, phi, _, _ = case
    head = SoftmaxHead(z, labels, C, MU)
    q = C * (D + 1)
    basis = torch.eye(q, dtype=z.dtype).view(q, 1, C, D + 1).expand(-1, T, -1, -1)
    for w in (phi, torch.zeros_like(phi)):
        hessian = torch.stack([head.hvp((w,))((e,))[0].flatten(1) for e in basis], 2)
        top = torch.linalg.eigvalsh(hessian)[:, -1]
        assert (top <= head.smoothness() + 1e-12).all()
    two = SoftmaxHead(z, labels % 2, 2, MU)
    zero = torch.zeros(T, 2, D + 1, dtype=z.dtype)
    basis = torch.eye(2 * D + 2, dtype=z.dtype).view(-1, 1, 2, D + 1).expand(-1, T, -1, -1)
    top = torch.linalg.eigvalsh(torch.stack([two.hvp((zero,))((e,))[0].flatten(1) for e in basis], 2))[:, -1]
    assert torch.allclose(top, two.smoothness())


def test_smoothness_by_either_gram_matrix(generator) -> None:
    """n > d + 1 takes the smaller side; the eigenvalue is the same."""
    z = torch.randn(2, 40, 5, dtype=torch.float64, generator=generator)
    labels = torch.zeros(2, 40, dtype=torch.int64)
    full = torch.cat([z, torch.ones(2, 40, 1, dtype=z.dtype)], -1)
    by_images = MU + 0.5 * torch.linalg.eigvalsh(full @ full.mT)[:, -1] / 40
    assert torch.allclose(SoftmaxHead(z, labels, 3, MU).smoothness(), by_images)


def test_features_that_are_not_finite_give_results_that_are_not(generator) -> None:
    z = torch.randn(1, N, D, generator=generator)
    z[0, 0, 0] = torch.nan
    head = SoftmaxHead(z, torch.zeros(1, N, dtype=torch.int64), C, MU)
    r = torch.ones(1, C, D + 1)
    assert head.smoothness().isnan().all()
    assert not head.inverse((r,))((r,))[0].isfinite().all()


def test_accuracy_by_hand() -> None:
    z = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]])
    head = SoftmaxHead(z, torch.tensor([[0, 1, 1]]), 2)
    phi = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    assert head.accuracy((phi,)).item() == pytest.approx(2 / 3)
