"""How a trained model is adapted to new tasks and scored, against torch's own layers and optimisers."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memmeta_exp.algorithms import build_algorithm
from memmeta_exp.algorithms.baseline import BaselineConfig
from memmeta_exp.algorithms.imaml import ImamlConfig
from memmeta_exp.algorithms.maml import MamlConfig
from memmeta_exp.algorithms.proposed import ProposedConfig, exact_adaptation, gradient_descent_adaptation
from memmeta_exp.algorithms.unrolled import AnilConfig
from memmeta_exp.backbones import build_model
from memmeta_exp.backbones.conv4 import Conv4Config
from memmeta_exp.data import EpisodeSampler, SinusoidTasks, TaskBatch, load_split
from memmeta_exp.data.datasets import SyntheticConfig
from tests.algorithms.problems import CLASSES, TASKS, WAYS, sine_learner, smooth_learner

EXACT = ProposedConfig(mu=0.05, inner_tolerance=1e-12, inner_steps=60, linear_tolerance=1e-10)
MAML = MamlConfig(inner_steps=3, inner_lr=0.4)


def test_of_the_head_by_gradient_descent(batch: TaskBatch) -> None:
    """Against torch.optim.SGD on a linear layer."""
    learner = smooth_learner(EXACT)
    own, found = learner.evaluate(batch), learner.evaluate(batch, gradient_descent_adaptation(20, 0.05))
    assert own[0].shape == own[1].shape == (TASKS,)
    assert not torch.equal(own[1], found[1])
    (x_s, y_s), (x_q, y_q) = batch.support(), batch.query()
    with torch.no_grad():
        z_s, z_q = (learner.model.backbone(x.double().div(255))[0] for x in (x_s, x_q))
    head = nn.Linear(6, WAYS, dtype=torch.float64)
    with torch.no_grad():
        head.weight.copy_(learner.model.head_start[:, :-1])
        head.bias.copy_(learner.model.head_start[:, -1])
    optimizer = torch.optim.SGD(head.parameters(), lr=0.05)
    for _ in range(20):
        optimizer.zero_grad()
        F.cross_entropy(head(z_s), y_s[0]).backward()
        optimizer.step()
    assert F.cross_entropy(head(z_q), y_q[0]).item() == pytest.approx(float(found[1][0]), rel=1e-12)


def test_of_every_weight(batch: TaskBatch) -> None:
    """Against torch.optim.SGD on a copy of the network."""
    learner = smooth_learner(MAML)
    accuracy, loss, converged = learner.evaluate(batch)
    assert converged.all()
    (x_s, y_s), (x_q, y_q) = batch.support(), batch.query()
    for task in range(TASKS):
        model = copy.deepcopy(learner.model)
        optimizer = torch.optim.SGD(model.parameters(), lr=MAML.inner_lr)
        for _ in range(MAML.inner_steps):
            optimizer.zero_grad()
            F.cross_entropy(model(x_s[task, None].double().div(255))[0], y_s[task]).backward()
            optimizer.step()
        logits = model(x_q[task, None].double().div(255))[0]
        assert F.cross_entropy(logits, y_q[task]).item() == pytest.approx(loss[task].item(), rel=1e-12)
        assert (logits.argmax(-1) == y_q[task]).double().mean().item() == accuracy[task].item()


@pytest.mark.parametrize(
    "config",
    [
        replace(EXACT, mu=3.0, head_start="learned"),
        replace(EXACT, head_start="prototype"),
        AnilConfig(),
        MamlConfig(),
        ImamlConfig(),
    ],
    ids=["proposed", "prototype", "anil", "maml", "imaml"],
)
def test_the_exact_head_is_one_for_all_algorithms(batch: TaskBatch, config: Any) -> None:
    """The head that minimises the support loss + 0.2/2 |phi|^2, as torch's L-BFGS finds it, wherever phi_0 is."""
    learner, batch = smooth_learner(config), batch[:2]
    accuracy, loss, converged = learner.evaluate(batch, exact_adaptation(0.2))
    assert converged.all()
    for task in range(len(batch)):
        (x_s, y_s), (x_q, y_q) = batch[task : task + 1].support(), batch[task : task + 1].query()
        with torch.no_grad():
            z_s, z_q = (F.pad(learner.model.backbone(x.double().div(255))[0], (0, 1), value=1) for x in (x_s, x_q))
        logits = z_q @ by_lbfgs(z_s, y_s[0]).T
        assert float(loss[task]) == pytest.approx(F.cross_entropy(logits, y_q[0]).item(), abs=2e-4)
        assert float(accuracy[task]) == (logits.argmax(1) == y_q[0]).double().mean().item()


