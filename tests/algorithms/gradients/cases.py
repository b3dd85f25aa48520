"""Registers the cases of the table of gradients, and builds the algorithms that most cases use.

A case returns (found, reference, tolerance). The reference does not use the algorithm's code.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from memmeta_exp.algorithms.baseline import BaselineConfig
from memmeta_exp.algorithms.imaml import ImamlConfig
from memmeta_exp.algorithms.losses import CosineHeadConfig, LinearHeadConfig, RidgeHeadConfig
from memmeta_exp.algorithms.maml import FomamlConfig, MamlConfig
from memmeta_exp.algorithms.proposed import ProposedConfig
from memmeta_exp.algorithms.unrolled import AnilConfig, ItdBioConfig

Compared = tuple[Tensor, Tensor, float]  # found, reference, and by how much they may differ, relative to its largest
REFERENCES = ("closed form", "by hand", "differences", "limit")
CASES: dict[tuple[str, str], dict[str, Callable[[], Compared]]] = {}

LINEAR, RIDGE, COSINE = LinearHeadConfig(), RidgeHeadConfig(scale=3.0), CosineHeadConfig(scale=3.0)
EXACT = ProposedConfig(mu=0.05, inner_tolerance=1e-12, inner_steps=60, linear_tolerance=1e-10)
NO_HESSIAN = replace(  # for a head that has neither a factorisation nor a bound on L_g
    EXACT, mu=1.0, inner_solver="gd", inner_steps=400, inner_lr=0.1, linear_solver="cg", linear_steps=60
)
ANIL = AnilConfig(inner_steps=4, inner_lr=0.5)
ITD_BIO = ItdBioConfig(mu=0.1, inner_steps=4, inner_lr=0.5)
MAML = MamlConfig(inner_steps=3, inner_lr=0.4)
FOMAML = FomamlConfig(inner_steps=3, inner_lr=0.4)
SOLVED = ImamlConfig(lam=20.0, inner_steps=24, inner_lr=0.04, linear_steps=60, linear_tolerance=1e-11)
BASELINE, COSINES = BaselineConfig(), BaselineConfig(classifier="cosine", scale=7.0)


def case(algorithm: str, reference: str, **variants: Any) -> Callable[[Any], Any]:
    """Decorator: registers a function as the case `variant` for each argument. An argument (value, "slow") is a slow
    check."""

    def enter(function: Callable[..., Compared]) -> Callable[..., Compared]:
        cases = CASES.setdefault((algorithm, reference), {})
        for variant, argument in variants.items():
            name = f"{function.__name__.strip('_')}, {variant}"
            assert name not in cases, name
            cases[name] = partial(function, *argument) if isinstance(argument, tuple) else partial(function, argument)
        return function

    return enter
