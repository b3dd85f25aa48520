"""Every backbone under every algorithm: a step, its gradients, and that nothing depends on chunks or threads."""

import dataclasses
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from memmeta_exp.algorithms import Execution, Learner, build_algorithm
from memmeta_exp.algorithms.imaml import ImamlConfig
from memmeta_exp.algorithms.proposed import ProposedConfig
from memmeta_exp.algorithms.unrolled import AnilConfig
from memmeta_exp.backbones import build_model
from memmeta_exp.backbones.resnet12 import Resnet12Config
from memmeta_exp.config import MemoryConfig
from memmeta_exp.data import EpisodeSampler, TaskBatch, load_split
from memmeta_exp.data.datasets import SyntheticConfig
from tests.backbones.conftest import TINY

WAYS = 3
MAML = AnilConfig(name="maml", adapted_params="all", features="recompute", inner_steps=2)
ALGORITHMS: dict[str, tuple[Any, MemoryConfig]] = {
    "proposed": (ProposedConfig(), MemoryConfig()),
    "proposed, learned start": (ProposedConfig(head_start="learned"), MemoryConfig()),
    "half_task": (ProposedConfig(), MemoryConfig(mode="half_task")),
    "block": (ProposedConfig(), MemoryConfig(checkpoint="block")),
    "block, half_task": (ProposedConfig(), MemoryConfig(mode="half_task", checkpoint="block")),
    "anil": (AnilConfig(inner_steps=2), MemoryConfig()),
    "itd_bio": (AnilConfig(name="itd_bio", mu=1e-4, inner_steps=2, head_start="fixed"), MemoryConfig()),
    "anil recomputed": (AnilConfig(features="recompute", inner_steps=2), MemoryConfig()),
    "maml": (MAML, MemoryConfig()),
    "maml, inner_step": (MAML, MemoryConfig(checkpoint="inner_step")),
    "fomaml": (dataclasses.replace(MAML, first_order=True), MemoryConfig()),
    "imaml": (ImamlConfig(inner_steps=2, linear_steps=2), MemoryConfig()),
}


def slow(*names: str) -> list[Any]:
    return [pytest.param(name, marks=pytest.mark.slow) for name in names]


def size_of(backbone: Any) -> int:
    return 32 if backbone.name == "timm" else 16


@cache
def sampler_of(size: int, stream: str = "train") -> EpisodeSampler:
    images = load_split(SyntheticConfig(classes=5, images_per_class=6, image_size=size), "train")
    return EpisodeSampler(images, stream, 0, WAYS, 2, 2)


def learner_of(backbone: Any, algorithm: str, execution: Execution | None = None) -> Learner:
    config, memory = ALGORITHMS[algorithm]
    model = build_model(backbone, 3, size_of(backbone), WAYS, config.head_start == "learned", seed=0)
    if memory.checkpoint == "block":
        model.backbone.checkpoint_blocks()  # pyright: ignore[reportCallIssue]
    return build_algorithm(config, model, execution, memory)


def gradients(learner: Learner, batch: TaskBatch) -> dict[str, Tensor]:
    learner.model.zero_grad(set_to_none=True)
    learner.step(batch)
    return {name: p.grad for name, p in learner.model.named_parameters() if p.grad is not None}


EACH = ("proposed", "anil", "maml", "imaml")  # the other ways to run on two backbones
STEPS = [(b, a) for b in TINY for a in EACH] + [
    (b, a) for b in ("resnet12 dropped", "timm vit") for a in ALGORITHMS if a not in (*EACH, "block, half_task")
]


@pytest.mark.parametrize(("backbone", "algorithm"), STEPS)
def test_a_step(backbone: str, algorithm: str) -> None:
    """Gradients are finite and non-zero everywhere at the second step: timm starts the last batch norm of a residual
    branch at 0, which hides the branch from the first."""
    learner, sampler = learner_of(TINY[backbone], algorithm), sampler_of(size_of(TINY[backbone]))
    parameters = dict(learner.model.named_parameters())
    gradients(learner, sampler.draw(0, 1))
    torch.optim.SGD(parameters.values(), lr=0.1).step()
    learner.warm = {}
    found = gradients(learner, sampler.draw(1, 1))
    assert found.keys() == parameters.keys()
    assert [name for name, g in found.items() if not g.isfinite().all()] == []
    assert [name for name, g in found.items() if not g.any()] == []
    accuracy, loss, _ = learner.evaluate(sampler.draw(2, 1))
    assert accuracy is not None
    assert 0 <= accuracy.item() <= 1
    assert loss.isfinite()


