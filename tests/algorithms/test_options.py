"""Every option of every algorithm and head changes what is computed."""

from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from memmeta_exp.algorithms.baseline import BaselineConfig
from memmeta_exp.algorithms.imaml import ImamlConfig
from memmeta_exp.algorithms.losses import CosineHeadConfig, LinearHeadConfig, RidgeHeadConfig
from memmeta_exp.algorithms.maml import FomamlConfig, MamlConfig
from memmeta_exp.algorithms.proposed import ProposedConfig
from memmeta_exp.algorithms.unrolled import AnilConfig, ItdBioConfig
from memmeta_exp.config import options
from tests.algorithms.problems import gradient, image_tasks, smooth_learner

PROPOSED = ProposedConfig(
    mu=0.05, inner_solver="gd", inner_steps=5, inner_tolerance=1e-12, linear_solver="cg", linear_steps=5,
    linear_tolerance=1e-12,
)  # fmt: skip
UNROLLED = {"mu": 0.5, "inner_steps": 5, "inner_lr": 0.1, "head_start": "fixed", "first_order": True}
CHANGES: dict[str, tuple[Any, dict[str, Any]]] = {  # a configuration in which each option counts, and other values
    "proposed": (PROPOSED, {
        "mu": 0.5, "inner_solver": "newton", "inner_steps": 1, "inner_lr": 0.01, "inner_tolerance": 1.0,
        "inner_warm_start": True, "linear_solver": "direct", "linear_steps": 1, "linear_tolerance": 0.5,
        "linear_warm_start": True, "head_start": "learned",
    }),
    "anil": (AnilConfig(features="recompute", inner_steps=4, inner_lr=0.5), UNROLLED | {"adapted_params": "all"}),
    "itd_bio": (ItdBioConfig(features="recompute", inner_steps=4, inner_lr=0.5),
                UNROLLED | {"adapted_params": "all", "head_start": "learned"}),
    "maml": (MamlConfig(inner_steps=3, inner_lr=0.4), UNROLLED | {"adapted_params": "head"}),
    "fomaml": (FomamlConfig(inner_steps=3, inner_lr=0.4),
               UNROLLED | {"adapted_params": "head", "first_order": False}),
    "imaml": (ImamlConfig(), {
        "lam": 1.0, "inner_steps": 3, "inner_lr": 0.2, "linear_steps": 1, "linear_tolerance": 0.5, "damping": 1.0,
        "head_start": "fixed",
    }),
    "baseline": (BaselineConfig(classifier="cosine"), {
        "classifier": "linear", "scale": 5.0, "power": 0.5, "mu": 1.0, "inner_steps": 1, "inner_tolerance": 1.0,
    }),
}  # fmt: skip
NO_NUMBER = ("name", "features")  # of the latter tests/algorithms/gradients/limits.py says that it changes none


def outcome(config: Any, head: Any = None) -> Tensor:
    """The gradient of a second step on the same tasks, which a warm start changes, and the losses that `evaluate`
    reports."""
    learner, batch = smooth_learner(config, head=head), image_tasks(3)
    gradient(learner, batch)
    return torch.cat([gradient(learner, batch), learner.evaluate(batch)[1]])


@pytest.mark.parametrize("algorithm", options("algorithm"))
def test_every_option_changes_something(algorithm: str) -> None:
    base, changes = CHANGES[algorithm]
    assert set(changes) == {f.name for f in fields(base)} - set(NO_NUMBER), "enter the option that came, or went"
    plain = outcome(base)
    for key, value in changes.items():
        other = outcome(replace(base, **{key: value}))
        same = other.shape == plain.shape and (other - plain).abs().max() <= 1e-6 * plain.abs().max()
        assert not same, key


@pytest.mark.parametrize("head", [RidgeHeadConfig(scale=3.0), CosineHeadConfig(scale=3.0)], ids=lambda head: head.name)
def test_the_head_and_its_scale_change_something(head: Any) -> None:
    anil = AnilConfig(inner_steps=3, inner_lr=0.5)
    one, scaled, linear = (outcome(anil, h) for h in (head, replace(head, scale=5.0), LinearHeadConfig()))
    assert (one - scaled).norm() > 1e-3 * one.norm()
    assert (one - linear).norm() > 1e-3 * one.norm()
