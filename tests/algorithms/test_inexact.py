"""Inexact solves are reported, and the reference gradient is exact even if the algorithm's solves are not."""

from dataclasses import replace

import pytest
import torch

from memmeta_exp.algorithms import Execution, build_algorithm, exact_reference
from memmeta_exp.algorithms.imaml import ImamlConfig
from memmeta_exp.algorithms.losses import CosineHeadConfig
from memmeta_exp.algorithms.proposed import ProposedConfig
from memmeta_exp.backbones import build_model
from memmeta_exp.backbones.conv4 import Conv4Config
from memmeta_exp.data import TaskBatch
from tests.algorithms.problems import WAYS, smooth_learner

EXACT = ProposedConfig(mu=0.05, inner_tolerance=1e-12, inner_steps=60, linear_tolerance=1e-10)
UNSOLVED = replace(EXACT, inner_solver="gd", inner_steps=2, inner_tolerance=None)


def test_what_is_solved_is_not_inexact(batch: TaskBatch) -> None:
    for config in (EXACT, replace(UNSOLVED, inner_steps=2000), replace(EXACT, head_start="prototype")):
        report = smooth_learner(config).step(batch)
        assert not report.inexact.any(), config
        assert report.linear_residual.max() < 1e-10


@pytest.mark.parametrize(
    "config",
    [replace(EXACT, inner_steps=1), UNSOLVED, replace(UNSOLVED, head_start="prototype", inner_lr=1e-9)],
    ids=["a tolerance", "no tolerance asked for", "what phi_0 brings with it nobody has solved for"],
)
def test_a_lower_level_that_is_not_solved(batch: TaskBatch, config: ProposedConfig) -> None:
    assert smooth_learner(config).step(batch).inexact.all()


def test_without_R_there_is_no_lower_solution(batch: TaskBatch) -> None:
    """The released solvers, float32."""
    released = ProposedConfig(
        mu=0.0, inner_solver="gd", inner_lr=0.1, inner_tolerance=None,
        linear_solver="cg", linear_steps=20, linear_tolerance=None,
    )  # fmt: skip
    model = build_model(Conv4Config(filters=8), 3, 16, WAYS, False, seed=0)
    assert build_algorithm(released, model).step(batch).inexact.all()


def test_of_imaml(batch: TaskBatch) -> None:
    solved = ImamlConfig(lam=2.0, inner_steps=60, inner_lr=0.3, linear_steps=100, linear_tolerance=1e-13)
    report = smooth_learner(solved).step(batch)
    assert not report.inexact.any()
    assert report.inner_residual.max() < 1e-9
    assert report.linear_residual.max() < 1e-12
    assert report.smoothness is None
    assert smooth_learner(replace(solved, inner_steps=1)).step(batch).inexact.all()
    one = replace(solved, linear_steps=1, linear_tolerance=None)
    assert smooth_learner(one).step(batch).linear_residual.max() > 1e-3


def test_of_a_cosine_head(batch: TaskBatch) -> None:
    """From a short random start descent passes weights of length near 0, where a cosine's curvature has no bound."""
    config = ProposedConfig(
        mu=1.0, inner_tolerance=1e-11, inner_solver="gd", inner_steps=400, inner_lr=0.1, linear_solver="cg",
        linear_steps=60, linear_tolerance=1e-10, head_start="learned",
    )  # fmt: skip
    report = smooth_learner(config, head=CosineHeadConfig(scale=3.0)).step(batch)
    assert report.inexact[report.inner_residual > 0.1].all()
    assert (report.inner_residual > 0.1).any()


@pytest.mark.parametrize("head_start", ["fixed", "learned"])
def test_the_reference_solves_in_float64_on_a_float32_model(batch: TaskBatch, head_start: str) -> None:
    model = build_model(Conv4Config(filters=8), 3, 16, WAYS, head_start == "learned", seed=0)
    report = exact_reference(model, 0.05, head_start, Execution(2)).step(batch)
    assert report.inner_residual is not None
    assert report.inner_residual.dtype == torch.float64
    assert report.inner_residual.max() < 1e-9
    assert not report.inexact.any()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    assert ("head_start" in gradients) == (head_start == "learned")
    assert all(g is not None and g.dtype == torch.float32 and bool(g.isfinite().all()) for g in gradients.values())
