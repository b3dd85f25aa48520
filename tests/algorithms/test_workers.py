"""Threads that take tasks side by side: the same bits as one, for every algorithm."""

import dataclasses
import threading

import pytest
import torch

from memmeta_exp.algorithms import Execution, build_algorithm
from memmeta_exp.algorithms.baseline import BaselineConfig
from memmeta_exp.algorithms.imaml import ImamlConfig
from memmeta_exp.algorithms.proposed import ProposedConfig
from memmeta_exp.algorithms.unrolled import AnilConfig
from memmeta_exp.backbones import build_model
from memmeta_exp.backbones.conv4 import Conv4Config
from memmeta_exp.config import MemoryConfig
from memmeta_exp.config.datasets import SyntheticConfig
from memmeta_exp.data import EpisodeSampler, TaskBatch, load_split
from memmeta_exp.profiling.peak_memory import PeakMeter

MAML = AnilConfig(name="maml", adapted_params="all", features="recompute", inner_steps=2)
CASES = {
    "proposed": (ProposedConfig(inner_warm_start=True, inner_solver="gd", inner_tolerance=None), MemoryConfig()),
    "half_task": (ProposedConfig(head_start="learned"), MemoryConfig(mode="half_task")),
    "anil": (AnilConfig(), MemoryConfig()),
    "maml": (MAML, MemoryConfig()),
    "checkpoint": (MAML, MemoryConfig(checkpoint="inner_step")),
    "fomaml": (dataclasses.replace(MAML, first_order=True), MemoryConfig()),
    "recompute": (AnilConfig(features="recompute", inner_steps=2), MemoryConfig()),
    "imaml": (ImamlConfig(inner_steps=2), MemoryConfig()),
    "baseline": (BaselineConfig(), MemoryConfig()),
    "baseline, half_task": (BaselineConfig(), MemoryConfig(mode="half_task")),
}


@pytest.fixture
def batch() -> TaskBatch:
    images = load_split(SyntheticConfig(classes=6, images_per_class=8, image_size=16), "train")
    return EpisodeSampler(images, "train", 0, 3, 2, 2).draw(0, 7)


@pytest.mark.parametrize("norm", ["task", "running"])
@pytest.mark.parametrize("name", CASES)
def test_the_same_bits(batch: TaskBatch, name: str, norm: str) -> None:
    config, memory = CASES[name]
    classes = 6 if isinstance(config, BaselineConfig) else None

    def result(workers: int) -> list[torch.Tensor]:
        model = build_model(
            Conv4Config(filters=6, norm=norm), 3, 16, 3, config.head_start == "learned", seed=0, classes=classes
        )
        learner = build_algorithm(config, model, Execution(workers=workers), memory)
        if norm == "running":
            learner.update_running_stats(batch, 0.1)
        learner.step(batch)
        report = learner.step(batch)
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        scores = [column for column in learner.evaluate(batch) if column is not None]
        assert len(scores) == 3
        return [report.loss, report.inexact, *grads, *learner.warm.values(), *scores]

    one, several = result(1), result(3)
    assert sum(float(g.abs().sum()) for g in one[2:]) > 0
    assert all(torch.equal(a, b) for a, b in zip(one, several, strict=True))


def test_several_threads_are_at_work_and_none_under_the_meter(batch: TaskBatch, monkeypatch) -> None:
    model = build_model(Conv4Config(filters=6), 3, 16, 3, False, seed=0)
    learner = build_algorithm(ProposedConfig(), model, Execution(workers=2))
    seen: set[str] = set()
    features, both = learner._both_features, threading.Barrier(2)

    def noted(tasks: TaskBatch):
        seen.add(threading.current_thread().name)
        return features(tasks)

    def met(tasks: TaskBatch):
        both.wait(timeout=30)  # passes only where two threads come here at once
        return noted(tasks)

    monkeypatch.setattr(learner, "_both_features", met)
    learner.step(batch[:4])
    assert len(seen) == 2
    assert threading.current_thread().name not in seen
    seen.clear()
    monkeypatch.setattr(learner, "_both_features", noted)
    with PeakMeter(model):
        learner.step(batch)
    assert seen == {threading.current_thread().name}


def test_what_a_worker_raises_reaches_the_caller(batch: TaskBatch, monkeypatch) -> None:
    learner = build_algorithm(
        ProposedConfig(), build_model(Conv4Config(filters=6), 3, 16, 3, False, seed=0), Execution(workers=2)
    )

    def fail(tasks: TaskBatch) -> None:
        raise MemoryError("of a worker")

    monkeypatch.setattr(learner, "_both_features", fail)
    with pytest.raises(MemoryError, match="of a worker"):
        learner.step(batch)
