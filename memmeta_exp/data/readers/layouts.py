"""Shapes that several datasets come in: torchmeta's HDF5 files and folders of class folders."""

import json
from functools import partial
from pathlib import Path

import numpy as np

from memmeta_exp.config import SPLITS
from memmeta_exp.config.checks import shown
from memmeta_exp.config.entries import ignored, listed
from memmeta_exp.data.readers.images import decoded
from memmeta_exp.data.store import Images, Readers, SplitImages
from memmeta_exp.errors import DataError

_SPLIT_FOLDERS = {"train": ("train",), "val": ("val", "validation", "valid"), "test": ("test",)}
_DEPTH = 2  # folders that an archive may put its content in


def found_file(folder: Path, names: tuple[str, ...]) -> Path | None:
    """The first file of one of these names in `folder` or in a folder at most two below."""
    for depth in range(_DEPTH + 1):
        for name in names:
            found = sorted(p for p in folder.glob("*/" * depth + name) if p.is_file())
            if found:
                return found[0]
    return None


def hdf5_readers(folder: Path) -> Readers | None:
    """torchmeta's {split}_data.hdf5 (group `datasets`, a dataset a class) and {split}_labels.json (its class list):
    images as uint8 [H, W, 3], or as the bytes of a PNG each."""
    pairs = {split: (folder / f"{split}_data.hdf5", folder / f"{split}_labels.json") for split in SPLITS}
    if not all(path.is_file() for pair in pairs.values() for path in pair):
        return None
    return {split: partial(_from_hdf5, *pair) for split, pair in pairs.items()}


def _from_hdf5(path: Path, labels_path: Path) -> SplitImages:
    import h5py

    try:
        names = [str(name) for name in json.loads(labels_path.read_text())]
        with h5py.File(path, "r") as file:
            counts = [len(_class(file, name, path)) for name in names]
    except (OSError, ValueError) as error:
        raise DataError(f"{path} or {labels_path.name} is damaged ({str(error).splitlines()[0]})") from None
    return SplitImages(names, np.repeat(np.arange(len(names)), counts), _hdf5_images(path, names))


def _hdf5_images(path: Path, names: list[str]) -> Images:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            for name in names:
                for number, value in enumerate(_class(file, name, path)[()]):
                    if value.ndim > 1:
                        yield value
                    else:
                        yield from decoded([(f"{name}[{number}]", value.tobytes())], None)
    except (OSError, RuntimeError) as error:
        raise DataError(f"{path} is damaged ({str(error).splitlines()[0]})") from None


def _class(file: object, name: str, path: Path) -> "np.ndarray":  # an h5py.Dataset, which behaves as one here
    import h5py

    assert isinstance(file, h5py.File)
    found = file.get(f"datasets/{name}")
    if not isinstance(found, h5py.Dataset):
        raise DataError(f"{path} is damaged (no dataset 'datasets/{name}')")
    return found  # pyright: ignore[reportReturnType]


def tree_readers(folder: Path, size: int, mode: str = "RGB") -> Readers | None:
    """Folders train, val (or validation, valid) and test of class folders of image files."""
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
    """Image files by class."""
    labels = np.repeat(np.arange(len(classes)), [len(files) for files in classes.values()])
    files = [(shown(f"{name}/{file.name}"), file) for name, of_class in classes.items() for file in of_class]
    return SplitImages(list(classes), labels, decoded(files, size, mode, invert), [name for name, _ in files])
