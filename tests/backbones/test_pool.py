"""Pooling and ReLU as one operator, against torch's two operators and numerical derivatives."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from memmeta_exp.backbones.ops.pool import pool_relu

LAYOUTS = pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])


def torchs(x: Tensor) -> Tensor:
    return F.relu(F.max_pool2d(x, 2))


@LAYOUTS
@pytest.mark.parametrize("shape", [(3, 2, 5, 7), (2, 3, 4, 4), (4, 1, 2, 2)])
def test_numerical_derivatives(shape: tuple[int, ...], layout: torch.memory_format, generator) -> None:
    x = torch.randn(*shape, dtype=torch.float64, generator=generator).contiguous(memory_format=layout).requires_grad_()
    assert torch.autograd.gradcheck(pool_relu, x)
    assert torch.autograd.gradgradcheck(pool_relu, x)


@LAYOUTS
@pytest.mark.parametrize("precision", [torch.float64, torch.bfloat16])
def test_every_derivative_is_torchs_to_the_bit(precision, layout, generator) -> None:
    """The first three, each in the order of memory of what it is the derivative by."""
    x = torch.randn(3, 4, 7, 6, generator=generator).to(precision).contiguous(memory_format=layout).requires_grad_()
    results = []
    for function in (pool_relu, torchs):
        derivatives = [function(x)]
        for _ in range(3):
            along = (derivatives[-1] ** 3).sum()
            derivatives += torch.autograd.grad(along, x, create_graph=True)
        results.append(derivatives)
    for ours, theirs in zip(*results, strict=True):
        assert theirs.abs().max() > 0.1
        assert torch.equal(ours, theirs)
        assert ours.is_contiguous(memory_format=layout)


def test_the_input_is_not_kept() -> None:
    x = torch.randn(2, 3, 8, 8).bfloat16().requires_grad_()
    kept = pool_relu(x).grad_fn.saved_tensors  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
    assert {tensor.shape for tensor in kept} == {torch.Size([2, 3, 4, 4])}
    assert {tensor.element_size() for tensor in kept} == {2}


@LAYOUTS
@pytest.mark.parametrize("shape", [(1, 1, 128, 256), (1, 1, 2, 16386), (2, 2, 182, 182)])
def test_planes_about_the_largest_that_two_bytes_count(shape, layout, generator) -> None:
    x = torch.randn(*shape, generator=generator).contiguous(memory_format=layout)
    x[:, :, -1, -1] = 10.0  # the last place of all is a largest entry
    x.requires_grad_()
    results = []
    for function in (pool_relu, torchs):
        (first,) = torch.autograd.grad(function(x).square().sum(), x, create_graph=True)
        results.append((first, *torch.autograd.grad(first.square().sum(), x)))
    (first, second), theirs = results
    assert torch.equal(first, theirs[0])
    assert torch.equal(second, theirs[1])
    assert first[0, 0, -1, -1] == 20.0
