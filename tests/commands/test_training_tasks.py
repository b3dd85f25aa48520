"""Training tasks that differ from those that judge, averages of theta, runs without a test, and tests of new tasks."""

import json
from pathlib import Path

import pytest
import torch

from memmeta_exp.config import Config
from memmeta_exp.config.compose import jobs
from memmeta_exp.experiment.builder import build
from memmeta_exp.tracking.run_folder import read_metrics
from memmeta_exp.training import checkpoint
from tests.commands.conftest import TINY


def config(*overrides: str) -> Config:
    (found,) = jobs([*TINY, *overrides], multirun=False)
    return found


@pytest.mark.parametrize("head", ["linear", "ridge"])
@pytest.mark.parametrize("start", ["fixed", "prototype"])
def test_shapes_of_each_stream(head: str, start: str) -> None:
    wide = ["training.ways=5", "training.shots=1", "training.queries=4"]
    experiment = build(config(*wide, f"head={head}", f"algorithm.head_start={start}"))
    shapes = {}
    for stream, sampler in experiment.samplers.items():
        (support, _), (query, _) = (sampler.draw(0, 1).support(), sampler.draw(0, 1).query())
        shapes[stream] = (sampler.draw(0, 1).ways, support.size(1), query.size(1))
    assert shapes == {"train": (5, 5, 20), "reference": (5, 5, 20), "val": (3, 6, 6), "test": (3, 6, 6)}
    report = experiment.learner.step(experiment.samplers["train"].draw(0, 2))
    gradients = [p.grad for p in experiment.model.parameters()]
    assert all(g is not None and bool(g.isfinite().all()) and bool(g.any()) for g in gradients)
    assert report.loss.isfinite().all()
    accuracy, _, _ = experiment.learner.evaluate(experiment.samplers["val"].draw(0, 3))
    assert accuracy is not None
    assert torch.equal(accuracy * 6, (accuracy * 6).round()), "of 6 queries"


def test_wider_training_is_the_training_of_wider_tasks() -> None:
    """What is learned from training.ways=5 is what ways=5 learns, to the bit; the head's random start alone differs
    when ways=3 of it are used, and an exact lower level does not see it."""

    def learned(*overrides: str) -> list[torch.Tensor]:
        experiment = build(config(*overrides))
        report = experiment.learner.step(experiment.samplers["train"].draw(0, 2))
        return [report.loss, *(p.grad for p in experiment.model.parameters() if p.grad is not None)]

    wider, wide = learned("training.ways=5", "training.queries=4"), learned("ways=5", "queries=4")
    assert all(torch.equal(a, b) for a, b in zip(wider, wide, strict=True))
    assert wide[0].min() > 0


def _final(folder: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load(folder / "checkpoints" / "last.pt")["model"]


def test_the_average_is_what_is_judged_and_kept(train, memmeta, tmp_path) -> None:
    """Theta goes its way as without it; best.pt is the average of the iterates, by hand; and it is resumed."""
    short = ["eval_every=2", "checkpoint_every=1"]
    runs = {"plain": ["iterations=2"], "averaged": ["iterations=2", "optimizer.average=0.75"],
            "first": ["iterations=1", "optimizer.average=0.75"]}  # fmt: skip
    plain, averaged, resumed = (
        train(*short, *more, f"hydra.run.dir={name}").summary.parent for name, more in runs.items()
    )
    assert all(torch.equal(a, b) for a, b in zip(_final(plain).values(), _final(averaged).values(), strict=True))
    first = _final(resumed)
    assert memmeta("train", f"resume={resumed}", "iterations=2").code == 0
    again = checkpoint.load(resumed / "checkpoints" / "last.pt")["average"]
    state = checkpoint.load(averaged / "checkpoints" / "last.pt")["average"]
    assert all(torch.equal(state[name], again[name]) for name in state)
    for name, value in _final(averaged).items():
        if name == "head_start":
            continue
        by_hand = 0.75 * first[name] + 0.25 * _final(plain)[name]
        torch.testing.assert_close(state[f"module.{name}"], by_hand, rtol=1e-5, atol=1e-7)
        assert not torch.equal(state[f"module.{name}"], value)
    again = memmeta("evaluate", f"run={averaged}")
    assert "5 tasks score as stored" in again.out, again.err
    last = memmeta("evaluate", f"run={averaged}", "checkpoint=last", "tasks=4", "split=val", "out=last.json")
    assert last.code == 0, last.err
    logged = read_metrics(averaged)[-1]["val/loss"]
    assert json.loads((tmp_path / "last.json").read_text())["val/loss"] == logged, "of the average too"


def test_no_test_and_a_test_of_other_tasks(train, a_run, memmeta, tmp_path) -> None:
    folder = train("test_tasks=0", "hydra.run.dir=untested").summary.parent
    assert not any(key.startswith("test/") for key in json.loads((folder / "summary.json").read_text()))
    assert not (folder / "test_episodes.csv").exists()
    assert "set the number of tasks with tasks=N" in memmeta("evaluate", f"run={folder}").err
    run = json.loads((a_run / "summary.json").read_text())
    for split, key in (("test", "test/acc"), ("val", "val/acc_best")):
        count = {"test": 5, "val": 4}[split]
        result = memmeta("evaluate", f"run={folder}", f"tasks={count}", f"split={split}", "out=new.json")
        assert result.code == 0, result.err
        assert json.loads((tmp_path / "new.json").read_text())[f"{split}/acc"] == run[key]
    one = memmeta("evaluate", f"run={folder}", "tasks=9", "shots=1", "queries=3")
    assert "9 tasks (3-way 1-shot, 3 queries a class)" in one.out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["tasks=1"], "tasks=1 is out of range"),
        (["shots=1"], "set their number with tasks=N"),
        (["tasks=5", "split=train"], "split=train is unknown"),
        (["tasks=5", "out=no/such/file"], "out=no/such/file cannot be written (No such file"),
    ],
)
def test_evaluations_that_are_refused(a_run, memmeta, options: list[str], said: str) -> None:
    result = memmeta("evaluate", f"run={a_run}", *options)
    assert (result.code, len(result.err.splitlines())) == (2, 1)
    assert said in result.err
