"""Datasets by name: their loaders and the check of what was loaded."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from memmeta_exp.data.episodes import ImageSet
from memmeta_exp.data.status import DatasetStatus, status
from memmeta_exp.errors import DataError

__all__ = ["LOADERS", "DataError", "DatasetStatus", "load_split", "require", "resolve_root", "status"]


def _load_glyphs(config: Any, split: str, data_root: str | None) -> ImageSet:
    from memmeta_exp.data import glyphs

    return glyphs.load(split)


def _load_torchmeta(config: Any, split: str, data_root: str | None) -> ImageSet:
    from memmeta_exp.data import torchmeta_sets

    return torchmeta_sets.load(config.name, split, resolve_root(data_root, config.name))


def _load_synthetic(config: Any, split: str, data_root: str | None) -> ImageSet:
    from memmeta_exp.data import synthetic

    return synthetic.load(config, split)


def _load_logistic(config: Any, split: str, data_root: str | None) -> ImageSet:
    from memmeta_exp.data import logistic

    return logistic.load(config, split)


def _refuse(config: Any, split: str, data_root: str | None) -> ImageSet:
    raise DataError(
        f"dataset={config.name} cannot be read yet: only its size is known, for memmeta profile predict=cuda; for "
        "images of that size train on dataset=synthetic dataset.image_size=84"
    )


LOADERS: dict[str, Callable[[Any, str, str | None], ImageSet]] = {
    "glyphs": _load_glyphs,
    "cifar_fs": _load_torchmeta,
    "fc100": _load_torchmeta,
    "miniimagenet": _refuse,
    "tieredimagenet": _refuse,
    "synthetic": _load_synthetic,
    "logistic": _load_logistic,
}


def resolve_root(data_root: str | None, name: str) -> Path:
    """The folder of datasets on disk: `data_root`, else $MEMMETA_DATA; DataError where neither is set."""
    root = data_root or os.environ.get("MEMMETA_DATA")
    if not root:
        raise DataError(
            f"dataset={name} is read from disk: set data_root=DIR or the environment variable MEMMETA_DATA "
            "(`memmeta data download=cifar100 data_root=DIR` fetches it into DIR)"
        )
    return Path(root).expanduser()


def require(dataset_config: Any, data_root: str | None = None) -> None:
    """DataError where the files that the dataset is read from, or the library that reads them, are not there."""
    if dataset_config.name not in LOADERS:  # it has no images
        return
    if LOADERS[dataset_config.name] is _refuse:
        _refuse(dataset_config, "train", data_root)
    if LOADERS[dataset_config.name] is _load_torchmeta:
        from memmeta_exp.data import torchmeta_sets

        torchmeta_sets.require(dataset_config.name, resolve_root(data_root, dataset_config.name))


def load_split(dataset_config: Any, split: str, data_root: str | None = None) -> ImageSet:
    """The images of one split ("train", "val" or "test"), as `dataset_config.facts()` says; DataError otherwise."""
    facts = dataset_config.facts()
    image_set = LOADERS[dataset_config.name](dataset_config, split, data_root)
    size = facts.image_size
    expected = (facts.classes[split], facts.images_per_class, facts.channels, size, size)
    found = tuple(image_set.images.shape)
    if found != expected:
        raise DataError(
            f"dataset={dataset_config.name}: the {split} split holds images of shape {found}, expected {expected}; "
            "`memmeta data` says what is wrong with the files"
        )
    return image_set
