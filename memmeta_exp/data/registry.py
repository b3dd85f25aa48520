"""Datasets by name: their loaders and the check of what was loaded."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from memmeta_exp.config import DatasetConfig
from memmeta_exp.data.episodes import ImageSet
from memmeta_exp.utils.errors import DataError

__all__ = ["LOADERS", "STORED", "DataError", "channel_statistics", "load_split", "require", "resolve_root"]

STORED = ("miniimagenet", "tieredimagenet", "omniglot")


def _load_glyphs(config: Any, split: str, data_root: str | None) -> ImageSet:
    from memmeta_exp.data import glyphs

    return glyphs.load(split)


def _load_torchmeta(config: Any, split: str, data_root: str | None) -> ImageSet:
    from memmeta_exp.data import cifar100_torchmeta

    return cifar100_torchmeta.load(config.name, split, resolve_root(data_root, config.name))


def _load_synthetic(config: Any, split: str, data_root: str | None) -> ImageSet:
    from memmeta_exp.data import synthetic

    return synthetic.load(config, split)


def _load_logistic(config: Any, split: str, data_root: str | None) -> ImageSet:
    from memmeta_exp.data import logistic

    return logistic.load(config, split)


def _load_stored(config: Any, split: str, data_root: str | None) -> ImageSet:
    from memmeta_exp.data import stored_datasets

    images = _store(config, data_root).load(split)
    return stored_datasets.rotated(images) if getattr(config, "rotations", False) else images


def _store(config: Any, data_root: str | None) -> Any:
    from memmeta_exp.data import stored_datasets

    if config.name == "folder":
        return stored_datasets.folder_store(config)
    return stored_datasets.open_store(config.name, resolve_root(data_root, config.name))


LOADERS: dict[str, Callable[[Any, str, str | None], ImageSet]] = {
    "glyphs": _load_glyphs,
    "cifar_fs": _load_torchmeta,
    "fc100": _load_torchmeta,
    **dict.fromkeys(STORED, _load_stored),
    "folder": _load_stored,
    "synthetic": _load_synthetic,
    "logistic": _load_logistic,
}
WITHOUT_IMAGES = frozenset({"quadratic", "sinusoid"})


def resolve_root(data_root: str | None, name: str) -> Path:
    """The folder of datasets on disk: `data_root`, else $MEMMETA_DATA; DataError where neither is set."""
    root = data_root or os.environ.get("MEMMETA_DATA")
    if not root:
        published = "cifar100" if name in ("cifar_fs", "fc100") else name
        raise DataError(
            f"dataset={name} is read from disk: set data_root=DIR or the environment variable MEMMETA_DATA "
            f"(`memmeta data fetch {published} data_root=DIR` gets it)"
        )
    return Path(root).expanduser()


def loads_itself(dataset_config: Any) -> bool:
    """Whether the dataset's own class reads or makes its images, as that of a plug-in does."""
    return type(dataset_config).load is not DatasetConfig.load


def require(dataset_config: Any, data_root: str | None = None) -> None:
    """DataError where the files that the dataset is read from, or the library that reads them, are not there, or where
    what is drawn does not fit in memory."""
    name = dataset_config.name
    if loads_itself(dataset_config):
        dataset_config.require(data_root)
    elif name not in WITHOUT_IMAGES:
        loader_of(name)
    if LOADERS.get(name) is _load_torchmeta:
        from memmeta_exp.data import cifar100_torchmeta

        cifar100_torchmeta.require(name, resolve_root(data_root, name))
    if name in STORED:
        from memmeta_exp.data import stored_datasets

        stored_datasets.require(name, resolve_root(data_root, name))
    if name == "synthetic":
        from memmeta_exp.data import synthetic

        synthetic.require(dataset_config)


def load_split(dataset_config: Any, split: str, data_root: str | None = None) -> ImageSet:
    """The images of one split ("train", "val" or "test"), as `dataset_config.facts()` says; DataError otherwise."""
    image_set = loaded(dataset_config, split, data_root)
    wrong = fault(dataset_config, split, image_set)
    if wrong is not None:
        name = dataset_config.name
        what = f"folder {dataset_config.path}" if name == "folder" else name
        raise DataError(f"dataset={name}: {wrong}; `memmeta data verify {what}` says what is wrong")
    return image_set


def loaded(dataset_config: Any, split: str, data_root: str | None) -> ImageSet:
    """The images of a split as they are."""
    if loads_itself(dataset_config):
        return dataset_config.load(split, data_root)
    return loader_of(dataset_config.name)(dataset_config, split, data_root)


def loader_of(name: str) -> Callable[[Any, str, str | None], ImageSet]:
    """DataError where none is entered."""
    if name not in LOADERS:
        raise DataError(f"dataset={name} has no loader: enter one in LOADERS of memmeta_exp/data/registry.py")
    return LOADERS[name]


def fault(dataset_config: Any, split: str, image_set: ImageSet) -> str | None:
    """In what the images of a split differ from `dataset_config.facts()`, None where they do not. It compares counts
    and the shape of an image, not the layout of the tensor, which the counts decide."""
    facts, flat = dataset_config.facts(), image_set.flat
    shape = (facts.channels, facts.image_size, facts.image_size)
    classes, images, least = facts.classes[split], facts.total(split), facts.smallest(split)
    if getattr(dataset_config, "skip_damaged", False):  # how many are left is not known before they are read
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
    """Mean and standard deviation of each channel over the training split, in units of [0, 1]; DataError where a
    channel is constant."""
    from memmeta_exp.data import store

    if LOADERS.get(dataset_config.name) is _load_stored:
        stored = _store(dataset_config, data_root).splits["train"]
        mean, std = stored.mean, stored.std
    else:
        mean, std = store.statistics_of(training)
    if not all(std):
        raise DataError(f"images.normalise=dataset: a channel of {dataset_config.name} is constant; leave it none")
    return mean, std
