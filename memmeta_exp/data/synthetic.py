"""Random images with a class-dependent mean: a dataset of any size with nothing to read."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from memmeta_exp.config import SPLITS
from memmeta_exp.config.datasets import SyntheticConfig
from memmeta_exp.data.episodes import ImageSet

_PATTERN_SIZE = 4
_PATTERN_STD = 24.0
_NOISE_STD = 48.0


def load(config: SyntheticConfig, split: str) -> ImageSet:
    """Pixels 128 + pattern of the class (4x4 Gaussian, bilinear, std 24) + noise (std 48), clamped to 0..255.

    The bits are those of NumPy's Philox with a key per split, so they are the same on every machine.
    """
    generator = np.random.Generator(np.random.Philox(key=SPLITS.index(split)))
    size, names = config.image_size, tuple(f"{split}-{i}" for i in range(config.classes))
    shape = (config.classes, config.channels, _PATTERN_SIZE, _PATTERN_SIZE)
    coarse = torch.from_numpy(generator.standard_normal(shape, dtype=np.float32))
    patterns = 128 + _PATTERN_STD * F.interpolate(coarse, size=(size, size), mode="bilinear")
    images = torch.empty((config.classes, config.images_per_class, config.channels, size, size), dtype=torch.uint8)
    for image_class, pattern in zip(images, patterns, strict=True):
        image_class.copy_(_noisy(pattern, len(image_class), generator))
    return ImageSet(images, names)


def _noisy(pattern: Tensor, count: int, generator: np.random.Generator) -> Tensor:
    noise = torch.from_numpy(generator.standard_normal((count, *pattern.shape), dtype=np.float32))
    return noise.mul_(_NOISE_STD).add_(pattern).clamp_(0, 255)
