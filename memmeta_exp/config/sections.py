"""The sections of config.yaml that have no options to choose among."""

from dataclasses import dataclass
from typing import ClassVar

from memmeta_exp.config.section import Section, option


@dataclass(frozen=True)
class MemoryConfig(Section):
    """What is computed twice, or in parts, to keep less."""

    group: ClassVar[str] = "memory"
    mode: str = option(
        "task",
        "task: graphs of both halves of a task at once; half_task: of support or query alone at any time, for one more "
        "forward pass of the support half; images: of images_per_pass images, for one more forward pass, where the "
        "features of an image depend on no other (half_task and images: head-only algorithms)",
        choices=("task", "half_task", "images"),
    )
    images_per_pass: int = option(8, "images of a task in one backbone pass, with mode=images", at_least=1)
    checkpoint: str = option(
        "none",
        "none: all graphs are kept; inner_step: one inner step's graph at a time (maml; anil and itd_bio with "
        "features=recompute); block: each backbone block is run twice, its input alone kept (head-only algorithms)",
        choices=("none", "inner_step", "block"),
    )
    budget_mib: float | None = option(
        None,
        "choose tasks_per_pass, mode and checkpoint so that memory/peak_mib stays below this; null: as set",
        above=0,
    )


@dataclass(frozen=True)
class TrainingConfig(Section):
    """Where training tasks, and those on which convergence is measured, differ from those of validation and test."""

    group: ClassVar[str] = "training"
    ways: int | None = option(
        None,
        "classes of a task; null: ways; more make features that tell more apart (Snell et al. 2017)",
        at_least=2,
    )
    shots: int | None = option(None, "support images of a class; null: shots", at_least=1)
    queries: int | None = option(None, "query images of a class; null: queries", at_least=1)


@dataclass(frozen=True)
class ImagesConfig(Section):
    """What becomes of images before the backbone."""

    group: ClassVar[str] = "images"
    normalise: str = option(
        "none",
        "none: in [0, 1]; dataset: mean 0 and deviation 1 of each channel over the training split; imagenet: by its "
        "published constants",
        choices=("none", "dataset", "imagenet"),
    )
    crop_padding: int = option(
        0, "pixels of zeros around a training image, of which a random window of its size is taken", at_least=0
    )
    flip: bool = option(False, "training images are mirrored left to right, half of the time")
    brightness: float = option(
        0.0, "x: that of a training image times a random factor in [1 - x, 1 + x]", at_least=0, at_most=1
    )
    contrast: float = option(
        0.0,
        "x: that of a training image, about its mean grey, times a factor in [1 - x, 1 + x]",
        at_least=0,
        at_most=1,
    )
    saturation: float = option(
        0.0,
        "x: that of a training image, about its grey version, times a factor in [1 - x, 1 + x]",
        at_least=0,
        at_most=1,
    )
    test_time_flip: bool = option(False, "validation and test: features averaged over an image and its mirror image")


NESTED: dict[str, type[Section]] = {"memory": MemoryConfig, "training": TrainingConfig, "images": ImagesConfig}
