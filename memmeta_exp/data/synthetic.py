"""Random images with a class-dependent mean: a dataset of any size, generated in memory."""

import logging
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from memmeta_exp.config import SPLITS
from memmeta_exp.data.datasets import SyntheticConfig
from memmeta_exp.data.episodes import ImageSet
from memmeta_exp.utils.errors import DataError

GIB = 2**30
WORTH_SAYING = 2**30  # bytes from which the cost is logged
PIXELS_PER_SECOND = 5e7  # approximate speed of generation on one core
CGROUP = Path("/sys/fs/cgroup")
_PATTERN_SIZE = 4
_PATTERN_STD = 24.0
_NOISE_STD = 48.0
_BLOCK_PIXELS = 2**22  # drawn at once: 16 MiB of noise

logger = logging.getLogger("memmeta")


def require(config: SyntheticConfig) -> None:
    """Raises DataError if the images of all splits do not fit in this machine's memory. Logs the cost of large ones."""
    images = config.classes * config.images_per_class
    bytes_ = len(SPLITS) * images * config.channels * config.image_size**2
    free = free_memory()
    cost = (
        f"dataset=synthetic draws {len(SPLITS)} x {images:,} images, {bytes_ / GIB:.1f} GiB in memory, "
        f"about {bytes_ / PIXELS_PER_SECOND:.0f} s"
    )
    if free is not None and bytes_ > free:
        raise DataError(
            f"{cost}, and {free / GIB:.1f} GiB are free: lower dataset.classes, images_per_class, channels or "
            "image_size"
        )
    if bytes_ > WORTH_SAYING:
        logger.info("%s", cost)


def free_memory() -> int | None:
    """Bytes of memory that this process may still use: the machine's available memory, limited by its control group.
    None if the system does not report it."""
    found = []
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    with suppress(OSError, ValueError):
        limit, used = (int((CGROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        found.append(limit - used)
    with suppress(OSError, ValueError):
        if not found:
            found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(found, default=None)


def load(config: SyntheticConfig, split: str) -> ImageSet:
    """Pixels 128 + class pattern (4x4 Gaussian, bilinear, std 24) + noise (std 48), clamped to 0..255: uint8 [classes,
    images_per_class, channels, size, size].

    They are drawn from NumPy's Philox with one key per split, so they are equal on every machine.
    """
    generator = np.random.Generator(np.random.Philox(key=SPLITS.index(split)))
    size, names = config.image_size, tuple(f"{split}-{i}" for i in range(config.classes))
    shape = (config.classes, config.channels, _PATTERN_SIZE, _PATTERN_SIZE)
    coarse = torch.from_numpy(generator.standard_normal(shape, dtype=np.float32))
    images = torch.empty((config.classes, config.images_per_class, config.channels, size, size), dtype=torch.uint8)
    block = max(1, _BLOCK_PIXELS // images[0].numel())
    for drawn, means in zip(images.split(block), coarse.split(block), strict=True):
        drawn.copy_(_noisy(_pattern(means, size), drawn.shape[1], generator))
    return ImageSet(images, names)


def _pattern(coarse: Tensor, size: int) -> Tensor:
    """The mean image of each class: [classes, channels, size, size]."""
    return 128 + _PATTERN_STD * F.interpolate(coarse, size=(size, size), mode="bilinear")


def _noisy(patterns: Tensor, count: int, generator: np.random.Generator) -> Tensor:
    """`count` noisy images of each class: [classes, count, channels, size, size]."""
    classes, *image = patterns.shape
    noise = torch.from_numpy(generator.standard_normal((classes, count, *image), dtype=np.float32))
    return noise.mul_(_NOISE_STD).add_(patterns[:, None]).clamp_(0, 255)