@pytest.mark.parametrize("algorithm", ["proposed", "maml"])
@pytest.mark.parametrize(
    "backbone",
    ["resnet12", "timm vit", *(pytest.param(b, marks=pytest.mark.slow) for b in ("wrn", "mlp", "timm resnet"))],
)
def test_central_differences(monkeypatch, backbone: str, algorithm: str) -> None:
    """Along a random direction of theta, of the loss that `evaluate` reports, in float64: second order through the
    backbone for maml. Without kinks, which make the loss after a gradient step discontinuous."""
    for name in ("relu", "relu_", "leaky_relu", "leaky_relu_"):
        monkeypatch.setattr(F, name, lambda x, *slope, inplace=False: F.softplus(x))
    monkeypatch.setattr(F, "max_pool2d", lambda x, size, *rest, **more: F.avg_pool2d(x, 2))
    config, _ = ALGORITHMS[algorithm]
    tight = {"mu": 0.1, "inner_tolerance": 1e-11, "linear_tolerance": 1e-10} if algorithm == "proposed" else {}
    config = dataclasses.replace(config, **tight)
    size = size_of(TINY[backbone])
    model = build_model(TINY[backbone], 3, size, WAYS, config.head_start == "learned", seed=0).double()
    learner, batch = build_algorithm(config, model), sampler_of(size).draw(0, 1)
    found = gradients(learner, batch)
    generator = torch.Generator().manual_seed(1)
    parameters = dict(model.named_parameters())
    along = {n: torch.randn(p.shape, generator=generator, dtype=p.dtype) for n, p in parameters.items()}
    slope, eps, values = sum(float((found[n] * d).sum()) for n, d in along.items()), 1e-6, []
    for shift in (eps, -2 * eps):
        for name, d in along.items():
            parameters[name].data.add_(d, alpha=shift)
        values.append(learner.evaluate(batch)[1].mean().item())
    assert abs(slope) > 1e-3
    assert (values[0] - values[1]) / (2 * eps) == pytest.approx(slope, rel=1e-5)


@pytest.mark.parametrize("backbone", ["resnet12 dropped", "mlp", "custom", *slow("timm resnet", "wrn")])
def test_neither_chunks_nor_threads_nor_halves_matter(backbone: str) -> None:
    batch = sampler_of(size_of(TINY[backbone])).draw(0, 4)

    def found(algorithm: str = "proposed", **execution: Any) -> Tensor:
        learner = learner_of(TINY[backbone], algorithm, Execution(**execution))
        learner.model.double()
        learner.head_dtype = torch.float64
        return torch.cat([g.flatten() for g in gradients(learner, batch).values()])

    one = found()
    for other in (
        found(tasks_per_pass=3),
        found("half_task"),
        found("block", tasks_per_pass=2),
        found("block, half_task", tasks_per_pass=4),
    ):
        assert (one - other).norm() < 1e-8 * one.norm()
    assert torch.equal(one, found(workers=3))
    assert torch.equal(found("block", tasks_per_pass=2), found("block", tasks_per_pass=2, workers=2))


DROPPED = Resnet12Config(filters=[4, 5, 6, 8], drop_rate=0.3, drop_block=2)


@pytest.mark.parametrize("algorithm", ["proposed", "maml", *slow("maml, inner_step", "imaml")])
def test_what_is_dropped_is_a_function_of_seed_and_task(algorithm: str) -> None:
    learner, sampler = learner_of(DROPPED, algorithm), sampler_of(16)

    def found(batch: TaskBatch) -> Tensor:
        return torch.cat([g.flatten() for g in gradients(learner, batch).values()])

    batch = sampler.draw(6, 2)
    assert torch.equal(found(batch), found(sampler.draw(4, 4)[2:])), "however the task was come by"
    elsewhere = dataclasses.replace(batch, origin=dataclasses.replace(batch.origin, root=1))  # pyright: ignore[reportArgumentType]
    assert not torch.equal(found(batch), found(elsewhere))
    still = dataclasses.replace(batch, origin=None)
    undropped = learner_of(dataclasses.replace(DROPPED, drop_rate=0.0), algorithm)
    assert torch.equal(found(still), torch.cat([g.flatten() for g in gradients(undropped, batch).values()]))
    assert not torch.equal(found(still), found(batch))


def test_nothing_is_dropped_in_evaluation_or_off_the_training_stream() -> None:
    learner, undropped = (learner_of(dataclasses.replace(DROPPED, drop_rate=r), "proposed") for r in (0.3, 0.0))
    batch = sampler_of(16).draw(0, 2)
    for a, b in zip(learner.evaluate(batch), undropped.evaluate(batch), strict=True):
        assert a is not None
        assert b is not None
        assert torch.equal(a, b)
    reference = sampler_of(16, "reference").draw(0, 2)
    a, b = (gradients(one, reference) for one in (learner, undropped))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_maml_by_the_adjoint_sees_the_same_masks() -> None:
    """The graph through all steps and the recursion, which runs every step again, in float64."""
    found = []
    for algorithm in ("maml", "maml, inner_step"):
        learner = learner_of(DROPPED, algorithm)
        learner.model.double()
        learner.head_dtype = torch.float64
        found.append(torch.cat([g.flatten() for g in gradients(learner, sampler_of(16).draw(0, 1)).values()]))
    assert (found[0] - found[1]).norm() < 1e-10 * found[0].norm()
