"""The heads' sections of a configuration: what f and g are of the features."""

from dataclasses import dataclass
from typing import Any

from memmeta_exp.config.regression import RegressionHeadConfig
from memmeta_exp.config.validation import at_least
from memmeta_exp.utils.errors import ConfigError


@dataclass(frozen=True)
class LinearHeadConfig:
    """Softmax-linear: g and f are mean cross-entropies of logits W z + b, g with its R."""

    name: str = "linear"


@dataclass(frozen=True)
class RidgeHeadConfig:
    """Ridge regression on one-hot labels (R2D2, Bertinetto et al. 2019): g = mean 1/2 |W z + b - y|^2 with its R; f is
    the mean cross-entropy of the scaled outputs.

    scale: of the outputs in f.
    """

    name: str = "ridge"
    scale: float = 10.0

    def __post_init__(self) -> None:
        at_least("head.scale", self.scale, 0, strict=True)


@dataclass(frozen=True)
class CosineHeadConfig:
    """Softmax on cosine similarity (Gidaris and Komodakis 2018): logits scale <z / |z|, w_c / |w_c|>, for g and f.

    scale: of the cosines.
    """

    name: str = "cosine"
    scale: float = 10.0

    def __post_init__(self) -> None:
        at_least("head.scale", self.scale, 0, strict=True)


HEADS: dict[str, type] = {
    "linear": LinearHeadConfig,
    "ridge": RidgeHeadConfig,
    "cosine": CosineHeadConfig,
    "regression": RegressionHeadConfig,
}


def check_head(config: Any) -> None:
    """ConfigError where head, algorithm, dataset and the convergence measure do not go together."""
    head, a = config.head.name, config.algorithm
    if a.head_start == "prototype" and not a.in_feature_space:
        raise ConfigError(
            f"algorithm.head_start=prototype is for algorithms in feature space: {a.name} as configured adapts or runs "
            "the backbone in its inner steps; set algorithm.head_start to fixed or learned"
        )
    if config.known and (head != "linear" or a.head_start == "prototype"):
        raise ConfigError(
            f"dataset={config.dataset.name} has its own lower level: leave head=linear and algorithm.head_start fixed "
            "or learned"
        )
    if head == "cosine":
        _check_cosine(config)


def _check_cosine(config: Any) -> None:
    a = config.algorithm
    if config.test_adaptation == "exact":
        raise ConfigError(
            "head=cosine with test_adaptation=exact: its lower level is not convex, so there is no phi* that a solver can "
            "certify; set test_adaptation=own or gd"
        )
    if config.convergence_gradient == "F":
        raise ConfigError(
            "head=cosine with convergence_gradient=F: its lower level is not convex, so there is no F that a solver can "
            "certify; set convergence_gradient=own"
        )
    if a.name != "proposed":
        return
    if a.inner_solver != "gd" or a.inner_lr is None or a.linear_solver != "cg":
        raise ConfigError(
            "head=cosine with algorithm=proposed has no Hessian to factorise and no bound on L_g: set "
            "algorithm.inner_solver=gd algorithm.inner_lr=NUMBER algorithm.linear_solver=cg"
        )
    if a.head_start == "fixed":
        raise ConfigError(
            "head=cosine with algorithm=proposed algorithm.head_start=fixed: R around 0 shrinks weights whose length a "
            "cosine does not see, for ever; set algorithm.head_start to learned or prototype"
        )
