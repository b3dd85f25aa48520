"""File layouts that several datasets share: torchmeta's HDF5 files, and folders of class folders."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from memmeta_exp.config import SPLITS
from memmeta_exp.config.validation import shown
from memmeta_exp.data.folder_entries import ignored, listed
from memmeta_exp.data.prepare.readers.images import decoded
from memmeta_exp.data.store import Images, Readers, SplitImages
from memmeta_exp.utils.errors import DataError
from memmeta_exp.utils.reading import read_json

if TYPE_CHECKING:
    import h5py

_SPLIT_FOLDERS = {"train": ("train",), "val": ("val", "validation", "valid"), "test": ("test",)}
_DEPTH = 2  # levels of folders that an archive may put around its content
_SIZE = 84  # side in pixels of the images in torchmeta's HDF5 files
MOST_IMAGES = 2**22  # per split; tieredImageNet has 448,695


def found_file(folder: Path, names: tuple[str, ...]) -> Path | None:
    """The first file of one of these names in `folder` or in a folder at most two below."""
    for depth in range(_DEPTH + 1):
        for name in names:
            found = sorted(p for p in folder.glob("*/" * depth + name) if p.is_file())
            if found:
                return found[0]
    return None


def hdf5_readers(folder: Path) -> Readers | None:
    """Readers of torchmeta's {split}_data.hdf5 (group `datasets` with one dataset per class) and {split}_labels.json
    (the class list); None if they are missing. Images are uint8 [H, W, 3], or the bytes of a PNG."""
    pairs = {split: (folder / f"{split}_data.hdf5", folder / f"{split}_labels.json") for split in SPLITS}
    if not all(path.is_file() for pair in pairs.values() for path in pair):
        return None
    return {split: partial(_from_hdf5, *pair) for split, pair in pairs.items()}


def _from_hdf5(path: Path, labels_path: Path) -> SplitImages:
    from memmeta_exp.utils.reading.hdf5 import opened_hdf5

    names = read_json(labels_path, list[str])
    with opened_hdf5(path) as file:
        counts = [len(_class(file, name)) for name in names]
    return SplitImages(names, labels_of(counts, path), _hdf5_images(path, names))


def _hdf5_images(path: Path, names: list[str]) -> Images:
    from memmeta_exp.utils.reading.hdf5 import blocks, opened_hdf5

    with opened_hdf5(path) as file:
        for name in names:
            values = (value for block in blocks(_class(file, name)) for value in block)
            for number, value in enumerate(values):
                if value.ndim > 1:
                    yield value
                else:
                    yield from decoded([(f"{name}[{number}]", value.tobytes())], None)


def _class(file: "h5py.File", name: str) -> "h5py.Dataset":
    from memmeta_exp.utils.reading.hdf5 import encoded_in, images_in, is_encoded

    place = f"datasets/{name}"
    return encoded_in(file, place) if is_encoded(file, place) else images_in(file, place, (_SIZE, _SIZE, 3))


def labels_of(counts: list[int], path: Path) -> np.ndarray:
    """The class of each image, for classes of these sizes. Raises DataError for more than MOST_IMAGES images."""
    if sum(counts) > MOST_IMAGES:
        raise DataError(f"{path} lists {sum(counts)} images, more than any known release (docs/datasets.md)")
    return np.repeat(np.arange(len(counts)), counts)


def tree_readers(folder: Path, size: int, mode: str = "RGB") -> Readers | None:
    """Readers of folders train, val (or validation, valid) and test with class folders; None if they are missing."""
    for root in (folder, *sorted(p for p in folder.iterdir() if p.is_dir() and not ignored(p.name))):
        splits = {
            split: next((root / name for name in names if (root / name).is_dir()), None)
            for split, names in _SPLIT_FOLDERS.items()
        }
        if all(splits.values()):
            return {split: partial(_from_tree, path, size, mode) for split, path in splits.items() if path}
    return None


def _from_tree(root: Path, size: int, mode: str) -> SplitImages:
    folders = [entry for entry in root.iterdir() if entry.is_dir() and not ignored(entry.name)]
    classes = {folder.name: [folder / name for name in listed(folder).images] for folder in folders}
    return from_files({name: classes[name] for name in sorted(classes)}, size, mode)


def from_files(classes: dict[str, list[Path]], size: int, mode: str = "RGB", invert: bool = False) -> SplitImages:
    """A split from image files by class."""
    labels = np.repeat(np.arange(len(classes)), [len(files) for files in classes.values()])
    files = [(shown(f"{name}/{file.name}"), file) for name, of_class in classes.items() for file in of_class]
    return SplitImages(list(classes), labels, decoded(files, size, mode, invert), [name for name, _ in files])
