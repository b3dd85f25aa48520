"""What a dataset has to be."""

from dataclasses import dataclass

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class DatasetFacts:
    """What is known of a dataset before it is loaded: classes per split, images per class, image shape.

    images: per split, where classes differ in size; images_per_class is then that of the smallest.
    """

    classes: dict[str, int]
    images_per_class: int
    channels: int
    image_size: int
    images: dict[str, int] | None = None

    def shape(self, split: str) -> tuple[int, ...]:
        """[classes, images, C, H, W], or [images, C, H, W] where classes differ in size."""
        image = (self.channels, self.image_size, self.image_size)
        if self.images is not None:
            return (self.images[split], *image)
        return (self.classes[split], self.images_per_class, *image)
