"""The ridge, cosine and scaled heads and the prototypes: closed forms against autograd in float64, to 1e-10."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from memmeta_exp.bilevel import AutogradLower, CosineHead, RidgeHead, ScaledSoftmax, newton, prototypes
from tests.bilevel.conftest import MU, C, D, N, T, same

S = 4.0


def by_hand(name: str, z: Tensor, labels: Tensor, w: Tensor, centre: Tensor | None) -> Tensor:
    """g of each task from its definition, [T]."""
    if name == "ridge":
        out = torch.einsum("tnd,tcd->tnc", z, w[..., :-1]) + w[..., None, :, -1]
        loss = (out - F.one_hot(labels, C)).square().sum(-1).mean(1) / 2
    else:
        z, rows = z / z.norm(dim=-1, keepdim=True), w[..., :-1] / w[..., :-1].norm(dim=-1, keepdim=True)
        logits = S * torch.einsum("tnd,tcd->tnc", z, rows)
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape).mean(1)
    return loss + MU / 2 * (w if centre is None else w - centre).square().sum((1, 2))


def head_of(name: str, z: Tensor, labels: Tensor, centre: Tensor | None):
    if name == "ridge":
        return RidgeHead(z, F.one_hot(labels, C), MU, centre)
    return CosineHead(z, labels, C, S, MU, centre)


@pytest.mark.parametrize("name", ["ridge", "cosine"])
def test_derivatives(case, name: str) -> None:
    z, labels, phi, v, centre = case
    head = head_of(name, z, labels, centre)
    general = AutogradLower(lambda p: by_hand(name, z, labels, p[0], centre))
    same(head.value((phi,)), general.value((phi,)))
    same(head.grad((phi,))[0], general.grad((phi,))[0])
    same(head.hvp((phi,))((v,))[0], general.hvp((phi,))((v,))[0])
    same(head.inverse((phi,))((v,))[0], general.inverse((phi,))((v,))[0])
    leaves = z.clone().requires_grad_(), phi.clone().requires_grad_()
    c = None if centre is None else centre.expand(T, -1, -1).clone().requires_grad_()
    (slope,) = torch.autograd.grad(
        by_hand(name, *(leaves[0], labels, leaves[1]), c).sum(), leaves[1], create_graph=True
    )
    (by_z, *by_c) = torch.autograd.grad((slope * v).sum(), [leaves[0]] if c is None else [leaves[0], c])
    same(head.cross((phi,), (v,)), by_z)
    if c is not None:
        same(head.cross_centre((v,)), by_c[0])
        assert torch.equal(head.regularizer_center(), c)


def test_ridge_is_one_newton_step_and_the_normal_equations(case) -> None:
    z, labels, phi, _, centre = case
    head = RidgeHead(z, F.one_hot(labels, C), MU, centre)
    found = newton(head.value, head.grad, head.inverse, (phi,), steps=5, tolerance=1e-12)
    assert found.steps.tolist() == [1] * T
    full = torch.cat([z, torch.ones(T, N, 1, dtype=z.dtype)], -1)
    right = F.one_hot(labels, C).to(z.dtype).mT @ full / N + MU * (0 if centre is None else centre)
    normal = torch.linalg.solve(full.mT @ full / N + MU * torch.eye(D + 1, dtype=z.dtype), right.mT).mT
    same(found.value[0], normal)


def test_smoothness_of_ridge_is_that_of_its_hessian(case) -> None:
    z, labels, phi, _, centre = case
    head = RidgeHead(z, F.one_hot(labels, C), MU, centre)
    basis = torch.eye(C * (D + 1), dtype=z.dtype).view(-1, 1, C, D + 1).expand(-1, T, -1, -1)
    values = torch.linalg.eigvalsh(torch.stack([head.hvp((phi,))((e,))[0].flatten(1) for e in basis], 2))
    same(head.smoothness(), values[:, -1])
    assert (values[:, 0] >= head.modulus - 1e-12).all()


def test_a_scaled_query_loss(case) -> None:
    z, labels, phi, _, _ = case
    upper, x, w = ScaledSoftmax(z, labels, C, S), z.clone().requires_grad_(), phi.clone().requires_grad_()
    logits = S * (torch.einsum("tnd,tcd->tnc", x, w[..., :-1]) + w[..., None, :, -1])
    loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape).mean(1)
    by_x, by_w = torch.autograd.grad(loss.sum(), (x, w))
    same(upper.value((phi,)), loss.detach())
    same(upper.grad((phi,))[0], by_w)
    same(upper.grad_features((phi,)), by_x)
    assert torch.equal(upper.accuracy((phi,)), (logits.argmax(-1) == labels).double().mean(1))


def test_a_cosine_query_loss(case) -> None:
    z, labels, phi, _, _ = case
    x = z.clone().requires_grad_()
    value = by_hand("cosine", x, labels, phi, phi)  # R is 0 at its centre
    upper = CosineHead(z, labels, C, S)
    same(upper.value((phi,)), value.detach())
    same(upper.grad_features((phi,)), torch.autograd.grad(value.sum(), x)[0])
    longer = phi * torch.tensor([1.0, 2.0, 3.0, 4.0])[:, None]
    same(upper.value((longer,)), upper.value((phi,)))  # a cosine does not see lengths


def test_prototypes_are_nearest_means(case) -> None:
    z, labels, _, _, _ = case
    labels = torch.arange(N).remainder(C).expand(T, N)
    w = prototypes(z, labels, C)
    logits = torch.einsum("tnd,tcd->tnc", z, w[..., :-1]) + w[..., None, :, -1]
    means = torch.stack([z[:, labels[0] == c].mean(1) for c in range(C)], 1)
    distances = (z[:, :, None] - means[:, None]).square().sum(-1)
    same(logits, z.square().sum(-1, keepdim=True) - distances)
