"""Baseline: its gradient against torch's own layers and central differences, ways of running it, and what it learns."""

import dataclasses
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from memmeta_exp.algorithms import BaselineLearner, Execution, Proposed, StepReport, build_algorithm
from memmeta_exp.algorithms.baseline import BaselineConfig
from memmeta_exp.algorithms.proposed import ProposedConfig
from memmeta_exp.backbones import MetaModel, build_model
from memmeta_exp.backbones.conv4 import Conv4Config
from memmeta_exp.config import MemoryConfig
from memmeta_exp.config.datasets import SyntheticConfig
from memmeta_exp.data import EpisodeSampler, ImageSet, TaskBatch, load_split
from tests.algorithms.conftest import QUERIES, SHOTS, TASKS, WAYS, Smooth, assert_central_differences

CLASSES = 6  # of the training split
HALF = MemoryConfig(mode="half_task")
LINEAR, COSINE = BaselineConfig(), BaselineConfig(classifier="cosine", scale=7.0)


def smooth(
    chunk: int = 2, memory: MemoryConfig | None = None, workers: int = 1, config: BaselineConfig = LINEAR
) -> BaselineLearner:
    generator = torch.Generator().manual_seed(5)
    model = MetaModel(Smooth(generator), 6, WAYS, False, generator, CLASSES).double()
    learner = build_algorithm(config, model, Execution(chunk, workers=workers), memory)
    assert isinstance(learner, BaselineLearner)
    return learner


def classifier(model: MetaModel) -> torch.Tensor:
    assert model.classifier is not None
    return model.classifier


def gradient_of(*parameters: torch.Tensor) -> torch.Tensor:
    """Their gradients, one after the other."""
    gradients = [p.grad for p in parameters]
    return torch.cat([gradient.flatten() for gradient in gradients if gradient is not None])


