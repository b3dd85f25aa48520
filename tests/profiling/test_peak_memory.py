"""The memory meter against numbers worked out by hand, to the byte."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from memmeta_exp.profiling.peak_memory import MIB, PeakMeter, measure_peak

FLOATS = MIB // 4  # float32 entries of one MiB


def requested(step: Callable[[], object], *persistent: object) -> int:
    with PeakMeter(*persistent) as meter:
        step()
    return meter.requested_above_baseline


def conv4() -> nn.Sequential:
    """Conv4-64 in the order conv, norm, ReLU, pool, and a linear head on its 256 features."""
    layers: list[nn.Module] = []
    for channels in (3, 64, 64, 64):
        layers += [nn.Conv2d(channels, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(256, 5))


def supervised_step(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    loss = F.cross_entropy(model(images), labels)
    loss.backward()
    return loss.detach()


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("warm", [False, True])
def test_supervised_step_of_conv4(warm: bool, device: str) -> None:
    """50 images: at the peak, in backward through the first block, four [50, 64, 32, 32] tensors (13,107,200 bytes
    each), the gradients of the later layers, and small change. Meta tensors count as the CPU's do."""
    model = conv4().to(device)
    images, labels = torch.rand(50, 3, 32, 32, device=device), torch.arange(50, device=device) % 5
    if warm:
        supervised_step(model, images, labels)
        model.zero_grad()
    with PeakMeter(model, images, labels) as meter:
        supervised_step(model, images, labels)
    assert meter.above_baseline == 52_883_456 == 4 * 13_107_200 + 452_608 + 2_048


