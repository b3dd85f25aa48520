"""The sections of problems on which the truth is known: finite sets of tasks, without images."""

from dataclasses import dataclass
from typing import Any

from memmeta_exp.config.facts import SPLITS, DatasetFacts
from memmeta_exp.config.validation import at_least, at_most, one_of
from memmeta_exp.utils.errors import ConfigError

MAX_NUMBERS = 2**28  # of all S_i together: 2 GiB


@dataclass(frozen=True)
class QuadraticConfig:
    """Quadratic tasks, on which F, its gradient and its minimiser are known in closed form.

    data/quadratic.py has the formulas.

    tasks: n, all there are; dim_theta: p, numbers in theta; dim_phi: q, numbers in phi; kappa: L_g over g's modulus,
    which is 1, as long as algorithm.mu is 0 (it adds to both); heterogeneity: how far tasks differ in all but their
    spectra; 0: not at all; seed: of the tasks, which are the same whatever the run's seed.
    """

    name: str = "quadratic"
    tasks: int = 16
    dim_theta: int = 10
    dim_phi: int = 20
    kappa: float = 10.0
    heterogeneity: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for key, least in (("tasks", 1), ("dim_theta", 1), ("dim_phi", 2), ("seed", 0), ("heterogeneity", 0)):
            at_least(f"dataset.{key}", getattr(self, key), least)
        at_least("dataset.kappa", self.kappa, 1)
        at_most("dataset.seed", self.seed, 2**63 - 1)
        numbers = self.tasks * self.dim_phi * (self.dim_phi + self.dim_theta)
        if numbers > MAX_NUMBERS:
            raise ConfigError(
                f"dataset=quadratic would take {numbers / 2**27:.0f} GiB; lower dataset.tasks, dim_phi or dim_theta to "
                "stay below 2 GiB"
            )

    @property
    def modulus(self) -> float:
        """Of g without R."""
        return 1.0


@dataclass(frozen=True)
class LogisticConfig:
    """Softmax tasks on fixed random inputs: theta is a linear feature map, the lower level a softmax head with R.

    tasks: n, all there are; classes: of which each task has `ways`; items: inputs of a class; inputs: the dimension of
    one; heterogeneity: spread within a class over spread of the classes; seed: of inputs and tasks, whatever the run's
    seed.
    """

    name: str = "logistic"
    tasks: int = 16
    classes: int = 20
    items: int = 20
    inputs: int = 16
    heterogeneity: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for key in ("tasks", "classes", "items", "inputs"):
            at_least(f"dataset.{key}", getattr(self, key), 1)
            at_most(f"dataset.{key}", getattr(self, key), 2**14)
        at_least("dataset.heterogeneity", self.heterogeneity, 0)
        at_least("dataset.seed", self.seed, 0)
        at_most("dataset.seed", self.seed, 2**63 - 1)

    def facts(self) -> DatasetFacts:
        return DatasetFacts(dict.fromkeys(SPLITS, self.classes), self.items, self.inputs, 1)

    @property
    def modulus(self) -> float:
        """Of g without R, which is convex and no more."""
        return 0.0


@dataclass(frozen=True)
class NoBackboneConfig:
    """dataset=quadratic has theta itself where others have features."""

    name: str = "none"

    @property
    def norm(self) -> str:
        return "none"


@dataclass(frozen=True)
class LinearConfig:
    """A linear map, for dataset=logistic.

    features: how many it has.
    """

    name: str = "linear"
    features: int = 8

    def __post_init__(self) -> None:
        at_least("backbone.features", self.features, 1)
        at_most("backbone.features", self.features, 4096)

    @property
    def norm(self) -> str:
        return "none"


ANALYTIC: dict[str, dict[str, type]] = {
    "dataset": {"quadratic": QuadraticConfig, "logistic": LogisticConfig},
    "backbone": {"none": NoBackboneConfig, "linear": LinearConfig},
}
BACKBONE_OF = {"quadratic": "none", "logistic": "linear"}


def check_problem(config: Any) -> None:
    """ConfigError where dataset, backbone, sampling, precision and step do not go together."""
    dataset, backbone = config.dataset.name, config.backbone.name
    one_of("sampling", config.sampling, ("random", "all"))
    wanted = BACKBONE_OF.get(dataset)
    if wanted is not None and backbone != wanted:
        raise ConfigError(f"dataset={dataset} has no images for backbone={backbone}: set backbone={wanted}")
    if wanted is None and backbone in BACKBONE_OF.values():
        owner = next(name for name, its in BACKBONE_OF.items() if its == backbone)
        raise ConfigError(f"backbone={backbone} is for dataset={owner}, not for images: set backbone=conv4")
    if wanted is None and config.sampling == "all":
        raise ConfigError(
            f"sampling=all needs a finite set of tasks, which dataset={dataset} has not: use quadratic or logistic"
        )
    if config.sampling == "all" and config.batch_size != config.dataset.tasks:
        raise ConfigError(
            f"sampling=all takes all {config.dataset.tasks} tasks an iteration, not batch_size={config.batch_size}: "
            f"set batch_size={config.dataset.tasks}"
        )
    if config.optimizer.lr is None and (dataset != "quadratic" or config.optimizer.name != "sgd"):
        raise ConfigError(
            "optimizer.lr=null is 1/L_F, the step of optimizer=sgd where F's smoothness is known (dataset=quadratic); "
            f"not with optimizer={config.optimizer.name} dataset={dataset}: set optimizer.lr"
        )
    if wanted is not None:
        _check_no_images(config)


def _check_no_images(config: Any) -> None:
    name = config.dataset.name
    if config.precision == "bf16":
        raise ConfigError(f"precision=bf16 is for networks: dataset={name} takes precision=fp32 or fp64")
    if config.test_adaptation != "own":
        raise ConfigError(
            f"test_adaptation={config.test_adaptation} is for accuracy on held-out tasks, and dataset={name} has none: leave "
            "test_adaptation=own"
        )
    if config.memory.checkpoint == "block":
        raise ConfigError(f"memory.checkpoint=block is for networks: leave it none with dataset={name}")
    if config.memory.budget_mib is not None:
        raise ConfigError(f"memory.budget_mib is for networks: leave it null with dataset={name}")
