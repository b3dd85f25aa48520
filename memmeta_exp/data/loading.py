"""Loads a split and checks it against the dataset's facts; computes channel statistics."""

import os
from pathlib import Path
from typing import Any

from memmeta_exp.data.episodes import ImageSet
from memmeta_exp.utils.errors import DataError
from memmeta_exp.utils.path_keys import home_path


def resolve_root(data_root: str | None, name: str) -> Path:
    """The folder of datasets: `data_root`, else $MEMMETA_DATA. Raises DataError if neither is set."""
    root = data_root or os.environ.get("MEMMETA_DATA")
    if not root:
        published = "cifar100" if name in ("cifar_fs", "fc100") else name
        raise DataError(
            f"dataset={name} is read from disk: set data_root=DIR or the environment variable MEMMETA_DATA "
            f"(download it with `memmeta data fetch {published} data_root=DIR`)"
        )
    return home_path(root)


def load_split(dataset_config: Any, split: str, data_root: str | None = None) -> ImageSet:
    """The images of one split ("train", "val" or "test"). Raises DataError if they differ from the dataset's facts."""
    image_set = dataset_config.load(split, data_root)
    wrong = mismatch(dataset_config, split, image_set)
    if wrong is not None:
        name = dataset_config.name
        what = f"folder {dataset_config.path}" if name == "folder" else name
        raise DataError(f"dataset={name}: {wrong}; check it with `memmeta data verify {what}`")
    return image_set


def mismatch(dataset_config: Any, split: str, image_set: ImageSet) -> str | None:
    """Describes how the images of a split differ from `dataset_config.facts()`; None if they agree.

    It compares the number of classes and images and the shape of an image.
    """
    facts, flat = dataset_config.facts(), image_set.flat
    shape = (facts.channels, facts.image_size, facts.image_size)
    classes, images, least = facts.classes[split], facts.total(split), facts.smallest(split)
    if getattr(dataset_config, "skip_damaged", False):  # the facts count damaged images too
        images, least = len(flat), image_set.least
    found = (len(image_set.class_names), len(flat), tuple(flat.shape[1:]))
    if found == (classes, images, shape) and image_set.least >= least:
        return None
    return (
        f"the {split} split holds images of shape {tuple(image_set.images.shape)} in {found[0]} classes of "
        f"{image_set.least} or more, expected {facts.shape(split)} in {classes} of {least} or more"
    )


def channel_statistics(
    dataset_config: Any, training: ImageSet, data_root: str | None = None
) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel over the training split, in units of [0, 1].

    Raises DataError if a channel is constant.
    """
    from memmeta_exp.data.store import statistics_of

    store = dataset_config.store(data_root)
    if store is None:
        mean, std = statistics_of(training)
    else:
        mean, std = store.splits["train"].mean, store.splits["train"].std
    if not all(std):
        raise DataError(f"images.normalise=dataset: a channel of {dataset_config.name} is constant; leave it none")
    return mean, std
