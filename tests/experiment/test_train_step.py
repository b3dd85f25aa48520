"""Which iterations the running statistics of batch norm take in, and with which weight."""

from types import SimpleNamespace

import pytest
import torch

from memmeta_exp.algorithms import StepReport
from memmeta_exp.experiment.train_step import TrainStep


def recorded(eval_every: int, iterations: int, norm: str = "running") -> dict[int, float]:
    """The weight of each iteration that is recorded."""
    weights: dict[int, float] = {}
    now, one = [0], torch.ones(1)

    class Learner:
        def step(self, batch):
            return StepReport(one, one, one, one, one)

        def update_running_stats(self, batch, weight: float) -> None:
            weights[now[0]] = weight

    theta = torch.nn.Parameter(torch.zeros(1))
    config = SimpleNamespace(
        batch_size=1, eval_every=eval_every, iterations=iterations, backbone=SimpleNamespace(norm=norm),
        optimizer=SimpleNamespace(clip_norm=None),
    )  # fmt: skip
    sampler = SimpleNamespace(draw=lambda first, count: None)
    experiment = SimpleNamespace(config=config, learner=Learner(), samplers={"train": sampler})
    iteration = TrainStep(experiment, torch.optim.SGD([theta], lr=0.1))  # pyright: ignore[reportArgumentType]
    for t in range(1, iterations + 1):
        now[0] = t
        iteration(t)
    return weights


def test_the_fifty_before_a_validation_and_before_the_end() -> None:
    weights = recorded(eval_every=200, iterations=260)
    assert list(weights) == [*range(151, 201), *range(211, 261)]
    for first in (151, 211):
        assert [weights[first + i] for i in range(12)] == pytest.approx([*(1 / (1 + i) for i in range(10)), 0.1, 0.1])


@pytest.mark.parametrize("eval_every", [1, 7, 50])
def test_all_where_validations_are_near_each_other(eval_every: int) -> None:
    weights = recorded(eval_every, 100)
    assert list(weights) == list(range(1, 101))
    assert weights[1] == 1, "what there was before the first is no statistic"
    assert all(weights[t] >= 0.1 for t in weights)


def test_none_without_running_statistics() -> None:
    assert recorded(5, 20, norm="task") == {}