def of_torch(model: MetaModel, batch: TaskBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """The terms of A and the accuracy of each task, by nn.Linear on all images of all tasks, whose classes are found by
    comparing pixels with those of the training split; and A's gradient."""
    layer, v = nn.Linear(6, CLASSES, dtype=torch.float64), classifier(model).detach()
    layer.weight, layer.bias = nn.Parameter(v[:, :-1].clone()), nn.Parameter(v[:, -1].clone())
    images = torch.cat([batch.support()[0], batch.query()[0]], 1)
    stored = batch.image_set.images
    truth = torch.tensor([[_class(image, stored) for image in task] for task in images])
    logits = layer(model.backbone(images.double() / 255))
    losses = F.cross_entropy(logits.flatten(0, 1), truth.flatten(), reduction="none").view(TASKS, -1).mean(1)
    losses.mean().backward()
    of_layer = torch.cat([gradient_of(layer.weight).view(CLASSES, 6), gradient_of(layer.bias)[:, None]], 1)
    found = torch.cat([gradient_of(*model.backbone.parameters()), of_layer.flatten()])
    model.zero_grad()
    return torch.cat([losses.detach(), (logits.argmax(-1) == truth).double().mean(1)]), found


def _class(image: torch.Tensor, stored: torch.Tensor) -> int:
    return int((stored == image).flatten(2).all(-1).any(1).nonzero())


def by_name(learner: BaselineLearner, batch: TaskBatch) -> torch.Tensor:
    """The gradient, the backbone first."""
    learner.model.zero_grad()
    learner.step(batch)
    assert {name for name, _ in learner.model.named_parameters()} == {"backbone.map", "classifier"}
    return gradient_of(*learner.model.backbone.parameters(), classifier(learner.model))


def accuracy(report: StepReport) -> torch.Tensor:
    assert report.accuracy is not None
    return report.accuracy


@pytest.mark.parametrize("memory", [None, HALF], ids=["task", "half_task"])
def test_the_gradient_is_that_of_a_linear_layer(batch: TaskBatch, memory: MemoryConfig | None) -> None:
    learner = smooth(memory=memory)
    (values, reference), found = of_torch(learner.model, batch), by_name(learner, batch)
    assert (found - reference).abs().max() < 1e-12 * reference.abs().max()
    report = learner.step(batch)
    torch.testing.assert_close(torch.cat([report.loss, accuracy(report)]), values, rtol=1e-12, atol=0)
    assert not report.inexact.any()
    assert report.gradients.tolist() == [1] * TASKS
    assert report.products.tolist() == [0] * TASKS


def test_by_hand() -> None:
    """One feature, 1 or -1, two classes, V = [[1, 0], [-1, 0]]: every image costs ln(1 + e^-2) and pulls at V's rows
    with p = sigmoid(-2)."""
    images = torch.full((2, 8, 3, 16, 16), 255, dtype=torch.uint8)
    images[1] = 0

    class Mean(nn.Module):
        """1 for a white image, -1 for a black one."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * x.mean((2, 3, 4))[..., None] - 1

    model = MetaModel(Mean(), 1, 2, False, torch.Generator(), classes=2).double()
    classifier(model).data = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    batch = EpisodeSampler(ImageSet(images, ("white", "black")), "train", 0, 2, 1, 3).draw(0, 2)
    report = build_algorithm(BaselineConfig(), model).step(batch)
    p = 1 / (1 + math.exp(2))
    torch.testing.assert_close(report.loss, torch.full((2,), -math.log(1 - p), dtype=torch.float64))
    assert accuracy(report).tolist() == [1, 1]
    # white images, half of all, pull with -p (1, 1), black ones with p (-1, 1): their biases cancel
    assert gradient_of(classifier(model)).tolist() == pytest.approx([-p, 0, p, 0])


@pytest.mark.parametrize("config", [LINEAR, COSINE], ids=["linear", "cosine"])
def test_central_differences(batch: TaskBatch, config: BaselineConfig) -> None:
    learner = smooth(config=config)
    assert_central_differences(learner, batch, lambda learner, tasks: learner.step(tasks).loss.mean())


@pytest.mark.parametrize("memory", [None, HALF], ids=["task", "half_task"])
def test_cosines_are_those_of_torch(batch: TaskBatch, memory: MemoryConfig | None) -> None:
    """The loss of each task; and the last column of V has no gradient."""
    learner = smooth(memory=memory, config=COSINE)
    v, stored, values = classifier(learner.model).detach()[:, :-1], batch.image_set.images, []
    for images in torch.cat([batch.support()[0], batch.query()[0]], 1):
        z = learner.model.backbone(images[None].double() / 255)[0].detach()
        cosines = torch.stack([torch.cosine_similarity(z, row[None]) for row in v], 1)
        values.append(F.cross_entropy(7 * cosines, torch.tensor([_class(image, stored) for image in images])))
    learner.model.zero_grad()
    torch.testing.assert_close(learner.step(batch).loss, torch.stack(values), rtol=1e-12, atol=0)
    assert gradient_of(classifier(learner.model)).view(CLASSES, 7)[:, -1].count_nonzero() == 0


def test_the_ladder_of_powers_by_hand(batch: TaskBatch) -> None:
    """d = 2, power 1/2: (9, 16) becomes sqrt 2 (3, 4) / 5, a negative entry 0; and training does not see it."""
    learner = smooth(config=dataclasses.replace(COSINE, power=0.5))
    found = learner._tukey_transform(torch.tensor([[9.0, 16.0], [-1.0, 0.25]]))
    torch.testing.assert_close(found, 2**0.5 * torch.tensor([[0.6, 0.8], [0.0, 1.0]]))
    assert torch.equal(learner.step(batch).loss, smooth(config=COSINE).step(batch).loss)


def test_new_tasks_see_powers(batch: TaskBatch) -> None:
    """As `proposed` on a backbone that ends in them."""
    learner = smooth(config=dataclasses.replace(LINEAR, power=0.5))
    plain = learner.model.backbone

    class Powers(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            root = plain(x).clamp(min=0).sqrt()
            return 6**0.5 * root / root.norm(dim=-1, keepdim=True).clamp(min=1e-12)

    found = learner.evaluate(batch)
    learner.model.backbone = Powers()
    proposed = build_algorithm(ProposedConfig(mu=LINEAR.mu), learner.model, learner.execution)
    for a, b in zip(found, proposed.evaluate(batch), strict=True):
        assert a is not None
        assert b is not None
        torch.testing.assert_close(a, b, rtol=1e-10, atol=0)
    assert smooth().evaluate(batch)[1].ne(found[1]).all()


@pytest.mark.parametrize("memory", [None, HALF], ids=["task", "half_task"])
def test_chunks_and_workers_do_not_change_the_gradient(batch: TaskBatch, memory: MemoryConfig | None) -> None:
    whole = by_name(smooth(TASKS, memory), batch)
    for other in (smooth(1, memory), smooth(1, memory, workers=3)):
        assert (by_name(other, batch) - whole).abs().max() < 1e-13 * whole.abs().max()


def test_new_tasks_are_adapted_to_as_proposed_does(batch: TaskBatch) -> None:
    """The same model, mu and solver: the same scores, and the classifier of training has no part in them."""
    learner = smooth()
    proposed = build_algorithm(ProposedConfig(mu=BaselineConfig().mu), learner.model, learner.execution)
    assert isinstance(learner.algorithm, Proposed)
    a, b = learner.evaluate(batch), proposed.evaluate(batch)
    learner.model.classifier = None
    for columns in zip(a, b, learner.evaluate(batch), strict=True):
        assert all(c is not None and columns[0] is not None and torch.equal(columns[0], c) for c in columns)


def test_it_learns_classes_and_they_are_not_those_of_the_task() -> None:
    """Twenty steps on tasks of 3 of 6 classes: the training classes are told apart far above chance, 1/6."""
    images = load_split(SyntheticConfig(classes=CLASSES, images_per_class=8, image_size=16), "train")
    sampler = EpisodeSampler(images, "train", 0, 3, SHOTS, QUERIES)
    model = build_model(Conv4Config(filters=6), 3, 16, 3, False, seed=0, classes=CLASSES)
    learner = build_algorithm(BaselineConfig(), model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    accuracies = []
    for t in range(20):
        optimizer.zero_grad()
        accuracies.append(accuracy(learner.step(sampler.draw(5 * t, 5))).mean().item())
        optimizer.step()
    assert sum(accuracies[-3:]) / 3 > 0.5
    assert sum(accuracies[:2]) / 2 < 0.4
