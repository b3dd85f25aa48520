"""What a dataset has to be."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SPLITS = ("train", "val", "test")


def uneven(counts: Sequence[int]) -> bool:
    """Whether classes of `counts` images differ in size. A split of them is a row of images, [images, C, H, W]; any
    other split is [classes, images, C, H, W]. Each split is decided by its own classes."""
    return len(set(counts)) > 1


@dataclass(frozen=True)
class DatasetFacts:
    """What is known of a dataset before it is loaded: classes per split, images per class, image shape.

    images_per_class: those of the smallest class; least: those of the smallest class of a split, where splits differ;
    images: all images of a split, where its classes differ in size; smallest_class: its name, by split, where it is
    known.
    """

    classes: dict[str, int]
    images_per_class: int
    channels: int
    image_size: int
    images: dict[str, int] = field(default_factory=dict)
    least: dict[str, int] = field(default_factory=dict)
    smallest_class: dict[str, str] = field(default_factory=dict)

    def smallest(self, split: str) -> int:
        """Images of the smallest class of `split`."""
        return self.least.get(split, self.images_per_class)

    def total(self, split: str) -> int:
        """Images of `split`."""
        return self.images.get(split, self.classes[split] * self.smallest(split))

    def shape(self, split: str) -> tuple[int, ...]:
        """[classes, images, C, H, W], or [images, C, H, W] where the classes of `split` differ in size."""
        image = (self.channels, self.image_size, self.image_size)
        if split in self.images:
            return (self.images[split], *image)
        return (self.classes[split], self.smallest(split), *image)


def channels_and_size(dataset: Any) -> tuple[int, int]:
    """Channels and side of the images of a dataset. They are its own keys where it is read from files that nothing is
    known of, so that they are known without the files."""
    if hasattr(dataset, "channels") and hasattr(dataset, "image_size"):
        return dataset.channels, dataset.image_size
    facts = dataset.facts()
    return facts.channels, facts.image_size


def counted(counts: Mapping[str, Mapping[str, int]], channels: int, image_size: int) -> DatasetFacts:
    """The facts of a dataset from its images: {split: {class: images}}."""
    classes = {split: len(of_split) for split, of_split in counts.items()}
    smallest = {split: min(of_split, key=of_split.__getitem__) for split, of_split in counts.items()}
    least = {split: counts[split][name] for split, name in smallest.items()}
    images = {split: sum(c.values()) for split, c in counts.items() if uneven(list(c.values()))}
    return DatasetFacts(classes, min(least.values()), channels, image_size, images, least, smallest)
