"""The sections of few-shot regression: tasks drawn from a formula, without images and without classes."""

from dataclasses import dataclass, field, fields
from typing import Any

from memmeta_exp.config.facts import DatasetFacts
from memmeta_exp.config.validation import at_least, at_most
from memmeta_exp.utils.errors import ConfigError

MAX_LAYERS = 16
MAX_WIDTH = 65536


@dataclass(frozen=True)
class SinusoidConfig:
    """Sine waves of random amplitude and phase (Finn et al. 2017): regression of shots points a task, metric MSE."""

    name: str = "sinusoid"

    def facts(self) -> DatasetFacts:
        """One number in, and no classes."""
        return DatasetFacts({}, 0, 1, 1)


@dataclass(frozen=True)
class MlpConfig:
    """A multilayer perceptron, ReLU after each layer; images are flattened.

    hidden: widths, 1 to 16 of them; features are those of the last. [40, 40] with the head is the regressor of Finn et
    al. 2017.
    """

    name: str = "mlp"
    hidden: list[int] = field(default_factory=lambda: [40, 40])

    def __post_init__(self) -> None:
        if not 1 <= len(self.hidden) <= MAX_LAYERS:
            raise ConfigError(f"backbone.hidden={self.hidden} has {len(self.hidden)} widths: give 1 to {MAX_LAYERS}")
        for width in self.hidden:
            at_least("backbone.hidden", width, 1)
            at_most("backbone.hidden", width, MAX_WIDTH)

    @property
    def norm(self) -> str:
        return "none"


@dataclass(frozen=True)
class RegressionHeadConfig:
    """Linear regression: g = mean 1/2 |W z + b - y|^2 with its R, f = mean |W z + b - y|^2. For dataset=sinusoid."""

    name: str = "regression"


REGRESSION: dict[str, type] = {"sinusoid": SinusoidConfig}


def check_regression(config: Any) -> None:
    """ConfigError where what is for regression and what is for classes meet."""
    dataset, head = config.dataset.name, config.head.name
    if not config.regression:
        if head == "regression":
            raise ConfigError(f"head=regression is for dataset=sinusoid, and {dataset} has classes: set head=linear")
        if getattr(config.algorithm, "inner_steps", 1) == 0:
            raise ConfigError(
                "algorithm.inner_steps=0 is training on all tasks at once, which classes that differ from task to task "
                "do not allow (dataset=sinusoid does): set algorithm.inner_steps to 1 or more"
            )
        return
    if config.backbone.name != "mlp":
        raise ConfigError(
            f"backbone={config.backbone.name} is not for dataset={dataset}, which has one number where images have "
            "pixels: set backbone=mlp"
        )
    if head != "regression":
        raise ConfigError(f"head={head} classifies, and dataset={dataset} is regression: set head=regression")
    if config.algorithm.head_start == "prototype":
        raise ConfigError(
            f"algorithm.head_start=prototype is the means of classes, and dataset={dataset} has none: set "
            "algorithm.head_start to fixed or learned"
        )
    default = next(f.default for f in fields(config) if f.name == "ways")
    for key, ways, unset in (("ways", config.ways, default), ("training.ways", config.training.ways, None)):
        if ways != unset:
            raise ConfigError(f"{key}={ways} is a number of classes, and dataset={dataset} has none: leave {key} out")
