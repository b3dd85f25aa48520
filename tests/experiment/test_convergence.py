"""Squared gradient norms and their mean over the iterations."""

import math

import pytest
import torch

from memmeta_exp.experiment.convergence import ConvergenceError, squared_norm


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


def after(*rows: tuple[int, float]) -> ConvergenceError:
    error = ConvergenceError()
    for iteration, value in rows:
        error.update(iteration, value)
    return error


def test_every_iteration_measured_is_the_plain_mean() -> None:
    values = [0.5, 2.0, 1e-3, 7.0, 0.25]
    error = after(*enumerate(values))
    assert error.mean == pytest.approx(sum(values) / 5, rel=1e-15)
    assert error.coarseness == 0.0
    assert math.isnan(ConvergenceError().mean)


def test_iterations_between_measurements_lie_on_a_line() -> None:
    """Rows at 0, 4 and 6 stand for 8 6 4 2 0 and 3 6: mean 29/7. A monotone curve through the rows may be 8 or 0 at
    1, 2, 3 and 0 or 6 at 5: 12 + 3 away from the sum."""
    error = after((0, 8.0), (4, 0.0), (6, 6.0))
    assert error.mean == pytest.approx(29 / 7, rel=1e-15)
    assert error.coarseness == pytest.approx(15 / 7, rel=1e-15)
    line = [(t, 50.0 - t) for t in range(51)]
    assert after(*line[::10]).mean == pytest.approx(after(*line).mean, rel=1e-14)


def test_coarseness_bounds_a_falling_curve() -> None:
    curve = [(t, 10 * 0.8**t) for t in range(101)]
    exact, coarse = after(*curve), after(*curve[::50])
    assert abs(coarse.mean - exact.mean) <= coarse.coarseness < coarse.mean
    assert coarse.mean > 5 * exact.mean, "the line is far above, and coarseness says so"


def test_a_nan_stays() -> None:
    assert math.isnan(after((0, 1.0), (1, math.nan), (2, 1.0)).mean)
