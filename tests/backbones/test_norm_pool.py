"""Batch norm with its own derivatives, alone and with pooling and ReLU, against torch's operators and numerical
derivatives."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from memmeta_exp.backbones import Conv4
from memmeta_exp.backbones.ops.batch_norm import batch_norm
from memmeta_exp.backbones.ops.batch_norm_pool import batch_norm_pool

EPS = 1e-5


def case(shape: tuple[int, ...], generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    x = torch.randn(*shape, dtype=torch.float64, generator=generator)
    weight = torch.rand(shape[1], dtype=torch.float64, generator=generator)
    bias = torch.randn(shape[1], dtype=torch.float64, generator=generator)
    return x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()


def fused(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return batch_norm_pool(x, weight, bias, EPS)


def alone(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return batch_norm(x, weight, bias, EPS)


def torchs(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.batch_norm(x, None, None, weight, bias, training=True, eps=EPS)


def plain(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.max_pool2d(F.relu(torchs(x, weight, bias)), 2)


BOTH = pytest.mark.parametrize(("ours", "judge"), [(fused, plain), (alone, torchs)], ids=["norm_pool", "batch_norm"])


def second(function, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """Of an arbitrary function of the first derivatives."""
    y = function(*inputs)
    phases = torch.arange(y.numel(), dtype=y.dtype).view_as(y)
    first = torch.autograd.grad((y.square() * phases.sin()).sum(), inputs, create_graph=True)
    total = sum((d * torch.arange(d.numel(), dtype=d.dtype).view_as(d).cos()).sum() for d in first)
    return list(torch.autograd.grad(total, inputs))  # pyright: ignore[reportArgumentType, reportCallIssue]


@BOTH
@pytest.mark.parametrize("shape", [(3, 2, 5, 7), (2, 3, 4, 4), (4, 1, 2, 2)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_value_and_derivatives(ours, judge, shape: tuple[int, ...], layout: torch.memory_format, generator) -> None:
    x, weight, bias = case(shape, generator)
    inputs = (x.detach().contiguous(memory_format=layout).requires_grad_(), weight, bias)
    assert torch.allclose(ours(*inputs), judge(*inputs), atol=1e-14)
    assert torch.autograd.gradcheck(ours, inputs)
    assert torch.autograd.gradgradcheck(ours, inputs)


@BOTH
def test_second_derivative_equals_that_of_torchs_operators(ours, judge, generator) -> None:
    inputs = case((5, 3, 6, 6), generator)
    for a, b in zip(second(ours, inputs), second(judge, inputs), strict=True):
        assert b.abs().max() > 1e-3
        assert (a - b).abs().max() < 1e-11 * b.abs().max()


def test_in_bfloat16(generator) -> None:
    """What precision=bf16 runs: value and first derivatives are torch's to the bit, the second derivatives are those of
    float64 to the rounding of bfloat16 (2^-8)."""
    x, weight, bias = case((25, 8, 6, 6), generator)
    low = x.detach().bfloat16().contiguous(memory_format=torch.channels_last).requires_grad_()
    float32 = [v.detach().float().requires_grad_() for v in (weight, bias)]
    results = []
    for function in (alone, torchs):
        y = function(low, *float32)
        results.append([y, *torch.autograd.grad(y.float().square().sum(), (low, *float32))])
    assert results[0][0].dtype == torch.bfloat16
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))

    def of_fourth_power(x: Tensor, weight: Tensor, bias: Tensor) -> list[Tensor]:
        (first,) = torch.autograd.grad((alone(x, weight, bias).to(weight.dtype) ** 4).sum(), x, create_graph=True)
        return list(torch.autograd.grad(first.to(weight.dtype).square().sum(), (x, weight, bias)))

    exact = of_fourth_power(
        low.detach().double().requires_grad_(), *(v.detach().double().requires_grad_() for v in float32)
    )
    for a, b in zip(of_fourth_power(low, *float32), exact, strict=True):
        assert (a - b).norm() < 2**-5 * b.norm()


def under_autocast(net: Conv4, images: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return net(images)


def test_conv4_under_autocast_uses_it(generator) -> None:
    net = Conv4(3, 8, torch.Generator().manual_seed(0))
    z = under_autocast(net, torch.rand(2, 6, 3, 16, 16, generator=generator))
    seen, todo = set(), [z.grad_fn]
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            todo += [parent for parent, _ in node.next_functions]
    names = [node.name() for node in seen]
    assert names.count("_ConvolutionBackward") == 4, "of each block"
    assert names.count("_BatchNormBackward") == names.count("_PoolReluBackward") == 4 * 2, "of each block and task"
    assert not any(
        theirs in name for name in names for theirs in ("NativeBatchNorm", "MaxPool", "ConvolutionBackward0")
    )


@pytest.mark.parametrize(("tasks", "apart"), [(1, True), (2, True), (2, False)])
def test_conv4_under_autocast_is_torchs_to_the_bit(tasks: int, apart: bool, generator, monkeypatch) -> None:
    """In value and first derivative, by which the algorithms without second ones have the bits they had; tasks all at
    once, as on a GPU, too."""
    monkeypatch.setattr(Conv4, "norm_task_by_task", lambda self, device: apart)
    net = Conv4(3, 8, torch.Generator().manual_seed(0))
    images = torch.rand(tasks, 6, 3, 16, 16, generator=generator)
    results = []
    for torchs_own in (False, True):
        if torchs_own:
            monkeypatch.setattr(Conv4, "_by_own_derivatives", lambda self, x: False)
            for norm in net.norms:
                norm.own_derivatives = False  # pyright: ignore[reportArgumentType]
        z = under_autocast(net, images)
        results.append([z, *torch.autograd.grad(z.float().square().sum(), list(net.parameters()))])
    assert results[0][0].abs().max() > 0.1
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_hessian_vector_product_of_conv4_in_bfloat16(generator) -> None:
    """That of float64 as nearly as torch's own operators in bfloat16 come to it."""
    images = torch.rand(1, 25, 3, 16, 16, dtype=torch.float64, generator=generator)

    def product(block: str, precision: torch.dtype) -> Tensor:
        net = Conv4(3, 8, torch.Generator().manual_seed(0), block=block).to(precision)
        weights = [p for n, p in net.named_parameters() if not (n.startswith("convs") and n.endswith("bias"))]
        x = images.to(precision)
        z = net(x) if precision == torch.float64 else under_autocast(net, x)
        first = torch.autograd.grad(z.to(precision).square().mean(), weights, create_graph=True)
        along = sum((d * torch.arange(d.numel(), dtype=d.dtype).view_as(d).cos()).sum() for d in first)
        return torch.cat([d.flatten() for d in torch.autograd.grad(along, weights)]).double()  # pyright: ignore[reportArgumentType, reportCallIssue]

    exact = product("fused", torch.float64)
    ours, torchs_own = (float((product(b, torch.float32) - exact).norm() / exact.norm()) for b in ("fused", "plain"))
    assert 0 < ours < 1.25 * torchs_own < 0.5


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


@BOTH
def test_there_is_no_third_derivative(ours, judge, generator) -> None:
    """Refused, not silently wrong; the second derivative is there where no third is asked for."""
    x, weight, bias = case((2, 2, 4, 4), generator)
    (first,) = torch.autograd.grad(ours(x, weight, bias).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="third derivative"):
        torch.autograd.grad(first.square().sum(), x, create_graph=True)
    assert torch.autograd.grad(first.square().sum(), x)[0].abs().max() > 0
