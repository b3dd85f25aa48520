"""The convolution with its own second derivative, against torch's convolution and numerical derivatives."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from memmeta_exp.backbones.ops.convolution import conv3x3


def case(generator, leaf: bool = True) -> tuple[Tensor, Tensor]:
    x = torch.randn(3, 2, 5, 4, dtype=torch.float64, generator=generator)
    kernel = torch.randn(4, 2, 3, 3, dtype=torch.float64, generator=generator)
    return x.requires_grad_(leaf), kernel.requires_grad_()


def test_numerical_derivatives(generator) -> None:
    inputs = case(generator)
    assert torch.autograd.gradcheck(conv3x3, inputs)
    assert torch.autograd.gradgradcheck(conv3x3, inputs)


@pytest.mark.parametrize("image_needs_gradient", [True, False])
def test_second_derivative_equals_torchs(image_needs_gradient: bool, generator) -> None:
    """Also for the first layer, whose images take no gradient."""
    x, kernel = case(generator, image_needs_gradient)
    inputs = (x, kernel) if image_needs_gradient else (kernel,)

    def second(convolution) -> list[Tensor]:
        y = convolution(x, kernel).sin()
        first = torch.autograd.grad(y.square().sum(), inputs, create_graph=True)
        return list(torch.autograd.grad(sum(d.sin().sum() for d in first), inputs))  # pyright: ignore[reportArgumentType, reportCallIssue]

    for a, b in zip(second(conv3x3), second(lambda x, w: F.conv2d(x, w, padding=1)), strict=True):
        assert b.abs().max() > 1e-2
        assert (a - b).abs().max() < 1e-11 * b.abs().max()


def test_there_is_no_third_derivative(generator) -> None:
    x, kernel = case(generator)
    (first,) = torch.autograd.grad(conv3x3(x, kernel).square().sum(), kernel, create_graph=True)
    with pytest.raises(RuntimeError, match="third derivative"):
        torch.autograd.grad(first.square().sum(), kernel, create_graph=True)
