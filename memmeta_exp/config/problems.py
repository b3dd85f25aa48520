"""The `dataset` sections of analytic problems: finite sets of tasks, without images."""

from dataclasses import dataclass
from typing import ClassVar

from memmeta_exp.config.components import DatasetConfig
from memmeta_exp.config.facts import SPLITS, DatasetFacts
from memmeta_exp.config.registry import register
from memmeta_exp.config.section import option
from memmeta_exp.utils.errors import ConfigError

MAX_NUMBERS = 2**28  # of all S_i together: 2 GiB


@register
@dataclass(frozen=True)
class QuadraticConfig(DatasetConfig):
    """Quadratic tasks, on which F, its gradient and its minimiser are known in closed form.

    data/quadratic.py has the formulas.
    """

    has_images: ClassVar[bool] = False
    has_finite_tasks: ClassVar[bool] = True
    has_classes: ClassVar[bool] = False
    knows_smoothness: ClassVar[bool] = True
    modulus: ClassVar[float] = 1.0
    backbone: ClassVar[str | None] = "none"
    name: str = "quadratic"
    tasks: int = option(16, "n, all there are", at_least=1)
    dim_theta: int = option(10, "p, numbers in theta", at_least=1)
    dim_phi: int = option(20, "q, numbers in phi", at_least=2)
    kappa: float = option(
        10.0, "L_g over g's modulus, which is 1, as long as algorithm.mu is 0 (it adds to both)", at_least=1
    )
    heterogeneity: float = option(1.0, "how far tasks differ in all but their spectra; 0: not at all", at_least=0)
    seed: int = option(0, "of the tasks, which are the same whatever the run's seed", at_least=0, at_most=2**63 - 1)

    def check(self) -> None:
        numbers = self.tasks * self.dim_phi * (self.dim_phi + self.dim_theta)
        if numbers > MAX_NUMBERS:
            raise ConfigError(
                f"dataset=quadratic would take {numbers / 2**27:.0f} GiB; lower dataset.tasks, dim_phi or dim_theta to "
                "stay below 2 GiB"
            )


@register
@dataclass(frozen=True)
class LogisticConfig(DatasetConfig):
    """Softmax tasks on fixed random inputs: theta is a linear feature map, the lower level a softmax head with R."""

    has_images: ClassVar[bool] = False
    has_finite_tasks: ClassVar[bool] = True
    backbone: ClassVar[str | None] = "linear"
    name: str = "logistic"
    tasks: int = option(16, "n, all there are", at_least=1, at_most=2**14)
    classes: int = option(20, "classes, of which each task has `ways`", at_least=1, at_most=2**14)
    items: int = option(20, "inputs of a class", at_least=1, at_most=2**14)
    inputs: int = option(16, "dimension of an input", at_least=1, at_most=2**14)
    heterogeneity: float = option(1.0, "spread within a class over spread of the classes", at_least=0)
    seed: int = option(0, "of inputs and tasks, whatever the run's seed", at_least=0, at_most=2**63 - 1)

    def facts(self) -> DatasetFacts:
        return DatasetFacts(dict.fromkeys(SPLITS, self.classes), self.items, self.inputs, 1)
