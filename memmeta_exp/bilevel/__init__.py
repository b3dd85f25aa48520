"""Bilevel optimisation on torch tensors, as pure functions: no configuration, files, logging or `.grad`.

Everything is batched over T independent tasks. A vector is a tuple of tensors whose first axis is the task. Each scalar
of a solve (step size, residual, steps) is a tensor [T].
"""

from memmeta_exp.bilevel.cosine_head import CosineHead, prototypes
from memmeta_exp.bilevel.hypergradient import Hypergradient, implicit
from memmeta_exp.bilevel.inner_solve import gradient_descent, newton
from memmeta_exp.bilevel.linear_head import LinearHead, RidgeHead, ScaledSoftmax, SoftmaxHead, SquaredError
from memmeta_exp.bilevel.linear_solve import cg, direct
from memmeta_exp.bilevel.logit_losses import CrossEntropy, LogitLoss, Squares
from memmeta_exp.bilevel.objectives import AutogradLower, Lower, Upper
from memmeta_exp.bilevel.quadratic import QuadraticLower, QuadraticObjective, QuadraticTasks, QuadraticUpper
from memmeta_exp.bilevel.support_space import HeadGradient, SupportSpace, head_hypergradient
from memmeta_exp.bilevel.vectors import Solution, Vector

__all__ = [
    "AutogradLower",
    "CosineHead",
    "CrossEntropy",
    "HeadGradient",
    "Hypergradient",
    "LinearHead",
    "LogitLoss",
    "Lower",
    "QuadraticLower",
    "QuadraticObjective",
    "QuadraticTasks",
    "QuadraticUpper",
    "RidgeHead",
    "ScaledSoftmax",
    "SoftmaxHead",
    "Solution",
    "SquaredError",
    "Squares",
    "SupportSpace",
    "Upper",
    "Vector",
    "cg",
    "direct",
    "gradient_descent",
    "head_hypergradient",
    "implicit",
    "newton",
    "prototypes",
]
