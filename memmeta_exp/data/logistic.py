"""Inputs of softmax tasks: random vectors around a centre of their class."""

import numpy as np
import torch

from memmeta_exp.config.problems import LogisticConfig
from memmeta_exp.data.episodes import ImageSet

_CENTRE_STD = 24.0


def load(config: LogisticConfig, split: str) -> ImageSet:
    """Numbers 128 + centre of the class (std 24) + noise (std 24 heterogeneity), clamped to 0..255: uint8
    [classes, items, inputs, 1, 1], whatever the split, for there is one set of tasks."""
    generator = np.random.Generator(np.random.Philox(key=config.seed))
    centres = generator.standard_normal((config.classes, 1, config.inputs))
    noise = generator.standard_normal((config.classes, config.items, config.inputs))
    values = 128 + _CENTRE_STD * (centres + config.heterogeneity * noise)
    images = torch.from_numpy(values.round().clip(0, 255).astype(np.uint8))[..., None, None]
    return ImageSet(images.contiguous(), tuple(f"class-{i}" for i in range(config.classes)))
