"""The peak memory of a train step: what it grows with, and what it does not depend on."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from memmeta_exp.algorithms import Execution, Unrolled, build_algorithm
from memmeta_exp.algorithms.maml import FomamlConfig, MamlConfig
from memmeta_exp.algorithms.proposed import ProposedConfig
from memmeta_exp.algorithms.unrolled import AnilConfig
from memmeta_exp.backbones import MetaModel, build_model
from memmeta_exp.backbones.conv4 import Conv4, Conv4Config
from memmeta_exp.config import MemoryConfig
from memmeta_exp.data import EpisodeSampler, load_split
from memmeta_exp.data.datasets import SyntheticConfig
from memmeta_exp.profiling.peak_memory import PeakMeter
from tests.algorithms.problems import HALF_TASK, RECOMPUTE

STEPS = ProposedConfig(inner_solver="gd", inner_tolerance=None, linear_solver="cg", linear_tolerance=None)
ANIL = AnilConfig(inner_steps=4, inner_lr=0.5)
MAML = MamlConfig(inner_steps=3, inner_lr=0.4)
FOMAML = FomamlConfig(inner_steps=3, inner_lr=0.4)


class Memory:
    """Peak bytes of a meta-step above what persists, without rounding. The step before it has made .grad."""

    def __init__(self, filters: int, block: str = "fused") -> None:
        self.images = load_split(SyntheticConfig(classes=5, images_per_class=10, image_size=32), "train")
        self.sampler = EpisodeSampler(self.images, "train", 0, 5, 5, 5)
        self.backbone = Conv4Config(filters=filters, block=block)

    def model(self, learned: bool) -> MetaModel:
        model = build_model(self.backbone, 3, 32, 5, learned, seed=0).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        return model

    def peak(self, config: Any, tasks: int = 1, chunk: int = 1, memory: MemoryConfig | None = None) -> int:
        model, batch = self.model(config.head_start == "learned"), self.sampler.draw(0, tasks)
        learner = build_algorithm(config, model, Execution(chunk), memory)
        with PeakMeter(model, self.images.images, batch.classes, batch.items, block=1) as meter:
            learner.step(batch)
        return meter.requested_above_baseline

    def supervised(self) -> int:
        """Of forward, cross-entropy and backward on one task's 50 images, with the same network."""
        model, labels = self.model(True), torch.arange(50).remainder(5)
        images = torch.rand(50, 3, 32, 32).contiguous(memory_format=torch.channels_last)[None]
        with PeakMeter(model, images, labels, block=1) as meter:
            F.cross_entropy(model(images)[0], labels).backward()
        return meter.requested_above_baseline


@pytest.mark.parametrize(
    ("config", "memory", "tasks"),
    [
        (ProposedConfig(), None, 8),
        pytest.param(ProposedConfig(), None, 128, marks=pytest.mark.slow),
        pytest.param(STEPS, HALF_TASK, 128, marks=pytest.mark.slow),
    ],
)
def test_the_batch_does_not_matter_and_the_chunk_does(
    config: ProposedConfig, memory: MemoryConfig | None, tasks: int
) -> None:
    small = Memory(filters=6)
    one, many = small.peak(config, 1, memory=memory), small.peak(config, tasks, memory=memory)
    assert one <= many <= 1.01 * one
    assert small.peak(config, 4, chunk=4, memory=memory) > 3 * one


@pytest.mark.parametrize("config", [MAML, FOMAML], ids=["maml", "fomaml"])
def test_the_batch_does_not_matter_where_all_weights_adapt(config: MamlConfig) -> None:
    memory = Memory(filters=8)
    assert memory.peak(config, tasks=4) <= 1.01 * memory.peak(config, tasks=2)


def test_inner_steps_do_not_matter_to_proposed() -> None:
    memory = Memory(filters=16)
    peaks = [memory.peak(replace(STEPS, inner_steps=k, linear_steps=k), tasks=2) for k in (1, 5, 200)]
    assert max(peaks) <= 1.01 * min(peaks)


def test_proposed_against_a_supervised_step_on_one_task(monkeypatch) -> None:
    """At the paper's width: at most 1.05 of it in one pass of both halves, as on a GPU, 0.85 in a pass each, and
    half a task at a time at most 0.55."""
    memory = Memory(filters=64)
    floor = memory.supervised()
    assert 0.7 * floor < memory.peak(ProposedConfig(), 2) <= 0.85 * floor
    with monkeypatch.context() as patch:
        patch.setattr(Conv4, "prefers_joint_forward", Conv4.fuses)
        assert 0.9 * floor < memory.peak(ProposedConfig(), 2) <= 1.05 * floor
    assert 0.4 * floor < memory.peak(ProposedConfig(), 2, memory=HALF_TASK) <= 0.55 * floor


def test_a_step_of_unrolling_adds_heads(generator: torch.Generator) -> None:
    """A few heads and logits a task; a recomputed feature graph would be thousands of times that."""
    z, labels = torch.randn(1, 25, 256, generator=generator), torch.arange(25).remainder(5)[None]
    start = torch.zeros(5, 257)

    def peak(steps: int, first_order: bool) -> int:
        algorithm = Unrolled(replace(ANIL, inner_steps=steps, first_order=first_order))
        with PeakMeter(z, labels, start, block=1) as meter:
            algorithm.feature_gradient((z, labels), (z, labels), start, {})
        return meter.requested_above_baseline

    growth = (peak(60, False) - peak(20, False)) / 40
    head = 4 * start.numel()
    assert head < growth < 4 * head
    assert peak(60, True) == peak(20, True)


def test_a_step_of_recomputed_features_adds_their_graph() -> None:
    """PAPER, trap 2: 22.8 MiB of saved tensors a step for 25 images of 32 x 32 through Conv4-64 in the released order,
    and linear."""
    memory, released = Memory(filters=64, block="plain"), replace(ANIL, features="recompute")
    peaks = [memory.peak(replace(released, inner_steps=k)) for k in (2, 3, 4)]
    growth = [(b - a) / 2**20 for a, b in pairwise(peaks)]
    assert growth[0] == pytest.approx(growth[1], rel=1e-3)
    assert growth[0] == pytest.approx(22.8, abs=0.2)


def test_one_step_at_a_time_keeps_weights_alone() -> None:
    memory = Memory(filters=16)
    kept = [memory.peak(replace(MAML, inner_steps=k)) for k in (1, 3, 5)]
    again = [memory.peak(replace(MAML, inner_steps=k), memory=RECOMPUTE) for k in (1, 3, 5)]
    assert kept[1] - kept[0] == pytest.approx(kept[2] - kept[1], rel=1e-2)
    weights = sum(4 * p.numel() for p in memory.model(True).parameters())
    assert again[2] - again[1] <= 2 * weights * 1.02
    assert kept[2] > 2 * again[2]


def test_first_order_keeps_no_graph_of_its_steps() -> None:
    memory = Memory(filters=16)
    peaks = [memory.peak(replace(FOMAML, inner_steps=k)) for k in (1, 5)]
    assert peaks[1] <= 1.01 * peaks[0]


def test_evaluation_keeps_no_graph() -> None:
    """MAML's own test-time adaptation: its memory is that of one first-order step."""
    memory = Memory(filters=16)
    model, tasks = memory.model(True), memory.sampler.draw(0, 1)

    def peak(steps: int) -> int:
        learner = build_algorithm(replace(MAML, inner_steps=steps), model)
        with PeakMeter(model, memory.images.images, block=1) as meter:
            learner.evaluate(tasks)
        return meter.requested_above_baseline

    assert peak(6) <= 1.01 * peak(1)
