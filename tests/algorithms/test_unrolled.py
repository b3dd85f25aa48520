"""ANIL and ITD-BiO in feature space: the gradient of the query loss after K steps, judged independently."""

import dataclasses

import pytest
import torch
from torch.nn import functional as F

from memmeta_exp.algorithms import Unrolled
from memmeta_exp.algorithms.losses import RegressionLosses
from memmeta_exp.algorithms.proposed import ProposedConfig
from memmeta_exp.algorithms.unrolled import AnilConfig
from memmeta_exp.data import TaskBatch
from memmeta_exp.profiling.peak_memory import PeakMeter
from tests.algorithms.conftest import TASKS, assert_central_differences, gradient, smooth_learner

ANIL = AnilConfig(name="anil", inner_steps=4, inner_lr=0.5)
ITD_BIO = AnilConfig(name="itd_bio", mu=0.1, inner_steps=4, inner_lr=0.5, head_start="fixed")


@pytest.mark.parametrize(
    "config", [ANIL, ITD_BIO, dataclasses.replace(ANIL, mu=0.2)], ids=["anil", "itd_bio", "anil+R"]
)
def test_central_differences(batch: TaskBatch, config: AnilConfig) -> None:
    assert_central_differences(smooth_learner(config), batch)


@pytest.mark.parametrize("first_order", [False, True])
def test_features_once_equals_the_whole_graph(batch: TaskBatch, first_order: bool) -> None:
    """Task by task, torch's own linear layer and cross-entropy, differentiated through steps and backbone at once."""
    learner = smooth_learner(dataclasses.replace(ANIL, mu=0.2, first_order=first_order))
    found, model = gradient(learner, batch), learner.model
    (x_s, y_s), (x_q, y_q) = batch.support(), batch.query()
    total = torch.zeros((), dtype=torch.float64)
    for task in range(TASKS):
        z_s, z_q = (model.backbone(x[task, None].double().div(255))[0] for x in (x_s, x_q))
        phi = model.head_start
        for _ in range(ANIL.inner_steps):
            g = F.cross_entropy(F.linear(z_s, phi[:, :-1], phi[:, -1]), y_s[task]) + 0.1 * phi.square().sum()
            (slope,) = torch.autograd.grad(g, phi, create_graph=True)
            phi = phi - ANIL.inner_lr * (slope.detach() if first_order else slope)
        total = total + F.cross_entropy(F.linear(z_q, phi[:, :-1], phi[:, -1]), y_q[task]) / TASKS
    reference = torch.cat([t.flatten() for t in torch.autograd.grad(total, list(model.parameters()))])
    assert reference.abs().max() > 1e-3
    assert (found - reference).abs().max() < 1e-12 * reference.abs().max()


@pytest.mark.parametrize("mu", [0.0, 0.3])
def test_an_example_by_hand(mu: float) -> None:
    """One step of 1/2 from phi_0 = 0 on the one support point z = 1, y = 2, and one query point z = 2, y = 0, whose
    squared error is f. phi = (w, b), e = w z + b - y:

        phi_1 = 0 - 1/2 e (z, 1) = (1, 1),   f = (2 w + b)^2 = 9,   d_zq f = 2 * 3 w = 6,   d_phi1 f = 2 * 3 (2, 1)
        d_zs phi_1 = - 1/2 (e + w z, w) at phi_0 = (1, 0),                        d_zs f = 12
        d_phi0 phi_1 = I - 1/2 ((1, 1), (1, 1)) - mu/2 I,                         d_phi0 f = (3, -3) - mu/2 (12, 6)
    """

    def one(value: float) -> torch.Tensor:
        return torch.full((1, 1, 1), value, dtype=torch.float64)

    rule = Unrolled(dataclasses.replace(ITD_BIO, inner_steps=1, inner_lr=0.5, mu=mu), RegressionLosses())
    start = torch.zeros(1, 2, dtype=torch.float64)
    found = rule.feature_gradient((one(1), one(2)), (one(2), one(0)), start, {})
    assert found.inner.value[0].flatten().tolist() == [1, 1]
    assert (found.loss.item(), found.d_query.item(), found.d_support.item()) == (9, 6, 12)
    assert found.d_start.flatten().tolist() == pytest.approx([3 - 6 * mu, -3 - 3 * mu])


def test_itd_bio_tends_to_the_proposed_gradient(batch: TaskBatch) -> None:
    exact = gradient(smooth_learner(ProposedConfig(mu=0.1, inner_tolerance=1e-12)), batch)

    def error(steps: int) -> float:
        found = gradient(smooth_learner(dataclasses.replace(ITD_BIO, inner_steps=steps)), batch)
        return float((found - exact).norm() / exact.norm())

    assert error(1) > 0.05
    assert error(20) < 0.5 * error(1)
    assert error(400) < 1e-6


def test_chunks_do_not_change_the_result(batch: TaskBatch) -> None:
    whole, one, two = (gradient(smooth_learner(ANIL, chunk), batch) for chunk in (TASKS, 1, 2))
    assert whole.norm() > 1e-3
    assert (whole - one).abs().max() < 1e-13
    assert (whole - two).abs().max() < 1e-13


def test_memory_grows_by_heads(generator: torch.Generator) -> None:
    """A step more keeps a few heads and logits a task; a recomputed feature graph would be thousands of times that."""
    z, labels = torch.randn(1, 25, 256, generator=generator), torch.arange(25).remainder(5)[None]
    start = torch.zeros(5, 257)

    def peak(steps: int, first_order: bool) -> int:
        rule = Unrolled(dataclasses.replace(ANIL, inner_steps=steps, first_order=first_order))
        with PeakMeter(z, labels, start, block=1) as meter:
            rule.feature_gradient((z, labels), (z, labels), start, {})
        return meter.requested_above_baseline

    growth = (peak(60, False) - peak(20, False)) / 40
    head = 4 * start.numel()
    assert head < growth < 4 * head
    assert peak(60, True) == peak(20, True)


CHANGES = {"mu": 0.5, "inner_steps": 5, "inner_lr": 0.1, "first_order": True, "head_start": "fixed"}


@pytest.mark.parametrize("key", CHANGES)
def test_every_option_changes_the_gradient(batch: TaskBatch, key: str) -> None:
    """`adapted_params` and `features` are told apart in test_maml."""
    assert set(CHANGES) == {f.name for f in dataclasses.fields(AnilConfig)} - {"name", "adapted_params", "features"}
    plain = gradient(smooth_learner(ANIL), batch)
    changed = gradient(smooth_learner(dataclasses.replace(ANIL, **{key: CHANGES[key]})), batch)
    assert plain.shape != changed.shape or (plain - changed).abs().max() > 1e-6 * plain.abs().max()
