"""From configuration to algorithm."""

from typing import Any

import torch

from memmeta_exp.algorithms.feature_space import FeatureSpaceLearner, Rule
from memmeta_exp.algorithms.proposed import Proposed
from memmeta_exp.algorithms.unrolled import Unrolled
from memmeta_exp.backbones import MetaModel
from memmeta_exp.config import ProposedConfig

RULES = {"proposed": Proposed, "anil": Unrolled, "itd_bio": Unrolled}


def build_algorithm(config: Any, model: MetaModel, chunk: int, bf16: bool) -> FeatureSpaceLearner:
    """The learner that an algorithm configuration describes."""
    rule: Rule = RULES[config.name](config)
    return FeatureSpaceLearner(model, rule, chunk, bf16)


def exact_reference(model: MetaModel, mu: float, learned: bool, chunk: int) -> FeatureSpaceLearner:
    """grad F with the lower level and the linear system solved in float64, whatever algorithm trains theta and however
    accurately: what convergence/grad_norm_sq is measured by. The backbone runs in its own precision, never autocast."""
    start = "learned" if learned else "fixed"
    rule = Proposed(
        ProposedConfig(mu=mu, inner_steps=50, inner_tolerance=1e-9, linear_tolerance=1e-8, head_start=start)
    )
    return FeatureSpaceLearner(model, rule, chunk, head_dtype=torch.float64)
