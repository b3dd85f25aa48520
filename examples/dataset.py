"""A dataset as a plug-in: images of stars, drawn when the run starts.

    memmeta train 'plugins=[examples.dataset]' dataset=shapes

A class has a number of corners and a depth, the inner radius over the outer one. Its images differ in size, angle and
place. Each split has depths of its own, so that validation and test have new classes.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from PIL import Image, ImageDraw

from memmeta_exp.config import SPLITS, DatasetConfig, DatasetFacts, option, register
from memmeta_exp.data import ImageSet

CORNERS = range(3, 11)
DEPTHS = {"train": (0.3, 0.45, 0.6), "val": (0.4,), "test": (0.5,)}  # inner radius over outer radius


@register
@dataclass(frozen=True)
class ShapesConfig(DatasetConfig):
    """Stars of 3 to 10 corners, white on black, with depths that differ from split to split."""

    label: ClassVar[str] = "shapes"
    name: str = "shapes"
    image_size: int = option(28, "pixels a side", at_least=16, at_most=256)
    images_per_class: int = option(40, "number of images in a class", at_least=2, at_most=10_000)

    def facts(self) -> DatasetFacts:
        classes = {split: len(CORNERS) * len(DEPTHS[split]) for split in SPLITS}
        return DatasetFacts(classes, self.images_per_class, channels=1, image_size=self.image_size)

    def load(self, split: str, data_root: str | None) -> ImageSet:
        """uint8 [classes, images, 1, H, W], the same at every call."""
        generator = np.random.default_rng(SPLITS.index(split))
        kinds = [(corners, depth) for depth in DEPTHS[split] for corners in CORNERS]
        images = [[_drawn(self.image_size, *kind, generator) for _ in range(self.images_per_class)] for kind in kinds]
        names = tuple(f"{corners} corners, depth {depth}" for corners, depth in kinds)
        return ImageSet(torch.from_numpy(np.array(images)[:, :, None]), names)


def _drawn(size: int, corners: int, depth: float, generator: np.random.Generator) -> np.ndarray:
    """One star, uint8 [size, size]."""
    radius = size * generator.uniform(0.3, 0.45) * np.where(np.arange(2 * corners) % 2, depth, 1.0)
    angle = generator.uniform(0, 2 * np.pi) + np.pi * np.arange(2 * corners) / corners
    centre = size * generator.uniform(0.45, 0.55, 2)
    points = centre + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    image = Image.new("L", (size, size))
    ImageDraw.Draw(image).polygon([(x, y) for x, y in points.tolist()], fill=255)
    return np.asarray(image)
