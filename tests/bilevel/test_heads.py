"""What single heads are beside their derivatives (of which test_objectives.py has the table)."""

import pytest
import torch
from torch.nn import functional as F

from memmeta_exp.bilevel import CosineHead, RidgeHead, SoftmaxHead, newton, prototypes
from tests.bilevel.conftest import MU, C, D, N, T, draw, same


@pytest.mark.parametrize("centred", [False, True])
def test_ridge_is_one_newton_step_and_the_normal_equations(generator, centred: bool) -> None:
    z, phi = draw(generator, T, N, D), draw(generator, T, C, D + 1)
    labels = torch.randint(C, (T, N), generator=generator)
    center = draw(generator, C, D + 1) if centred else None
    head = RidgeHead(z, F.one_hot(labels, C), MU, center)
    found = newton(head.value, head.grad, head.inverse, (phi,), steps=5, tolerance=1e-12)
    assert found.steps.tolist() == [1] * T
    full = torch.cat([z, torch.ones(T, N, 1, dtype=z.dtype)], -1)
    right = F.one_hot(labels, C).to(z.dtype).mT @ full / N + MU * (0 if center is None else center)
    normal = torch.linalg.solve(full.mT @ full / N + MU * torch.eye(D + 1, dtype=z.dtype), right.mT).mT
    same(found.value[0], normal)


def test_the_bound_of_softmax_is_not_loose(generator) -> None:
    """At phi = 0 with two classes it is the largest eigenvalue."""
    labels, zero = torch.randint(2, (T, N), generator=generator), torch.zeros(T, 2, D + 1, dtype=torch.float64)
    head = SoftmaxHead(draw(generator, T, N, D), labels, 2, MU)
    basis = torch.eye(2 * D + 2, dtype=torch.float64).view(-1, 1, 2, D + 1).expand(-1, T, -1, -1)
    top = torch.linalg.eigvalsh(torch.stack([head.hvp((zero,))((e,))[0].flatten(1) for e in basis], 2))[:, -1]
    assert torch.allclose(top, head.smoothness())


def test_smoothness_by_either_gram_matrix(generator) -> None:
    """n > d + 1 takes the smaller side; the eigenvalue is the same."""
    z = draw(generator, 2, 40, 5)
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
    assert head.accuracy((phi,)).item() == pytest.approx(2 / 3)  # pyright: ignore[reportOptionalMemberAccess]


def test_a_cosine_does_not_see_lengths(generator) -> None:
    head = CosineHead(draw(generator, T, N, D), torch.randint(C, (T, N), generator=generator), C, 4.0)
    phi = draw(generator, T, C, D + 1)
    longer = phi * torch.tensor([1.0, 2.0, 3.0, 4.0])[:, None]
    same(head.value((longer,)), head.value((phi,)))


def test_prototypes_are_nearest_means(generator) -> None:
    z, labels = draw(generator, T, N, D), torch.arange(N).remainder(C).expand(T, N)
    w = prototypes(z, labels, C)
    logits = torch.einsum("tnd,tcd->tnc", z, w[..., :-1]) + w[..., None, :, -1]
    means = torch.stack([z[:, labels[0] == c].mean(1) for c in range(C)], 1)
    distances = (z[:, :, None] - means[:, None]).square().sum(-1)
    same(logits, z.square().sum(-1, keepdim=True) - distances)
