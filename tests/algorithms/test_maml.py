"""MAML, FOMAML, and ANIL and ITD-BiO with recomputed features: gradients judged independently, memory counted."""

import dataclasses
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memmeta_exp.algorithms import Execution, WeightSpaceLearner, build_algorithm
from memmeta_exp.algorithms.unrolled import AnilConfig
from memmeta_exp.backbones import MetaModel, build_model
from memmeta_exp.backbones.conv4 import Conv4Config
from memmeta_exp.config import ConfigError, MemoryConfig
from memmeta_exp.config.datasets import SyntheticConfig
from memmeta_exp.data import EpisodeSampler, TaskBatch, load_split
from memmeta_exp.profiling.peak_memory import PeakMeter
from tests.algorithms.conftest import TASKS, assert_central_differences, gradient, smooth_learner

MAML = AnilConfig(name="maml", adapted_params="all", features="recompute", inner_steps=3, inner_lr=0.4)
FOMAML = dataclasses.replace(MAML, name="fomaml", first_order=True)
ANIL = AnilConfig(name="anil", inner_steps=4, inner_lr=0.5)
ITD_BIO = AnilConfig(name="itd_bio", mu=0.1, inner_steps=4, inner_lr=0.5, head_start="fixed")
RECOMPUTE = MemoryConfig(checkpoint="inner_step")


@pytest.mark.parametrize(
    "config",
    [MAML, dataclasses.replace(MAML, mu=0.1), dataclasses.replace(MAML, head_start="fixed")],
    ids=["maml", "maml+R", "frozen head start"],
)
@pytest.mark.parametrize("memory", [None, RECOMPUTE], ids=["graph", "adjoint"])
def test_central_differences(batch: TaskBatch, config: AnilConfig, memory: MemoryConfig | None) -> None:
    assert_central_differences(smooth_learner(config, memory=memory), batch)


