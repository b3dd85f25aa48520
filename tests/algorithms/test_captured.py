"""A meta-step that is recorded once and replayed: the same results as eager steps, and nothing in it that a CUDA graph
cannot hold. No GPU is needed: a stand-in records the work as a function and writes its results where the first lie."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from memmeta_exp.algorithms import Execution, Learner, build_algorithm
from memmeta_exp.algorithms.captured import CapturedLearner, CudaGraphs
from memmeta_exp.backbones import build_model
from memmeta_exp.bilevel.linear_head import largest_eigenvalue
from memmeta_exp.build import build
from memmeta_exp.commands.compose import jobs
from memmeta_exp.config import (
    BaselineConfig,
    Conv4Config,
    ImamlConfig,
    MemoryConfig,
    ProposedConfig,
    SyntheticConfig,
    UnrolledConfig,
)
from memmeta_exp.data import EpisodeSampler, Pixels, TaskBatch, load_split
from memmeta_exp.errors import ConfigError
from memmeta_exp.measure.peak_memory import measure_peak

READS = {  # what waits for a value of the device, or brings one to it
    "_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal", "masked_select", "unique", "_unique2",
    "lift_fresh",
}  # fmt: skip
BY_STEPS = ProposedConfig(
    inner_solver="gd", inner_steps=4, inner_tolerance=None, linear_solver="cg", linear_steps=6, linear_tolerance=None
)
MAML = UnrolledConfig(name="maml", adapts="all", features="recompute", inner_steps=2)
CASES = {
    "proposed": (BY_STEPS, MemoryConfig()),
    "tolerances": (dataclasses.replace(BY_STEPS, inner_tolerance=0.05, linear_tolerance=1e-2), MemoryConfig()),
    "warm": (dataclasses.replace(BY_STEPS, inner_warm_start=True, linear_warm_start=True), MemoryConfig()),
    "direct": (dataclasses.replace(BY_STEPS, linear_solver="direct", head_start="learned"), MemoryConfig()),
    "half_task": (BY_STEPS, MemoryConfig(mode="half_task")),
    "anil": (UnrolledConfig(), MemoryConfig()),
    "itd_bio": (UnrolledConfig(name="itd_bio", mu=1e-2, head_start="fixed"), MemoryConfig()),
    "maml": (MAML, MemoryConfig()),
    "fomaml": (dataclasses.replace(MAML, first_order=True), MemoryConfig()),
    "imaml": (ImamlConfig(inner_steps=2, inner_lr=0.01, lam=50.0), MemoryConfig()),
    "baseline": (BaselineConfig(), MemoryConfig()),
    "baseline, half_task": (BaselineConfig(), MemoryConfig(mode="half_task")),
}


class NothingRead(TorchDispatchMode):
    """Fails at an operator that a recording cannot hold."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.overloadpacket.__name__ not in READS, f"{func} cannot be recorded"
        return func(*args, **(kwargs or {}))


class Recorder:
    """Graphs without a GPU."""

    recorded = replayed = 0

    def warm(self, work: Callable[[], Any]) -> Any:
        return work()

    def capture(self, work: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        self.recorded += 1
        with NothingRead():
            result = work()

        def leaves(of: Any) -> list[Any]:
            report, *rest = of
            return [*vars(report).values(), *tree_leaves(rest)]

        def replay() -> None:
            self.replayed += 1
            grads = [p.grad for p in self.parameters]
            for p in self.parameters:
                p.grad = None
            for old, new in zip(leaves(result), leaves(work()), strict=True):
                assert (old is None) == (new is None)
                if old is not None:
                    old.copy_(new)
            for p, g in zip(self.parameters, grads, strict=True):
                p.grad = g

        return replay, result

    parameters: tuple[torch.nn.Parameter, ...] = ()


def learner(name: str) -> Learner:
    config, memory = CASES[name]
    classes = 6 if isinstance(config, BaselineConfig) else None
    model = build_model(
        Conv4Config(filters=4), 3, 16, 3, config.head_start == "learned", seed=0, classes=classes
    ).double()
    return build_algorithm(config, model, Execution(chunk=2 if config.in_feature_space else 1), memory)


def captured(name: str) -> tuple[CapturedLearner, Recorder]:
    recorder = Recorder()
    inner = learner(name)
    recorder.parameters = tuple(inner.model.parameters())
    return CapturedLearner(inner, recorder), recorder


@pytest.fixture
def sampler() -> EpisodeSampler:
    images = load_split(SyntheticConfig(classes=6, images_per_class=8, image_size=16), "train")
    return EpisodeSampler(images, "train", 0, 3, 2, 2, Pixels(crop_padding=2, flip=True))


def stepped(learner: Learner, batch: TaskBatch, rate: float = 0.01) -> list[torch.Tensor]:
    """What a step leaves, and theta after it."""
    for p in learner.model.parameters():
        p.grad = None
    report = learner.step(batch)
    grads = [p.grad.clone() for p in learner.model.parameters() if p.grad is not None]
    with torch.no_grad():
        for p in learner.model.parameters():
            if p.grad is not None:
                p -= rate * p.grad
    columns = [v.clone() for v in vars(report).values() if v is not None]
    return [*columns, *grads, *(v.clone() for v in learner.warm.values())]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name == "imaml" else []) for name in CASES]
)
def test_replays_are_eager_steps(sampler: EpisodeSampler, name: str) -> None:
    eager, (replayed, recorder) = learner(name), captured(name)
    for t in range(7):
        batch = sampler.draw(4 * t, 4)
        a, b = stepped(eager, batch), stepped(replayed, batch)
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-12)
    assert recorder.recorded == 1
    assert recorder.replayed >= 4  # warm starts begin at the second step, and are warmed up for once more
    assert replayed.replays


