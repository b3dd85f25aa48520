"""Inputs of softmax tasks: random vectors around a centre per class."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from memmeta_exp.config.components import DatasetConfig
from memmeta_exp.config.facts import SPLITS, DatasetFacts
from memmeta_exp.config.registry import register
from memmeta_exp.config.section import option
from memmeta_exp.data.episodes import ImageSet


@register
@dataclass(frozen=True)
class LogisticConfig(DatasetConfig):
    """Softmax tasks on fixed random inputs: theta is a linear feature map, the lower level a softmax head with R."""

    has_images: ClassVar[bool] = False
    has_finite_tasks: ClassVar[bool] = True
    backbone: ClassVar[str | None] = "linear"
    name: str = "logistic"
    tasks: int = option(16, "n: number of tasks", at_least=1, at_most=2**14)
    classes: int = option(20, "number of classes; a task has `ways` of them", at_least=1, at_most=2**14)
    items: int = option(20, "inputs per class", at_least=1, at_most=2**14)
    inputs: int = option(16, "dimension of an input", at_least=1, at_most=2**14)
    heterogeneity: float = option(1.0, "standard deviation within a class over that of the class centres", at_least=0)
    seed: int = option(0, "seed of inputs and tasks, independent of the run's seed", at_least=0, at_most=2**63 - 1)

    def facts(self) -> DatasetFacts:
        return DatasetFacts(dict.fromkeys(SPLITS, self.classes), self.items, self.inputs, 1)

    def load(self, split: str, data_root: str | None) -> ImageSet:
        return load(self, split)


_CENTRE_STD = 24.0


def load(config: LogisticConfig, split: str) -> ImageSet:
    """Inputs 128 + class centre (std 24) + noise (std 24 * heterogeneity), clamped to 0..255: uint8
    [classes, items, inputs, 1, 1]. All splits are the same: there is one set of tasks."""
    generator = np.random.Generator(np.random.Philox(key=config.seed))
    centres = generator.standard_normal((config.classes, 1, config.inputs))
    noise = generator.standard_normal((config.classes, config.items, config.inputs))
    values = 128 + _CENTRE_STD * (centres + config.heterogeneity * noise)
    images = torch.from_numpy(values.round().clip(0, 255).astype(np.uint8))[..., None, None]
    return ImageSet(images.contiguous(), tuple(f"class-{i}" for i in range(config.classes)))
