"""What the options of the upper optimiser do to theta, and early stopping."""

import torch

import memmeta_exp as memmeta
from memmeta_exp.config.compose import jobs
from memmeta_exp.experiment.builder import build
from memmeta_exp.experiment.optimizers import build_optimizer
from memmeta_exp.experiment.train_step import TrainStep
from tests.commands.conftest import TINY


def stepped(*overrides: str, steps: int = 1) -> tuple[dict[str, torch.Tensor], list[float]]:
    """How far each parameter has gone by plain descent, and the lr of each iteration."""
    (config,) = jobs([*TINY, "optimizer=sgd", "optimizer.lr=0.1", "iterations=10", *overrides], multirun=False)
    experiment = build(config)
    before = {name: p.detach().clone() for name, p in experiment.model.named_parameters()}
    optimizer, scheduler = build_optimizer(config, experiment.model)
    step, rates = TrainStep(experiment, optimizer), []
    for t in range(1, steps + 1):
        step.clear()
        rates.append(optimizer.param_groups[0]["lr"])
        step(t)
        scheduler.step()
    return {name: p.detach() - before[name] for name, p in experiment.model.named_parameters()}, rates


def norm(moved: dict[str, torch.Tensor]) -> float:
    return float(torch.cat([m.flatten() for m in moved.values()]).norm())


def test_a_long_gradient_is_clipped_and_a_short_one_is_not() -> None:
    free, _ = stepped()
    clipped, _ = stepped("optimizer.clip_norm=0.001")
    loose, _ = stepped("optimizer.clip_norm=1000")
    assert norm(free) > 0.1 * 0.002
    assert abs(norm(clipped) / (0.1 * 0.001) - 1) < 0.01
    assert all(torch.equal(loose[name], free[name]) for name in free)


def test_warmup_rises_to_lr_and_the_schedule_follows() -> None:
    _, rates = stepped("optimizer.warmup=4", steps=6)
    assert torch.allclose(torch.tensor(rates), 0.1 * torch.tensor([0.25, 0.5, 0.75, 1, 1, 1]))
    _, rates = stepped("optimizer.warmup=2", "optimizer.schedule=cosine", steps=10)
    assert torch.allclose(torch.tensor(rates[:3]), 0.1 * torch.tensor([0.5, 1, 1]))
    assert abs(rates[6] - 0.05) < 1e-9, "half of the way down after half of the rest"


def test_the_head_start_has_a_step_size_of_its_own() -> None:
    learned = ("algorithm=anil", "algorithm.head_start=learned")
    same, _ = stepped(*learned)
    other, _ = stepped(*learned, "optimizer.head_lr=0.3")
    assert same["head_start"].abs().max() > 0
    for name, moved in same.items():
        factor = 3 if name == "head_start" else 1
        assert torch.allclose(other[name], factor * moved, rtol=1e-3, atol=1e-7), name


def test_training_stops_where_validation_gets_no_better(tmp_path) -> None:
    fixed = ("progress=false", "plots=false", "optimizer=sgd", "optimizer.lr=1e-30", "iterations=40", "eval_every=2")
    run = memmeta.train(*TINY, *fixed, "early_stopping=3", folder=tmp_path / "run")
    assert run.summary["iterations"] == 6, "nothing changes, so the first validation is the best"
    assert run.summary["tasks_seen"] == 12
    assert run.metrics.index[-1] == 6
    again = memmeta.train(*TINY, *fixed, "early_stopping=3", folder=tmp_path / "run")
    assert again.summary == run.summary
