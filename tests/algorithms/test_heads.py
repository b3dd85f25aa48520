"""Heads and starts under the algorithms: the meta-gradient against central differences, and what the runner offers."""

import dataclasses
from typing import Any

import pytest
import torch

from memmeta_exp.algorithms import Execution, Learner, build_algorithm
from memmeta_exp.algorithms.imaml import ImamlConfig
from memmeta_exp.algorithms.losses import CosineHeadConfig, LinearHeadConfig, RidgeHeadConfig
from memmeta_exp.algorithms.proposed import ProposedConfig, exact_reference
from memmeta_exp.algorithms.unrolled import AnilConfig
from memmeta_exp.backbones import MetaModel
from memmeta_exp.config import ConfigError
from memmeta_exp.config.compose import jobs
from memmeta_exp.data import TaskBatch
from tests.algorithms.conftest import WAYS, Smooth, assert_central_differences, gradient

LINEAR, RIDGE, COSINE = LinearHeadConfig(), RidgeHeadConfig(scale=3.0), CosineHeadConfig(scale=3.0)
EXACT = ProposedConfig(mu=0.1, inner_tolerance=1e-11, linear_tolerance=1e-10)
SOLVED = dataclasses.replace(  # for a head that has neither a factorisation nor a bound on L_g
    EXACT, mu=1.0, inner_solver="gd", inner_steps=400, inner_lr=0.1, linear_solver="cg", linear_steps=60
)
ANIL = AnilConfig(inner_steps=3, inner_lr=0.5)
MAML = AnilConfig(name="maml", adapted_params="all", features="recompute", inner_steps=2, inner_lr=0.2)


def learner_of(head: Any, config: Any, chunk: int = 2) -> Learner:
    generator = torch.Generator().manual_seed(5)
    model = MetaModel(Smooth(generator), 6, WAYS, config.head_start == "learned", generator).double()
    model.cosine = head.scale if head.name == "cosine" else None
    execution = Execution(chunk if config.head_only else 1)
    return build_algorithm(config, model, execution, losses=head.losses())


def with_start(config: Any, start: str) -> Any:
    return dataclasses.replace(config, head_start=start)


CASES = {
    "ridge, proposed": (RIDGE, EXACT),
    "ridge, learned": (RIDGE, with_start(EXACT, "learned")),
    "ridge, prototype": (RIDGE, with_start(EXACT, "prototype")),
    "ridge, anil": (RIDGE, ANIL),
    "ridge, maml": (RIDGE, MAML),
    "linear, prototype": (LINEAR, with_start(EXACT, "prototype")),
    "linear, anil, prototype": (LINEAR, with_start(ANIL, "prototype")),
    "cosine, prototype": (COSINE, with_start(SOLVED, "prototype")),
    "cosine, anil": (COSINE, ANIL),
    "cosine, anil, prototype": (COSINE, with_start(ANIL, "prototype")),
    "cosine, maml": (COSINE, MAML),
}


@pytest.mark.parametrize(
    "case", [pytest.param(name, marks=[pytest.mark.slow] if name == "cosine, prototype" else []) for name in CASES]
)
def test_central_differences(batch: TaskBatch, case: str) -> None:
    learner = learner_of(*CASES[case])
    assert_central_differences(learner, batch)
    report = learner.step(batch)
    assert not report.inexact.any()


def test_a_cosine_head_that_was_not_solved_says_so(batch: TaskBatch) -> None:
    """From a short random start descent passes weights of length near 0, where a cosine's curvature has no bound."""
    report = learner_of(COSINE, with_start(SOLVED, "learned")).step(batch)
    assert report.inner_residual is not None
    assert report.inexact[report.inner_residual > 0.1].all()
    assert (report.inner_residual > 0.1).any()


@pytest.mark.parametrize("head", [RIDGE, COSINE], ids=lambda head: head.name)
def test_features_once_or_recomputed(batch: TaskBatch, head: Any) -> None:
    """The head of the network is that of feature space."""
    once, again = (
        gradient(learner_of(head, dataclasses.replace(ANIL, features=f)), batch) for f in ("once", "recompute")
    )
    assert once.norm() > 1e-3
    assert (once - again).abs().max() < 1e-12


@pytest.mark.parametrize("head", [RIDGE, COSINE], ids=lambda head: head.name)
def test_imaml_takes_a_step(batch: TaskBatch, head: Any) -> None:
    found = gradient(learner_of(head, ImamlConfig(inner_steps=3, linear_steps=20)), batch)
    assert found.isfinite().all()
    assert found.norm() > 1e-4


@pytest.mark.parametrize("head", [RIDGE, COSINE], ids=lambda head: head.name)
def test_the_scale_and_the_head_change_the_gradient(batch: TaskBatch, head: Any) -> None:
    one, scaled, linear = (
        gradient(learner_of(h, ANIL), batch) for h in (head, dataclasses.replace(head, scale=5.0), LINEAR)
    )
    assert (one - scaled).norm() > 1e-3 * one.norm()
    assert (one - linear).norm() > 1e-3 * one.norm()


@pytest.mark.parametrize("start", ["fixed", "prototype"])
def test_the_reference_is_the_gradient_of_this_heads_objective(batch: TaskBatch, start: str) -> None:
    learner = learner_of(RIDGE, with_start(EXACT, start))
    reference = exact_reference(learner.model, 0.1, start, Execution(2), losses=RIDGE.losses())
    found, expected = gradient(learner, batch), gradient(reference, batch)
    assert expected.norm() > 1e-3
    assert (found - expected).norm() < 1e-8 * expected.norm()


def test_prototypes_do_not_depend_on_the_chunk(batch: TaskBatch) -> None:
    config = with_start(EXACT, "prototype")
    one, all_ = (gradient(learner_of(LINEAR, config, chunk), batch) for chunk in (1, 5))
    assert (one - all_).norm() < 1e-12 * one.norm()


SYNTHETIC = ["dataset=synthetic", "convergence_gradient=own"]
GD = ["algorithm.inner_solver=gd", "algorithm.inner_lr=0.1", "algorithm.linear_solver=cg"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["head=cosine", "convergence_gradient=F", "algorithm=anil"], "set convergence_gradient=own"),
        (["head=cosine"], "no Hessian to factorise"),
        (["head=cosine", "algorithm=anil", "test_adaptation=exact"], "set test_adaptation=own or gd"),
        (["head=cosine", *GD], "set algorithm.head_start to learned or prototype"),
        (["head=ridge", "head.scale=0"], "above 0"),
        (["algorithm=maml", "algorithm.head_start=prototype"], "for head-only algorithms"),
        (["algorithm=imaml", "algorithm.head_start=prototype"], "is unknown"),
        (["dataset=logistic", "backbone=linear", "head=ridge"], "leave head=linear"),
    ],
)
def test_what_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        jobs([*SYNTHETIC, *overrides], False)


def test_a_run_from_before_there_were_heads() -> None:
    from memmeta_exp.config import from_dict, to_dict

    config = jobs(["dataset=synthetic"], False)[0]
    values = to_dict(config)
    del values["head"]
    assert from_dict(values) == config
