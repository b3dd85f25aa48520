"""Meta-learning algorithms: each a choice of objective, inner solver, linear solver and hypergradient."""

from memmeta_exp.algorithms.feature_space import FeatureGradient, FeatureSpaceLearner, StepReport
from memmeta_exp.algorithms.proposed import Proposed
from memmeta_exp.algorithms.registry import build_algorithm, exact_reference
from memmeta_exp.algorithms.unrolled import Unrolled

__all__ = [
    "FeatureGradient",
    "FeatureSpaceLearner",
    "Proposed",
    "StepReport",
    "Unrolled",
    "build_algorithm",
    "exact_reference",
]
