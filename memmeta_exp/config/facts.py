"""What is known of a dataset before it is loaded: its classes, image counts and image shape."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SPLITS = ("train", "val", "test")


def uneven(counts: Sequence[int]) -> bool:
    """Whether the classes of a split, of `counts` images each, differ in size.

    Such a split is stored as [images, C, H, W]; a split of equal classes as [classes, images, C, H, W].
    """
    return len(set(counts)) > 1


@dataclass(frozen=True)
class DatasetFacts:
    """Classes per split, images per class, image shape.

    images_per_class: images of the smallest class of all splits.
    images: all images of a split, for splits whose classes differ in size.
    least: images of the smallest class of a split; a split that is missing has `images_per_class`.
    smallest_class: the name of the smallest class of a split, if it is known.
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
        """[classes, images, C, H, W], or [images, C, H, W] if the classes of `split` differ in size."""
        image = (self.channels, self.image_size, self.image_size)
        if split in self.images:
            return (self.images[split], *image)
        return (self.classes[split], self.smallest(split), *image)


def channels_and_size(dataset: Any) -> tuple[int, int]:
    """Channels and side (pixels) of a dataset's images.

    They are keys of a dataset of the user's own files, and facts of any other. Reads no file for the former.
    """
    if hasattr(dataset, "channels") and hasattr(dataset, "image_size"):
        return dataset.channels, dataset.image_size
    facts = dataset.facts()
    return facts.channels, facts.image_size


def counted(counts: Mapping[str, Mapping[str, int]], channels: int, image_size: int) -> DatasetFacts:
    """The facts of a dataset whose `counts` are {split: {class: images}}."""
    classes = {split: len(of_split) for split, of_split in counts.items()}
    smallest = {split: min(of_split, key=of_split.__getitem__) for split, of_split in counts.items()}
    least = {split: counts[split][name] for split, name in smallest.items()}
    images = {split: sum(c.values()) for split, c in counts.items() if uneven(list(c.values()))}
    return DatasetFacts(classes, min(least.values()), channels, image_size, images, least, smallest)
