"""The fused batch norm, pooling and ReLU: torch's own operators as the judge, and numerical derivatives."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from memmeta_exp.backbones import Conv4
from memmeta_exp.backbones.norm_pool import batch_norm_pool

EPS = 1e-5


def case(shape: tuple[int, ...], generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    x = torch.randn(*shape, dtype=torch.float64, generator=generator)
    weight = torch.rand(shape[1], dtype=torch.float64, generator=generator)
    bias = torch.randn(shape[1], dtype=torch.float64, generator=generator)
    return x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()


def fused(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return batch_norm_pool(x, weight, bias, EPS)


def plain(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.max_pool2d(F.relu(F.batch_norm(x, None, None, weight, bias, training=True, eps=EPS)), 2)


@pytest.mark.parametrize("shape", [(3, 2, 5, 7), (2, 3, 4, 4), (4, 1, 2, 2)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_value_and_derivatives(shape: tuple[int, ...], layout: torch.memory_format, generator) -> None:
    x, weight, bias = case(shape, generator)
    inputs = (x.detach().contiguous(memory_format=layout).requires_grad_(), weight, bias)
    assert torch.allclose(fused(*inputs), plain(*inputs), atol=1e-14)
    assert torch.autograd.gradcheck(fused, inputs)
    assert torch.autograd.gradgradcheck(fused, inputs)


def test_second_derivative_equals_that_of_torchs_operators(generator) -> None:
    inputs = case((5, 3, 6, 6), generator)

    def second(function) -> list[Tensor]:
        y = function(*inputs)
        phases = torch.arange(y.numel(), dtype=y.dtype).view_as(y)
        first = torch.autograd.grad((y.square() * phases.sin()).sum(), inputs, create_graph=True)
        total = sum((d * torch.arange(d.numel(), dtype=d.dtype).view_as(d).cos()).sum() for d in first)
        return list(torch.autograd.grad(total, inputs))  # pyright: ignore[reportArgumentType, reportCallIssue]

    for a, b in zip(second(fused), second(plain), strict=True):
        assert b.abs().max() > 1e-3
        assert (a - b).abs().max() < 1e-11 * b.abs().max()


@pytest.mark.parametrize("order", [1, 2])
def test_each_task_is_normalised_by_itself(order: int, generator) -> None:
    """Two tasks of three images in one call are two calls, in value and in both derivatives."""
    x, weight, bias = case((6, 2, 4, 5), generator)

    def result(tasks: int) -> list[Tensor]:
        parts = [batch_norm_pool(part, weight, bias, EPS, tasks) for part in x.split(3 * tasks)]
        y = torch.cat(parts)
        phases = torch.arange(y.numel(), dtype=y.dtype).view_as(y).sin()
        grads = torch.autograd.grad((y.square() * phases).sum(), (x, weight, bias), create_graph=order == 2)
        if order == 2:
            grads = torch.autograd.grad(sum(g.cos().sum() for g in grads), (x, weight, bias))  # pyright: ignore[reportArgumentType, reportCallIssue]
        return [y, *grads]

    for a, b in zip(result(1), result(2), strict=True):
        assert b.abs().max() > 1e-3
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("tasks", [1, 3])
@pytest.mark.parametrize("negative", [False, True], ids=["as initialised", "with negative weights"])
def test_fused_and_plain_conv4_are_one_function(tasks: int, negative: bool) -> None:
    nets = [Conv4(3, 8, torch.Generator().manual_seed(0), block=block).double() for block in ("fused", "plain")]
    if negative:
        for net in nets:
            for block in range(4):
                net.get_parameter(f"norms.{block}.weight").data[::2].neg_()
    images = torch.rand(tasks, 6, 3, 21, 21, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    results = []
    for net in nets:
        z = net(images)
        z.square().sum().backward()
        results.append((z.detach(), {n: p.grad for n, p in net.named_parameters() if not n.endswith("s.bias")}))
    (a, grads), (b, expected) = results
    assert torch.allclose(a, b, atol=1e-12)
    shared = [n for n in expected if n in grads]
    assert len(shared) == 12
    for name in shared:
        assert (grads[name] - expected[name]).abs().max() < 1e-9 * expected[name].abs().max()


def test_there_is_no_third_derivative(generator) -> None:
    """Refused, not silently wrong; the second derivative is there where no third is asked for."""
    x, weight, bias = case((2, 2, 4, 4), generator)
    (first,) = torch.autograd.grad(fused(x, weight, bias).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="third derivative"):
        torch.autograd.grad(first.square().sum(), x, create_graph=True)
    assert torch.autograd.grad(first.square().sum(), x)[0].abs().max() > 0
