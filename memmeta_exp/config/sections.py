"""The sections of config.yaml that are not groups of options: memory, training, images."""

from dataclasses import dataclass
from typing import ClassVar

from memmeta_exp.config.section import Section, option


@dataclass(frozen=True)
class MemoryConfig(Section):
    """Trades computation for memory: what is recomputed, or computed in parts"""

    group: ClassVar[str] = "memory"
    mode: str = option(
        "task",
        "task: keeps the graphs of a task's support and query halves together; half_task: keeps one half's graph at a "
        "time, for one more forward pass of the support half; images: keeps the graph of images_per_pass images at a "
        "time, for one more forward pass, if no image's features depend on other images (half_task and images: "
        "head-only algorithms)",
        choices=("task", "half_task", "images"),
    )
    images_per_pass: int = option(8, "images of a task in one backbone pass, with mode=images", at_least=1)
    checkpoint: str = option(
        "none",
        "none: keeps all graphs; inner_step: keeps the graph of one inner step at a time (maml; anil and itd_bio with "
        "features=recompute); block: keeps the input of each backbone block and recomputes the block (head-only "
        "algorithms)",
        choices=("none", "inner_step", "block"),
    )
    budget_mib: float | None = option(
        None,
        "MiB; chooses tasks_per_pass, mode and checkpoint so that memory/peak_mib stays below it; null: no budget",
        above=0,
    )


@dataclass(frozen=True)
class TrainingConfig(Section):
    """The shape of training tasks and of the tasks on which convergence is measured, if it differs from validation and
    test"""

    group: ClassVar[str] = "training"
    ways: int | None = option(
        None,
        "classes of a training task; null: ways; more than ways can improve the features (Snell et al. 2017)",
        at_least=2,
    )
    shots: int | None = option(None, "support images per class; null: shots", at_least=1)
    queries: int | None = option(None, "query images per class; null: queries", at_least=1)


@dataclass(frozen=True)
class ImagesConfig(Section):
    """Normalisation and augmentation of images before the backbone"""

    group: ClassVar[str] = "images"
    normalise: str = option(
        "none",
        "none: pixels in [0, 1]; dataset: each channel to mean 0 and standard deviation 1 over the training split; "
        "imagenet: by the published constants of ImageNet",
        choices=("none", "dataset", "imagenet"),
    )
    crop_padding: int = option(
        0, "pixels of zero padding around a training image before a random crop of the original size", at_least=0
    )
    flip: bool = option(False, "flip training images left to right with probability 1/2")
    brightness: float = option(
        0.0, "x: scales a training image by a random factor in [1 - x, 1 + x]", at_least=0, at_most=1
    )
    contrast: float = option(
        0.0,
        "x: scales a training image about its mean grey by a random factor in [1 - x, 1 + x]",
        at_least=0,
        at_most=1,
    )
    saturation: float = option(
        0.0,
        "x: scales a training image about its grey version by a random factor in [1 - x, 1 + x]",
        at_least=0,
        at_most=1,
    )
    test_time_flip: bool = option(False, "in validation and test, average features over an image and its mirror image")


NESTED: dict[str, type[Section]] = {"memory": MemoryConfig, "training": TrainingConfig, "images": ImagesConfig}
