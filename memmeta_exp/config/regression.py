"""The sections of few-shot regression: tasks drawn from a formula, without images and without classes."""

from dataclasses import dataclass
from typing import ClassVar

from memmeta_exp.config.components import DatasetConfig
from memmeta_exp.config.facts import DatasetFacts
from memmeta_exp.config.registry import register


@register
@dataclass(frozen=True)
class SinusoidConfig(DatasetConfig):
    """Sine waves of random amplitude and phase (Finn et al. 2017): regression of shots points a task, metric MSE."""

    has_images: ClassVar[bool] = False
    has_classes: ClassVar[bool] = False
    is_regression: ClassVar[bool] = True
    backbone: ClassVar[str | None] = "mlp"
    head: ClassVar[str | None] = "regression"
    name: str = "sinusoid"

    def facts(self) -> DatasetFacts:
        """One number in, and no classes."""
        return DatasetFacts({}, 0, 1, 1)
