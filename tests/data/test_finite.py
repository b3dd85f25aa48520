"""Finite sets of tasks: draws, and that every task is taken."""

import pytest
import torch

from memmeta_exp.data import FiniteSampler, TaskIndices

SIX = [0, 8, 8, 8, 1, 6]
CPU = torch.device("cpu")
TASKS = TaskIndices(torch.arange(10))


def drawn(first: int, count: int, seed: int = 0) -> list[int]:
    tasks = FiniteSampler(TASKS, "random", seed, CPU).draw(first, count)
    assert isinstance(tasks, TaskIndices)
    return tasks.index.tolist()


def test_a_draw_is_a_function_of_seed_and_position() -> None:
    assert drawn(0, 50) == [*drawn(0, 20), *drawn(20, 30)]
    assert drawn(0, 50) != drawn(0, 50, seed=1)
    assert drawn(0, 6) == SIX, "the same on every machine"


def test_draws_are_uniform_and_independent() -> None:
    """With replacement, 20,000 draws of 10: each 2,000 -+ 4 standard deviations (43), pairs likewise."""
    index = torch.tensor(drawn(0, 20_000))
    assert (torch.bincount(index, minlength=10) - 2000).abs().max() < 4 * 43
    pairs = torch.bincount(index[:-1] * 10 + index[1:], minlength=100)
    assert (pairs - 200).abs().max() < 5 * 14.2


def test_all_is_every_task_in_order() -> None:
    sampler = FiniteSampler(TASKS, "all", 0, CPU)
    for first in (0, 10):
        assert sampler.draw(first, 10).support()[0].tolist() == list(range(10))
    with pytest.raises(AssertionError):
        sampler.draw(0, 9)