def test_measure_peak_reports_the_same_step_in_mib() -> None:
    model, images, labels = conv4(), torch.rand(50, 3, 32, 32), torch.arange(50) % 5
    loss, peak = measure_peak(lambda: supervised_step(model, images, labels), "cpu", (model, [images, labels]))
    assert peak.kind == "cpu-tensors"
    assert peak.above_baseline_mib == 52_879_132 / MIB  # not rounded to blocks
    held = [*model.parameters(), *model.buffers(), images, labels]
    baseline = sum(-(-tensor.untyped_storage().nbytes() // 512) * 512 for tensor in held)
    assert peak.absolute_mib == (52_883_456 + baseline) / MIB
    model.zero_grad()
    assert torch.equal(loss, supervised_step(model, images, labels))  # metering changes no result


def test_scratch_freed_before_the_peak_is_not_counted() -> None:
    def step() -> None:
        scratch = torch.ones(FLOATS)
        del scratch
        torch.ones(2 * FLOATS)

    def overlapping() -> None:
        scratch = torch.ones(FLOATS)
        torch.ones(2 * FLOATS)
        del scratch

    assert requested(step) == 2 * MIB
    assert requested(overlapping) == 3 * MIB


def test_views_count_once_and_in_place_results_not_at_all() -> None:
    def step() -> None:
        x = torch.ones(FLOATS)
        views = [x.view(2, -1), x[:10], x.detach(), x.expand(7, -1)]
        x.mul_(2).add_(1)
        torch.add(views[0], 1, out=views[0])

    assert requested(step) == MIB


def test_a_storage_resized_in_place_counts_its_new_size() -> None:
    def step() -> None:
        torch.mul(torch.ones(FLOATS), 2, out=torch.empty(0))

    assert requested(step) == 2 * MIB


@pytest.mark.parametrize(("block", "rounded"), [(512, 1024), (1, 516)])
def test_blocks_round_up_and_requested_does_not(block: int, rounded: int) -> None:
    with PeakMeter(block=block) as meter:
        torch.ones(129)  # 516 bytes
    assert (meter.above_baseline, meter.requested_above_baseline) == (rounded, 516)


def test_what_was_there_before_is_baseline_named_or_met() -> None:
    named, met = torch.ones(FLOATS, requires_grad=True), torch.ones(2 * FLOATS)
    named.grad = torch.ones(FLOATS)
    with PeakMeter([named]) as meter:
        assert meter.baseline == 2 * MIB  # with its .grad
        torch.ones(4 * FLOATS)
        assert meter.above_baseline == 4 * MIB
        met.sum()
    assert meter.baseline == 4 * MIB
    assert meter.above_baseline == meter.requested_above_baseline == 4 * MIB


def test_freeing_what_was_there_makes_room() -> None:
    held = [torch.ones(2 * FLOATS)]

    def step() -> None:
        held.clear()
        held.append(torch.ones(3 * FLOATS))

    _, peak = measure_peak(step, "cpu", held)
    assert (peak.absolute_mib, peak.above_baseline_mib) == (3.0, 1.0)


@pytest.mark.parametrize("through", ["autograd.grad", "backward"])
def test_gradient_of_an_exponential(through: str) -> None:
    """Live at the peak: y = exp(x), which is saved, dx, and two scalars (the loss and its cotangent 1)."""
    x = torch.zeros(FLOATS, requires_grad=True)

    def step() -> None:
        loss = x.exp().sum()
        if through == "backward":
            loss.backward()
        else:
            torch.autograd.grad(loss, x)

    assert requested(step, x) == 2 * MIB + 2 * 4


@pytest.mark.parametrize(("foreach", "mib"), [(False, 7), (True, 6)])
def test_adam_counts_its_state_and_its_temporaries(foreach: bool, mib: int) -> None:
    """Two weights of 1 MiB. The first step makes 4 MiB of moments and two float32 step counters. One weight at a time,
    the first denominator is alive while the second root and its quotient are made (3 MiB); with foreach both roots
    become denominators in place (2 MiB). Hence foreach is to be given, never left to torch."""
    weights = [torch.zeros(FLOATS, requires_grad=True) for _ in range(2)]
    for weight in weights:
        weight.grad = torch.ones(FLOATS)
    optimizer = torch.optim.Adam(weights, foreach=foreach)
    assert requested(optimizer.step, weights, optimizer) == mib * MIB + 2 * 4
    with PeakMeter(weights, optimizer, block=1) as meter:
        pass
    assert meter.baseline == 8 * MIB + 2 * 4  # weights, gradients, and now moments and counters


def test_a_tensor_made_from_python_numbers_is_new() -> None:
    assert requested(lambda: torch.tensor([1.0] * 1000)) == 4000


def test_second_order_keeps_more_than_first_order() -> None:
    weight = torch.linspace(-1, 1, FLOATS).requires_grad_()

    def inner(create_graph: bool) -> Tensor:
        (gradient,) = torch.autograd.grad(weight.sin().sum(), weight, create_graph=create_graph)
        return torch.autograd.grad((weight - gradient).square().sum(), weight)[0]

    assert requested(lambda: inner(True), weight) > requested(lambda: inner(False), weight) >= 3 * MIB


def test_the_same_step_measures_the_same_twice() -> None:
    model, images, labels = conv4(), torch.rand(4, 3, 32, 32), torch.arange(4)
    peaks = []
    for _ in range(2):
        model.zero_grad()
        peaks.append(measure_peak(lambda: supervised_step(model, images, labels), "cpu", model)[1])
    assert peaks[0] == peaks[1]
    assert peaks[0].above_baseline_mib > 1


def test_a_step_that_raises_leaves_no_meter_behind() -> None:
    def step() -> None:
        torch.ones(3)
        raise ValueError("bad step")

    with pytest.raises(ValueError, match="bad step"):
        measure_peak(step, "cpu")
    assert not is_in_torch_dispatch_mode()


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without CUDA")
def test_cuda_is_refused_where_there_is_none() -> None:
    called = []
    with pytest.raises(RuntimeError, match="device=cuda cannot be measured: torch finds no CUDA"):
        measure_peak(lambda: called.append(1), "cuda")
    assert not called


def test_other_devices_are_refused() -> None:
    with pytest.raises(RuntimeError, match="device=meta cannot be measured"):
        measure_peak(lambda: None, "meta")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_counts_requested_bytes_above_the_baseline() -> None:
    held = torch.ones(FLOATS, device="cuda")

    def step() -> float:
        scratch = held + 1
        torch.cat([scratch, scratch])
        return 1.0

    result, peak = measure_peak(step, "cuda", held)
    assert (result, peak.kind, peak.above_baseline_mib) == (1.0, "cuda", 3.0)
    assert peak.absolute_mib >= 4.0
