"""Random features, labels and heads of T tasks in float64."""

import pytest
import torch

T, N, D, C = 3, 10, 7, 4


def same(a, b, tolerance=1e-10) -> None:
    assert b.abs().max() > 1e-3, "a reference of zeros judges nothing"
    assert (a - b).abs().max() <= tolerance * b.abs().max()


@pytest.fixture(params=["zero centre", "learned centre"])
def case(request, generator):
    def draw(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    z, phi, v, centre = draw(T, N, D), draw(T, C, D + 1), draw(T, C, D + 1), draw(C, D + 1)
    labels = torch.randint(C, (T, N), generator=generator)
    centre = centre if request.param == "learned centre" else None
    return z, labels, phi, v, centre


MU = 0.3
