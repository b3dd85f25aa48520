"""CIFAR-FS and FC100 with torchmeta's splits and file layout: DATA_ROOT/cifar100/data.hdf5 has a group per coarse
class, with a uint8 dataset [600, 32, 32, 3] per fine class.

The splits are read from torchmeta's package assets. Nothing is written under DATA_ROOT, which may be read-only.
torchmeta's own episodes are not used: decoding one PIL image at a time takes longer than a train step.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from memmeta_exp.data.episodes import ImageSet
from memmeta_exp.data.torchmeta_compat import import_torchmeta
from memmeta_exp.utils.errors import DataError
from memmeta_exp.utils.reading.hdf5 import group_names, images_in, opened_hdf5

_CLASS_DATASETS = {"cifar_fs": "cifar_fs.CIFARFSClassDataset", "fc100": "fc100.FC100ClassDataset"}
_SHAPE = (600, 32, 32, 3)

CIFAR100_SHA256 = "c4e9907d07747984e1d7e824c9e150377f32cd64d15ce1dc32fe882617648c54"
"""`content_sha256` of the 100 x 600 images of CIFAR-100, train part before test part in each class."""


def hdf5_path(root: Path) -> Path:
    """The file of both datasets."""
    return root / "cifar100" / "data.hdf5"


def load(name: str, split: str, root: Path) -> ImageSet:
    """Images of one split of `cifar_fs` or `fc100`: uint8 [classes, 600, 3, 32, 32]. Raises DataError."""
    dataset = class_dataset(name)
    with _opened(root) as file:
        classes = _split_classes(dataset, split, file)
        images = torch.empty((len(classes), _SHAPE[0], 3, 32, 32), dtype=torch.uint8)
        for image_class, key in zip(images, classes, strict=True):
            image_class.copy_(torch.from_numpy(_read(file, key)).permute(0, 3, 1, 2))
    return ImageSet(images, tuple(classes))


def require(name: str, root: Path) -> None:
    """Raises DataError unless the file opens and torchmeta imports. Reads no pixels."""
    with _opened(root):
        class_dataset(name)


def verify(root: Path) -> bool:
    """Whether the pixels of every class are those of CIFAR-100 (about a second). Raises DataError if unreadable."""
    with _opened(root) as file:
        return content_sha256(file) == CIFAR100_SHA256


def content_sha256(file: h5py.File) -> str:
    """SHA-256 of "coarse/fine", shape and pixels of every class in sorted order, independent of HDF5's metadata."""
    digest = hashlib.sha256()
    for coarse in group_names(file):
        for fine in group_names(file, coarse):
            pixels = _read(file, f"{coarse}/{fine}", whole=False)
            digest.update(f"{coarse}/{fine}{pixels.shape}".encode(errors="replace"))
            digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def class_dataset(name: str) -> Any:
    """torchmeta's class-level dataset: its folder names and split lists."""
    module, cls = _CLASS_DATASETS[name].split(".")
    return getattr(import_torchmeta(f"torchmeta.datasets.cifar100.{module}"), cls)


def _split_classes(dataset: Any, split: str, file: h5py.File) -> list[str]:
    """ "coarse/fine" of each class of a split: the assets list both for CIFAR-FS, coarse classes only for FC100."""
    get_asset = import_torchmeta("torchmeta.datasets.utils").get_asset
    entries = get_asset(dataset.folder, dataset.subfolder, f"{split}.json", dtype="json")
    pairs = [(e, fine) for e in entries for fine in group_names(file, e)] if isinstance(entries[0], str) else entries
    return [f"{coarse}/{fine}" for coarse, fine in pairs]


@contextmanager
def _opened(root: Path) -> Iterator[h5py.File]:
    """The open data.hdf5. Raises DataError, with a remedy, if it is missing, or if damage is found within the block."""
    path = hdf5_path(root)
    try:
        with opened_hdf5(path) as file:
            yield file
    except FileNotFoundError:
        raise DataError(f"{path} does not exist: {_remedy(root)}") from None
    except DataError as error:
        if not str(error).startswith(str(path)):
            raise
        raise DataError(f"{error}: {_remedy(root)}") from None


def _read(file: h5py.File, key: str, whole: bool = True) -> np.ndarray:
    """The pixels of one class: uint8 [600, 32, 32, 3]; fewer images are accepted if `whole` is false."""
    dataset = images_in(file, key, _SHAPE[1:])
    if dataset.shape[0] > _SHAPE[0] or (whole and dataset.shape != _SHAPE):
        raise DataError(f"{file.filename} is damaged ('{key}' is uint8 {dataset.shape}, expected uint8 {_SHAPE})")
    return dataset[()]


def _remedy(root: Path) -> str:
    return f"download it with `memmeta data fetch cifar100 data_root={root}`, or set data_root to a folder that has it"
