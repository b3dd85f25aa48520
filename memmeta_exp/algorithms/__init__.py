"""Meta-learning algorithms: each a choice of objective, inner solver, linear solver and hypergradient."""

from memmeta_exp.algorithms.baseline import BaselineLearner
from memmeta_exp.algorithms.builder import build_algorithm
from memmeta_exp.algorithms.feature_space import FeatureGradient, FeatureSpaceLearner
from memmeta_exp.algorithms.imaml import Imaml
from memmeta_exp.algorithms.learner import Adapt, Execution, Learner
from memmeta_exp.algorithms.maml import Maml
from memmeta_exp.algorithms.proposed import Proposed, exact_reference
from memmeta_exp.algorithms.step_report import StepReport
from memmeta_exp.algorithms.unrolled import Unrolled
from memmeta_exp.algorithms.weight_space import WeightSpaceLearner

__all__ = [
    "Adapt",
    "BaselineLearner",
    "Execution",
    "FeatureGradient",
    "FeatureSpaceLearner",
    "Imaml",
    "Learner",
    "Maml",
    "Proposed",
    "StepReport",
    "Unrolled",
    "WeightSpaceLearner",
    "build_algorithm",
    "exact_reference",
]
