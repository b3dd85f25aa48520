"""Squared gradient norms and their running mean."""

import json
import math

import pytest
import torch

from memmeta_exp.experiment.convergence import RunningMean, squared_norm


def test_squared_norm_of_a_hand_example() -> None:
    value = squared_norm([torch.tensor([3.0, 4.0]), torch.tensor([[2.0]], requires_grad=True)])
    assert (value.item(), value.dtype, value.shape, value.requires_grad) == (29.0, torch.float64, (), False)
    assert squared_norm([]).item() == 0.0


def test_squared_norm_accumulates_in_float64() -> None:
    x = torch.cat([torch.tensor([4096.0]), torch.full((1000,), 1e-2)])  # float32 would lose all but the first
    exact = 4096.0**2 + 1000 * float(torch.tensor(1e-2).double()) ** 2
    assert squared_norm([x]).item() == pytest.approx(exact, rel=1e-12)
    assert x.square().sum().item() != pytest.approx(exact, rel=1e-10)
    assert squared_norm([torch.tensor([1e30])]).item() == pytest.approx(1e60)  # beyond float32


def test_running_mean_is_the_mean_and_resumes() -> None:
    values = [0.5, 2.0, 1e-3, 7.0, 0.25]
    straight, first, second = RunningMean(), RunningMean(), RunningMean()
    assert math.isnan(straight.mean)
    means = [straight.update(value) for value in values]
    assert means == pytest.approx([sum(values[: n + 1]) / (n + 1) for n in range(5)], rel=1e-15)
    for value in values[:2]:
        first.update(value)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert [second.update(value) for value in values[2:]] == means[2:]  # to the bit


def test_a_nan_stays() -> None:
    mean = RunningMean()
    for value in (1.0, math.nan, 1.0):
        mean.update(value)
    assert math.isnan(mean.mean)
