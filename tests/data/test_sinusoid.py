"""Sine waves: the formula, the ranges, and that a task is a function of (seed, stream, k) alone."""

import math

import pytest
import torch

from memmeta_exp.data import SinusoidSampler, SinusoidTasks
from memmeta_exp.data.episodes import STREAMS

CPU = torch.device("cpu")


def sampler(stream: str = "train", seed: int = 0, shots: int = 5, queries: int = 7) -> SinusoidSampler:
    return SinusoidSampler(stream, seed, shots, queries, CPU, torch.float64)


def numbers(tasks: SinusoidTasks) -> torch.Tensor:
    return torch.cat([tasks.amplitude[:, None], tasks.phase[:, None], tasks.x], 1)


def test_a_task_does_not_depend_on_how_it_was_come_by() -> None:
    whole = numbers(sampler().draw(0, 40))
    assert torch.equal(whole[13:20], numbers(sampler().draw(13, 7)))
    assert torch.equal(whole[13:20], numbers(sampler().draw(10, 30)[3:10]))
    assert torch.equal(whole[[4, 2]], numbers(sampler().draw(0, 40)[torch.tensor([4, 2])]))


def test_more_points_leave_the_others_as_they_were() -> None:
    few, many = sampler(shots=3, queries=2).draw(0, 9), sampler(shots=5, queries=7).draw(0, 9)
    assert torch.equal(few.support()[0], many.support()[0][:, :3])
    assert torch.equal(few.query()[1], many.query()[1][:, :2])


def test_streams_and_seeds_share_no_task() -> None:
    found = [sampler(stream, seed).draw(0, 50).amplitude for stream in STREAMS for seed in (0, 1)]
    assert len(torch.cat(found).unique()) == 50 * 2 * len(STREAMS)


def test_ranges_and_means() -> None:
    """Of 4,000 tasks: each uniform within its range, to five standard errors."""
    tasks = sampler().draw(0, 4000)
    for values, low, high in ((tasks.amplitude, 0.1, 5.0), (tasks.phase, 0.0, math.pi), (tasks.x, -5.0, 5.0)):
        assert low <= values.min() < values.max() <= high
        width, n = high - low, values.numel()
        assert abs(float(values.mean()) - (low + high) / 2) < 5 * width / math.sqrt(12 * n)
        assert float(values.std()) == pytest.approx(width / math.sqrt(12), rel=0.05)
    drawn = torch.stack([tasks.amplitude, tasks.phase, tasks.x[:, 0], tasks.x[:, -1]])
    assert (torch.corrcoef(drawn) - torch.eye(4).double()).abs().max() < 0.08


def test_the_formula_and_the_halves() -> None:
    tasks = sampler().draw(2, 3)
    (x_s, y_s), (x_q, y_q) = tasks.support(), tasks.query()
    assert (x_s.shape, y_q.shape) == ((3, 5, 1), (3, 7, 1))
    for x, y in ((x_s, y_s), (x_q, y_q)):
        for task in range(3):
            wanted = [float(tasks.amplitude[task]) * math.sin(v - float(tasks.phase[task])) for v in x[task, :, 0]]
            assert y[task, :, 0].tolist() == pytest.approx(wanted, abs=1e-14)
    grid = torch.linspace(-5, 5, 11)
    asked = tasks.asked_at(grid)
    assert torch.equal(asked.support()[1], y_s)
    assert torch.equal(asked.query()[0][1, :, 0], grid.double())


def test_precision_is_that_of_the_network() -> None:
    tasks = SinusoidSampler("val", 0, 2, 2, CPU, torch.float32).draw(0, 2)
    assert {t.dtype for half in (tasks.support(), tasks.query()) for t in half} == {torch.float32}
    assert torch.equal(tasks.x, SinusoidSampler("val", 0, 2, 2, CPU, torch.float64).draw(0, 2).x)