def by_hand(learner, batch: TaskBatch, config: AnilConfig, drop_hessian: bool) -> Tensor:
    """MAML without functional_call, one graph through all tasks; the Hessian terms dropped where told to."""
    model, total = learner.model, torch.zeros((), dtype=torch.float64)
    parameters = list(model.parameters())
    (x_s, y_s), (x_q, y_q) = batch.support(), batch.query()

    def loss(weights: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
        start, theta = weights
        z = torch.tanh((x.double().div(255).flatten(1) - 0.5) @ theta)
        return F.cross_entropy(F.linear(z, start[:, :-1], start[:, -1]), y)

    for task in range(TASKS):
        weights = parameters
        for _ in range(config.inner_steps):
            slope = torch.autograd.grad(loss(weights, x_s[task], y_s[task]), weights, create_graph=True)
            weights = [
                w - config.inner_lr * (d.detach() if drop_hessian else d) for w, d in zip(weights, slope, strict=True)
            ]
        total = total + loss(weights, x_q[task], y_q[task]) / TASKS
    return torch.cat([t.flatten() for t in torch.autograd.grad(total, parameters)])


@pytest.mark.parametrize("first_order", [False, True], ids=["maml", "fomaml"])
def test_fomaml_is_maml_without_its_hessian_terms(batch: TaskBatch, first_order: bool) -> None:
    config = FOMAML if first_order else MAML
    learner = smooth_learner(config)
    found, reference = gradient(learner, batch), by_hand(learner, batch, config, drop_hessian=first_order)
    assert reference.abs().max() > 1e-3
    assert (found - reference).abs().max() < 1e-12 * reference.abs().max()


def test_the_hessian_terms_matter(batch: TaskBatch) -> None:
    maml, fomaml = gradient(smooth_learner(MAML), batch), gradient(smooth_learner(FOMAML), batch)
    assert (maml - fomaml).norm() > 1e-2 * maml.norm()
    short = [dataclasses.replace(c, inner_lr=1e-7) for c in (MAML, FOMAML)]
    first, second = (gradient(smooth_learner(c), batch) for c in short)
    assert (first - second).norm() < 1e-6 * first.norm(), "as the inner step shrinks the two must agree"


def test_by_hand_on_one_number() -> None:
    """g = (w - 3)^2 / 2, f = (w - 1)^2 / 2, w_0 = 0, one step of 0.5: w_1 = 1.5, dF/dw_0 = (1 - 0.5) (1.5 - 1)."""
    from memmeta_exp.algorithms.maml import Maml
    from memmeta_exp.algorithms.weight_space import Task

    class Quadratic(Task):
        learned = ("head_start",)

        def __init__(self) -> None:
            self.meta = {"head_start": torch.zeros(1, dtype=torch.float64)}

        def support_loss(self, weights):
            return (weights["head_start"] - 3).square().sum() / 2

        def query_loss(self, weights):
            return (weights["head_start"] - 1).square().sum() / 2, torch.ones(())

    one = dataclasses.replace(MAML, inner_steps=1, inner_lr=0.5)
    for config, recompute, expected in [
        (one, False, 0.25),
        (one, True, 0.25),
        (dataclasses.replace(one, first_order=True), False, 0.5),
        (dataclasses.replace(one, inner_steps=2), False, 0.25 * (2.25 - 1)),
        (dataclasses.replace(one, inner_steps=2), True, 0.25 * (2.25 - 1)),
    ]:
        found = Maml(config, recompute).meta_gradient(Quadratic())  # pyright: ignore[reportArgumentType]
        assert found.grads["head_start"].item() == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("config", [MAML, dataclasses.replace(ANIL, features="recompute", mu=0.1)])
def test_one_step_at_a_time_is_the_same_gradient(batch: TaskBatch, config: AnilConfig) -> None:
    kept, again = (gradient(smooth_learner(config, memory=memory), batch) for memory in (None, RECOMPUTE))
    assert kept.norm() > 1e-3
    assert (kept - again).abs().max() < 1e-13


@pytest.mark.parametrize("config", [ANIL, ITD_BIO, dataclasses.replace(ANIL, first_order=True)])
@pytest.mark.parametrize("memory", [None, RECOMPUTE], ids=["graph", "adjoint"])
def test_recomputed_features_give_the_same_gradient(
    batch: TaskBatch, config: AnilConfig, memory: MemoryConfig | None
) -> None:
    once = smooth_learner(config)
    again = smooth_learner(dataclasses.replace(config, features="recompute"), memory=memory)
    assert isinstance(again, WeightSpaceLearner)
    a, b = gradient(once, batch), gradient(again, batch)
    assert a.norm() > 1e-3
    assert (a - b).abs().max() < 1e-13
    for x, y in zip(once.evaluate(batch), again.evaluate(batch), strict=True):
        assert x is not None
        assert y is not None
        assert torch.allclose(x.double(), y.double(), atol=1e-12)


def test_adapting_all_is_not_adapting_the_head(batch: TaskBatch) -> None:
    head = dataclasses.replace(MAML, adapted_params="head")
    assert (gradient(smooth_learner(MAML), batch) - gradient(smooth_learner(head), batch)).norm() > 1e-3


def test_features_once_needs_a_backbone_that_stays() -> None:
    with pytest.raises(ConfigError, match="features=once"):
        AnilConfig(name="maml", adapted_params="all", features="once")


@pytest.mark.parametrize("block", ["fused", "plain"])
@pytest.mark.parametrize("norm", ["task", "none", "running"])
def test_on_conv4(block: str, norm: str) -> None:
    """Second order through the convolutional network in float64: the adjoint recursion against autograd's own way
    through all steps, in every mode of the backbone."""
    images = load_split(SyntheticConfig(classes=6, images_per_class=8, image_size=16), "train")
    batch = EpisodeSampler(images, "train", 0, 3, 2, 4).draw(0, 2)

    def meta_gradient(memory: MemoryConfig | None) -> Tensor:
        model = build_model(Conv4Config(filters=6, norm=norm, block=block), 3, 16, 3, True, seed=0).double()
        return gradient(build_algorithm(MAML, model, memory=memory), batch)

    kept, again = meta_gradient(None), meta_gradient(RECOMPUTE)
    assert kept.norm() > 1e-3
    assert (kept - again).norm() < 1e-10 * kept.norm()


def test_fused_and_plain_blocks_give_one_meta_gradient() -> None:
    """Second order through the hand-derived derivatives against torch's own, in float64."""
    images = load_split(SyntheticConfig(classes=6, images_per_class=8, image_size=16), "train")
    batch = EpisodeSampler(images, "train", 0, 3, 2, 4).draw(0, 2)

    def named(block: str) -> dict[str, Tensor]:
        model = build_model(Conv4Config(filters=6, block=block), 3, 16, 3, True, seed=0).double()
        build_algorithm(MAML, model).step(batch)
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    fused, plain = named("fused"), named("plain")
    assert fused.keys() == {name for name in plain if not (name.startswith("backbone.convs") and name.endswith("bias"))}
    for name, gradient_ in fused.items():
        assert plain[name].norm() > 1e-4
        assert (gradient_ - plain[name]).norm() < 1e-9 * plain[name].norm(), name


def test_bf16_is_the_backbones_alone() -> None:
    """The head keeps float32 whichever way the features are computed."""
    images = load_split(SyntheticConfig(classes=6, images_per_class=8, image_size=16), "train")
    batch = EpisodeSampler(images, "train", 0, 3, 2, 4).draw(0, 2)

    def found(config: AnilConfig) -> Tensor:
        model = build_model(Conv4Config(filters=6), 3, 16, 3, True, seed=0)
        return gradient(build_algorithm(config, model, Execution(bf16=True)), batch)

    once, again = found(ANIL), found(dataclasses.replace(ANIL, features="recompute"))
    assert once.norm() > 1e-3
    assert (once - again).norm() < 1e-2 * once.norm(), "bfloat16's rounding in other places"
    assert (once - again)[: 3 * 7].norm() < 1e-5 * once[: 3 * 7].norm(), "the head's own part has none"


class Memory:
    """Peak bytes above what persists of one meta-step on `tasks` tasks, after one that fills .grad."""

    def __init__(self, filters: int = 64, block: str = "fused") -> None:
        self.images = load_split(SyntheticConfig(classes=5, images_per_class=10, image_size=32), "train")
        self.sampler = EpisodeSampler(self.images, "train", 0, 5, 5, 5)
        self.backbone = Conv4Config(filters=filters, block=block)

    def peak(self, config, tasks: int = 1, memory: MemoryConfig | None = None) -> int:
        model = build_model(self.backbone, 3, 32, 5, config.head_start == "learned", seed=0)
        learner = build_algorithm(config, model.to(memory_format=torch.channels_last), memory=memory)  # pyright: ignore[reportCallIssue]
        batch = self.sampler.draw(0, tasks)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        with PeakMeter(model, self.images.images, batch.classes, batch.items, block=1) as meter:
            learner.step(batch)
        return meter.requested_above_baseline


def test_released_memory_grows_by_a_feature_graph_a_step() -> None:
    """PAPER, trap 2: 22.8 MiB of saved tensors a step for 25 images of 32 x 32 through Conv4-64 in the released order,
    and linear."""
    memory = Memory(block="plain")
    released = dataclasses.replace(ANIL, features="recompute")
    peaks = [memory.peak(dataclasses.replace(released, inner_steps=k)) for k in (2, 4, 6)]
    growth = [(b - a) / 2 / 2**20 for a, b in pairwise(peaks)]
    assert growth[0] == pytest.approx(growth[1], rel=1e-3)
    assert growth[0] == pytest.approx(22.8, abs=0.2)


def test_one_step_at_a_time_keeps_weights_alone() -> None:
    memory = Memory(filters=32)
    kept = [memory.peak(dataclasses.replace(MAML, inner_steps=k)) for k in (1, 3, 5)]
    again = [memory.peak(dataclasses.replace(MAML, inner_steps=k), memory=RECOMPUTE) for k in (1, 3, 5)]
    assert kept[1] - kept[0] == pytest.approx(kept[2] - kept[1], rel=1e-2)
    weights = sum(4 * p.numel() for p in build_model(memory.backbone, 3, 32, 5, True, seed=0).parameters())
    assert again[2] - again[1] <= 2 * weights * 1.02
    assert kept[2] > 2 * again[2]


def test_first_order_keeps_no_graph_of_its_steps() -> None:
    memory = Memory(filters=32)
    peaks = [memory.peak(dataclasses.replace(FOMAML, inner_steps=k)) for k in (1, 5)]
    assert peaks[1] <= 1.01 * peaks[0]


@pytest.mark.parametrize("config", [MAML, FOMAML], ids=["maml", "fomaml"])
def test_peak_does_not_grow_with_the_batch(config: AnilConfig) -> None:
    memory = Memory(filters=16)
    assert memory.peak(config, tasks=6) <= 1.01 * memory.peak(config, tasks=2)


def test_evaluation_keeps_no_graph(batch: TaskBatch) -> None:
    """MAML's own test-time adaptation: its memory is that of one first-order step."""
    memory = Memory(filters=16)
    model = build_model(memory.backbone, 3, 32, 5, True, seed=0)
    tasks = memory.sampler.draw(0, 1)

    def peak(steps: int) -> int:
        learner = build_algorithm(dataclasses.replace(MAML, inner_steps=steps), model)
        with PeakMeter(model, memory.images.images, block=1) as meter:
            learner.evaluate(tasks)
        return meter.requested_above_baseline

    assert peak(6) <= 1.01 * peak(1)


def test_evaluation_adapts_every_weight(batch: TaskBatch) -> None:
    """Against torch.optim.SGD on a copy of the network."""
    learner = smooth_learner(MAML)
    accuracy, loss, converged = learner.evaluate(batch)
    assert converged.all()
    (x_s, y_s), (x_q, y_q) = batch.support(), batch.query()
    for task in range(TASKS):
        copy = _copy(learner.model)
        optimizer = torch.optim.SGD(copy.parameters(), lr=MAML.inner_lr)
        for _ in range(MAML.inner_steps):
            optimizer.zero_grad()
            F.cross_entropy(copy(x_s[task, None].double().div(255))[0], y_s[task]).backward()
            optimizer.step()
        logits = copy(x_q[task, None].double().div(255))[0]
        assert F.cross_entropy(logits, y_q[task]).item() == pytest.approx(loss[task].item(), rel=1e-12)
        assert (logits.argmax(-1) == y_q[task]).double().mean().item() == accuracy[task].item()


def _copy(model: MetaModel) -> nn.Module:
    import copy

    return copy.deepcopy(model)


CHANGES = {"mu": 0.5, "inner_steps": 5, "inner_lr": 0.1, "first_order": True, "adapted_params": "head"}


@pytest.mark.parametrize("key", CHANGES)
def test_every_option_changes_the_gradient(batch: TaskBatch, key: str) -> None:
    changed = dataclasses.replace(MAML, **{key: CHANGES[key]})
    plain, other = gradient(smooth_learner(MAML), batch), gradient(smooth_learner(changed), batch)
    assert (plain - other).abs().max() > 1e-6 * plain.abs().max()