def by_lbfgs(z: Tensor, labels: Tensor) -> Tensor:
    w = torch.zeros(WAYS, z.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([w], max_iter=500, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        g = F.cross_entropy(z @ w.T, labels) + 0.1 * w.square().sum()
        g.backward()
        return g

    optimizer.step(closure)
    return w.detach()


SINE = {
    "proposed": EXACT,
    "anil": AnilConfig(inner_steps=3, inner_lr=0.1),
    "maml": MamlConfig(inner_steps=2, inner_lr=0.05),
    "imaml": ImamlConfig(lam=20.0, inner_steps=4, inner_lr=0.04),
}


@pytest.mark.parametrize("config", SINE.values(), ids=SINE)
def test_outputs_have_the_loss_that_is_reported(waves: SinusoidTasks, config: Any) -> None:
    learner = sine_learner(config)
    found = (learner.outputs(waves) - waves.query()[1]).square().mean((1, 2))
    assert torch.allclose(found, learner.evaluate(waves)[1], rtol=1e-12)
    assert found.min() > 0


def test_baseline_adapts_to_new_tasks_as_proposed_does(batch: TaskBatch) -> None:
    """The same model, mu and solver: the same scores, and the classifier of training has no part in them."""
    learner = smooth_learner(BaselineConfig())
    proposed = build_algorithm(ProposedConfig(mu=BaselineConfig().mu), learner.model, learner.execution)
    a, b = learner.evaluate(batch), proposed.evaluate(batch)
    learner.model.classifier = None
    for columns in zip(a, b, learner.evaluate(batch), strict=True):
        assert all(torch.equal(columns[0], c) for c in columns)  # pyright: ignore[reportArgumentType] - images


def test_powers_of_baseline_are_for_new_tasks(batch: TaskBatch) -> None:
    """As `proposed` on a backbone that ends in them, sqrt(d) z^(1/2) / |z^(1/2)|; training does not see them."""
    config = BaselineConfig(power=0.5)
    learner = smooth_learner(config)
    assert torch.equal(learner.step(batch).loss, smooth_learner(BaselineConfig()).step(batch).loss)
    plain, found = learner.model.backbone, learner.evaluate(batch)

    class Powers(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            root = plain(x).clamp(min=0).sqrt()
            return 6**0.5 * root / root.norm(dim=-1, keepdim=True).clamp(min=1e-12)

    learner.model.backbone = Powers()
    proposed = build_algorithm(ProposedConfig(mu=config.mu), learner.model, learner.execution)
    for a, b in zip(found, proposed.evaluate(batch), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=0)
    assert smooth_learner(BaselineConfig()).evaluate(batch)[1].ne(found[1]).all()


def test_baseline_learns_classes_and_they_are_not_those_of_the_task() -> None:
    """Twenty steps on tasks of 3 of 6 classes: the training classes are told apart far above chance, 1/6."""
    images = load_split(SyntheticConfig(classes=CLASSES, images_per_class=8, image_size=16), "train")
    sampler = EpisodeSampler(images, "train", 0, WAYS, 2, 4)
    model = build_model(Conv4Config(filters=6), 3, 16, WAYS, False, seed=0, classes=CLASSES)
    learner, accuracies = build_algorithm(BaselineConfig(), model), []
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for t in range(20):
        optimizer.zero_grad()
        report = learner.step(sampler.draw(5 * t, 5))
        assert report.accuracy is not None
        accuracies.append(report.accuracy.mean().item())
        optimizer.step()
    assert sum(accuracies[-3:]) / 3 > 0.5
    assert sum(accuracies[:2]) / 2 < 0.4