def test_another_batch_size_is_recorded_anew(sampler: EpisodeSampler) -> None:
    eager, (replayed, recorder) = learner("proposed"), captured("proposed")
    for count in (4, 4, 4, 4, 3, 3, 3, 3):
        batch = sampler.draw(0, count)
        for x, y in zip(stepped(eager, batch), stepped(replayed, batch), strict=True):
            torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-12)
    assert (recorder.recorded, recorder.replayed) == (2, 4)


def test_meters_see_an_eager_step(sampler: EpisodeSampler) -> None:
    replayed, recorder = captured("proposed")
    for t in range(4):
        stepped(replayed, sampler.draw(t, 2))
    before = recorder.replayed
    replayed.model.zero_grad(set_to_none=True)
    _, peak = measure_peak(lambda: replayed.step(sampler.draw(9, 2)), "cpu", [replayed.model])
    assert recorder.replayed == before
    assert peak.above_baseline_mib > 0


def test_what_cannot_be_recorded_runs_eagerly(sampler: EpisodeSampler, caplog) -> None:
    class Broken(Recorder):
        def capture(self, work: Callable[[], Any]) -> Any:
            work()
            raise RuntimeError("operation not permitted when stream is capturing\nmore")

    eager, inner = learner("warm"), learner("warm")
    replayed = CapturedLearner(inner, Broken())
    for t in range(5):
        batch = sampler.draw(4 * t, 4)
        for x, y in zip(stepped(eager, batch), stepped(replayed, batch), strict=True):
            torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-12)
    (line,) = [r.getMessage() for r in caplog.records if "cannot be recorded" in r.getMessage()]
    assert "operation not permitted when stream is capturing)" in line
    assert not replayed.replays


def test_newton_looks_at_values() -> None:
    """What `NothingRead` is there to find."""
    images = load_split(SyntheticConfig(classes=6, images_per_class=8, image_size=16), "train")
    batch = EpisodeSampler(images, "train", 0, 3, 2, 2).draw(0, 2)
    model = build_model(Conv4Config(filters=4), 3, 16, 3, False, seed=0)
    with pytest.raises(AssertionError, match="cannot be recorded"), NothingRead():
        build_algorithm(ProposedConfig(), model).step(batch)


def test_largest_eigenvalue_is_a_close_bound_from_above() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(5, 25, 40, generator=generator, dtype=torch.float64)
    z[3, :, 2:] = 0  # rank 2
    z[4] = 0
    z[1, 1:] *= 1e-6  # one value far above the others
    gram = torch.cat([z @ z.mT, torch.eye(25, dtype=torch.float64)[None]])  # 25 equal ones: the worst case
    true = torch.linalg.eigvalsh(gram)[:, -1]
    found = largest_eigenvalue(gram)
    assert (found >= true * (1 - 1e-12)).all()
    assert (found <= true * 25 ** (1 / 2**14) * (1 + 1e-12)).all()
    torch.testing.assert_close(largest_eigenvalue(gram.float()).double(), found, rtol=1e-5, atol=0)


REFUSED = {
    ("device=cpu",): "it is for a GPU",
    (): "finds no CUDA device here",
    ("device=cuda",): "algorithm.inner_solver=gd",  # newton
    ("dataset=logistic",): "tasks of images",
    ("workers=2",): "leave workers=auto",
    ("memory.checkpoint=block",): "memory.checkpoint=block",
    ("backbone=resnet12", "backbone.drop_rate=0.1"): "backbone.drop_rate=0.1",
}


@pytest.mark.skipif(torch.cuda.is_available(), reason="this is what a machine without a GPU answers")
@pytest.mark.parametrize("overrides", REFUSED, ids=" ".join)
def test_what_cannot_be_recorded_is_refused(overrides: tuple[str, ...]) -> None:
    by_steps = () if overrides == ("device=cuda",) else ("algorithm.inner_solver=gd",)

    def attempt() -> None:
        (config,) = jobs(["cuda_graph=true", "dataset=synthetic", *by_steps, *overrides], multirun=False)
        build(config)

    with pytest.raises(ConfigError) as refusal:
        attempt()
    assert REFUSED[overrides] in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", CASES)
def test_on_a_gpu(sampler: EpisodeSampler, name: str) -> None:
    images = sampler.image_set.to("cuda")
    on_gpu = EpisodeSampler(images, "train", 0, 3, 2, 2, sampler.pixels)
    eager, inner = learner(name), learner(name)
    for each in (eager, inner):
        each.model.cuda()
    replayed = CapturedLearner(inner, CudaGraphs(torch.device("cuda")))
    for t in range(7):
        batch = on_gpu.draw(4 * t, 4)
        for x, y in zip(stepped(eager, batch), stepped(replayed, batch), strict=True):
            torch.testing.assert_close(x, y, rtol=1e-8, atol=1e-10)
    assert replayed.replays
